"""The keys a configuration has, and a user's overrides read against them.

Overrides follow Hydra's grammar (`key=value`, lists, quoted strings, sweeps). Here they become `(key, value)` items
whose keys are known to exist; OmegaConf then checks the types. Every mistake ends as one sentence.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from robotrl.types import RobotRLError

Items = list[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Override:
    """One `key=value` of a command line."""

    text: str
    key: str
    value: Any = None
    choices: tuple[str, ...] | None = None
    """The values of a sweep (`seed=0,1,2`, `seed=range(0,3)`), as text; None for a single value."""


class Keys:
    """The dotted keys of a configuration dataclass and the type of each."""

    def __init__(self, schema: type, parts: Mapping[str, type] | None = None, extra: Iterable[str] = ()) -> None:
        """Walk `schema`.

        Args:
            schema: a dataclass.
            parts: dataclasses for fields that are declared as `Any`, by name.
            extra: shorthand keys that stand for others (`env=` for `env.id=`).
        """
        self.types: dict[str, Any] = dict.fromkeys(extra, str)
        self._walk(schema, "", dict(parts or {}))

    def _walk(self, schema: type, prefix: str, parts: Mapping[str, type]) -> None:
        hints = get_type_hints(schema)
        for item in fields(schema):
            key, hint = prefix + item.name, parts.get(prefix + item.name, hints[item.name])
            self.types[key] = hint
            inner = _dataclass_in(hint)
            if inner is not None:
                self._walk(inner, key + ".", parts)

    def __contains__(self, key: str) -> bool:
        return self.hint(key) is not None

    def hint(self, key: str) -> Any:
        """The declared type of `key`; `Any` below a free-form mapping, None where there is no such key."""
        if key in self.types:
            return self.types[key]
        parent = key.rpartition(".")[0]
        while parent:
            hint = self.types.get(parent)
            if hint is not None:
                return Any if hint is Any or get_origin(hint) is dict else None
            parent = parent.rpartition(".")[0]
        return None

    def check(self, key: str, source: str = "") -> None:
        """Raise RobotRLError, with the nearest keys, where there is no `key`; `source` says where it was written."""
        if key not in self:
            where = f" in {source}" if source else ""
            hint = self.nearest(key) or f" The keys here: {', '.join(self._siblings(key))}."
            raise RobotRLError(f"Unknown key '{key}'{where}.{hint}")

    def nearest(self, key: str) -> str:
        """` Did you mean 'x'?` for keys spelled alike, or with the same last part in another place; else empty."""
        last = key.rpartition(".")[2].lower()
        tails: dict[str, list[str]] = {}
        for known in self.types:
            tails.setdefault(known.rpartition(".")[2].lower(), []).append(known)
        close = difflib.get_close_matches(key.lower(), [k.lower() for k in self.types], n=2, cutoff=0.8)
        found = [k for c in close for k in self.types if k.lower() == c]
        for tail in difflib.get_close_matches(last, tails, n=2, cutoff=0.7):
            found += tails[tail]
        found = list(dict.fromkeys(found))[:3]
        return f" Did you mean {', '.join(repr(k) for k in found)}?" if found else ""

    def in_full(self, text: str) -> str:
        """`text` with keys that leave out their middle as they are written: `learner.gamma`, `learner.sac.gamma`."""

        def full(match: re.Match[str]) -> str:
            head, tail = match[1] + ".", "." + match[2]
            found = [key for key in self.types if key.startswith(head) and key.endswith(tail)]
            return found[0] if len(found) == 1 and match[0] not in self else match[0]

        return re.sub(r"\b([a-z_]+)\.([a-z_]+)\b(?!\.\w)", full, text)

    def _siblings(self, key: str) -> list[str]:
        parent = key.rpartition(".")[0]
        prefix = parent + "." if parent in self.types else ""
        return [k for k in self.types if k.startswith(prefix) and "." not in k[len(prefix) :]]


def read_overrides(argv: Sequence[str], keys: Keys, *, example: str) -> list[Override]:
    """Parse `key=value` words and check every key.

    Args:
        argv: the words.
        keys: what exists.
        example: a valid override, for the message.

    Raises:
        RobotRLError: a word that is no override, an unknown key, or an attempt to add or delete one.
    """
    return [_read(text, keys, example) for text in argv]


def _read(text: str, keys: Keys, example: str) -> Override:
    if text.startswith("-"):
        raise RobotRLError(f"Unknown option '{text}'. Settings are written key=value, as in {example}.")
    if text.startswith("~"):
        raise RobotRLError(f"'{text}': keys cannot be deleted. Where a key may be empty, write {text[1:]}=null.")
    key, equals, raw = text.lstrip("+").partition("=")
    if not equals:
        raise RobotRLError(f"Cannot read '{text}': settings are written key=value, as in {example}.")
    keys.check(key)
    hint = keys.hint(key)
    try:
        parsed = _parser().parse_overrides([f"{key}={raw}"])[0]
        if parsed.is_sweep_override():
            return Override(text, key, choices=tuple(s for s in parsed.sweep_string_iterator()))
        return Override(text, key, _plain(parsed.value()))
    except Exception as error:  # the parser has half a dozen kinds, none with a common base of its own
        if _is_text(hint):  # paths with spaces, accents or equals signs need no quotes
            return Override(text, key, raw)
        raise RobotRLError(
            f"Cannot read the value of '{text}': {_first_line(error)}. Quote text: {key}=\"'...'\"."
        ) from error


def flatten(values: Mapping[str, Any], prefix: str = "") -> Items:
    """Dotted items of nested keyword arguments: `{"learner": {"gamma": 0.9}}` -> `[("learner.gamma", 0.9)]`."""
    items: Items = []
    for key, value in values.items():
        nested = isinstance(value, Mapping) and len(value) > 0
        items += flatten(value, f"{prefix}{key}.") if nested else [(prefix + key, value)]
    return items


def nest(items: Items) -> dict[str, Any]:
    """The inverse of `flatten`; of two values for one key the later counts."""
    tree: dict[str, Any] = {}
    for key, value in items:
        node = tree
        *parents, last = key.split(".")
        for parent in parents:
            below = node.get(parent)
            node[parent] = below if isinstance(below, dict) else {}
            node = node[parent]
        node[last] = value
    return tree


def fit(key: str, value: Any, keys: Keys) -> Any:
    """`value`, with a whole float where a whole number is asked for made one: `total_env_steps=1e6`."""
    whole = isinstance(value, float) and math.isfinite(value) and value == int(value)
    return int(value) if whole and int in _alternatives(keys.hint(key)) else value


def expected(hint: Any) -> str:
    """A type in the user's words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    if hint in words:
        return words[hint]
    options = _alternatives(hint)
    if len(options) > 1:
        return " or ".join(expected(option) for option in options)
    if get_origin(hint) in (list, tuple):
        inner = get_args(hint)[0] if get_args(hint) else Any
        return {int: "a list of whole numbers, as in [1,2]", float: "a list of numbers, as in [0.1,2]"}.get(
            inner, "a list, as in [a,b]"
        )
    if is_dataclass(hint) or get_origin(hint) is dict:
        return "a group of keys"
    return "another value"


def _plain(value: Any) -> Any:
    """A parsed value without the parser's own classes."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return getattr(value, "text", value)


def _dataclass_in(hint: Any) -> type | None:
    return next((t for t in _alternatives(hint) if isinstance(t, type) and is_dataclass(t)), None)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_text(hint: Any) -> bool:
    return str in _alternatives(hint)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("Error parsing")), type(error).__name__).rstrip(".")


@functools.cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()

"""What a claim must reach, as data, and whether it does: `met` is always computed here, never typed.

A target is a JSON object of one of five kinds:

    {"kind": "value", "of": "robotrl", "statistic": "median", "op": "<=", "value": 1.5, "n": 3}
    {"kind": "ratio", "of": "robotrl/Ant", "to": "envpool/Ant", "statistic": "median", "op": ">=", "value": 1.2, "n": 5}
    {"kind": "verdict", "of": "props_minus_ppo/Hopper", "statistic": "mean", "n": 5}
    {"kind": "all", "conditions": [...]}
    {"kind": "at_least", "count": 3, "conditions": [...]}

`n` is the number of values (seeds, repeats) each arm must have; with fewer, nothing is decided. A verdict is met by
having them: it is about a paired difference whose sign is the finding, whichever it is (`verdict_of` says which).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robotrl.functional.statistics import iqm, student_interval

Target = dict[str, Any]
Values = Mapping[str, Sequence[float]]
"""Raw values by arm."""

STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: float(np.mean(values)),
    "median": lambda values: float(np.median(values)),
    "iqm": lambda values: float(iqm(values)),
    "min": lambda values: float(np.min(values)),
    "max": lambda values: float(np.max(values)),
}
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One condition beside what was measured; `measured` and `met` are None where values are missing."""

    condition: Target
    measured: float | None
    met: bool | None

    @property
    def text(self) -> str:
        """The condition in words: `median of robotrl / envpool >= 1.2`."""
        c = self.condition
        if c["kind"] == "verdict":
            return f"a verdict on {c['of']}, from {c['n']} or more; its {c['statistic']}"
        what = f"{c['of']} / {c['to']}" if c["kind"] == "ratio" else str(c["of"])
        return f"{c['statistic']} of {what} {c['op']} {c['value']:g}"


def value(of: str, op: str, bound: float, *, statistic: str = "median", n: int = 1) -> Target:
    """The statistic of one arm against a number."""
    return _checked({"kind": "value", "of": of, "statistic": statistic, "op": op, "value": bound, "n": n})


def ratio(of: str, to: str, op: str, bound: float, *, statistic: str = "median", n: int = 1) -> Target:
    """The statistic of arm `of` divided by that of arm `to`, against a number."""
    return _checked({"kind": "ratio", "of": of, "to": to, "statistic": statistic, "op": op, "value": bound, "n": n})


def verdict(of: str, *, statistic: str = "mean", n: int = 5) -> Target:
    """Enough values of an arm of differences to say on which side of zero they lie; either side is an answer."""
    return _checked({"kind": "verdict", "of": of, "statistic": statistic, "n": n})


def verdict_of(differences: Sequence[float]) -> str:
    """`supported` where the 95 % interval of the mean lies above zero, `refuted` below, else `undecided`.

    Student's interval: a bootstrap of a few values is too narrow, of two it reaches from one to the other.
    """
    low, high = student_interval(differences)
    return "supported" if low > 0 else "refuted" if high < 0 else "undecided"


def every(conditions: list[Target]) -> Target:
    """Met when each condition is."""
    return _checked({"kind": "all", "conditions": conditions})


def at_least(count: int, conditions: list[Target]) -> Target:
    """Met when `count` conditions or more are."""
    return _checked({"kind": "at_least", "count": count, "conditions": conditions})


def outcomes(target: Target, values: Values) -> list[Outcome]:
    """Every single condition of the target with what was measured, in order."""
    _checked(target)
    if target["kind"] in ("all", "at_least"):
        return [outcome for part in target["conditions"] for outcome in outcomes(part, values)]
    return [_outcome(target, values)]


def met(target: Target, values: Values) -> bool | None:
    """Whether the target is reached; None as long as any arm it names lacks values."""
    if any(outcome.met is None for outcome in outcomes(target, values)):
        return None
    return _decide(target, values)


def _decide(target: Target, values: Values) -> bool:
    if target["kind"] == "all":
        return all(_decide(part, values) for part in target["conditions"])
    if target["kind"] == "at_least":
        return sum(_decide(part, values) for part in target["conditions"]) >= int(target["count"])
    return bool(_outcome(target, values).met)


def _outcome(condition: Target, values: Values) -> Outcome:
    arms = [condition["of"], *([condition["to"]] if condition["kind"] == "ratio" else [])]
    if any(len(values.get(arm, ())) < max(1, int(condition["n"])) for arm in arms):
        return Outcome(condition, None, None)
    statistic = STATISTICS[condition["statistic"]]
    measured = [statistic(values[arm]) for arm in arms]
    if not np.isfinite(measured).all():
        raise ValueError(f"arm {' or '.join(arms)} holds a value that is not finite")
    if len(measured) == 2 and measured[1] == 0:
        raise ValueError(f"arm {arms[1]} is zero, so there is no ratio to it")
    result = measured[0] if len(measured) == 1 else measured[0] / measured[1]
    if condition["kind"] == "verdict":
        return Outcome(condition, result, True)
    return Outcome(condition, result, _OPERATORS[condition["op"]](result, float(condition["value"])))


_KEYS: dict[str, set[str]] = {
    "value": {"kind", "of", "statistic", "op", "value", "n"},
    "ratio": {"kind", "of", "to", "statistic", "op", "value", "n"},
    "verdict": {"kind", "of", "statistic", "n"},
    "all": {"kind", "conditions"},
    "at_least": {"kind", "count", "conditions"},
}


def _checked(target: Target) -> Target:
    """The target itself, once its form is known to be right."""
    kind = target.get("kind")
    if kind not in _KEYS or set(target) != _KEYS[kind]:
        raise ValueError(f"a target of kind {sorted(_KEYS)} with its own keys is needed, got {target}")
    if "conditions" in target:
        if not target["conditions"]:
            raise ValueError(f"a target of kind '{kind}' needs conditions")
        if kind == "at_least" and not 0 < target["count"] <= len(target["conditions"]):
            raise ValueError(f"{target['count']} of {len(target['conditions'])} conditions can never be asked for")
    elif target["statistic"] not in STATISTICS or target.get("op", ">=") not in _OPERATORS:
        raise ValueError(f"statistics are {sorted(STATISTICS)} and operators {sorted(_OPERATORS)}, got {target}")
    return target

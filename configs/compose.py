"""From a command line, presets and schemas to one plain `TrainConfig`.

Order, later ones win: the schemas' defaults, the learner's YAML, the preset, the user's overrides. Hydra composes the
first three once, the overrides are merged on top, `OmegaConf.to_object` is called once; from there on there are only
dataclasses, which code reads and never writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robotrl.configs.keys import Items, Keys, expected, fit, flatten, nest, read_overrides
from robotrl.configs.schema import TrainConfig
from robotrl.envs.registry import environments
from robotrl.registry import learners, nearest, policies
from robotrl.types import RobotRLError

CONFIG_DIR = Path(__file__).resolve().parent
EXAMPLE = "env=HalfCheetah-v5 learner.gamma=0.98"
SHORTHANDS = {"env": "env.id", "policy": "policy.kind", "learner": "learner_name"}


def compose(overrides: Sequence[str] | Mapping[str, Any] = ()) -> TrainConfig:
    """The configuration of a training run.

    Args:
        overrides: words of a command line (`["env=Hopper-v5", "learner.gamma=0.98"]`), or keyword arguments, nested or
            with dotted names. Shorthands: `env=<id>`, `learner=<name>`, `policy=<kind>`, `preset=<name>`.

    Raises:
        RobotRLError: an unknown key, env, learner, policy or preset (with the nearest names), or a wrong value.
    """
    learner = _value_of(overrides, "learner", "learner_name") or "ppo"
    keys = train_keys(learner)
    items = _items(overrides, keys)
    chosen = dict(items)
    env_id, preset = chosen.get("env.id"), chosen.get("preset", "auto")
    preset = find_preset(str(preset), learner, None if env_id is None else str(env_id))
    tree = _compose_with_hydra(learner, preset, keys)
    items += [("learner_name", learner), ("preset", preset or "none")]
    config: TrainConfig = _to_object(_merge(tree, items, keys), keys)
    _check_names(config)
    return config


def read_config[T](
    default: T, overrides: Sequence[str], *, example: str, shorthands: Mapping[str, str] | None = None
) -> T:
    """A small configuration, of `eval` or `tune`, from `key=value` words; errors as in `compose`.

    Args:
        default: an instance of its dataclass, for the keys that are not given.
        overrides: the words.
        example: a valid word, for the messages.
        shorthands: keys that stand for others.
    """
    keys = Keys(type(default), extra=shorthands or ())
    parsed = [(o.key, _single(o)) for o in read_overrides(overrides, keys, example=example)]
    items = [((shorthands or {}).get(key, key), value) for key, value in flatten_values(parsed)]
    for key, _ in items:
        keys.check(key)
    config: T = _to_object(_merge(OmegaConf.structured(default), items, keys), keys)
    return config


def from_saved[T](schema: type[T], data: Any, source: str) -> T:
    """A configuration dataclass from what `asdict` of an earlier one was saved as; unknown keys are named."""
    keys = Keys(schema)
    if not isinstance(data, Mapping) or "${" in str(data):
        raise RobotRLError(f"{source} is not a saved configuration.")
    items = flatten({str(k): v for k, v in data.items()})
    for key, _ in items:
        keys.check(key, source)
    config: T = _to_object(_merge(OmegaConf.structured(schema), items, keys, source=source), keys)
    return config


def train_keys(learner: str) -> Keys:
    """Every key of a training run with that learner.

    Raises:
        RobotRLError: no such learner.
    """
    return Keys(TrainConfig, parts={"learner": learners.get(learner).config_class})


def presets(learner: str) -> list[str]:
    """Names of the presets for a learner: `shared`, `demo`, and the ids of the envs that have tuned values."""
    root = CONFIG_DIR / "preset" / learner
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def find_preset(name: str, learner: str, env_id: str | None) -> str | None:
    """The preset that `preset=name` means: `<learner>/<name>`, a path for a user's own file, None for none.

    Args:
        name: `auto`, `none`, one of `presets(learner)`, also written `<learner>/<name>`, or a path to a YAML file.
        learner: registered name.
        env_id: the env the user named; None: the default one.

    Raises:
        RobotRLError: no such preset or file.
    """
    known = presets(learner)
    if name == "auto":
        default_env = TrainConfig().env.id
        name = next((p for p in (env_id or default_env, "shared") if p in known), "none")
    if name == "none":
        return None
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise RobotRLError(f"There is no preset file '{name}' (looked in {Path.cwd()}).")
        return name
    short = name.removeprefix(learner + "/")
    if short not in known:
        raise RobotRLError(
            f"Unknown preset '{name}' for {learner}.{nearest(short, known)} There are: {', '.join(known) or 'none'}, "
            "auto, none, or the path of a YAML file of your own."
        )
    return f"{learner}/{short}"


def describe_preset(config: TrainConfig) -> str:
    """One line for the user: which values a run starts from, and how to choose others."""
    name = config.preset.rpartition("/")[2] if not config.preset.endswith((".yaml", ".yml")) else config.preset
    if config.preset == f"{config.learner_name}/{config.env.id}":
        return f"preset {config.preset}: values tuned for this env (preset=shared for the learner's own)"
    if config.preset == "none":
        return f"no preset: the defaults of {config.learner_name}"
    return f"preset {config.preset}" + (": one set of values for all envs" if name == "shared" else "")


def dump_config(config: TrainConfig) -> str:
    """The resolved configuration as YAML, which `load_config` reads back."""
    text: str = OmegaConf.to_yaml(OmegaConf.create(asdict(config)))
    return text


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a run's `config.yaml`, with overrides on top.

    Only the registered names in it are used: where it names a class as `package.module:Class`, the user must repeat
    that name, so that a configuration that came from elsewhere cannot choose what is imported.

    Raises:
        RobotRLError: the file cannot be read, or has keys or values this version does not know.
    """
    source = str(path)
    try:
        saved = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, UnicodeDecodeError, OmegaConfBaseException, ValueError) as error:
        raise RobotRLError(f"Cannot read the configuration {source}: {error}") from error
    except Exception as error:  # a YAML error; PyYAML is OmegaConf's business
        raise RobotRLError(f"{source} is not YAML: {error}") from error
    if not isinstance(saved, dict) or "${" in str(saved):
        raise RobotRLError(f"{source} is not the configuration of a run.")
    learner = str(_value_of(overrides, "learner", "learner_name") or saved.get("learner_name", "ppo"))
    named = {"learner": learner, "env": _inner(saved, "env", "id"), "policy": _inner(saved, "policy", "kind")}
    for key, name in named.items():
        if ":" in name and name != _value_of(overrides, key, SHORTHANDS[key]):
            raise RobotRLError(f"{source} names the class '{name}'. To import it, say so: repeat {key}={name}")
    keys = train_keys(learner)
    tree = OmegaConf.structured(TrainConfig(learner=keys.types["learner"]()))
    saved_items = flatten({str(k): v for k, v in saved.items()})
    for key, _ in saved_items:
        keys.check(key, source)
    items = [*saved_items, *_items(overrides, keys)]
    config: TrainConfig = _to_object(_merge(tree, items, keys, source=source), keys)
    return config


def named_classes(words: Sequence[str]) -> list[str]:
    """The words that name a class by import string: `load_config` wants them repeated."""
    return [w for w in words if w.partition("=")[0] in (*SHORTHANDS, *SHORTHANDS.values()) and ":" in w]


def _inner(tree: Mapping[Any, Any], part: str, key: str) -> str:
    inner = tree.get(part)
    return str(inner.get(key, "")) if isinstance(inner, Mapping) else ""


def _items(overrides: Sequence[str] | Mapping[str, Any], keys: Keys) -> Items:
    """The user's settings as checked `(full key, value)` items."""
    if isinstance(overrides, Mapping):
        items = flatten(overrides)
    else:
        parsed = read_overrides(overrides, Keys(TrainConfig, {"learner": keys.types["learner"]}), example=EXAMPLE)
        items = flatten_values([(o.key, _single(o)) for o in parsed])
    items = [(SHORTHANDS[k] if k in SHORTHANDS and isinstance(v, str) else k, v) for k, v in items]
    for key, value in items:
        keys.check(key)
        if key in SHORTHANDS and value != {}:
            raise RobotRLError(f"{key}={value!r}: give a name, or set one of its keys, as in {EXAMPLE}.")
    return items


def flatten_values(items: Items) -> Items:
    """Items whose values are mappings, as one item a leaf."""
    return [leaf for key, value in items for leaf in flatten({key: value})]


def _single(override: Any) -> Any:
    if override.choices is not None:
        raise RobotRLError(
            f"'{override.text}' gives several values. To run one after the other add --multirun; for a list write "
            f"{override.key}=[{','.join(override.choices)}]."
        )
    return override.value


def _value_of(overrides: Sequence[str] | Mapping[str, Any], *names: str) -> str | None:
    """The last text given for one of these keys, before any key is checked: it decides which keys there are."""
    if isinstance(overrides, Mapping):
        return next((v for k, v in reversed(list(overrides.items())) if k in names and isinstance(v, str)), None)
    pairs = [text.lstrip("+").partition("=") for text in overrides]
    return next((raw.strip("'\"") for key, _, raw in reversed(pairs) if key in names and raw[:1] not in "{["), None)


def _compose_with_hydra(learner: str, preset: str | None, keys: Keys) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException

    store = ConfigStore.instance()
    option = re.sub(r"\W", "_", learner)  # an import string cannot be the name of a Hydra option
    store.store(name="train_schema", node=TrainConfig)
    store.store(group="learner", name=f"{option}_schema", node=keys.types["learner"])
    if not (CONFIG_DIR / "learner" / f"{option}.yaml").is_file():
        store.store(group="learner", name=option, node=keys.types["learner"])
    words = [f"learner={option}"]
    own_file = preset is not None and preset.endswith((".yaml", ".yml"))
    if preset is not None and not own_file:
        words.append(f"+preset/{learner}@_global_={preset.removeprefix(learner + '/')}")
    with _own_hydra():
        try:
            with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
                tree = hydra_compose("train", overrides=words)
        except (HydraException, OmegaConfBaseException) as error:
            raise RobotRLError(_preset_mistake(error, keys)) from error
    OmegaConf.set_struct(tree, value=False)  # free-form mappings take new keys; dataclasses stay closed all the same
    if own_file:
        return _merge(tree, _preset_items(Path(str(preset)), keys), keys, source=f"the preset {preset}")
    return tree


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra keeps one global application; ours must not trip over one a notebook or a program has running."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.initialize import get_gh_backup, restore_gh_from_backup

    theirs = get_gh_backup()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        restore_gh_from_backup(theirs)


def _preset_items(path: Path, keys: Keys) -> Items:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        raise RobotRLError(f"Cannot read the preset {path}: {error}") from error
    if not isinstance(content, dict):
        raise RobotRLError(f"The preset {path} holds no keys. Write them as in: learner: {{gamma: 0.98}}")
    items = flatten({str(k): v for k, v in content.items()})
    for key, _ in items:
        keys.check(key, f"the preset {path}")
    return items


def _preset_mistake(error: Exception, keys: Keys) -> str:
    """Hydra's complaint about a file of ours, with the file, the key and the nearest key."""
    text = str(error)
    file = re.search(r"In '([^']+)'", text)
    key = re.search(r"full_key: (\S+)", text)
    where = f"the preset {CONFIG_DIR / file[1]}.yaml" if file else "the configuration"
    if key is None:
        return f"Cannot compose {where}: {text}"
    if key[1] not in keys:
        return f"Unknown key '{key[1]}' in {where}.{keys.nearest(key[1])}"
    return f"Wrong value for '{key[1]}' in {where}: it must be {expected(keys.hint(key[1]))}."


def _merge(tree: Any, items: Items, keys: Keys, source: str = "") -> Any:
    """`tree` with the items laid on top, each fitted to its declared type."""
    fitted = [(key, fit(key, value, keys)) for key, value in items]
    for key, value in fitted:  # every comparison with NaN is false, so that range checks would let it through
        if isinstance(value, float) and math.isnan(value) and keys.hint(key) is not Any:
            raise RobotRLError(f"{key} is nan{f' (in {source})' if source else ''}; it must be a number.")
    try:
        OmegaConf.set_struct(tree, value=False)
        return OmegaConf.merge(tree, nest(fitted))
    except OmegaConfBaseException as error:
        key = re.sub(r"\[\d+\]$", "", error.full_key or "")
        value = dict(fitted).get(key, getattr(error, "value", None))
        where = f" (in {source})" if source else ""
        if key not in keys:
            detail = str(error.msg or error).splitlines()[0]
            raise RobotRLError(f"The configuration does not fit together{where}: {detail}") from error
        raise RobotRLError(f"{key} is {value!r}{where}; it must be {expected(keys.hint(key))}.") from error


def _to_object(tree: Any, keys: Keys) -> Any:
    try:
        return OmegaConf.to_object(tree)
    except RobotRLError as error:  # of a dataclass, which does not know in which other one it stands
        raise RobotRLError(keys.in_full(str(error))) from error
    except OmegaConfBaseException as error:
        detail = str(error.msg or error).splitlines()[0]
        raise RobotRLError(f"{error.full_key or 'The configuration'}: {detail}") from error


def _check_names(config: TrainConfig) -> None:
    """Names that decide what is built exist; builders would find out as well, but later."""
    kinds = [*policies.names(), "auto"]
    kind = config.policy.kind
    if kind not in kinds and ":" not in kind:
        raise RobotRLError(f"Unknown policy '{kind}'.{nearest(kind, kinds)} List all with: robotrl list policies")
    families = tuple(name.partition("<")[0] for name in environments.names() if "<" in name)
    if config.env.id not in environments and ":" not in config.env.id and not config.env.id.startswith(families):
        raise RobotRLError(environments.unknown(config.env.id))

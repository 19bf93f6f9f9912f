"""What one of LeRobot's policies is made of, from a checkpoint, from a saved RobotRL policy, or from nothing.

All of them come down to `Parts`, which is plain data but for LeRobot's configuration object. LeRobot is imported here,
and only when such a policy is made.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robotrl.data.schema import key_of
from robotrl.nets.network import is_image
from robotrl.policies.config import PolicyConfig
from robotrl.policies.language import PAD, Vocabulary, tabletop_words
from robotrl.policies.lerobot_checkpoint import MODES, STATISTICS, WORDS, Checkpoint
from robotrl.policies.lerobot_config import TYPES, LeRobotConfig
from robotrl.registry import nearest
from robotrl.types import EnvSpec, Obs, RobotRLError

ACTION, STATE = "action", "observation.state"
TASK = "observation.environment_state"
"""Where a policy without words is told its task, if the user wants that."""
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "min": (0.0,) * 3, "max": (1.0,) * 3}
"""Statistics of pictures that LeRobot trains new policies with."""
FORCED = {
    "device": "cpu", "use_amp": False, "push_to_hub": False, "pretrained_path": None, "compile_model": False,
    "gradient_checkpointing": False, "pretrained_backbone_weights": None, "load_vlm_weights": False,
}  # fmt: skip
"""Settings that a file may not choose: they would download, compile, or look for devices of another machine."""
FILES = (".json", ".txt", ".model", ".jinja")
MAX_FILE = 1 << 26
"""Kinds and bytes of the files of a language model's folder that are needed without its weights."""
_WORD_CLASSES = {
    "smolvla_new_line_processor": ("lerobot.processor", "NewLineTaskProcessorStep"),
    "tokenizer_processor": ("lerobot.processor", "TokenizerProcessorStep"),
    "pi05_prepare_state_tokenizer_processor_step": (
        "lerobot.policies.pi05.processor_pi05",
        "Pi05PrepareStateTokenizerProcessorStep",
    ),
}


@dataclass(slots=True)
class Parts:
    """See the module's docstring."""

    what: str
    """For messages: the checkpoint's folder, or the type."""
    config: Any
    """LeRobot's configuration of the policy."""
    rename: dict[str, str] = field(default_factory=dict)
    words: list[dict[str, Any]] = field(default_factory=list)
    modes: dict[str, str] = field(default_factory=dict)
    eps: float = 1e-8
    kept: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Feature to statistic to its shape."""
    statistics: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Their values, where they are known."""
    vlm: str | None = None
    instruction_words: list[str] = field(default_factory=list)
    told: bool = False
    """Whether `observation.environment_state` is the instruction as a bag of words."""

    @property
    def features(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The inputs, in LeRobot's order: name to type and shape; padding cameras are left out."""
        return {
            name: (feature.type.value, tuple(feature.shape))
            for name, feature in self.config.input_features.items()
            if feature.type.value in ("STATE", "ENV", "VISUAL") and ".empty_camera_" not in name
        }

    @property
    def action(self) -> tuple[int, ...]:
        """Shape of the action."""
        return tuple(self.config.output_features[ACTION].shape)

    @property
    def policy_class(self) -> Any:
        """LeRobot's class of the policy."""
        return library().get_policy_class(self.config.type)

    def norms(self) -> dict[str, tuple[tuple[int, ...], str, list[str]]]:
        """Feature to the shape of its statistics, its mode, and which statistics are kept."""
        kinds = {name: kind for name, (kind, _) in self.features.items()} | {ACTION: "ACTION"}
        found = {}
        for name, kind in kinds.items():
            kept = self.kept.get(name, {})
            shape = tuple(next(iter(kept.values()))) if kept else ()
            found[name] = (shape, self.modes.get(kind, "IDENTITY"), list(kept))
        return found

    def to_json(self) -> dict[str, Any]:
        """What `from_saved` makes the same parts of, but for the statistics' values."""
        import draccus

        base = library().PreTrainedConfig
        config = json.loads(json.dumps(draccus.encode(self.config, base)))
        config["vlm_model_name"] = "" if "vlm_model_name" in config else None
        config = {key: value for key, value in config.items() if not (key == "vlm_model_name" and value is None)}
        return {
            "config": config, "rename": self.rename, "words": self.words, "modes": self.modes, "eps": self.eps,
            "kept": self.kept, "told": self.told,
        }  # fmt: skip


class Library:
    """The names of LeRobot that are used."""

    def __init__(self) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing that is loaded here is meant to come from the net
        self.factory = importlib.import_module("lerobot.policies.factory")
        importlib.import_module("lerobot.policies")
        self.PreTrainedConfig = importlib.import_module("lerobot.configs.policies").PreTrainedConfig
        self.get_policy_class: Callable[[str], Any] = self.factory.get_policy_class


_LIBRARY: list[Library] = []


def library() -> Library:
    """LeRobot, imported once.

    Raises:
        RobotRLError: it is not installed.
    """
    if not _LIBRARY:
        try:
            _LIBRARY.append(Library())
        except ImportError as error:
            raise RobotRLError(
                f'policy=lerobot needs LeRobot: pip install "robotrl[vla]" (it cannot be imported: {error}).'
            ) from error
    return _LIBRARY[0]


def from_checkpoint(found: Checkpoint, settings: LeRobotConfig) -> Parts:
    """The parts of a checkpoint that was read."""
    vlm = _vlm(found.config, found.words, settings, str(found.root))
    config = _config(found.config | settings.settings, vlm, str(found.root))
    kept = {
        feature: {name: list(value.shape) for name, value in values.items()}
        for feature, values in found.statistics.items()
    }
    parts = Parts(
        str(found.root), config, found.rename, found.words, found.modes, found.eps, {}, found.statistics, vlm,
        settings.words,
    )  # fmt: skip
    names = [*parts.features, ACTION]
    visual = {name for name, (kind, _) in parts.features.items() if kind == "VISUAL"}
    for name in names:
        if name in kept:
            parts.kept[name] = {s: [shape[0], 1, 1] if name in visual else shape for s, shape in kept[name].items()}
    parts.statistics = {name: values for name, values in found.statistics.items() if name in parts.kept}
    return parts


def from_saved(settings: LeRobotConfig) -> Parts:
    """The parts of a policy that RobotRL saved.

    Raises:
        RobotRLError: they name what no RobotRL policy does.
    """
    data = settings.saved
    config = dict(data["config"])
    words = [dict(step) for step in data["words"]]
    if config.get("type") not in TYPES or any(step["name"] not in WORDS for step in words):
        raise RobotRLError("The saved policy is of a type of LeRobot, or has steps, that RobotRL does not know.")
    modes = {str(k): str(v) for k, v in data["modes"].items()}
    kept = {
        str(f): {str(s): [int(x) for x in shape] for s, shape in values.items()} for f, values in data["kept"].items()
    }
    if any(m not in MODES for m in modes.values()) or any(s not in STATISTICS for v in kept.values() for s in v):
        raise RobotRLError("The saved policy is normalised in a way that RobotRL does not know.")
    vlm = _vlm(config, words, settings, "the saved policy")
    what = f"the saved policy ({config['type']})"
    return Parts(
        what, _config(config, vlm, what), dict(data["rename"]), words, modes, float(data["eps"]), kept, {}, vlm,
        settings.words, bool(data.get("told", False)),
    )  # fmt: skip


def make_new(config: PolicyConfig, spec: EnvSpec) -> Parts:
    """The parts of a new policy for envs like `spec`, with LeRobot's defaults and the user's settings on top."""
    settings = config.lerobot
    groups = config.groups or [g for g in spec.obs if g not in ("privileged", settings.instruction)]
    inputs: dict[str, Any] = {}
    for group in groups:
        if group == settings.instruction:
            continue
        array = spec.obs.get(group)
        if array is None:
            raise RobotRLError(f"policy.groups names '{group}', but {spec.id} has {sorted(spec.obs)}.")
        name = settings.rename.get(group, key_of(f"obs/{group}"))
        kind = "VISUAL" if is_image(array) else {STATE: "STATE", "observation.environment_state": "ENV"}.get(name)
        if kind is None:
            raise RobotRLError(
                f"LeRobot's policies read one vector, 'state', and pictures; {spec.id} also has '{group}'. Put vectors "
                "together with env.groups={state: [state, " + group + "], ...}, or leave it out with policy.groups."
            )
        inputs[name] = {"type": kind, "shape": list(array.shape)}
    told = settings.tell_task and settings.type in ("act", "diffusion")
    if told:
        size = len(settings.words or tabletop_words()) + 2
        inputs[TASK] = {"type": "ENV", "shape": [size]}
    outputs = {ACTION: {"type": "ACTION", "shape": list(spec.action.shape)}}
    said = {"type": settings.type, "input_features": inputs, "output_features": outputs}
    words = _new_words(settings)
    vlm = _vlm(settings.settings, words, settings, f"policy.lerobot.type={settings.type}")
    made = _config(said | settings.settings, vlm, f"policy.lerobot.type={settings.type}", trusted=settings.settings)
    modes = {kind: mode.value for kind, mode in made.normalization_mapping.items()}
    parts = Parts(settings.type, made, {}, words, modes, vlm=vlm, instruction_words=settings.words, told=told)
    for step in words:
        if step["name"] == "tokenizer_processor":
            step["config"]["max_length"] = made.tokenizer_max_length
            step["config"]["padding"] = getattr(made, "pad_language_to", "max_length")
    for name, (kind, shape) in {**parts.features, ACTION: ("ACTION", parts.action)}.items():
        if told and name == TASK:
            continue
        if kind != "VISUAL":
            parts.kept[name] = {statistic: list(shape) for statistic in STATISTICS}
        elif modes.get("VISUAL", "IDENTITY") in ("MEAN_STD", "MIN_MAX"):
            parts.kept[name] = {statistic: [shape[0], 1, 1] for statistic in IMAGENET}
    return parts


def imagenet(parts: Parts) -> dict[str, dict[str, Tensor]]:
    """Statistics of the pictures of a new policy, whose other ones come from its data."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, (kind, shape) in parts.features.items():
        if kind == "VISUAL" and parts.kept.get(name):
            many = shape[0] // 3
            found[name] = {s: torch.tensor(values * many).view(-1, 1, 1) for s, values in IMAGENET.items()}
    return found


def _new_words(settings: LeRobotConfig) -> list[dict[str, Any]]:
    """The steps of the task of a new policy, as LeRobot's factory has them."""
    if settings.type in ("act", "diffusion"):
        return []
    first = "pi05_prepare_state_tokenizer_processor_step" if settings.type == "pi05" else "smolvla_new_line_processor"
    tokens = {"task_key": "task", "padding_side": "right", "truncation": True}
    return [{"name": first, "config": {}}, {"name": "tokenizer_processor", "config": tokens}]


def _config(data: Mapping[str, Any], vlm: str | None, what: str, trusted: Mapping[str, Any] | None = None) -> Any:
    """LeRobot's configuration object from JSON-ready data.

    Raises:
        RobotRLError: LeRobot does not know the settings, or they contradict each other.
    """
    import draccus

    rest = dict(data)
    cls = library().PreTrainedConfig.get_choice_class(rest.pop("type"))
    known = sorted(getattr(cls, "__dataclass_fields__", {}))
    for key in rest:
        if key not in known:
            raise RobotRLError(f"{what}: LeRobot's {cls.__name__} has no setting '{key}'.{nearest(key, known)}")
    allowed = {k: v for k, v in (trusted or {}).items() if k in ("pretrained_backbone_weights", "load_vlm_weights")}
    rest |= {key: value for key, value in {**FORCED, **allowed}.items() if key in known}
    if vlm is not None and "vlm_model_name" in known:
        rest["vlm_model_name"] = vlm
    if rest.get("temporal_ensemble_coeff") is not None:
        raise RobotRLError(
            f"{what} averages overlapping chunks (temporal_ensemble_coeff), which RobotRL does not carry out. Execute "
            "its chunks: policy.lerobot.settings.temporal_ensemble_coeff=null policy.lerobot.settings.n_action_steps=8"
        )
    try:
        with draccus.config_type("json"):
            return draccus.decode(cls, rest)
    except Exception as error:
        raise RobotRLError(f"{what}: LeRobot does not accept these settings: {str(error)[:300]}") from error


def _vlm(config: Mapping[str, Any], words: list[dict[str, Any]], settings: LeRobotConfig, what: str) -> str | None:
    """The folder of the language model and its tokenizer, for policies that have one.

    Raises:
        RobotRLError: it is no local folder, or it names code.
    """
    if not words:
        return None
    named = next((s["config"].get("tokenizer_name") for s in words if s["config"].get("tokenizer_name")), None)
    folder = settings.vlm or config.get("vlm_model_name") or named or ""
    if not Path(folder).is_dir():
        raise RobotRLError(
            f"{what} has a language model, '{folder or 'not named'}', which is no local folder. Download its "
            "configuration and tokenizer and name the folder: policy.lerobot.vlm=<folder>."
        )
    for file in sorted(Path(folder).iterdir()):
        names_code = file.suffix == ".json" and file.stat().st_size < MAX_FILE and b'"auto_map"' in file.read_bytes()
        if names_code or file.suffix in (".py", ".bin", ".pt", ".pth", ".pkl"):
            raise RobotRLError(
                f"{file} names or holds code (an auto_map, Python, or a pickle), which RobotRL never runs. Use a "
                "folder with configuration, tokenizer and safetensors only."
            )
    return str(folder)


def vlm_files(folder: str) -> dict[str, bytes]:
    """The files of a language model's folder that are needed without its weights, by `vlm/<name>`."""
    files = [p for p in sorted(Path(folder).iterdir()) if p.suffix in FILES and p.stat().st_size <= MAX_FILE]
    return {f"vlm/{path.name}": path.read_bytes() for path in files if ".index." not in path.name}


def task_steps(parts: Parts, folder: str | None) -> Callable[[Tensor, Mapping[str, Any]], Obs]:
    """A function of word tokens `[N, L]` and the normalised features that gives LeRobot's tokens of the task.

    Raises:
        RobotRLError: the tokenizer cannot be made.
    """
    assert folder is not None
    steps = []
    with _readable(folder):
        for step in parts.words:
            module, name = _WORD_CLASSES[step["name"]]
            config = {k: v for k, v in step["config"].items() if k != "tokenizer_name"}
            if step["name"] == "tokenizer_processor":
                transformers = importlib.import_module("transformers")
                config["tokenizer"] = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            steps.append(getattr(importlib.import_module(module), name)(**config))
    language = library_of_steps()
    words = Vocabulary(parts.instruction_words or tabletop_words(), 1)

    def tell(tokens: Tensor, features: Mapping[str, Any]) -> Obs:
        sentences = [words.decode(row) for row in tokens.cpu()]
        transition = language.create_transition(
            observation={STATE: features[STATE]} if STATE in features else {}, complementary_data={"task": sentences}
        )
        for step in steps:
            transition = step(transition)
        seen = transition[language.TransitionKey.OBSERVATION]
        device = next(iter(features.values())).device
        return {key: value.to(device) for key, value in seen.items() if key.startswith("observation.language")}

    return tell


def bag_of_words(tokens: Tensor, size: int) -> Tensor:
    """Which of `size` words occur in `tokens [..., L]`: `[..., size]` of 0 and 1."""
    found = torch.zeros(*tokens.shape[:-1], size, device=tokens.device)
    found.scatter_(-1, tokens.clamp(0, size - 1), 1.0)
    found[..., PAD] = 0.0
    return found


@contextmanager
def _readable(folder: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise RobotRLError(f"The tokenizer in {folder} cannot be read: {str(error)[:300]}") from error


def library_of_steps() -> Any:
    """LeRobot's module of processor pipelines."""
    module = importlib.import_module("lerobot.processor.converters")
    types = importlib.import_module("lerobot.lerobot_types")

    class Names:
        create_transition = staticmethod(module.create_transition)
        TransitionKey = types.TransitionKey

    return Names


__all__ = [
    "ACTION",
    "STATE",
    "TASK",
    "Parts",
    "bag_of_words",
    "from_checkpoint",
    "from_saved",
    "imagenet",
    "library",
    "make_new",
    "task_steps",
]

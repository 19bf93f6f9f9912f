"""What the tests of every learner must know of one: the only thing to add when a learner is registered."""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robotrl.collect import Collector
from robotrl.learners.ppo import PPOConfig
from robotrl.learners.sac import SACConfig
from robotrl.policies import build_policy
from robotrl.policies.config import PlannerConfig, PolicyConfig
from robotrl.policies.vla_config import VLAConfig, WAMConfig
from robotrl.registry import learners
from robotrl.replay import EpisodeDataset, ReplayBuffer
from robotrl.replay.build import build_replay, collects
from robotrl.replay.config import ReplayConfig
from robotrl.runners.loop import Schedule
from robotrl.seeding import seed_everything
from robotrl.types import Extras, Obs, Policy, State
from tests import envs_for_tests as envs
from tests.demos import write_demos
from tests.protocol.harness import Parts

TASKS = {
    ("mlp", "continuous"): envs.Target,
    ("mlp", "discrete"): envs.Pick,
    ("cnn", "continuous"): envs.SpotContinuous,
    ("cnn", "discrete"): envs.Spot,
    ("gru", "continuous"): envs.MemoryContinuous,
    ("gru", "discrete"): envs.Memory,
    ("squashed", "continuous"): envs.Target,
    ("squashed", "from pictures"): envs.SpotContinuous,
    ("flash", "continuous"): envs.Target,
    ("stepwise", "continuous"): envs.Target,
    ("rssm", "continuous"): envs.Slide,
    ("planner", "continuous"): envs.Target,
    ("rssm", "discrete"): envs.SlideDiscrete,
    ("vla", "continuous"): envs.Told,
    ("wam", "continuous"): envs.Told,
}
"""A tiny task for each kind of policy and action; memory is what a recurrent policy needs."""


@dataclass(frozen=True)
class Learning:
    """How a learner gets a task done in a few seconds: the return to reach and how."""

    reach: float
    iterations: int
    rollout_steps: int = 16
    num_envs: int = 16
    config: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One registered learner."""

    combinations: tuple[tuple[str, str], ...]
    """Kinds of policy and action it is made for, keys of `TASKS`."""
    losses: Callable[[Any], set[str]]
    """The names of its loss coefficients."""
    value: Callable[[Any, Obs], Tensor]
    """Its estimate of the value of observations `[N, ...]`, in the env's reward units, `[N]`."""
    value_config: Mapping[str, Any]
    """Settings under which `value` converges to the value of a constant reward with discount 0.9."""
    value_iterations: int
    learning: Mapping[tuple[str, str], Learning]
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Settings that make an iteration cheap."""
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"rollout_steps": 12, "updates": 1.0})
    demos: bool = False
    """Whether it needs demonstrations: the test's env's, by who does what is right in `envs.Target`."""
    exempt: Mapping[str, str] = field(default_factory=dict)
    """Claims that do not apply (a test's name without `test_`): a written reason each, listed in the docs."""


def _ppo_value(learner: Any, obs: Obs) -> Tensor:
    hidden = torch.zeros(len(next(iter(obs.values()))), learner.critic.gru_size)
    return learner.critic(learner.critic_inputs(obs), hidden)[0].squeeze(-1)


def _sac_value(learner: Any, obs: Obs) -> Tensor:
    action = learner.policy.deterministic(learner.policy.net(learner.policy.inputs(obs), torch.zeros(0, 0))[0])
    inputs = learner.critic_inputs
    return learner.critics(inputs.joined(inputs(obs), action)).mean(0).squeeze(-1)


def _flashsac_value(learner: Any, obs: Obs) -> Tensor:
    action = learner.policy.deterministic(learner.policy.net.net(obs["state"])[0])
    logits = learner.critics(torch.cat([obs["state"], action], -1))
    return (torch.softmax(logits, -1) @ learner._bins).mean(0)


def _dreamer_value(learner: Any, obs: Obs) -> Tensor:
    rows = len(next(iter(obs.values())))
    state, perception = learner.policy.initial_state(rows), learner.policy.perception
    latents = perception.observe_step(obs, state["action"], torch.ones(rows, dtype=torch.bool), state)
    return learner.critic.mean(latents.features)


class Demonstrator:
    """Does what `envs.Target` or `envs.SpotContinuous` shows; nothing in envs that show something else."""

    obs_groups = ("state",)

    def __init__(self, env: envs.TinyEnv) -> None:
        self._shown, self._dim = isinstance(env, envs.Target), env.env_spec.action.shape[0]
        self._pictured, self._told = isinstance(env, envs.SpotContinuous), isinstance(env, envs.Told)

    def initial_state(self, num_envs: int) -> State:
        return {}

    def reset_state(self, state: State, done: Tensor) -> State:
        return state

    def act(self, obs: Obs, state: State, *, explore: bool) -> tuple[Tensor, Extras, State]:
        shown = obs["state"]
        if self._told:
            blue = obs["instruction"][:, 1] == envs.Told.BLUE
            columns = obs["image/front"][:, (0, 2), 8].float().argmax(-1) // 5
            return 0.8 * (columns.gather(1, blue.long()[:, None]) - 1.0), {}, state
        if self._pictured:
            column = obs["image/front"].float().mean((1, 2)).argmax(-1, keepdim=True) // 4
            return 0.8 * (column - 1.0), {}, state
        return shown.clone() if self._shown else shown.new_zeros(len(shown), self._dim), {}, state


def demonstrations(env: envs.TinyEnv, steps: int = 80, policy: Policy | None = None) -> ReplayBuffer:
    """A store of them, from an env like `env`."""
    like = type(env)(num_envs=1, length=env.length, ends=env._ends)
    store = ReplayBuffer(steps, 1, seed=6)
    store.add(Collector(like, seed=11).collect(policy or Demonstrator(env), steps))
    return store


@cache
def recorded(env_class: type[envs.TinyEnv], length: int, episodes: int = 60) -> Path:
    """The same as a data set, of which windows can be asked for; made once."""
    root = Path(tempfile.mkdtemp(prefix="robotrl-demos-")) / "demos"
    atexit.register(shutil.rmtree, root.parent, ignore_errors=True)
    env = env_class(num_envs=1, length=length)
    return write_demos(root, env, episodes=episodes, policy=Demonstrator(env), seed=11)


_NO_ENV_REWARD = "It never sees the env's reward; what its own rewards are worth is tested beside it."
_IMITATION_SAC = {
    "learning_rate": 3e-3, "gamma": 0.5, "tau": 0.05, "batch_size": 64, "init_temperature": 0.05,
    "target_entropy_scale": 2.0, "random_env_steps": 0,
}  # fmt: skip
_FROM_PICTURES = {
    "learning_rate": 3e-3, "gamma": 0.5, "tau": 0.05, "batch_size": 64, "init_temperature": 0.05,
    "target_entropy_scale": 2.0, "random_env_steps": 0, "image_shift": 0,
}  # fmt: skip
_SHARP = {
    "discriminator_hidden": [64, 64], "discriminator_batch_size": 128, "discriminator_learning_rate": 3e-3,
    "penalty_coef": 1.0,
}  # fmt: skip
_DREAM = {"learning_rate": 3e-3, "gamma": 0.8, "horizon": 5, "slow_rate": 0.1, "entropy_coef": 1e-2}
_TRUST = {"max_kl": 0.03, "gamma": 0.5, "value_learning_rate": 5e-3, "value_epochs": 4, "value_minibatches": 4}
_TRUST_VALUE = {
    "gamma": 0.9,
    "value_learning_rate": 1e-2,
    "value_epochs": 10,
    "value_minibatches": 1,
    "max_grad_norm": 100.0,
}
_HORIZON = (
    "Its critics are those of a finite horizon: nothing is worth anything after the last step, whatever ended it."
)
_FAST = {"learning_rate": 5e-3, "lr_schedule": "constant", "gamma": 0.5, "num_epochs": 4}

_QUICK_VLA = VLAConfig(size="micro", chunk_size=4, execute_steps=3, flow_steps=4, flow_samples=2)
_QUICK_WAM = WAMConfig(latent_channels=4, autoencoder_steps=3)
_QUICK_PLANNER = PlannerConfig(horizon=2, candidates=16, iterations=2, elites=4, keep=2)

CASES = {
    "ppo": Case(
        combinations=tuple(combination for combination in TASKS if combination[0] in ("mlp", "cnn", "gru")),
        losses=lambda learner: set(learner._coef),
        value=_ppo_value,
        value_config={
            "gamma": 0.9, "normalise_reward": False, "learning_rate": 1e-2, "lr_schedule": "constant",
            "num_minibatches": 1, "value_coef": 1.0, "max_grad_norm": 100.0,
        },
        value_iterations=60,
        learning={
            ("mlp", "continuous"): Learning(-0.25, 40, config=_FAST),
            ("mlp", "discrete"): Learning(7.8, 12, config=_FAST),
            ("cnn", "continuous"): Learning(-0.4, 30, config=_FAST),
            ("cnn", "discrete"): Learning(7.8, 12, config=_FAST),
            ("gru", "continuous"): Learning(-0.1, 20, config=_FAST | {"gamma": 0.95}, env={"length": 5}),
            ("gru", "discrete"): Learning(0.98, 15, config=_FAST | {"gamma": 0.95}, env={"length": 5}),
        },
        quick={"num_epochs": 2, "num_minibatches": 2},
    ),
    "props": Case(
        combinations=(("mlp", "continuous"), ("mlp", "discrete")),
        losses=lambda learner: {*learner._coef, *learner.ppo._coef},
        value=lambda learner, obs: _ppo_value(learner.ppo, obs),
        value_config={
            "target_steps": 10,
            "ppo": PPOConfig(num_epochs=2, num_minibatches=1, gamma=0.9, normalise_reward=False, learning_rate=1e-2,
                             lr_schedule="constant", value_coef=1.0, max_grad_norm=100.0),
        },
        value_iterations=60,
        learning={
            ("mlp", "continuous"): Learning(-0.25, 40, config={"ppo": PPOConfig(**_FAST), "target_steps": 16}),
            ("mlp", "discrete"): Learning(7.8, 12, config={"ppo": PPOConfig(**_FAST), "target_steps": 16}),
        },
        quick={"target_steps": 12, "behaviour_epochs": 2, "behaviour_minibatches": 2,
               "ppo": PPOConfig(num_epochs=2, num_minibatches=2)},
    ),
    "sac": Case(
        combinations=(("squashed", "continuous"), ("squashed", "from pictures")),
        losses=lambda learner: set(learner._coef),
        value=_sac_value,
        value_config={"gamma": 0.9, "entropy_backup": False, "learning_rate": 5e-3, "tau": 0.2, "batch_size": 64},
        value_iterations=100,
        learning={
            ("squashed", "continuous"): Learning(
                -0.25, 100, config={"learning_rate": 5e-3, "gamma": 0.5, "tau": 0.05, "batch_size": 128,
                                   "init_temperature": 0.05, "target_entropy_scale": 2.0},
            ),
            ("squashed", "from pictures"): Learning(-0.3, 25, config=_FROM_PICTURES),
        },
        quick={"batch_size": 16, "random_env_steps": 0},
        schedule={"rollout_steps": 12, "updates": 8.0},
    ),
    "bc": Case(
        combinations=(("mlp", "continuous"), ("squashed", "continuous"), ("vla", "continuous"),
                      ("wam", "continuous")),
        losses=lambda learner: set(learner._coef),
        value=_sac_value, value_config={}, value_iterations=0,
        learning={
            ("wam", "continuous"): Learning(-0.3, 40, config={"batch_size": 64, "learning_rate": 1.5e-3,
                                                             "ema_decay": 0.95, "lr_schedule": "constant"}),
            ("vla", "continuous"): Learning(-0.3, 40, config={"batch_size": 64, "learning_rate": 1.5e-3,
                                                             "ema_decay": 0.95, "lr_schedule": "constant"}),
            ("mlp", "continuous"): Learning(-0.25, 100, config={"batch_size": 128, "lr_schedule": "constant"}),
            ("squashed", "continuous"): Learning(
                -0.25, 100, config={"batch_size": 128, "lr_schedule": "constant", "loss": "mse"},
            ),
        },
        quick={"batch_size": 16},
        schedule={"rollout_steps": 8, "updates": 8.0},
        demos=True,
        exempt=dict.fromkeys(("truncation_bootstraps", "termination_does_not_bootstrap"),
                             "It has no value: it learns from what was done, not from rewards.")
        | {"importance_ratios_are_one_before_the_first_gradient_step":
           "It collects nothing and uses no importance ratios."},
    ),
    "flashsac": Case(
        combinations=(("flash", "continuous"),),
        losses=lambda learner: set(learner._coef),
        value=_flashsac_value,
        value_config={"gamma": 0.9, "entropy_backup": False, "learning_rate": 5e-3, "final_learning_rate": 1e-3,
                      "tau": 0.2, "batch_size": 64, "normalise_reward": False, "value_range": 20.0},
        value_iterations=120,
        learning={
            ("flash", "continuous"): Learning(
                -0.25, 120, config={"learning_rate": 2e-3, "final_learning_rate": 2e-3, "gamma": 0.5, "tau": 0.05,
                                   "batch_size": 128},
            ),
        },
        quick={"batch_size": 16, "random_env_steps": 0, "critic_hidden": [16, 16]},
        schedule={"rollout_steps": 12, "updates": 8.0},
    ),
    "dac": Case(
        combinations=(("squashed", "continuous"), ("squashed", "from pictures")),
        losses=lambda learner: {*learner._coef, *learner.sac._coef},
        value=_sac_value, value_config={}, value_iterations=0,
        learning={
            ("squashed", "continuous"): Learning(
                -1.5, 80, config={"sac": SACConfig(**_IMITATION_SAC), **_SHARP},
            ),
            ("squashed", "from pictures"): Learning(
                -1.0, 50, config={"sac": SACConfig(**_FROM_PICTURES), **_SHARP},
            ),
        },
        quick={"sac": SACConfig(batch_size=16, random_env_steps=0), "discriminator_hidden": [16],
               "discriminator_batch_size": 16},
        schedule={"rollout_steps": 12, "updates": 8.0},
        demos=True,
        exempt=dict.fromkeys(("truncation_bootstraps", "termination_does_not_bootstrap"), _NO_ENV_REWARD),
    ),
    "ailboost": Case(
        combinations=(("squashed", "continuous"), ("squashed", "from pictures")),
        losses=lambda learner: {*learner._coef, *learner.sac._coef},
        value=_sac_value, value_config={}, value_iterations=0,
        learning={
            ("squashed", "continuous"): Learning(
                -1.5, 80, config={"sac": SACConfig(**_IMITATION_SAC), **_SHARP, "member_env_steps": 128,
                                  "explore_env_steps": 128, "boost_rate": 0.2, "discriminator_updates": 20},
            ),
            ("squashed", "from pictures"): Learning(
                -1.0, 40, config={"sac": SACConfig(**_FROM_PICTURES), **_SHARP, "member_env_steps": 128,
                                  "explore_env_steps": 128, "boost_rate": 0.2, "discriminator_updates": 20},
            ),
        },
        quick={"sac": SACConfig(batch_size=16, random_env_steps=0), "discriminator_hidden": [16],
               "discriminator_batch_size": 16, "member_env_steps": 8, "explore_env_steps": 8,
               "discriminator_updates": 3},
        schedule={"rollout_steps": 12, "updates": 8.0},
        demos=True,
        exempt=dict.fromkeys(("truncation_bootstraps", "termination_does_not_bootstrap"), _NO_ENV_REWARD)
        | {"importance_ratios_are_one_before_the_first_gradient_step":
           "Two policies act in turns while it collects, and it uses no importance ratios."},
    ),
    "trpo": Case(
        combinations=tuple(combination for combination in TASKS if combination[0] in ("mlp", "cnn", "gru")),
        losses=lambda learner: set(learner._coef),
        value=_ppo_value, value_config=_TRUST_VALUE, value_iterations=60,
        learning={
            ("mlp", "continuous"): Learning(-0.5, 40, config=_TRUST),
            ("mlp", "discrete"): Learning(7.5, 20, config=_TRUST),
            ("cnn", "continuous"): Learning(-0.6, 40, config=_TRUST),
            ("cnn", "discrete"): Learning(7.5, 25, config=_TRUST),
            ("gru", "continuous"): Learning(-0.15, 25, config=_TRUST | {"gamma": 0.95}, env={"length": 5}),
            ("gru", "discrete"): Learning(0.95, 20, config=_TRUST | {"gamma": 0.95}, env={"length": 5}),
        },
        quick={"value_epochs": 2, "value_minibatches": 2},
    ),
    "npg": Case(
        combinations=(("mlp", "continuous"), ("mlp", "discrete")),
        losses=lambda learner: set(learner._coef),
        value=_ppo_value, value_config=_TRUST_VALUE, value_iterations=60,
        learning={
            ("mlp", "continuous"): Learning(-0.5, 40, config=_TRUST),
            ("mlp", "discrete"): Learning(7.5, 20, config=_TRUST),
        },
        quick={"value_epochs": 2, "value_minibatches": 2},
    ),
    "hnpg": Case(
        combinations=(("stepwise", "continuous"),),
        losses=lambda learner: set(learner._coef),
        value=_ppo_value, value_config={}, value_iterations=0,
        learning={
            ("stepwise", "continuous"): Learning(
                -0.8, 40, env={"length": 4}, config={"critic_learning_rate": 3e-3, "max_kl": 0.05},
            ),
        },
        quick={"critic_hidden": [16, 16], "critic_steps": 10},
        schedule={"rollout_steps": 40, "updates": 1.0},
        demos=True,
        exempt=dict.fromkeys(("truncation_bootstraps", "termination_does_not_bootstrap"), _HORIZON),
    ),
    "dreamer": Case(
        combinations=(("rssm", "continuous"), ("rssm", "discrete")),
        losses=lambda learner: set(learner._coef),
        value=_dreamer_value,
        value_config={"gamma": 0.9, "batch_size": 8, "batch_length": 8, "learning_rate": 3e-3, "horizon": 10,
                      "slow_rate": 0.2},
        value_iterations=60,
        learning={
            ("rssm", "continuous"): Learning(3.0, 90, num_envs=4, config=_DREAM),
            ("rssm", "discrete"): Learning(3.0, 90, num_envs=4, config=_DREAM),
        },
        quick={"batch_size": 8, "batch_length": 8, "warmup_updates": 10, "horizon": 4},
        schedule={"rollout_steps": 12, "updates": 4.0},
        exempt={
            "importance_ratios_are_one_before_the_first_gradient_step":
                "Dreamer's actor learns from its own imagination: there is no ratio to older data.",
        },
    ),
    "pets": Case(
        combinations=(("planner", "continuous"),),
        losses=lambda learner: set(learner._coef),
        value=_sac_value, value_config={}, value_iterations=0,
        learning={("planner", "continuous"): Learning(-2.2, 20, config={"learning_rate": 3e-3, "batch_size": 64})},
        quick={"batch_size": 16, "random_env_steps": 0},
        schedule={"rollout_steps": 12, "updates": 8.0},
        exempt=dict.fromkeys(("truncation_bootstraps", "termination_does_not_bootstrap"),
                             "It has no value: it plans through a model. That its model learns how episodes end is "
                             "tested beside it.")
        | {"importance_ratios_are_one_before_the_first_gradient_step":
           "It plans and uses no importance ratios."},
    ),
    "mbpo": Case(
        combinations=(("squashed", "continuous"),),
        losses=lambda learner: {*learner._coef, *learner.sac._coef},
        value=lambda learner, obs: _sac_value(learner.sac, obs),
        value_config={"sac": SACConfig(gamma=0.9, entropy_backup=False, learning_rate=5e-3, tau=0.2, batch_size=64,
                                       random_env_steps=0),
                      "model_first_updates": 1, "real_share": 0.5, "model_hidden": [32, 32]},
        value_iterations=100,
        learning={
            ("squashed", "continuous"): Learning(
                -0.25, 100, config={
                    "sac": SACConfig(learning_rate=5e-3, gamma=0.5, tau=0.05, batch_size=128, init_temperature=0.05,
                                     target_entropy_scale=2.0, random_env_steps=0, utd_ratio=2),
                    "model_first_updates": 50, "model_hidden": [64, 64], "models": 3, "model_batch_size": 64,
                    "model_learning_rate": 3e-3},
            ),
        },
        quick={"sac": SACConfig(batch_size=16, random_env_steps=0), "model_hidden": [16], "model_batch_size": 16,
               "models": 2, "model_first_updates": 0},
        schedule={"rollout_steps": 12, "updates": 8.0},
    ),
}  # fmt: skip


def make(
    name: str,
    env: envs.TinyEnv,
    *,
    kind: str | None = None,
    seed: int = 0,
    policy: Mapping[str, Any] | None = None,
    schedule: Mapping[str, Any] | None = None,
    offline: Mapping[str, Any] | None = None,
    **config: Any,
) -> Parts:
    """A run of the learner `name` on `env`, put together as `runners.run` does."""
    case, learner_class = CASES[name], learners.get(name)
    kind = kind or case.combinations[0][0]
    seed_everything(seed)
    small = {"hidden": [32, 32], "gru_size": 16, "image_features": 16, "image_channels": 8, "log_std_init": -0.5,
             "world_model": "tiny", "planner": _QUICK_PLANNER, "models": 2, "vla": _QUICK_VLA,
             "wam": _QUICK_WAM}  # fmt: skip
    built = build_policy(PolicyConfig(kind=kind, **small | dict(policy or {})), env.env_spec)
    settings = learner_class.config_class(**{**case.quick, **config})
    learner = learner_class(built, env.env_spec, settings, num_envs=env.num_envs)
    clock = Schedule(**{**case.schedule, **(schedule or {})})
    if case.demos and offline is None:
        chunks = hasattr(built, "windows")
        demos = recorded(type(env), env.length) if chunks else None
        offline = {"demos": EpisodeDataset(demos, groups=built.obs_groups, seed=6, hold=1 << 20)
                   if demos else demonstrations(env)}  # fmt: skip
    replay = build_replay(
        learner_class.replay_class, learner.batch_spec, ReplayConfig(capacity=10_000), env.env_spec,
        num_envs=env.num_envs, seed=seed, device="cpu", env_steps=10_000, offline=offline,
    )  # fmt: skip
    collector = Collector(env, seed=seed) if collects(learner.batch_spec) else None
    return Parts(learner, replay, collector, clock)

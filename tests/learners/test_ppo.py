import numpy as np
import pytest
import torch

from robotrl.collect import Collector
from robotrl.learners.ppo import PPO, PPOConfig, _shuffle
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.replay import RolloutBuffer
from robotrl.runners.evaluate import evaluate
from robotrl.runners.loop import Schedule, train
from robotrl.types import ArraySpec, EnvSpec, Progress, RobotRLError, group
from tests import envs_for_tests as envs
from tests.learners.cases import make
from tests.protocol.harness import assert_same


def rollout_of(parts, steps=16):
    fresh = parts.collector.collect(parts.learner.acting, steps)
    parts.learner.observe(fresh, parts.progress)
    return fresh


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_two_threads_give_the_same_bytes_as_one(kind):
    states = []
    for two in (True, False):
        parts = make("ppo", envs.Memory(num_envs=4), kind=kind, seed=3, two_threads=two, recompute_advantage=True)
        states.append(parts.run(4).state()["learner"])
    assert_same(*states)


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_returns_are_those_of_a_loop_that_asks_the_critic_at_every_next_obs(kind):
    parts = make("ppo", envs.Ragged(num_envs=3, length=6), kind=kind, normalise_reward=False, gae_lambda=0.8).run(2)
    learner, rollout = parts.learner, rollout_of(parts, 14)
    rollout["terminated"] = rollout["truncated"] & (rollout["episode"] % 2 == 0)  # both kinds of end
    rollout["truncated"] = rollout["truncated"] & ~rollout["terminated"]
    assert rollout["terminated"][:-1].any()
    assert rollout["truncated"][:-1].any()
    hidden = learner._critic_hidden.clone()
    data = learner._prepare(rollout)
    learner._estimate_advantages(rollout, data)
    values, following = torch.zeros(14, 3), torch.zeros(14, 3)
    with torch.no_grad():
        for t in range(14):
            if kind == "gru":
                hidden = hidden * ~rollout["is_first"][t].unsqueeze(-1)
            value, hidden = learner.critic(learner.critic_inputs(obs_at(rollout, "obs", t)), hidden)
            after, _ = learner.critic(learner.critic_inputs(obs_at(rollout, "next_obs", t)), hidden)
            values[t], following[t] = value.squeeze(-1), after.squeeze(-1)
    expected = torch.zeros(14, 3)
    for n in range(3):
        running = 0.0
        for t in reversed(range(14)):
            target = rollout["reward"][t, n] + (0 if rollout["terminated"][t, n] else 0.99 * following[t, n])
            end = bool(rollout["terminated"][t, n] | rollout["truncated"][t, n])
            running = target - values[t, n] + (0 if end else 0.99 * 0.8 * running)
            expected[t, n] = running + values[t, n]
    torch.testing.assert_close(data["returns"].reshape(14, 3), expected, rtol=1e-4, atol=1e-4)
    advantage = (expected - values - (expected - values).mean()) / (expected - values).std()
    torch.testing.assert_close(data["advantage"].reshape(14, 3), advantage, rtol=1e-3, atol=1e-3)


def obs_at(rollout, prefix, t):
    return {key: value[t] for key, value in group(rollout, prefix).items()}


def test_the_critics_memory_carries_over_to_the_next_rollout_and_ends_with_its_episode():
    parts = make("ppo", envs.Ragged(num_envs=3, length=6), kind="gru")
    critic, hidden = parts.learner.critic, torch.zeros(3, 16)
    for _ in range(3):
        rollout = rollout_of(parts, 7)
        inputs = parts.learner.critic_inputs(group(rollout, "obs"))
        with torch.no_grad():
            expected = critic.sequence(inputs, hidden, rollout["is_first"])[1][-1]
        parts.learner.update({"online": rollout})
        hidden = parts.learner._critic_hidden
        torch.testing.assert_close(hidden, expected)
        assert (hidden != 0).any()


def test_an_epoch_uses_every_step_exactly_once():
    data = {"is_first": torch.zeros(1, 103, dtype=torch.bool), "id": torch.arange(103).unsqueeze(0)}
    minibatches = _shuffle(data, 4)
    assert [m["id"].shape[1] for m in minibatches] == [26, 26, 26, 25]
    order = torch.cat([m["id"][0] for m in minibatches])
    assert torch.equal(order.sort().values, torch.arange(103))
    assert not torch.equal(order, torch.arange(103))


def test_the_normaliser_changes_only_after_the_update_and_then_holds_all_data_so_far():
    parts = make("ppo", envs.Target(num_envs=4))
    normaliser, seen = parts.learner.policy.inputs.normaliser, []
    for _ in range(3):
        before = {key: value.clone() for key, value in normaliser.state_dict().items()}
        fresh = rollout_of(parts)
        seen.append(fresh["obs/state"].reshape(-1, 2).double())
        assert_same(before, dict(normaliser.state_dict()))
        parts.learner.update({"online": fresh})
        rows = torch.cat(seen)
        torch.testing.assert_close(normaliser.mean, rows.mean(0))
        torch.testing.assert_close(normaliser.var, rows.var(0, correction=0))


def test_the_learning_rate_falls_linearly_or_stays():
    for schedule, expected in (("linear", 0.75), ("constant", 1.0)):
        parts = make("ppo", envs.Target(num_envs=2), learning_rate=1e-3, lr_schedule=schedule)
        parts.progress = Progress(1000, env_steps=250)
        rollout_of(parts)
        for adam in (parts.learner._actor_adam, parts.learner._critic_adam):
            assert adam.lr == pytest.approx(1e-3 * expected)


@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
def test_the_actor_follows_the_gradient_of_the_clipped_objective(entropy_coef):
    once = {"num_epochs": 1, "num_minibatches": 1, "entropy_coef": entropy_coef, "max_grad_norm": 1e9}
    parts = make("ppo", envs.Target(num_envs=4), **once).run(2)
    learner, policy, rollout = parts.learner, parts.learner.policy, rollout_of(parts, 32)
    shift = 0.6 * torch.rand(32, 4, generator=torch.Generator().manual_seed(0)) - 0.3
    rollout["log_prob"] = rollout["log_prob"] + shift  # as if the policy had moved: ratios on both sides of the clip
    data = learner._prepare(rollout)
    learner._estimate_advantages(rollout, data)
    advantage = data["advantage"].reshape(32, 4)
    raw, mean = rollout["raw_action"], policy.sequence(policy.inputs(group(rollout, "obs")), {}, rollout["is_first"])
    normal = torch.distributions.Normal(mean, policy.log_std.exp())
    log_ratio = normal.log_prob(raw).sum(-1) - rollout["log_prob"]
    ratio = log_ratio.exp()
    surrogate = torch.where(
        advantage > 0, ratio.clamp(max=1.2) * advantage, ratio.clamp(min=0.8) * advantage
    ).mean()  # eq. 7, written by sign
    entropy = normal.entropy().sum(-1).mean()
    gradient = torch.autograd.grad(-surrogate - entropy_coef * entropy, policy.actor_parameters())
    metrics, _ = learner.update({"online": rollout})
    norm = torch.cat([g.reshape(-1) for g in gradient]).norm()
    torch.testing.assert_close(metrics["grad_norm/actor"], norm, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(metrics["loss/policy"], -surrogate.detach(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(metrics["loss/entropy"], entropy.detach(), rtol=1e-3, atol=1e-5)
    outside = ((ratio > 1.2) | (ratio < 0.8)).float().mean()
    assert 0.1 < outside < 0.9
    torch.testing.assert_close(metrics["policy/clip_fraction"], outside)
    torch.testing.assert_close(metrics["policy/kl"], (ratio - 1 - log_ratio).mean().detach(), rtol=1e-3, atol=1e-5)


def test_the_critic_follows_the_squared_error_to_the_returns():
    once = {"num_epochs": 1, "num_minibatches": 1, "max_grad_norm": 1e9, "value_coef": 0.7}
    parts = make("ppo", envs.Target(num_envs=4), **once).run(2)
    learner, rollout = parts.learner, rollout_of(parts, 32)
    data = learner._prepare(rollout)
    learner._estimate_advantages(rollout, data)
    value, _ = learner.critic(learner.critic_inputs(group(rollout, "obs")), torch.zeros(0, 0))
    loss = 0.5 * (value.squeeze(-1) - data["returns"].reshape(32, 4)).square().mean()
    gradient = torch.autograd.grad(0.7 * loss, list(learner.critic.parameters()))
    metrics, _ = learner.update({"online": rollout})
    torch.testing.assert_close(metrics["loss/value"], loss.detach(), rtol=1e-3, atol=1e-5)
    norm = torch.cat([g.reshape(-1) for g in gradient]).norm()
    torch.testing.assert_close(metrics["grad_norm/critic"], norm, rtol=1e-3, atol=1e-5)


def test_target_kl_stops_the_actor_but_not_the_critic():
    parts = make("ppo", envs.Target(num_envs=4), num_epochs=6, num_minibatches=1, target_kl=1e-9, learning_rate=1e-2)
    parts.learner.update({"online": rollout_of(parts)})
    assert parts.learner._critic_adam.steps == 6
    # the first epoch starts at a ratio of one, so the second is the first to show a difference
    assert parts.learner._actor_adam.steps == 2


def test_what_is_not_finite_never_reaches_the_weights_and_is_counted():
    parts = make("ppo", envs.Target(num_envs=4), normalise_reward=False, normalise_advantage=False).run(1)
    rollout = rollout_of(parts)
    rollout["reward"][3, 1] = float("nan")
    before = [p.detach().clone() for p in (*parts.learner.policy.parameters(), *parts.learner.critic.parameters())]
    metrics, _ = parts.learner.update({"online": rollout})
    after = [*parts.learner.policy.parameters(), *parts.learner.critic.parameters()]
    assert metrics["grad_norm/nonfinite"] > 0
    assert all(torch.isfinite(p).all() for p in after)
    assert len(before) == len(after)
    parts.learner.update({"online": rollout_of(parts)})
    assert all(torch.isfinite(p).all() for p in after)


def test_a_critic_may_read_what_the_policy_does_not(tmp_path):
    class Hidden(envs.Target):
        groups = {**envs.Target.groups, "privileged": envs.Pick.groups["state"]}  # noqa: RUF012

        def observe(self, now, step):
            return {"state": now, "privileged": np.zeros((len(now), 4))}

    parts = make("ppo", Hidden(num_envs=3), critic_groups=["state", "privileged"]).run(3)
    learner = parts.learner
    assert learner.policy.obs_groups == ("state",)
    assert learner.policy.inputs.dim == 2
    assert learner.critic_inputs.dim == 6
    assert float(learner.critic_inputs.normaliser.count) == float(learner.policy.inputs.normaliser.count) == 108
    assert not any("critic" in key for key in learner.policy.state_dict())
    restored = make("ppo", Hidden(num_envs=3), critic_groups=["state", "privileged"], seed=8)
    restored.learner.load_state_dict(parts.state()["learner"])
    assert_same(restored.state()["learner"], parts.state()["learner"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("learning_rate", 0.0, r"learner\.learning_rate is 0\.0; it must be greater than 0"),
        ("num_epochs", -1, r"learner\.num_epochs is -1"),
        ("gamma", 1.5, r"learner\.gamma is 1\.5; it must lie in \[0, 1\]"),
        ("lr_schedule", "cosine", r"learner\.lr_schedule is 'cosine'; it must be linear or constant"),
    ],
)
def test_values_out_of_range_are_named(key, value, message):
    with pytest.raises(RobotRLError, match=message):
        PPOConfig(**{key: value})


def test_a_critic_group_that_does_not_exist_is_named():
    env = envs.Target(num_envs=1)
    with pytest.raises(RobotRLError, match=r"\['torque'\], but the environment has \['state'\]"):
        PPO(build_policy(PolicyConfig(), env.env_spec), env.env_spec, PPOConfig(critic_groups=["torque"]), num_envs=1)


def test_fake_data_suffice_to_update():
    spec = EnvSpec("none", {"state": ArraySpec((3,))}, envs.Target(num_envs=1).env_spec.action)
    policy = build_policy(PolicyConfig(), spec)
    learner = PPO(policy, spec, PPOConfig(num_epochs=1), num_envs=4)
    rollout = {key: torch.randn(6, 4, 3) for key in ("obs/state", "next_obs/state")}
    _, extras, _ = policy.act({"state": rollout["obs/state"]}, {}, explore=True)
    flags = {key: torch.zeros(6, 4, dtype=torch.bool) for key in ("terminated", "truncated", "is_first")}
    rollout = {**rollout, **extras, **flags, "reward": torch.randn(6, 4)}
    learner.observe(rollout, Progress(100))
    metrics, rows = learner.update({"online": rollout})
    assert rows is None
    assert torch.isfinite(metrics["loss/policy"])


@pytest.mark.learn
def test_cart_pole_stays_up():
    import robotrl

    torch.manual_seed(1)
    env = robotrl.make_vec("gym/CartPole-v1", num_envs=8, copy=False)
    config = PPOConfig(learning_rate=2e-3, num_epochs=8, num_minibatches=4, gamma=0.98, gae_lambda=0.9)
    learner = PPO(build_policy(PolicyConfig(), env.env_spec), env.env_spec, config, num_envs=8)
    progress = Progress(total_env_steps=16_000)
    train(learner, RolloutBuffer(), Collector(env, seed=1), Schedule(64), progress)
    env.close()
    check = robotrl.make_vec("gym/CartPole-v1", num_envs=10)
    assert evaluate(learner.policy, check, episodes=10, seed=5).mean >= 195.0
    check.close()

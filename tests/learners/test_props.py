"""What is particular to PROPS: who is compared with whom, over which rows, in which direction."""

import numpy as np
import pytest
import torch

from robotrl.collect import Collector
from robotrl.configs.compose import compose
from robotrl.functional.distributions import categorical_log_prob, gaussian_kl, gaussian_log_prob
from robotrl.learners.ppo import PPOConfig
from robotrl.learners.props import PROPS, PROPSConfig, _as_one_stream
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.fused import FusedPolicy
from robotrl.runners.run import Run
from robotrl.types import RobotRLError, group
from tests import envs_for_tests as envs
from tests.learners.cases import make

N, STEPS, TARGET = 4, 3, 12
QUICK = {"target_steps": TARGET, "schedule": {"rollout_steps": STEPS}}


def log_prob(policy, rollout):
    out = policy.sequence(policy.inputs(group(rollout, "obs")), {}, rollout["is_first"])
    return policy.log_prob_and_entropy(out, rollout["raw_action"])[0]


def watch(parts):
    """What each behaviour update saw, and what it started from."""
    seen, learner = [], parts.learner
    rows = learner._moving.rows

    def spied(policy, obs, raw):
        made = rows(policy, obs, raw)
        start = torch.cat([p.detach().flatten() for p in learner.policy.actor_parameters()])
        seen.append({"obs": obs["state"].clone(), "ratio": np.exp(learner._moving.log_ratio(made)), "start": start})
        return made

    learner._moving.rows = spied
    return seen


@pytest.mark.parametrize("env", [envs.Target, envs.Pick])
def test_every_behaviour_update_starts_from_ratios_of_one_to_the_target_as_it_is(env):
    parts = make("props", env(num_envs=N, length=5), **QUICK)
    seen = watch(parts)
    parts.run(17)
    assert len(seen) == 17
    for update in seen:
        np.testing.assert_allclose(update["ratio"], 1.0, atol=2e-5)
    starts = [update["start"] for update in seen]
    changed = [i + 1 for i in range(1, 17) if not torch.equal(starts[i], starts[i - 1])]
    assert changed == [4, 8, 12, 16]  # each fourth collect, the target has learned before the behaviour policy does


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_the_behaviour_policy_learns_from_rows_that_the_next_target_update_will_see(batches):
    parts = make("props", envs.Clock(num_envs=N, length=5), num_batches=batches, **QUICK)
    collected, learned_from, target_saw = [], [], []
    learner = parts.learner
    observe, update, ppo = learner.observe, learner._update_behaviour, learner.ppo.update
    learner.observe = lambda fresh, progress: (
        collected.extend(fresh["obs/state"].unbind(0)),
        observe(fresh, progress),
    )[1]
    learner._update_behaviour = lambda steps: (
        learned_from.append((len(collected), steps["obs/state"].unflatten(0, (-1, N)))),
        update(steps),
    )[1]
    learner.ppo.update = lambda batch: (target_saw.append((len(collected), batch["online"]["obs/state"])), ppo(batch))[
        1
    ]
    parts.run(17)
    assert [at for at, _ in target_saw] == [12, 24, 36, 48]
    for at, rows in learned_from:
        assert torch.equal(rows, torch.stack(collected[at - len(rows) : at]))
        following = [(when, saw) for when, saw in target_saw if when > at]
        if following:
            when, saw = following[0]
            oldest = when - len(saw)
            assert at - len(rows) == max(oldest, 0), (at, when)
    if batches == 1:  # right after the target's update nothing survives: the behaviour policy is the target
        assert {at for at, _ in learned_from} == set(range(3, 52, 3)) - {12, 24, 36, 48}


def test_with_nothing_that_survives_the_behaviour_policy_is_the_target():
    parts = make("props", envs.Target(num_envs=N), num_batches=1, target_steps=3, schedule={"rollout_steps": 3}).run(2)
    behaviour, target = parts.learner.acting, parts.learner.policy
    assert all(torch.equal(a, b) for a, b in zip(behaviour.parameters(), target.parameters(), strict=True))


def test_the_target_learns_with_its_own_probabilities_as_the_old_ones():
    parts = make("props", envs.Target(num_envs=N), behaviour_learning_rate=0.1, behaviour_max_kl=1.0, **QUICK).run(7)
    given = {}
    ppo = parts.learner.ppo.update

    def spied(batch):
        given["log_prob"], given["own"] = batch["online"]["log_prob"], log_prob(parts.learner.policy, batch["online"])
        return ppo(batch)

    parts.learner.ppo.update = spied
    parts.run(1)
    torch.testing.assert_close(given["log_prob"], given["own"].detach(), rtol=0, atol=1e-6)
    stored = next(parts.replay.inner.batches(parts.learner.batch_spec, 1))["online"]["log_prob"]
    assert (given["log_prob"] - stored).abs().max() > 1e-3  # who acted was another


@pytest.mark.parametrize("env", [envs.Target, envs.Pick])
@pytest.mark.parametrize(("behaviour", "lower"), [("ros", True), ("ros_wrong_sign", False), ("props", True)])
def test_ros_and_props_lower_the_probability_of_what_was_taken_and_the_wrong_sign_raises_it(env, behaviour, lower):
    length = 0.05 if behaviour.startswith("ros") else 1e-3
    config = {"behaviour": behaviour, "behaviour_learning_rate": length, "behaviour_kl_coef": 0.0}
    parts = make("props", env(num_envs=N), **config, **QUICK).run(1)
    rollout = next(parts.replay.inner.batches(parts.learner.batch_spec, 1))["online"]
    with torch.no_grad():
        before, after = (log_prob(p, rollout).mean() for p in (parts.learner.policy, parts.learner.acting))
    assert bool(after < before) == lower
    assert after != before


def test_ros_is_one_gradient_step_from_the_target():
    config = {"behaviour": "ros", "behaviour_learning_rate": 0.7}
    parts = make("props", envs.Target(num_envs=N), **config, **QUICK).run(2)
    rollout = next(parts.replay.inner.batches(parts.learner.batch_spec, 1))["online"]
    target = list(parts.learner.policy.actor_parameters())
    gradients = torch.autograd.grad(log_prob(parts.learner.policy, rollout).mean(), target)
    for moved, start, gradient in zip(parts.learner.acting.actor_parameters(), target, gradients, strict=True):
        torch.testing.assert_close(moved.detach(), start.detach() - 0.7 * gradient, rtol=1e-4, atol=1e-5)


def test_the_update_ends_before_the_step_that_sees_too_large_a_divergence():
    config = {"behaviour_learning_rate": 0.05, "behaviour_epochs": 20, "behaviour_minibatches": 1}
    tight = make("props", envs.Target(num_envs=N), behaviour_max_kl=1e-4, **config, **QUICK).run(1).log[0]
    loose = make("props", envs.Target(num_envs=N), behaviour_max_kl=1e3, **config, **QUICK).run(1).log[0]
    assert tight["behaviour/steps"] == 1  # the first starts at no divergence, the second one sees the first's
    assert loose["behaviour/steps"] == 20


def test_a_stream_that_breaks_off_is_cut_there_and_nowhere_else():
    """After a resume of an env that cannot restore its episodes, the next row belongs to another one."""
    collector = Collector(envs.Target(num_envs=2, length=5), seed=1)
    policy = build_policy(PolicyConfig(kind="mlp", hidden=[4]), collector.spec)
    whole = collector.collect(policy, 9)
    assert torch.equal(_as_one_stream(whole)["truncated"], whole["truncated"])
    broken = {**whole, "is_first": whole["is_first"].clone()}
    broken["is_first"][3, 1] = True
    cut = _as_one_stream(broken)["truncated"] ^ whole["truncated"]
    assert cut.nonzero().tolist() == [[2, 1]]


def test_advantages_run_through_the_borders_of_collects():
    """One env's stream in many small rollouts gives the target what one large rollout gives it."""
    small = make(
        "props",
        envs.Target(num_envs=2, length=7),
        seed=3,
        target_steps=12,
        num_batches=1,
        behaviour="on_policy",
        schedule={"rollout_steps": 3},
    )
    large = make(
        "props",
        envs.Target(num_envs=2, length=7),
        seed=3,
        target_steps=12,
        num_batches=1,
        behaviour="on_policy",
        schedule={"rollout_steps": 12},
    )
    given = []
    for parts in (small, large):
        estimate = parts.learner.ppo._estimate_advantages
        parts.learner.ppo._estimate_advantages = lambda rollout, data, estimate=estimate: (
            estimate(rollout, data),
            given.append(data["returns"].clone()),
        )[0]
        torch.manual_seed(8)
        parts.run(12 // parts.schedule.rollout_steps)
    torch.testing.assert_close(*given)


def test_on_policy_with_one_batch_is_ppo():
    settings = {"num_epochs": 2, "num_minibatches": 2, "target_kl": 0.02}
    ours = make(
        "props",
        envs.Target(num_envs=3),
        seed=4,
        target_steps=12,
        num_batches=1,
        behaviour="on_policy",
        ppo=PPOConfig(**settings),
    ).run(4)
    ppo = make("ppo", envs.Target(num_envs=3), seed=4, **settings).run(4)
    for a, b in zip(ours.learner.policy.parameters(), ppo.learner.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert ours.learner.acting is ours.learner.policy


def test_a_fixed_target_stays_and_its_sampling_error_is_logged():
    parts = make("props", envs.Pick(num_envs=N), train_target=False, measure_sampling_error=True, **QUICK)
    before = [p.clone() for p in parts.learner.policy.parameters()]
    parts.run(8)
    assert all(torch.equal(a, b) for a, b in zip(before, parts.learner.policy.parameters(), strict=True))
    measured = [i for i, metrics in enumerate(parts.log) if "sampling_error/ratio" in metrics]
    assert measured == [3, 7]
    last = parts.log[7]
    assert last["sampling_error/data"] > 0
    torch.testing.assert_close(
        last["sampling_error/ratio"], last["sampling_error/data"] / last["sampling_error/on_policy"]
    )


def test_measuring_changes_nothing():
    runs = [make("props", envs.Target(num_envs=3), seed=2, measure_sampling_error=on).run(3) for on in (False, True)]
    for a, b in zip(*(run.learner.policy.parameters() for run in runs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("env", [envs.Target, envs.Pick])
def test_props_corrects_what_on_policy_sampling_leaves_to_chance(env):
    """Sampling error of a fixed linear policy after 200 steps, four seeds."""
    settings = {
        "train_target": False, "target_steps": 200, "behaviour_learning_rate": 0.01, "behaviour_epochs": 16,
        "behaviour_minibatches": 1, "behaviour_kl_coef": 0.0, "measure_sampling_error": True,
        "policy": {"hidden": [], "normalise_obs": False}, "schedule": {"rollout_steps": 10},
    }  # fmt: skip
    errors = {}
    for behaviour in ("props", "on_policy"):
        runs = [make("props", env(num_envs=1), seed=seed, behaviour=behaviour, **settings).run(20) for seed in range(4)]
        errors[behaviour] = np.mean([float(run.log[-1]["sampling_error/data"]) for run in runs])
    assert errors["props"] < 0.7 * errors["on_policy"]


class TestMistakes:
    """Each in one sentence, before anything is collected."""

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["schedule.rollout_steps=5"], "m must divide n. Set schedule.rollout_steps=4"),
            (
                ["schedule.rollout_steps=64"],
                r"every m = 256 env steps .* the target every n = 64 .* schedule.rollout_steps=16",
            ),
            (["schedule.updates=0.5"], "learns once after every collect"),
            (["learner.num_batches=0"], "learner.num_batches is 0; it must be at least 1"),
            (["learner.target_steps=0"], "learner.target_steps is 0; it must be at least 1"),
            (["learner.behaviour_max_kl=0"], "learner.behaviour_max_kl is 0"),
            (["learner.behaviour_kl_coef=-1"], "learner.behaviour_kl_coef is -1"),
            (["learner.behaviour=rops"], "'rops'; it must be one of props, ros, ros_wrong_sign, on_policy"),
            (["policy=gru"], "not policy=gru. Use policy=mlp"),
            (["policy.activation=silu"], "policy.activation=silu. Use tanh, relu or elu"),
        ],
    )
    def test_what_cannot_be_is_refused(self, words, says, tmp_path):
        common = ["learner=props", "env=InvertedPendulum-v5", "preset=none", "num_envs=4", "learner.target_steps=16"]
        if not any("rollout_steps" in word for word in words):
            common.append("schedule.rollout_steps=16")
        with pytest.raises(RobotRLError, match=says):
            Run.create(compose([*common, *words, f"run_dir={tmp_path / 'r'}"]))
        assert not (tmp_path / "r").exists()


class TestFusedPolicy:
    """The hand-written gradient is autograd's."""

    @pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
    @pytest.mark.parametrize("hidden", [[], [6], [7, 5]])
    @pytest.mark.parametrize("env", [envs.Target, envs.Pick])
    def test_its_gradient_is_that_of_autograd(self, env, hidden, activation):
        collector = Collector(env(num_envs=5), seed=2)
        torch.manual_seed(0)
        config = PolicyConfig(kind="mlp", hidden=hidden, activation=activation, log_std_init=-0.3)
        start, policy = build_policy(config, collector.spec), build_policy(config, collector.spec)
        rollout = collector.collect(start, 6)
        obs = {key: value.flatten(0, 1) for key, value in group(rollout, "obs").items()}
        raw = rollout["raw_action"].flatten(0, 1)
        fused = FusedPolicy(start)
        fused.load(start)
        rows = fused.rows(start, obs, raw)
        other = [p.detach().clone() + 0.1 * torch.randn(p.shape) for p in policy.parameters()]
        for p, value in zip(policy.parameters(), other, strict=True):
            p.data.copy_(value)
        fused.net.load(policy.net.head, policy.log_std if fused.continuous else None)
        weight = torch.rand(len(raw)) / len(raw)
        out, first = (p.net.head(p.inputs(obs)["vector"]) for p in (policy, start))
        if fused.continuous:
            now, then = gaussian_log_prob(raw, out, policy.log_std), gaussian_log_prob(raw, first, start.log_std)
            kl = gaussian_kl(out, policy.log_std, first.detach(), start.log_std.detach()).mean() / raw.shape[-1]
        else:
            now, then = categorical_log_prob(raw, out), categorical_log_prob(raw, first)
            logs = torch.log_softmax(out, -1)
            kl = (logs.exp() * (logs - torch.log_softmax(first.detach(), -1))).sum(-1).mean()
        np.testing.assert_allclose(fused.log_ratio(rows), (now - then).detach(), atol=1e-5)
        assert fused.divergence() == pytest.approx(kl.item(), rel=1e-4)
        wanted = torch.autograd.grad((weight * now).sum() + 0.7 * kl, policy.actor_parameters())
        fused.pull(weight.numpy(), 0.7)
        fused.net.values[:] = fused.net.gradient  # read it through the layout that `store` knows
        fused.store(policy)
        for p, gradient in zip(policy.actor_parameters(), wanted, strict=True):
            torch.testing.assert_close(p.detach(), gradient, rtol=1e-3, atol=1e-5)

    def test_a_bias_that_is_fixed_does_not_move(self):
        spec = envs.Pick(num_envs=2).env_spec
        policy = build_policy(PolicyConfig(kind="mlp", hidden=[], output_bias=False), spec)
        fused = FusedPolicy(policy)
        fused.load(policy)
        rows = fused.rows(policy, {"state": torch.eye(4)}, torch.arange(4))
        fused.log_ratio(rows)
        fused.pull(np.ones(4, np.float32), 0.0)
        assert (fused.net.gradient.reshape(4, 5)[:, -1] == 0).all()
        assert (fused.net.gradient.reshape(4, 5)[:, :-1] != 0).any()


def test_a_config_alone_makes_the_defaults_of_the_schema():
    spec = envs.Target(num_envs=2).env_spec
    learner = PROPS(build_policy(PolicyConfig(kind="mlp"), spec), spec, PROPSConfig(), num_envs=2)
    learner.check_schedule(32, 1.0)
    assert learner.batch_spec["online"].newest_steps == 64

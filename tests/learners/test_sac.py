"""What is particular to SAC and its options; what holds for every learner is in `test_every_learner.py`."""

from collections import defaultdict

import pytest
import torch

from robotrl.functional.returns import bellman_rows
from robotrl.learners.sac import SACConfig
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.registry import learners
from robotrl.replay import MixedReplay, ReplayBuffer
from robotrl.replay.build import build_replay
from robotrl.replay.config import ReplayConfig, bytes_per_step
from robotrl.types import Progress, RobotRLError
from tests import envs_for_tests as envs
from tests.learners.cases import make


def rollouts(parts, count=3, steps=20):
    for _ in range(count):
        parts.replay.add(parts.collector.collect(parts.learner.acting, steps))


def one_update(parts):
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    metrics, written = parts.learner.update(batch)
    assert written is None
    return metrics


def with_demos(**config):
    """A learner on two sources of which one is marked: its rewards are 1, those of the other 0."""
    config = {"random_env_steps": 0, "demo_ratio": 0.5, "batch_size": 256} | config
    parts = make("sac", envs.Target(num_envs=2), offline={"demos": ReplayBuffer(1000, 2)}, **config)
    assert isinstance(parts.replay.inner, MixedReplay)
    rollout = parts.collector.collect(parts.learner.acting, 40)
    for source, value in (("online", 0.0), ("demos", 1.0)):
        parts.replay.inner.sources[source].add(rollout | {"reward": torch.full_like(rollout["reward"], value)})
    return parts


@pytest.mark.parametrize("utd_ratio", [1, 5])
@pytest.mark.parametrize("n_step", [1, 3])
def test_each_critic_step_sees_exactly_half_demonstrations(utd_ratio, n_step):
    parts = with_demos(utd_ratio=utd_ratio, n_step=n_step, gamma=0.0)
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    slices = parts.learner._slices(batch)
    assert len(slices) == utd_ratio
    for rows in slices:
        assert len(rows["reward"]) == 256
        assert rows["reward"].sum() == 128
    drawn = torch.cat([rows["obs/state"] for rows in slices])
    assert len(drawn) == 256 * utd_ratio


def test_the_share_of_demonstrations_is_kept_for_other_ratios():
    parts = with_demos(demo_ratio=0.25)
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    assert [rows["reward"].sum().item() for rows in parts.learner._slices(batch)] == [64.0]


def test_without_demonstrations_a_learner_that_wants_them_is_refused():
    with pytest.raises(RobotRLError, match="learns from 'demos', but this run has no such data"):
        make("sac", envs.Target(num_envs=2), demo_ratio=0.5)


def test_a_target_takes_two_distinct_critics_anew_at_each_step():
    parts = make("sac", envs.Target(num_envs=2), num_critics=5, target_subset=2, utd_ratio=20)
    rollouts(parts)
    asked, forward = [], parts.learner.targets.forward
    parts.learner.targets.forward = lambda x, members=None: (asked.append(members), forward(x, members))[1]
    one_update(parts)
    assert len(asked) == 20
    assert all(len(set(members.tolist())) == 2 for members in asked)
    assert len({tuple(sorted(members.tolist())) for members in asked}) > 3


def test_the_target_is_the_least_of_its_critics_and_the_actor_climbs_the_mean_or_the_least_of_all():
    seen, fixed = {}, torch.tensor([3.0, -1.0, 5.0, 1.0]).view(4, 1, 1)
    for actor_value in ("min", "mean"):
        parts = make("sac", envs.Target(num_envs=2), num_critics=4, target_subset=4, actor_value=actor_value)
        rollouts(parts)
        learner = parts.learner
        learner.targets.forward = lambda x, members=None: fixed.expand(4, len(x), 1)
        flat = learner.critics.pullback
        learner.critics.pullback = lambda x, flat=flat: (fixed.expand(4, len(x), 1), flat(x)[1])
        learner._log_temperature.data.fill_(-100.0)  # no entropy
        (batch,) = parts.replay.batches(learner.batch_spec, 1)
        metrics = learner.update(batch)[0]
        discounted = batch["online"]["reward"] + 0.99 * -1.0
        assert metrics["value/target"].item() == pytest.approx(discounted.mean().item(), abs=1e-5)
        seen[actor_value] = -metrics["loss/policy"].item()
    assert seen == pytest.approx({"min": -1.0, "mean": 2.0})


def test_layer_normalisation_is_in_the_critics_only():
    learner = make("sac", envs.Target(num_envs=2), critic_layer_norm=True).learner
    assert {name.partition(".")[0] for name, _ in learner.critics.named_parameters()} == {
        "weights", "biases", "gains", "shifts"
    }  # fmt: skip
    assert len(learner.critics.gains) == 2
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in learner.policy.modules())
    assert all("layers" in name for name, _ in learner.policy.named_parameters())


def test_the_targets_follow_by_tau_and_get_no_gradient():
    parts = make("sac", envs.Target(num_envs=2), tau=0.25)
    rollouts(parts)
    learner = parts.learner
    before = learner._target_flat.detach().clone()
    one_update(parts)
    torch.testing.assert_close(learner._target_flat, 0.75 * before + 0.25 * learner._critic_flat)
    assert not learner._target_flat.grad.any()


@pytest.mark.parametrize("actor_value", ["min", "mean"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
def test_gradients_are_those_of_the_losses_as_written_in_the_paper(actor_value, activation):
    policy = {"activation": activation}
    parts = make("sac", envs.Target(num_envs=2), policy=policy, actor_value=actor_value, num_critics=3)
    rollouts(parts)
    learner, metrics = parts.learner, defaultdict(list)
    (batch,) = parts.replay.batches(learner.batch_spec, 1)
    (rows,) = learner._slices(batch)
    alpha = learner._log_temperature.detach().exp()
    before = learner._critic_flat.grad.fill_(7.0).clone()
    torch.manual_seed(4)
    sampled, pull = learner._sample(rows, ["obs", "next_obs"])
    learner._policy_gradient(rows, sampled["obs"], pull, metrics)
    assert torch.equal(learner._critic_flat.grad, before)  # the actor's step does not touch them
    found = learner._actor_flat.grad.clone()
    learner._actor_flat.grad.zero_()
    torch.manual_seed(4)
    inputs = learner.policy.inputs({"state": torch.cat([rows["obs/state"], rows["next_obs/state"]])})
    actions, log_probs = learner.policy.sample(learner.policy.net(inputs, torch.zeros(0, 0))[0])
    (action, after), (log_prob, log_prob_after) = actions.chunk(2), log_probs.chunk(2)
    q = learner.critics(learner._critic_input(rows, "obs", action)).squeeze(-1)
    loss = (alpha * log_prob - (q.amin(0) if actor_value == "min" else q.mean(0))).mean()
    loss.backward()
    torch.testing.assert_close(found, learner._actor_flat.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(metrics["loss/policy"][0], loss.detach())

    learner._critic_flat.grad.fill_(7.0)
    torch.manual_seed(4)
    learner._critic_gradient(rows, sampled["next_obs"], metrics)
    found = learner._critic_flat.grad.clone()
    learner._critic_flat.grad.zero_()
    torch.manual_seed(4)
    with torch.no_grad():
        chosen = torch.randperm(3)[:2]
        value = learner.targets(learner._critic_input(rows, "next_obs", after))[chosen].squeeze(-1).amin(0)
        target = rows["reward"] + rows["discount"] * (value - alpha * log_prob_after)
    q = learner.critics(learner._critic_input(rows, "obs", rows["unit_action"])).squeeze(-1)
    loss = (q - target).square().mean()
    loss.backward()
    torch.testing.assert_close(found, learner._critic_flat.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(metrics["loss/critic"][0], loss.detach())


@pytest.mark.parametrize(("entropy", "rises"), [(-5.0, True), (5.0, False)])
def test_the_temperature_rises_while_entropy_is_below_its_target(entropy, rises):
    learner = make("sac", envs.Target(num_envs=2)).learner
    before = learner._log_temperature.item()
    learner._step_temperature(torch.full((10,), -entropy), {"loss/temperature": []})
    assert (learner._log_temperature.item() > before) == rises


def test_the_target_entropy_is_minus_the_scaled_number_of_action_dimensions():
    for scale in (1.0, 0.5):
        assert make("sac", envs.Target(num_envs=2), target_entropy_scale=scale).learner._target_entropy == -2 * scale


def test_a_fixed_temperature_stays():
    parts = make("sac", envs.Target(num_envs=2), learn_temperature=False, init_temperature=0.2).run(3)
    assert parts.learner._log_temperature.exp().item() == pytest.approx(0.2)
    assert "loss/temperature" not in parts.log[-1]


def test_without_entropy_backup_the_target_does_not_count_it():
    targets = {}
    for backup in (True, False):
        parts = make("sac", envs.Target(num_envs=2), entropy_backup=backup, init_temperature=10.0, batch_size=64)
        rollouts(parts)
        targets[backup] = one_update(parts)["value/target"].item()
    assert abs(targets[True] - targets[False]) > 1.0


def test_n_step_targets_sum_discounted_rewards_up_to_the_episodes_end():
    parts = make("sac", envs.Clock(num_envs=2, length=5), n_step=3, gamma=0.5, batch_size=400)
    rollouts(parts, 2, 15)
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    rows = bellman_rows(batch["online"], 3, 0.5, parts.learner.policy.actions.from_env)
    step, after = rows["obs/state"][:, 1], rows["next_obs/state"][:, 1]
    cut_by_replay = after < torch.clamp(step + 3, max=5)  # the newest steps have no follower yet
    length = after - step
    torch.testing.assert_close(rows["reward"], 2 - 2 * 0.5**length)  # rewards are 1
    torch.testing.assert_close(rows["discount"], 0.5**length)
    assert cut_by_replay.float().mean() < 0.2
    assert set(length.tolist()) == {1.0, 2.0, 3.0}
    assert torch.equal(rows["obs/state"][:, 0], rows["next_obs/state"][:, 0])


def test_actions_are_uniform_until_the_random_steps_are_made():
    parts = make("sac", envs.Target(num_envs=4), random_env_steps=100)
    assert parts.learner.acting is not parts.learner.policy
    parts.run(2)  # 2 x 12 x 4
    assert parts.learner.acting is not parts.learner.policy
    parts.run(1)
    assert parts.learner.acting is parts.learner.policy


def test_critics_can_read_groups_of_their_own():
    class Privileged(envs.Target):
        groups = envs.Target.groups | {"privileged": envs.Box(-1.0, 1.0, (3,), envs.np.float64)}

        def observe(self, now, step):
            return {"state": now, "privileged": envs.np.zeros((len(now), 3))}

    parts = make("sac", Privileged(num_envs=2), critic_groups=["state", "privileged"]).run(2)
    assert parts.learner.critics.weights[0].shape[1] == 2 + 3 + 2
    assert parts.learner.policy.obs_groups == ("state",)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights():
    parts = make("sac", envs.Target(num_envs=2))
    rollouts(parts)
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    batch["online"]["reward"][0] = float("inf")
    metrics = parts.learner.update(batch)[0]
    assert metrics["grad_norm/nonfinite"] == 1
    assert all(torch.isfinite(p).all() for p in parts.learner.critics.parameters())


def test_bf16_products_keep_float32_master_weights_and_moments():
    parts = make("sac", envs.Target(num_envs=2), matmul_precision="bf16").run(3)
    learner = parts.learner
    states = (learner._critic_flat, learner._target_flat, learner._critic_adam.mean, learner._critic_adam.square)
    assert {t.dtype for t in states} == {torch.float32}
    fine = learner._critic_flat.detach()
    assert (fine != fine.bfloat16().float()).float().mean() > 0.5  # they hold what bf16 cannot


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target_subset": 3}, "target_subset is 3, but there are 2 critics"),
        ({"demo_ratio": 1.5}, r"demo_ratio is 1.5; it must lie in \[0, 1\]"),
        ({"tau": 0.0}, "tau is 0.0; it must be greater than 0"),
        ({"utd_ratio": 0}, "utd_ratio is 0; it must be at least 1"),
        ({"actor_value": "max"}, "actor_value is 'max'; it must be min or mean"),
        ({"matmul_precision": "fp8"}, "matmul_precision is 'fp8'; it must be fp32 or bf16"),
    ],
)
def test_wrong_settings_are_told(settings, told):
    with pytest.raises(RobotRLError, match=told):
        SACConfig(**settings)


def test_another_kind_of_policy_is_refused():
    spec = envs.Target(num_envs=1).env_spec
    with pytest.raises(RobotRLError, match="learner=sac trains policy=squashed, not policy=mlp"):
        learners.get("sac")(build_policy(PolicyConfig(), spec), spec, SACConfig(), num_envs=1)


def test_a_replay_larger_than_memory_is_refused_with_the_number_before_it_is_made(monkeypatch):
    from robotrl.replay import config

    spec = envs.Target(num_envs=1).env_spec
    assert bytes_per_step(spec) == 2 * 4 + 2 * 4 + 31
    monkeypatch.setattr(config, "memory_bytes", lambda: 2**30)
    arguments = {"num_envs": 4, "seed": 0, "device": "cpu"}
    replay, parts = ReplayBuffer, make("sac", envs.Target(num_envs=4)).learner.batch_spec
    with pytest.raises(RobotRLError, match=r"100,000,000 steps of Target takes 4.4 GiB \(47 bytes a step\).*at most"):
        build_replay(replay, parts, ReplayConfig(capacity=10**8), spec, env_steps=10**9, **arguments)
    build_replay(replay, parts, ReplayConfig(capacity=10**8), spec, env_steps=10**6, **arguments)  # never that full


def test_the_random_phase_follows_the_runs_clock():
    learner = make("sac", envs.Target(num_envs=2), random_env_steps=50).learner
    learner.observe({}, Progress(1000, env_steps=50))
    assert learner.acting is learner.policy

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from robotrl.collect import Collector
from robotrl.data.schema import Schema
from robotrl.data.writer import DatasetWriter
from robotrl.envs import make_vec
from robotrl.envs.experts import expert_for
from robotrl.learners.hnpg import HNPG, HNPGConfig
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.replay import ReplayBuffer
from robotrl.replay.build import build_replay, offline_sources
from robotrl.replay.config import ReplayConfig
from robotrl.runners.loop import Schedule, train
from robotrl.runners.record import record
from robotrl.seeding import seed_everything
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, Part, Progress, RobotRLError
from tests.demos import write_demos


def spec(horizon=2, action=1):
    bounds = (-torch.inf,) * action, (torch.inf,) * action
    return EnvSpec("test", {"state": ArraySpec((2,))}, ActionSpec("continuous", (action,), *bounds), time_limit=horizon)


def learner(horizon=2, action=1, log_std=0.0, **config):
    torch.manual_seed(0)
    settings = PolicyConfig(kind="stepwise", hidden=[8, 8], normalise_obs=False, log_std_init=log_std)
    policy = build_policy(settings, spec(horizon, action))
    return HNPG(policy, policy.spec, HNPGConfig(**config), num_envs=4)


def rollout(rewards, n=4, action=1):
    """Own episodes: the same observation and action everywhere, with a reward for each step."""
    h = len(rewards)
    ends = torch.zeros(h, n, dtype=torch.bool)
    ends[-1] = True
    return {
        "obs/state": torch.ones(h, n, 2), "next_obs/state": torch.ones(h, n, 2), "action": torch.zeros(h, n, action),
        "raw_action": torch.zeros(h, n, action), "log_prob": torch.zeros(h, n),
        "reward": torch.tensor(rewards).unsqueeze(1).expand(h, n).clone(), "terminated": ends,
        "truncated": ends.clone(), "step": torch.arange(h).unsqueeze(1).expand(h, n).clone(),
        "state/step": torch.zeros(1, n, dtype=torch.int64),
    }  # fmt: skip


def recorded(rewards, n=4, action=1):
    """The same of recorded steps, ordered by step."""
    return {k: v.flatten(0, 1) for k, v in rollout(rewards, n, action).items() if k not in ("raw_action", "state/step")}


@pytest.mark.parametrize(
    ("arm", "first", "second"),
    [
        # own: returns 0.5 from the second step, 0.6 from the first; recorded: 0.7, then 0.2 + what the critic says
        ("online", 0.6, 0.5),
        ("offline", 0.9, 0.7),
        ("hybrid", (0.6 + 0.2 + 0.6) / 2, 0.6),
    ],
)
def test_critics_learn_from_the_last_step_back(arm, first, second):
    agent = learner(arm=arm, log_std=-10.0, critic_steps=400, critic_learning_rate=1e-2)
    agent.policy.net.weights.data[:, :-1] = 0.0  # the mean is zero, as the actions in the data
    parts = {"online": rollout([0.1, 0.5]), "offline": recorded([0.2, 0.7])}
    parts = {name: parts[name] for name in agent.batch_spec}
    agent.update(parts)
    x = torch.cat([torch.ones(2, 2, 1), torch.zeros(2, 1, 1)], 1)
    q = agent.critic.run(agent.critic.weights.data, x)[0].flatten()
    assert q.tolist() == pytest.approx([first, second], abs=5e-3)


def test_a_recorded_episode_that_terminates_early_has_no_future():
    agent = learner(arm="offline", log_std=-10.0, critic_steps=400, critic_learning_rate=1e-2)
    agent.policy.net.weights.data[:, :-1] = 0.0
    data = recorded([0.2, 0.7])
    data["terminated"][:] = True
    agent.update({"offline": data})
    x = torch.cat([torch.ones(2, 2, 1), torch.zeros(2, 1, 1)], 1)
    assert agent.critic.run(agent.critic.weights.data, x)[0].flatten().tolist() == pytest.approx([0.2, 0.7], abs=5e-3)


def test_advantages_of_own_steps_use_the_new_critics_and_have_no_future_after_the_last():
    agent = learner(horizon=3, arm="online", gae_lambda=0.5, value_samples=64, log_std=-10.0)
    agent.policy.net.weights.data[:, :-1] = 0.0
    own = agent._by_step("online", rollout([0.1, 0.5, 2.0]))
    raw, advantage = agent._advantages({"online": own}, own["obs"], {})
    x = torch.cat([own["obs"], torch.zeros(3, 1, 4)], 1)
    v = agent.critic.run(agent.critic.weights.data, x)[0][:, 0, 0].tolist()
    last = 2.0 - v[2]
    middle = 0.5 + v[2] - v[1] + 0.5 * last
    assert advantage[:, 0].tolist() == pytest.approx([0.1 + v[1] - v[0] + 0.5 * middle, middle, last], abs=1e-4)
    assert torch.equal(raw, own["raw"])


def reference_step(policy, h, obs, raw, advantage, c):
    """TRPO's step for one of the networks, by autograd: the new parameters."""
    net = policy.net
    start = net.weights.data[h].clone()

    def distribution(row):
        x, layers = obs[h], net.layers(row)
        for i, layer in enumerate(layers):
            x = layer[:, :-1] @ x + layer[:, -1:]
            x = torch.tanh(x) if i < len(layers) - 1 else x
        return Normal(x, net.tail(row).exp().unsqueeze(-1))

    old = distribution(start)
    old_log = old.log_prob(raw[h]).sum(0)

    def loss(row):
        return -(advantage[h] * (distribution(row).log_prob(raw[h]).sum(0) - old_log).exp()).mean()

    def kl(row):
        return kl_divergence(old, distribution(row)).sum(0).mean()

    gradient = torch.autograd.functional.jacobian(loss, start)
    fisher = torch.autograd.functional.hessian(kl, start) + c.damping * torch.eye(len(start), dtype=start.dtype)
    x, r = torch.zeros_like(start), -gradient
    p = r.clone()
    for _ in range(c.cg_steps):
        if r @ r < 1e-10:
            break
        a = (r @ r) / (p @ fisher @ p)
        x, new = x + a * p, r - a * (fisher @ p)
        p, r = new + (new @ new) / (r @ r) * p, new
    step = x * (2 * c.max_kl / (x @ fisher @ x)).sqrt()
    expected, before = -gradient @ step, loss(start)
    if not bool(step.isfinite().all()):
        return start
    for k in range(c.backtracks):
        candidate = start + 0.5**k * step
        decrease = before - loss(candidate)
        if decrease > 0 and decrease / (0.5**k * expected) > c.accept_ratio:
            return candidate
    return start


def test_the_policies_step_is_that_of_each_by_itself_through_autograd():
    agent = learner(horizon=3, action=2)
    agent.policy.double()
    obs, raw = torch.randn(3, 2, 40).double(), torch.randn(3, 2, 40).double()
    advantage = (raw * torch.tensor([1.0, -0.5])[:, None]).sum(1) + 0.3 * torch.randn(3, 40)
    advantage[2] = 0.0  # nothing to gain: it stays
    expected = [reference_step(agent.policy, h, obs, raw, advantage, agent.config) for h in range(3)]
    before, metrics = agent.policy.net.weights.data.clone(), {}
    with torch.no_grad():
        agent._improve_policies(obs, raw, advantage, metrics)
    torch.testing.assert_close(agent.policy.net.weights.data, torch.stack(expected), rtol=1e-6, atol=1e-9)
    assert torch.equal(agent.policy.net.weights.data[2], before[2])
    assert metrics["policy/accepted"] == pytest.approx(2 / 3)
    assert 0.002 < metrics["policy/kl"] < 0.02


def test_actions_for_recorded_states_are_drawn_from_the_policy():
    agent = learner(horizon=2, arm="offline", log_std=-2.0)
    data = recorded([0.0, 0.0], n=500)
    data["action"][:] = 5.0  # not what the policy would do
    part = agent._by_step("offline", data)
    raw, _ = agent._advantages({"offline": part}, part["obs"], {})
    assert raw.std(-1).flatten().tolist() == pytest.approx([torch.tensor(-2.0).exp().item()] * 2, rel=0.1)
    assert raw.abs().max() < 1.0


def test_what_is_not_finite_never_reaches_the_weights():
    agent = learner(arm="online")
    data = rollout([0.0, 1.0])
    data["reward"][1] = torch.nan
    before = agent.critic.weights.data.clone(), agent.policy.net.weights.data.clone()
    metrics, _ = agent.update({"online": data})
    assert metrics["grad_norm/nonfinite"] == 2
    assert torch.equal(before[0], agent.critic.weights.data)
    assert torch.equal(before[1], agent.policy.net.weights.data)


@pytest.mark.parametrize("change", [{"steps": 3}, {"late": 1}])
def test_a_rollout_that_cuts_an_episode_is_refused(change):
    agent, data = learner(), rollout([0.0, 0.0])
    if "steps" in change:
        data = {k: torch.cat([v, v[:1]]) if k != "state/step" else v for k, v in data.items()}
    else:
        data["step"] += 1
    with pytest.raises(RobotRLError, match=r"multiple of 2"):
        agent.observe(data, Progress(100))


def test_a_schedule_that_would_cut_episodes_is_refused_before_training():
    learner(horizon=2).check_schedule(6, 1.0)
    learner(horizon=2, arm="offline").check_schedule(5, 1.0)
    with pytest.raises(RobotRLError, match="a multiple of 2"):
        learner(horizon=2).check_schedule(5, 1.0)


def lock_data(root, horizon, episodes=3):
    env = make_vec("lock/combination", num_envs=1, horizon=horizon)
    return write_demos(root, env, episodes=episodes)


def sources(root, horizon):
    """What a run with that data set does before anything is collected."""
    lock = make_vec("lock/combination", num_envs=2, horizon=horizon).env_spec
    policy = build_policy(PolicyConfig(kind="stepwise", hidden=[4], normalise_obs=False), lock)
    agent = HNPG(policy, lock, HNPGConfig(), num_envs=2)
    config = ReplayConfig(demos=str(root))
    return offline_sources(agent.batch_spec, config, lock, groups=["state"], seed=0, device="cpu")


def test_recorded_episodes_of_another_horizon_are_refused_before_training(tmp_path):
    with pytest.raises(RobotRLError, match=r"every 'step' from 0 to 2.*the values there are 0 to 3"):
        sources(lock_data(tmp_path / "d", horizon=4), horizon=3)  # both have observations of eight numbers
    assert len(sources(tmp_path / "d", horizon=4)["demos"]) == 12


def test_recorded_episodes_with_other_spaces_are_refused_before_training(tmp_path):
    with pytest.raises(RobotRLError, match=r"its group 'state' is float32\[8\], the env's is float32\[16\]"):
        sources(lock_data(tmp_path / "d", horizon=4), horizon=5)


def test_an_empty_data_set_is_refused_before_training(tmp_path):
    env = make_vec("lock/combination", num_envs=1, horizon=3)
    writer = DatasetWriter(tmp_path / "d", Schema.from_env(env.env_spec), env=env.env_spec)
    writer.close()
    with pytest.raises(RobotRLError):
        sources(tmp_path / "d", horizon=3)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"arm": "both"}, "hybrid, online or offline"),
        ({"critic_steps": 0}, "critic_steps"),
        ({"max_kl": 0.0}, "max_kl"),
        ({"gae_lambda": 2.0}, "gae_lambda"),
        ({"offline_episodes": 0}, "offline_episodes"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, text):
    with pytest.raises(RobotRLError, match=text):
        HNPGConfig(**settings)


def test_another_kind_of_policy_is_refused():
    with pytest.raises(RobotRLError, match="policy=stepwise"):
        HNPG(build_policy(PolicyConfig(kind="mlp"), spec()), spec(), HNPGConfig(), num_envs=1)


def opened(arm, iterations, horizon=4):
    """Share of the last 20 iterations' episodes that open a short lock."""
    seed_everything(0)
    env = make_vec("lock/combination", num_envs=100, horizon=horizon, copy=False, action_bound=None)
    policy = build_policy(PolicyConfig(kind="stepwise", hidden=[16, 16], normalise_obs=False), env.env_spec)
    agent = HNPG(policy, env.env_spec, HNPGConfig(arm=arm), num_envs=100)
    shown = make_vec("lock/combination", num_envs=500, horizon=horizon)
    expert, data = expert_for(None, shown.env_spec), ReplayBuffer(20_000, 500, seed=1)
    data.add(Collector(shown, seed=9).collect(_Exploring(expert), 4 * horizon))
    replay = build_replay(
        HNPG.replay_class, agent.batch_spec, ReplayConfig(), env.env_spec, num_envs=100, seed=0, device="cpu",
        env_steps=10**6, offline={"demos": data},
    )  # fmt: skip
    found, progress = [], Progress(10**9)
    train(
        agent, replay, Collector(env, seed=0), Schedule(rollout_steps=horizon), progress,
        hooks=[lambda _, metrics: found.append(float(metrics["train/success"]))],
        stop=lambda: progress.iterations >= iterations,
    )  # fmt: skip
    return sum(found[-20:]) / 20


class _Exploring:
    def __init__(self, policy):
        self.policy, self.obs_groups = policy, policy.obs_groups
        self.initial_state, self.reset_state = policy.initial_state, policy.reset_state

    def act(self, obs, state, *, explore):
        return self.policy.act(obs, state, explore=True)


@pytest.mark.learn
def test_recorded_episodes_open_a_lock_that_stays_shut_without_them():
    assert opened("hybrid", 60) > 0.5
    assert opened("online", 30) < 0.05


def test_its_expert_records_with_the_recorder(tmp_path):
    env = make_vec("lock/combination", num_envs=7, horizon=4, copy=False)
    with DatasetWriter(tmp_path / "d", Schema.from_env(env.env_spec), env=env.env_spec) as writer:
        done = record(expert_for(None, env.env_spec), Collector(env, seed=1), writer, episodes=30, seed=1, explore=True)
    assert done.saved == 30 and done.steps == 120
    assert len(sources(tmp_path / "d", horizon=4)["demos"]) == 120


def test_episodes_recorded_within_bounds_serve_the_same_lock_without_them(tmp_path):
    free = make_vec("lock/combination", num_envs=2, horizon=4, action_bound=None).env_spec
    wider = make_vec("lock/combination", num_envs=2, horizon=4, action_bound=2.0).env_spec
    config = ReplayConfig(demos=str(lock_data(tmp_path / "d", horizon=4)))
    parts = {"offline": Part("demos", "transition", 4, stratify_by="step", strata=4)}
    found = offline_sources(parts, config, free, groups=["state"], seed=0, device="cpu")
    assert len(found["demos"]) == 12
    with pytest.raises(RobotRLError, match="another scaling"):
        offline_sources(parts, config, wider, groups=["state"], seed=0, device="cpu")

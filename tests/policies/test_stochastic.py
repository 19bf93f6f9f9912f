from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal

from robotrl.nets.flat import flatten_parameters
from robotrl.policies import build_policy
from robotrl.policies.actions import ActionMap
from robotrl.policies.config import PolicyConfig
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, Policy, RobotRLError
from tests import envs_for_tests as envs

BOX = ActionSpec("continuous", (2,), (-2.0, 0.0), (2.0, 1.0))
FLAT = EnvSpec("flat", {"state": ArraySpec((3,))}, BOX)
MANY = EnvSpec(
    "many",
    {
        "state": ArraySpec((3,)),
        "privileged": ArraySpec((2,)),
        "grid": ArraySpec((2, 2)),
        "phase": ArraySpec(()),
        "instruction": ArraySpec((4,), "int64"),
        "image/front": ArraySpec((3, 16, 16), "uint8"),
        "image/wrist": ArraySpec((1, 12, 20), "uint8"),
    },
    ActionSpec("discrete", num_actions=5),
)


def build(spec=FLAT, **config):
    torch.manual_seed(0)
    return build_policy(PolicyConfig(**{"hidden": [16], "gru_size": 8, "image_features": 8} | config), spec)


def observe(spec, n, lead=()):
    torch.manual_seed(1)
    make = {"float32": torch.randn, "uint8": lambda *s: torch.randint(0, 256, s, dtype=torch.uint8),
            "int64": lambda *s: torch.randint(0, 9, s)}  # fmt: skip
    return {key: make[s.dtype](*lead, n, *s.shape) for key, s in spec.obs.items()}


def test_auto_is_a_cnn_where_there_are_images_and_an_mlp_elsewhere():
    assert build().config.kind == "mlp"
    assert build(MANY).config.kind == "cnn"


def test_privileged_groups_are_not_read_unless_asked_for_and_an_mlp_leaves_images_out():
    assert build(MANY).obs_groups == ("state", "grid", "phase", "instruction", "image/front", "image/wrist")
    assert build(MANY, kind="mlp").obs_groups == ("state", "grid", "phase", "instruction")
    assert build(MANY, kind="mlp", groups=["privileged", "state"]).obs_groups == ("privileged", "state")


def test_what_is_not_read_need_not_be_there():
    policy = build(MANY, kind="mlp", groups=["state", "phase"])
    obs = {key: value for key, value in observe(MANY, 4).items() if key in ("state", "phase")}
    assert policy.act(obs, {}, explore=False)[0].shape == (4,)


@pytest.mark.parametrize(("spec", "kind"), [(FLAT, "mlp"), (FLAT, "gru"), (MANY, "cnn"), (MANY, "gru"), (MANY, "mlp")])
def test_it_keeps_the_protocol(spec, kind):
    policy = build(spec, kind=kind)
    assert isinstance(policy, Policy)
    state = policy.initial_state(6)
    assert (state == {}) == (kind != "gru")
    action, extras, after = policy.act(observe(spec, 6), state, explore=True)
    assert action.shape == ((6, 2) if spec is FLAT else (6,))
    assert action.dtype == (torch.float32 if spec is FLAT else torch.int64)
    assert extras.keys() == {"raw_action", "log_prob"}
    assert extras["log_prob"].shape == (6,)
    assert after.keys() == state.keys()
    assert not any(value.requires_grad for value in (action, *extras.values(), *after.values()))


def test_log_probs_are_those_of_the_distribution_it_draws_from():
    policy, obs = build(log_std_init=-0.3), observe(FLAT, 40_000)
    obs = {"state": obs["state"][:1].expand(40_000, 3)}
    mean = policy.act(obs, {}, explore=False)[1]["raw_action"][0]
    _, extras, _ = policy.act(obs, {}, explore=True)
    expected = Normal(mean, policy.log_std.exp()).log_prob(extras["raw_action"]).sum(-1)
    torch.testing.assert_close(extras["log_prob"], expected.detach())
    torch.testing.assert_close(extras["raw_action"].mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(extras["raw_action"].std(0), policy.log_std.exp().detach(), atol=0.02, rtol=0)

    choose = build(MANY, kind="mlp")
    obs = {key: value[:1].expand(40_000, *value.shape[1:]) for key, value in observe(MANY, 1).items()}
    action, extras, _ = choose.act(obs, {}, explore=True)
    logits = choose.net(choose.inputs(obs), torch.zeros(0, 0))[0]
    torch.testing.assert_close(extras["log_prob"], Categorical(logits=logits).log_prob(action).detach())
    shares = torch.bincount(action, minlength=5) / 40_000
    torch.testing.assert_close(shares, logits[0].softmax(-1).detach(), atol=0.01, rtol=0)


def test_without_exploration_it_does_the_same_every_time_and_what_is_likeliest():
    policy, obs = build(MANY, kind="mlp"), observe(MANY, 9)
    first, second = (policy.act(obs, {}, explore=False)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, policy.net(policy.inputs(obs), torch.zeros(0, 0))[0].argmax(-1))


def test_actions_stay_within_the_bounds_and_raw_actions_are_kept_as_drawn():
    policy = build(log_std_init=2.0)
    action, extras, _ = policy.act(observe(FLAT, 500), {}, explore=True)
    low, high = torch.tensor(BOX.low), torch.tensor(BOX.high)
    assert ((action >= low) & (action <= high)).all()
    assert (extras["raw_action"].abs() > 1).any()
    assert torch.equal(action, policy.actions.to_env(extras["raw_action"]))


def test_only_finished_rows_forget():
    policy = build(kind="gru")
    _, _, state = policy.act(observe(FLAT, 3), policy.initial_state(3), explore=False)
    after = policy.reset_state(state, torch.tensor([False, True, False]))["hidden"]
    assert (after[1] == 0).all()
    assert torch.equal(after[[0, 2]], state["hidden"][[0, 2]])
    assert (state["hidden"] != 0).all()


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_a_sequence_is_its_steps_one_by_one(kind):
    policy, obs = build(kind=kind), observe(FLAT, 4, lead=(9,))
    is_first = torch.rand(9, 4) < 0.3
    is_first[0] = True
    outs, state = [], policy.initial_state(4)
    for t in range(9):
        out, hidden = policy.net(
            policy.inputs({"state": obs["state"][t]}),
            policy.reset_state(state, is_first[t]).get("hidden", torch.zeros(0, 0)),
        )
        state = {"hidden": hidden} if kind == "gru" else {}
        outs.append(out)
    whole = policy.sequence(policy.inputs(obs), policy.initial_state(4), is_first)
    torch.testing.assert_close(whole, torch.stack(outs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_an_action_that_is_not_finite_is_an_error_not_a_command(kind):
    policy = build(kind=kind)
    obs = observe(FLAT, 4)
    obs["state"][2, 1] = float("nan")
    with pytest.raises(RobotRLError, match="The policy produced a non-finite action"):
        policy.act(obs, policy.initial_state(4), explore=True)
    with torch.no_grad():
        policy.log_std.fill_(float("nan"))
    with pytest.raises(RobotRLError, match="weights or its input are not finite"):
        policy.act(observe(FLAT, 4), policy.initial_state(4), explore=True)


def test_the_first_actions_are_small_and_deviations_are_trained_for_continuous_actions_only():
    policy = build()
    assert policy.act(observe(FLAT, 50), {}, explore=False)[1]["raw_action"].abs().max() < 0.1
    assert any(p is policy.log_std for p in policy.actor_parameters())
    assert not any(p is build(MANY).log_std for p in build(MANY).actor_parameters())


def test_a_linear_policy_without_a_bias_starts_from_the_table_it_is_given_and_learns_only_it():
    numbers = [0.5, 0.0, -1.0, 0.0, 3.9, 2.0]
    spec = EnvSpec("t", {"state": ArraySpec((3,))}, ActionSpec("discrete", num_actions=2))
    policy = build(spec, kind="mlp", hidden=[], output_bias=False, init_weights=numbers, normalise_obs=False)
    logits = policy.net.head(policy.inputs({"state": torch.eye(3)})["vector"])
    torch.testing.assert_close(logits.detach(), torch.tensor(numbers).view(2, 3).t())
    flat = flatten_parameters(policy.actor_parameters())
    assert flat.numel() == 6
    policy.net.head(torch.eye(3)).square().sum().backward()
    assert flat.grad is not None
    assert (flat.grad.abs() > 0).sum() == 4
    assert (policy.net.head.layers[-1].bias == 0).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden": [], "init_weights": [1.0, 2.0]}, r"init_weights has 2 numbers, but the policy has 2 outputs of 3"),
        ({"init_weights": [1.0]}, r"init_weights is for linear policies, but policy\.hidden is \[16\]"),
        ({"activation": "sigmoid"}, r"policy\.activation is 'sigmoid'; it must be tanh, relu, elu or silu"),
        ({"hidden": [64, 0]}, r"policy\.hidden is \[64, 0\]; every width must be at least 1"),
        ({"gru_size": 0}, "must be at least 1"),
        ({"kind": "transformer"}, "Unknown policy 'transformer'"),
        ({"groups": ["stat"]}, r"groups \['stat'\], but the environment has \['state'\]"),
        ({"kind": "cnn"}, r"policy=cnn needs images, but flat has only \['state'\].*env\.pixels\.height"),
    ],
)
def test_mistakes_are_named(config, message):
    with pytest.raises(RobotRLError, match=message):
        build(**config)


def test_an_mlp_on_images_alone_is_refused():
    spec = EnvSpec("seen", {"image/front": ArraySpec((3, 16, 16), "uint8")}, BOX)
    with pytest.raises(RobotRLError, match=r"nothing that policy=mlp reads. Use policy=cnn"):
        build(spec, kind="mlp")


def test_the_map_takes_the_unit_interval_to_the_bounds_and_clips():
    to_env = ActionMap(BOX).to_env
    raw = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [5.0, -5.0]])
    assert to_env(raw).tolist() == [[-2.0, 0.0], [0.0, 0.5], [2.0, 1.0], [2.0, 0.0]]


def test_the_map_leaves_unbounded_numbers_and_indices_as_they_are():
    inf = float("inf")
    to_env = ActionMap(ActionSpec("continuous", (3,), (-inf, 0.0, -1.0), (inf, inf, 3.0))).to_env
    assert to_env(torch.tensor([[7.0, 7.0, 7.0], [-7.0, -7.0, 0.0]])).tolist() == [[7.0, 7.0, 3.0], [-7.0, 0.0, 1.0]]
    index = torch.tensor([3, 1])
    assert ActionMap(ActionSpec("discrete", num_actions=4)).to_env(index) is index


def test_the_map_shapes_actions_that_are_no_vectors():
    spec = ActionSpec("continuous", (2, 2), (-1.0,) * 4, (1.0, 1.0, 3.0, 3.0))
    assert ActionMap(spec).to_env(torch.ones(5, 4)).shape == (5, 2, 2)
    assert ActionMap(spec).to_env(torch.ones(7, 5, 4))[0, 0].tolist() == [[1.0, 1.0], [3.0, 3.0]]


def change(**obs_or_action):
    obs = {**MANY.obs, **obs_or_action.pop("obs", {})}
    return replace(MANY, id="other", obs={k: v for k, v in obs.items() if v is not None}, **obs_or_action)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (change(obs={"state": None}), r"reads the observation group 'state', the env has \['grid', 'image/front'"),
        (change(obs={"state": ArraySpec((4,))}), r"'state' as float32\[3\], the env gives float32\[4\]"),
        (
            change(obs={"image/front": ArraySpec((3, 16, 16))}),
            r"'image/front' as uint8\[3, 16, 16\], the env gives float32",
        ),
        (change(action=ActionSpec("discrete", num_actions=6)), "its action is one of 5, the env's one of 6"),
        (change(action=BOX), r"its action is one of 5, the env's continuous \[2\]"),
        (change(obs={"grid": None, "phase": None}), r"'grid'.*; it reads the observation group 'phase'"),
    ],
)
def test_a_policy_says_in_what_an_env_differs(env, message):
    with pytest.raises(RobotRLError, match=f"A policy for many does not fit other: .*{message}"):
        build(MANY).check_env(env)


def test_other_bounds_are_refused_since_the_same_command_would_mean_something_else():
    wider = replace(FLAT, action=ActionSpec("continuous", (2,), (-2.0, 0.0), (2.0, 3.0)))
    with pytest.raises(RobotRLError, match=r"lies within \[-2, 2\] x \[0, 1\], the env's within \[-2, 2\] x \[0, 3\]"):
        build().check_env(wider)


def test_what_a_policy_does_not_read_may_differ():
    build(MANY).check_env(change(obs={"privileged": None, "extra": ArraySpec((9,))}, time_limit=7, control_hz=3.0))
    build(FLAT).check_env(replace(FLAT, id="again"))


def test_a_critic_of_its_architecture_shares_nothing_with_it():
    policy = build(kind="gru")
    critic = policy.network(1)
    assert critic.gru_size == policy.net.gru_size
    own = {p.data_ptr() for p in policy.parameters()}
    assert not own & {p.data_ptr() for p in critic.parameters()}
    sizes = [layer.out_features for layer in critic.head.layers]
    assert list(pairwise(sizes)) == [(16, 1)]


def test_tiny_envs_match_their_own_description():
    for name in ("ConstantReward", "Target", "Ragged", "Pick", "Memory", "MemoryContinuous", "Spot", "SpotContinuous"):
        env = getattr(envs, name)(num_envs=3)
        obs, _ = env.reset(seed=1)
        assert env.observation_space.contains(obs), name
        env.action_space.seed(2)
        for _ in range(9):
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            assert env.observation_space.contains(obs), name
            assert reward.dtype == np.float64
            assert terminated.dtype == truncated.dtype == np.bool_

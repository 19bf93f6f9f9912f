"""The ensemble of models on systems that are known."""

import pytest
import torch

from robotrl.types import ArraySpec, EnvSpec
from robotrl.world_models.dynamics import Dynamics
from robotrl.world_models.fit import ModelFit

SPECS = {"state": ArraySpec((2,)), "phase": ArraySpec(()), "token": ArraySpec((1,), "int64")}


def model(members=3, hidden=(32, 32)):
    torch.manual_seed(0)
    return Dynamics(SPECS, ("state", "phase"), 1, list(hidden), members)


def steps(count, seed, noise=0.0):
    """A damped mass with a force on it, whose third number counts; it terminates on the right."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator)
    force = torch.rand(count, 1, generator=generator) * 4.0 - 2.0
    following = torch.stack([x[:, 0] + 0.1 * x[:, 1], 0.9 * x[:, 1] + 0.2 * force[:, 0], x[:, 2] + 0.5], 1)
    following = following + noise * torch.randn(count, 3, generator=generator) * torch.tensor([0.0, 1.0, 0.0])
    return {
        "obs/state": x[:, :2], "obs/phase": x[:, 2], "next_obs/state": following[:, :2],
        "next_obs/phase": following[:, 2], "action": force, "reward": -x[:, 0].square(), "terminated": x[:, 0] > 0.5,
    }  # fmt: skip


def fitted(noise=0.0, updates=600):
    net = model()
    fit = ModelFit(net, lambda action: action / 2.0, 3e-3, 100.0)
    fit.take_in({key: value.unsqueeze(0) for key, value in steps(2000, 0, noise).items()})
    for i in range(updates):
        metrics = fit.step(steps(3 * 64, i, noise))
    return net, metrics


def test_it_learns_how_a_system_goes_on_what_it_rewards_and_when_it_ends():
    net, _ = fitted()
    fresh = steps(300, 99_999)
    obs, following = (
        net.vector({"state": fresh[f"{k}/state"], "phase": fresh[f"{k}/phase"]}) for k in ("obs", "next_obs")
    )
    found = net.step(obs.expand(3, -1, -1), (fresh["action"] / 2.0).expand(3, -1, -1), noise=False)
    assert (found.next_obs - following).abs().mean() < 0.02
    assert (found.reward - fresh["reward"]).abs().mean() < 0.1
    clear = (fresh["obs/state"][:, 0] - 0.5).abs() > 0.2
    assert (((found.going_on < 0.5) == fresh["terminated"])[:, clear].float().mean()) > 0.98


def test_it_tells_noise_from_what_it_knows():
    net, _ = fitted(noise=0.3)
    fresh = steps(500, 99_999)
    obs = net.vector({"state": fresh["obs/state"], "phase": fresh["obs/phase"]}).expand(3, -1, -1)
    drawn = torch.stack([net.step(obs, (fresh["action"] / 2.0).expand(3, -1, -1)).next_obs for _ in range(20)])
    spread = drawn.std(0).mean((0, 1))
    assert 0.2 < float(spread[1]) < 0.4
    assert float(spread[0]) < 0.1


def test_members_see_rows_of_their_own():
    net = model(members=2)
    x, a = torch.randn(2, 5, 3), torch.rand(2, 5, 1)
    both = net.predict(x, a)[0]
    swapped = net.predict(x.flip(0), a.flip(0))[0]
    assert not torch.allclose(both, swapped.flip(0))
    torch.testing.assert_close(
        net.predict(x[:1].expand(2, -1, -1), a[:1].expand(2, -1, -1))[0], net.predict(x[0], a[0])[0]
    )


def test_groups_and_vectors_are_each_others_inverse():
    net = model()
    obs = {"state": torch.randn(4, 2), "phase": torch.randn(4)}
    found = net.groups_of(net.vector(obs))
    assert found.keys() == obs.keys()
    assert all(torch.equal(found[key], obs[key]) for key in obs)


def test_an_update_that_is_not_finite_changes_no_weight():
    net = model()
    fit = ModelFit(net, lambda action: action, 1e-2, 100.0)
    part = steps(3 * 4, 0)
    part["reward"][1] = torch.nan
    before = [p.detach().clone() for p in net.parameters()]
    assert fit.step(part)["grad_norm/nonfinite"] == 1
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("noise", [0.0, 2.0, 3.5])
@pytest.mark.parametrize("steps_made", [1, 8, 15])
def test_coloured_noise_has_unit_variance_and_its_colour(noise, steps_made):
    from robotrl.policies.planner import coloured_noise

    torch.manual_seed(0)
    drawn = coloured_noise((400, 10), steps_made, 2, noise, device=torch.device("cpu"))
    assert drawn.shape == (400, 10, steps_made, 2)
    assert abs(float(drawn.square().mean().sqrt()) - 1.0) < 0.08
    if steps_made > 1:
        together = float((drawn[..., 1:, :] * drawn[..., :-1, :]).mean())
        assert together > 0.4 if noise else abs(together) < 0.05


class _Known(torch.nn.Module):
    """Rewards the first number that actions add up to for being near two."""

    members = 2

    def step(self, obs, action):
        from robotrl.world_models.dynamics import Step

        following = obs + action
        return Step(following, -(following[..., 0] - 2.0).square(), torch.ones(following.shape[:-1]))


@pytest.mark.parametrize("method", ["icem", "mppi"])
def test_the_planner_finds_the_best_actions_of_a_model_that_is_right(method):
    from robotrl.policies import build_policy
    from robotrl.policies.config import PlannerConfig, PolicyConfig
    from robotrl.types import ActionSpec

    torch.manual_seed(0)
    spec = EnvSpec("x", {"state": ArraySpec((1,))}, ActionSpec("continuous", (1,), (-2.0,), (2.0,)))
    planner = PlannerConfig(method=method, horizon=4, candidates=64, iterations=5)
    policy = build_policy(PolicyConfig(kind="planner", hidden=[8], models=2, planner=planner), spec)
    policy.model.step = _Known().step
    state = policy.initial_state(3)
    action, _, state = policy.act({"state": torch.tensor([[0.0], [1.5], [4.0]])}, state, explore=False)
    # in env units: all the way, half a unit (one env unit), and all the way back
    torch.testing.assert_close(action, torch.tensor([[2.0], [1.0], [-2.0]]), atol=0.25, rtol=0.0)
    assert (state["mean"][0] != 0).any()
    state = policy.reset_state(state, torch.tensor([True, False, False]))
    assert not state["mean"][0].any()
    assert not state["kept"][0].any()
    assert state["mean"][1].any()

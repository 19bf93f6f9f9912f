"""World-action policies: who sees whom, what acting costs, and that the future can be learned and shown."""

import pytest
import torch

from robotrl.nets.autoencoder import Autoencoder, patches, unpatched
from robotrl.policies import build_policy
from robotrl.policies.config import PolicyConfig
from robotrl.policies.io import load_policy, save_policy
from robotrl.policies.vla_config import VLAConfig, WAMConfig
from robotrl.seeding import seed_everything
from robotrl.types import ArraySpec, EnvSpec, RobotRLError
from tests.policies.test_vla import SPEC, TINY, data, observation


def wam(mask="gigaworld", spec=SPEC, steps=(2, 4), **vla):
    seed_everything(0)
    settings = WAMConfig(mask=mask, future_steps=list(steps), latent_channels=4, autoencoder_steps=3)
    policy = build_policy(PolicyConfig(kind="wam", vla=VLAConfig(**{**TINY, **vla}), wam=settings), spec)
    policy.fit(data(64, policy))
    return policy


def windows(count, policy, seed=1):
    rows = data(count, policy, seed)
    later = [observation(count, seed + 10 + k)["image/front"] for k in range(len(policy.future_steps))]
    now = rows["obs/image/front"]
    rows["obs/image/front"] = torch.cat([now, torch.stack(later)])
    rows["valid/obs/image/front"] = torch.ones(1 + len(later), count, dtype=torch.bool)
    return rows


def present(rows):
    return {k.removeprefix("obs/"): v[0] for k, v in rows.items() if k.startswith("obs/")}


def both(policy, count=3):
    """Velocities of noisy actions and of a noisy future, with what they came from."""
    torch.manual_seed(5)
    x = torch.randn(count, policy.chunk_size, 2, requires_grad=True)
    z = torch.randn(count, 2, policy.places, 16, requires_grad=True)
    obs = observation(count)
    now = policy.tokens_of_pictures(obs["image/front"].unsqueeze(1))
    flow, flow_f = policy.flows(policy.prefix(obs), x, torch.rand(count), z, torch.rand(count), now)
    return x, z, flow, flow_f


@pytest.mark.parametrize(
    ("mask", "actions_see_the_future", "the_future_sees_actions"),
    [("gigaworld", False, True), ("fastwam", False, False), ("none", True, True)],
)
def test_who_sees_whom(mask, actions_see_the_future, the_future_sees_actions):
    x, z, flow, flow_f = both(wam(mask))
    (by_future,) = torch.autograd.grad(flow.square().sum(), z, retain_graph=True, allow_unused=True)
    (by_action,) = torch.autograd.grad(flow_f.square().sum(), x, allow_unused=True)
    assert (by_future is not None and bool(by_future.any())) == actions_see_the_future
    assert (by_action is not None and bool(by_action.any())) == the_future_sees_actions


def test_the_loss_of_actions_has_no_gradient_by_the_future_even_through_the_pictures():
    policy = wam()
    rows = windows(4, policy)
    losses = []
    for seed in (1, 2):  # other futures, the same noise
        rows["obs/image/front"][1:] = torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8) * (seed - 1)
        torch.manual_seed(9)
        losses.append(policy.errors(present(rows), rows))
    assert torch.equal(losses[0]["flow"].value, losses[1]["flow"].value)
    assert not torch.equal(losses[0]["future"].value, losses[1]["future"].value)


@pytest.mark.parametrize("mask", ["gigaworld", "fastwam"])
@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("count", [1, 5])
def test_actions_are_bit_for_bit_the_same_with_and_without_the_future(mask, explore, count):
    policy, obs = wam(mask), observation(count)
    torch.manual_seed(3)
    alone, _ = policy.infer(obs, None, explore=explore)
    torch.manual_seed(3)
    beside, future = policy.imagine(obs, explore=explore)
    assert torch.equal(alone, beside)
    assert future.shape == (count, 2, policy.places, 16) and future.isfinite().all()


def test_without_a_mask_acting_needs_the_future():
    policy, obs = wam("none"), observation(2)
    assert torch.equal(policy.infer(obs, None, explore=False)[0], policy.imagine(obs)[0])


def test_the_future_counts_where_the_episode_still_lasts():
    policy = wam()
    rows = windows(4, policy)
    rows["valid/obs/image/front"][2, 1] = False
    errors = policy.errors(present(rows), rows)
    assert errors["future"].value.shape == errors["future"].valid.shape == (2, 4)
    assert errors["future"].valid.tolist() == [[True] * 4, [True, False, True, True]]
    assert policy.windows["obs/image/front"] == (0, 2, 4)
    assert policy.windows["obs/state"] == (0,)


def test_noise_levels_of_actions_and_future_are_independent():
    policy, levels = wam(flow_samples=1), []
    flows = policy.flows
    policy.flows = lambda seen, x, t, z, s, now, many=1: (levels.append((t, s)), flows(seen, x, t, z, s, now, many))[1]
    rows = windows(64, policy)
    for _ in range(6):
        policy.errors(present(rows), rows)
    t, s = (torch.cat(part) for part in zip(*levels, strict=True))
    assert torch.corrcoef(torch.stack([t, s]))[0, 1].abs() < 0.15
    assert s.mean() > 0.55  # moved towards the noise


def test_the_autoencoder_is_frozen_and_ships_with_the_policy(tmp_path):
    policy = wam()
    assert not any(p.requires_grad for p in policy.autoencoder.parameters())
    before = {k: v.clone() for k, v in policy.autoencoder.state_dict().items()}
    policy.fit(data(64, policy, seed=4))  # fitted before: it stays
    assert all(torch.equal(v, before[k]) for k, v in policy.autoencoder.state_dict().items())
    obs = observation(2)
    loaded = load_policy(save_policy(policy, tmp_path))
    chunk, future = policy.imagine(obs)
    again, future_again = loaded.imagine(obs)
    assert torch.equal(chunk, again) and torch.equal(future, future_again)
    shown = loaded.pictures_of_tokens(future_again)
    assert shown.dtype == torch.uint8 and shown.shape == (2, 2, 3, 16, 16)


def test_an_autoencoder_learns_pictures_and_patches_are_undone():
    seed_everything(1)
    pictures = torch.full((64, 3, 32, 32), 120, dtype=torch.uint8)
    for i, (row, column) in enumerate(torch.randint(0, 24, (64, 2)).tolist()):
        pictures[i, i % 3, row : row + 8, column : column + 8] = 250
    coder = Autoencoder((3, 32, 32), 8, 16)
    coder.fit(pictures, 200)
    latents = coder.encode(pictures)
    assert latents.shape == (64, 8, 8, 8)
    assert latents.mean().abs() < 1e-3 and latents.std().item() == pytest.approx(1.0, abs=0.05)
    error = (coder.decode(latents).float() - pictures.float()).square().mean()
    plain = (pictures.float().mean(0) - pictures.float()).square().mean()
    assert error < 0.4 * plain
    assert torch.equal(unpatched(patches(latents, 2), (8, 8), 2), latents)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mask": "causal"}, "mask is 'causal'; it must be one of: gigaworld, fastwam, none"),
        ({"future_steps": [0]}, r"future_steps is \[0\]; give at most 64 numbers"),
        ({"latent_channels": 0}, "latent_channels is 0"),
        ({"future_shift": 0.0}, "future_shift is 0.0; it must be greater than 0"),
    ],
)
def test_wrong_settings_are_told(settings, told):
    with pytest.raises(RobotRLError, match=told):
        WAMConfig(**settings)


def test_envs_without_pictures_and_other_heads_are_refused():
    blind = EnvSpec("blind", {"state": ArraySpec((4,))}, SPEC.action)
    with pytest.raises(RobotRLError, match=r"predicts what 'a camera' will see, but the policy reads no pictures"):
        wam(spec=blind)
    with pytest.raises(RobotRLError, match="makes actions by a flow"):
        wam(head="discrete")
    odd = EnvSpec("odd", {**SPEC.obs, "image/front": ArraySpec((3, 36, 36), "uint8")}, SPEC.action)
    with pytest.raises(RobotRLError, match="needs pictures whose sides are multiples of 16"):
        wam(spec=odd)

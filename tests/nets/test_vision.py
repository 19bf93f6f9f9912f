"""What sees images is trained by the critics' loss alone, on images that are shifted whole pixels at random."""

import numpy as np
import pytest
import torch

from robotrl.nets.flat import flatten_parameters
from robotrl.nets.network import Network, ObsInputs
from robotrl.nets.vision import Onlooker, SeeingEnsemble, Vision, _shifted, ensemble, random_shift
from robotrl.types import ArraySpec

SPECS = {
    "image/a": ArraySpec((3, 16, 16), "uint8"),
    "image/b": ArraySpec((2, 12, 20), "uint8"),
    "state": ArraySpec((3,)),
}


def pictures(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(40, 9, 16, 16), (25, 1, 7, 12), (3, 3, 5, 5)])
@pytest.mark.parametrize("pixels", [1, 4])
def test_every_picture_is_a_crop_of_its_edge_padded_self_by_an_offset_of_its_own(shape, pixels):
    torch.manual_seed(0)
    images = pictures(*shape)
    before, moved = images.clone(), random_shift(images, pixels)
    torch.manual_seed(0)
    pictures(*shape)
    gathered = _shifted(images, torch.randint(-pixels, pixels + 1, (2, shape[0])))
    assert torch.equal(moved, gathered), "on a GPU the same"
    assert moved.dtype == torch.uint8
    assert moved.shape == images.shape
    assert torch.equal(images, before)
    found = set()
    for image, result in zip(images.numpy(), moved.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (pixels, pixels), (pixels, pixels)), mode="edge")
        crops = {
            (y, x): padded[:, y : y + shape[2], x : x + shape[3]]
            for y in range(2 * pixels + 1)
            for x in range(2 * pixels + 1)
        }
        here = {offset for offset, crop in crops.items() if np.array_equal(crop, result)}
        assert here
        found |= here if len(here) == 1 else set()
    if shape[0] > 20:
        assert len(found) > 5, "offsets differ from picture to picture"


def test_offsets_reach_every_place_equally_often():
    torch.manual_seed(0)
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(20_000, -1, -1, -1)
    centres = random_shift(image, 2)[:, 0, 4, 4].long()
    counts = torch.bincount(centres, minlength=64)
    assert (counts > 0).sum() == 25
    assert counts[counts > 0].float().std() < 60  # 800 each


def test_no_shift_gives_the_same_pictures_and_draws_nothing():
    images, state = pictures(4, 3, 8, 8), torch.get_rng_state()
    assert random_shift(images, 0) is images
    assert torch.equal(torch.get_rng_state(), state)


def test_an_ensemble_behind_projections_takes_gradients_back_as_autograd_does():
    torch.manual_seed(0)
    net = ensemble([6, 4], 3, 5, [16], 2, activation="relu")
    assert isinstance(net, SeeingEnsemble)
    flat = flatten_parameters(net.parameters())
    x = torch.randn(7, 15, requires_grad=True)
    weight = torch.randn(2, 7, 1)
    net(x).backward(weight)
    by_weights, by_x = flat.grad.clone(), x.grad.clone()
    all_of_it, last = {"to_x": slice(None)}, {"to_x": slice(-2, None)}
    for wanted in ({}, all_of_it, last, {"to_weights": False} | all_of_it, {"to_weights": False} | last):
        flat.grad.fill_(7.0)
        out, pull = net.pullback(x.detach())
        torch.testing.assert_close(out, net(x).detach())
        found = pull(weight, **wanted)
        if wanted.get("to_weights", True):
            torch.testing.assert_close(flat.grad, by_weights, atol=1e-6, rtol=1e-4)
        else:
            assert (flat.grad == 7.0).all()
        if "to_x" in wanted:
            torch.testing.assert_close(found, by_x[:, wanted["to_x"]], atol=1e-6, rtol=1e-4)
        else:
            assert found is None


def seeing(shift=0, dtype=torch.float32):
    torch.manual_seed(0)
    inputs = ObsInputs(SPECS, list(SPECS), normalise=False)
    net = Network(inputs, 2, hidden=[8], activation="relu", image_features=4, image_channels=4)
    return inputs, net, Vision(net, 1e-2, shift=shift, dtype=dtype)


def rows(count=6):
    both = {
        f"{prefix}/{name}": torch.randn(count, 3) if name == "state" else pictures(count, *spec.shape)
        for prefix in ("obs", "next_obs")
        for name, spec in SPECS.items()
    }
    return both | {"reward": torch.zeros(count)}


def test_seen_rows_give_the_head_what_pictures_would_and_have_no_gradient():
    inputs, net, vision = seeing()
    given = rows()
    seen = vision.see(given)
    assert seen["obs/state"] is given["obs/state"]
    for prefix in ("obs", "next_obs"):
        of = {name: given[f"{prefix}/{name}"] for name in SPECS}
        after = {name: seen[f"{prefix}/{name}"] for name in SPECS}
        torch.testing.assert_close(net.features(inputs(after)), net.features(inputs(of)))
        assert not any(value.requires_grad for value in after.values())


def test_a_step_moves_the_convolutions_along_the_gradient_of_what_was_seen_and_nothing_else():
    _, net, vision = seeing()
    seeing_parameters = {id(p) for p in net.seeing_parameters()}
    others = [p.detach().clone() for p in net.parameters() if id(p) not in seeing_parameters]
    before, given = vision._flat.detach().clone(), rows()
    seen = vision.see(given)
    wide = torch.cat([seen["obs/image/a"], seen["obs/image/b"]], 1)
    by_seen = torch.randn_like(wide)
    seen_again = [e.see(given[f"obs/{n}"]) for n, e in vision._encoders.items()]
    expected = torch.autograd.grad((torch.cat(seen_again, 1) * by_seen).sum(), net.seeing_parameters())
    norm = vision.step(torch.cat([by_seen, torch.randn(6, 5)], 1))
    flat = torch.cat([g.flatten() for g in expected])
    torch.testing.assert_close(vision._flat.grad, flat)
    torch.testing.assert_close(norm, flat.norm())
    assert not torch.equal(vision._flat, before)
    now = [p for p in net.parameters() if id(p) not in seeing_parameters]
    assert all(torch.equal(a, b) for a, b in zip(others, now, strict=True))


def test_an_onlooker_sees_numbers_as_they_are_and_projects_what_the_convolutions_see():
    inputs, net, vision = seeing()
    onlooker, given = Onlooker(net, vision, 3, 5), rows()
    plain = inputs({name: given[f"obs/{name}"] for name in SPECS})
    seen = onlooker(plain)
    assert seen.shape == (6, onlooker.dim) == (6, 13)
    assert torch.equal(seen[:, 10:], given["obs/state"])
    expected = onlooker.projections[1](net.encoders[1].see(given["obs/image/b"]))
    torch.testing.assert_close(seen[:, 5:10], expected.detach())
    assert not any(p.requires_grad for p in onlooker.parameters())
    assert torch.equal(Onlooker(net, None, 3, 5)({"vector": given["obs/state"]}), given["obs/state"])


def test_bfloat16_sees_the_same_but_for_rounding():
    _, _, exact = seeing()
    _, _, rounded = seeing(dtype=torch.bfloat16)
    given = rows()
    one, other = exact.see(given), rounded.see(given)
    assert other["obs/image/a"].dtype == torch.float32
    error = (one["obs/image/a"] - other["obs/image/a"]).norm() / one["obs/image/a"].norm()
    assert 0 < error < 0.02

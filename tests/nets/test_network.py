import numpy as np
import pytest
import torch

from robotrl.nets.cnn import CNN
from robotrl.nets.flat import flatten_parameters, zero_gradient
from robotrl.nets.network import VECTOR, Network, ObsInputs
from robotrl.nets.normaliser import Normaliser
from robotrl.types import ArraySpec, RobotRLError

SPECS = {
    "state": ArraySpec((3,)),
    "grid": ArraySpec((2, 2)),
    "phase": ArraySpec(()),
    "token": ArraySpec((2,), "int64"),
    "image/a": ArraySpec((3, 16, 16), "uint8"),
    "image/b": ArraySpec((1, 9, 30), "uint8"),
}


def obs(*lead):
    torch.manual_seed(2)
    numbers = {k: torch.randn(*lead, *s.shape) for k, s in SPECS.items() if s.dtype == "float32"}
    images = {k: torch.randint(0, 256, (*lead, *s.shape), dtype=torch.uint8) for k, s in SPECS.items() if "image" in k}
    return {**numbers, **images, "token": torch.randint(0, 9, (*lead, 2))}


@pytest.mark.parametrize("pieces", [[100], [1, 99], [30, 50, 20], [1] * 10])
def test_merged_moments_are_those_of_all_data_together(pieces):
    rng = np.random.default_rng(0)
    data = rng.normal([1e4, 0.0, -3.0], [1e-2, 5.0, 1.0], (sum(pieces), 3))
    normaliser, start = Normaliser(3), 0
    for size in pieces:
        normaliser.merge(*Normaliser.moments(torch.from_numpy(data[start : start + size])))
        start += size
    assert float(normaliser.count) == sum(pieces)
    np.testing.assert_allclose(normaliser.mean, data.mean(0), rtol=1e-12)
    np.testing.assert_allclose(normaliser.var, data.var(0), rtol=1e-6)


def test_it_normalises_and_clips_and_changes_only_by_merge():
    normaliser = Normaliser(2, clip=4.0)
    x = torch.randn(1000, 2) * torch.tensor([3.0, 0.1]) + torch.tensor([5.0, -1.0])
    assert torch.equal(normaliser(x.clamp(-4, 4)), x.clamp(-4, 4))  # nothing known yet
    normaliser.merge(*Normaliser.moments(x.view(10, 100, 2)))
    y = normaliser(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(2), atol=0.02, rtol=0)
    torch.testing.assert_close(y.std(0), torch.ones(2), atol=0.03, rtol=0)
    assert normaliser(torch.tensor([[1e9, -1e9]])).tolist() == [[4.0, -4.0]]
    before = x.clone()
    normaliser(x)
    assert torch.equal(x, before)


def test_a_constant_input_is_finite():
    normaliser = Normaliser(1)
    normaliser.merge(*Normaliser.moments(torch.full((50, 1), 7.0)))
    assert torch.isfinite(normaliser(torch.tensor([[7.0], [8.0]]))).all()
    assert normaliser(torch.tensor([[7.0]])).item() == 0.0


def test_a_loaded_normaliser_normalises_alike():
    first, second = Normaliser(2), Normaliser(2)
    first.merge(*Normaliser.moments(torch.randn(50, 2) * 3 + 1))
    second.load_state_dict(first.state_dict())
    x = torch.randn(5, 2)
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("lead", [(5,), (4, 5)])
def test_number_groups_become_one_vector_in_the_order_asked_for_and_images_pass(lead):
    seen = obs(*lead)
    inputs = ObsInputs(SPECS, ["phase", "image/b", "grid", "token", "state"], normalise=False)(seen)
    assert inputs.keys() == {VECTOR, "image/b"}
    parts = [seen["phase"].unsqueeze(-1), seen["grid"].flatten(-2), seen["token"].float(), seen["state"]]
    assert torch.equal(inputs[VECTOR], torch.cat(parts, -1))
    assert inputs["image/b"] is seen["image/b"]


def test_images_alone_need_no_normaliser():
    inputs = ObsInputs(SPECS, ["image/a"])
    assert inputs.normaliser is None
    assert inputs.moments(obs(4)) is None
    assert inputs(obs(4)).keys() == {"image/a"}


def test_a_group_that_is_not_there_is_named():
    with pytest.raises(RobotRLError, match=r"groups \['lidar'\], but the environment has .*Set policy\.groups"):
        ObsInputs(SPECS, ["state", "lidar"])


@pytest.mark.parametrize("groups", [["state"], ["state", "grid", "image/a"], ["image/a", "image/b"]])
@pytest.mark.parametrize("gru_size", [0, 6])
def test_a_sequence_equals_its_steps_and_forgets_at_episode_starts(groups, gru_size):
    torch.manual_seed(0)
    inputs = ObsInputs(SPECS, groups)
    net = Network(inputs, 2, hidden=[8], gru_size=gru_size, image_features=4)
    seen, is_first = inputs(obs(7, 3)), torch.rand(7, 3) < 0.4
    hidden = start = torch.randn(3, gru_size)
    outs = []
    for t in range(7):
        out, hidden = net({k: v[t] for k, v in seen.items()}, hidden * ~is_first[t].unsqueeze(-1))
        outs.append(out)
    whole, after = net.sequence(seen, start, is_first)
    torch.testing.assert_close(whole, torch.stack(outs), rtol=0, atol=1e-6)
    assert after.shape == (7, 3, gru_size)
    torch.testing.assert_close(after[-1], hidden, rtol=0, atol=1e-6)


def test_gradients_of_a_sequence_stop_at_episode_starts():
    net = Network(ObsInputs(SPECS, ["state"], normalise=False), 1, hidden=[8], gru_size=6)
    x = torch.randn(5, 2, 3, requires_grad=True)
    is_first = torch.zeros(5, 2, dtype=torch.bool)
    is_first[3, 0] = True
    net.sequence({VECTOR: x}, torch.zeros(2, 6), is_first)[0][4].sum().backward()
    assert (x.grad[:3, 0] == 0).all()
    assert (x.grad[:3, 1] != 0).any()


@pytest.mark.parametrize("groups", [["state"], ["state", "image/a"]])
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
def test_a_pullback_gives_outputs_of_all_inputs_and_the_gradient_of_the_first(groups, activation):
    torch.manual_seed(0)
    inputs = ObsInputs(SPECS, groups)
    net = Network(inputs, 2, hidden=[8, 5], image_features=4, activation=activation)
    flat = flatten_parameters(net.parameters())
    seen, weight = inputs(obs(11)), torch.randn(6, 2)
    first, rest = ({name: value[part] for name, value in seen.items()} for part in (slice(6), slice(6, None)))
    nothing = torch.zeros(0, 0)
    expected = net(seen, nothing)[0].detach()
    (net(first, nothing)[0] * weight).sum().backward()
    by_weights = flat.grad.clone()
    for more, outputs in ((None, expected[:6]), (rest, expected)):
        flat.grad.fill_(7.0)
        out, pull = net.pullback(first, more=more)
        assert not out.requires_grad
        torch.testing.assert_close(out, outputs, atol=1e-6, rtol=1e-5)
        pull(weight)
        torch.testing.assert_close(flat.grad, by_weights, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "convolutions"), [((3, 64, 64), 3), ((1, 8, 8), 0), ((4, 84, 84), 4), ((3, 9, 33), 1), ((1, 12, 12), 1)]
)
def test_the_encoder_halves_until_eight_pixels_remain(shape, convolutions):
    net = CNN(shape, features=10)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) == convolutions
    images = torch.randint(0, 256, (2, 5, *shape), dtype=torch.uint8)
    out = net(images)
    assert out.shape == (2, 5, 10)
    assert (out.abs() <= 1).all()
    torch.testing.assert_close(out[1, 3], net(images[1, 3].unsqueeze(0))[0])
    assert images.dtype == torch.uint8


def test_the_encoder_tells_pictures_apart():
    torch.manual_seed(0)
    net = CNN((1, 16, 16), features=8)
    black, white = torch.zeros(1, 1, 16, 16, dtype=torch.uint8), torch.full((1, 1, 16, 16), 255, dtype=torch.uint8)
    assert (net(black) - net(white)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("groups", "options"),
    [
        (["state"], {}),
        (["state"], {"activation": "relu"}),
        (["state"], {"activation": "elu"}),
        (["state"], {"gru_size": 6}),
        (["state", "image/a"], {}),
    ],
)
def test_a_sequence_s_pullback_gives_the_gradients_of_autograd(groups, options):
    torch.manual_seed(0)
    net = Network(ObsInputs(SPECS, groups, normalise=False), 2, hidden=[8, 8], **options)
    flat = flatten_parameters(net.parameters())
    inputs = {VECTOR: torch.randn(3, 4, 3)}
    if "image/a" in groups:
        inputs["image/a"] = torch.randint(0, 256, (3, 4, *SPECS["image/a"].shape), dtype=torch.uint8)
    hidden, is_first, grad = torch.randn(4, net.gru_size), torch.rand(3, 4) < 0.3, torch.randn(3, 4, 2)
    zero_gradient(flat)
    expected, _ = net.sequence(inputs, hidden, is_first)
    expected.backward(grad)
    wanted = flat.grad.clone()
    flat.grad.fill_(7.0)  # what was there is overwritten
    out, pull = net.sequence_pullback(inputs, hidden, is_first)
    pull(grad)
    torch.testing.assert_close(out, expected.detach())
    torch.testing.assert_close(flat.grad, wanted)

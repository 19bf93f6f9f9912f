"""The world model has the published shape, starts from zero, forgets at an episode's start, and learns a batch."""

import dataclasses
import math

import pytest
import torch

from robotrl.nets.normed import NormedMLP
from robotrl.types import ActionSpec, ArraySpec, EnvSpec, RobotRLError
from robotrl.world_models import SIZES, Perception, WorldModel, model_size
from robotrl.world_models.codec import convolve_doubled
from robotrl.world_models.heads import TwoHotHead
from robotrl.world_models.rssm import RSSM, UNIMIX, kl_divergence

WALKER = EnvSpec(
    "walker",
    {"orientations": ArraySpec((14,)), "height": ArraySpec(()), "velocity": ArraySpec((9,))},
    ActionSpec("continuous", (6,), (-1.0,) * 6, (1.0,) * 6),
)
CAMERA = EnvSpec(
    "camera",
    {"image/front": ArraySpec((3, 64, 64), "uint8"), "state": ArraySpec((2,))},
    ActionSpec("discrete", num_actions=4),
)
T, B = 6, 3


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def some_obs(spec, *lead):
    def draw(array):
        if array.dtype == "uint8":
            return torch.randint(0, 256, (*lead, *array.shape), dtype=torch.uint8)
        return torch.randn(*lead, *array.shape)

    return {name: draw(array) for name, array in spec.obs.items()}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return WorldModel(Perception(WALKER, "size1m"))


def test_size1m_on_walker_has_the_published_number_of_parameters(model):
    size = SIZES["size1m"]
    actor = NormedMLP(size.features, [size.units] * 3, 12)
    critic = TwoHotHead(size.features, [size.units] * 3)
    assert count(model, actor, critic) == 640_867


def test_rewards_and_values_are_exactly_zero_at_first(model):
    features = torch.randn(5, model.perception.size.features)
    assert torch.equal(model.reward.mean(features), torch.zeros(5))


def test_a_sequence_is_the_same_as_its_steps_one_by_one(model):
    obs, action, is_first = some_obs(WALKER, T, B), torch.randn(T, B, 6), torch.rand(T, B) < 0.3
    state = {k: torch.randn_like(v) for k, v in model.perception.initial(B).items()}
    torch.manual_seed(1)
    whole = model.observe(obs, action, is_first, state)
    torch.manual_seed(1)
    for t in range(T):
        step = model.perception.observe_step({k: v[t] for k, v in obs.items()}, action[t], is_first[t], state)
        state = {"deter": step.deter, "stoch": step.stoch}
        for one, other in zip(step, whole, strict=True):
            torch.testing.assert_close(one, other[t], atol=1e-5, rtol=1e-5)


def test_nothing_from_before_an_episodes_start_reaches_it(model):
    obs = some_obs(WALKER, 1, B)
    first = torch.ones(1, B, dtype=torch.bool)
    noise = {k: torch.randn_like(v) for k, v in model.perception.initial(B).items()}
    one = model.observe(obs, torch.randn(1, B, 6), first, noise)
    other = model.observe(obs, torch.zeros(1, B, 6), first, model.perception.initial(B))
    assert torch.equal(one.deter, other.deter)
    assert torch.equal(one.logits, other.logits)


def test_every_class_keeps_its_share_of_the_uniform(model):
    deter = 100.0 * torch.randn(9, 512)
    probs = model.rssm.prior(deter).exp()
    assert probs.min() >= UNIMIX / 4 * 0.999
    torch.testing.assert_close(probs.sum(-1), torch.ones(9, 32))


def test_divergences_have_a_floor_and_stop_the_gradient_of_one_side(model):
    obs, first = some_obs(WALKER, T, B), torch.zeros(T, B, dtype=torch.bool)
    latents = model.observe(obs, torch.randn(T, B, 6), first, model.perception.initial(B))
    same = latents._replace(logits=model.rssm.prior(latents.deter))
    losses = model.losses(same, obs, torch.zeros(T, B), first)
    assert torch.equal(losses["dynamics"], torch.ones(T, B))
    assert torch.equal(losses["representation"], torch.ones(T, B))
    far = latents._replace(logits=torch.log_softmax(100.0 * torch.randn_like(latents.logits), -1))
    losses = model.losses(far, obs, torch.zeros(T, B), first)
    prior = list(model.rssm.prior_net.parameters())
    assert (losses["dynamics"] > 1.0).all()
    assert all(g.any() for g in torch.autograd.grad(losses["dynamics"].sum(), prior))
    assert not losses["representation"].requires_grad, "here the posterior is data, and the prior is never its target"


def test_the_divergence_is_that_of_torch():
    p, q = torch.log_softmax(torch.randn(5, 4, 3), -1), torch.log_softmax(torch.randn(5, 4, 3), -1)
    categorical = torch.distributions.Categorical
    expected = torch.distributions.kl_divergence(categorical(logits=p), categorical(logits=q)).sum(-1)
    torch.testing.assert_close(kl_divergence(p, q), expected)


def test_continuation_holds_the_discount():
    model = WorldModel(Perception(WALKER, "size1m"), gamma=0.9)
    head, features = model.going_on, torch.randn(4, model.perception.size.features)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    terminal = torch.tensor([False, False, True, True])
    for _ in range(300):
        optimiser.zero_grad()
        head.loss(features, terminal).sum().backward()
        optimiser.step()
    torch.testing.assert_close(head.discount(features), torch.tensor([0.9, 0.9, 0.0, 0.0]), atol=0.03, rtol=0.0)


def test_images_and_discrete_actions_go_in_and_come_out():
    perception = Perception(CAMERA, "size1m")
    model = WorldModel(perception)
    obs, first = some_obs(CAMERA, T, B), torch.zeros(T, B, dtype=torch.bool)
    action = perception.actions(torch.randint(0, 4, (T, B)))
    assert action.shape == (T, B, 4)
    latents = model.observe(obs, action, first, perception.initial(B))
    decoded = model.decode(latents.features)
    for name, spec in CAMERA.obs.items():
        assert decoded[name].shape == (T, B, *spec.shape)
        assert str(decoded[name].dtype) == f"torch.{spec.dtype}"
    losses = model.losses(latents, obs, torch.zeros(T, B), first)
    assert {"reconstruction/image/front", "reconstruction/state", "reward", "continue"} < set(losses)
    assert all(loss.shape == (T, B) and loss.isfinite().all() for loss in losses.values())


def test_the_decoder_convolves_a_doubled_image_that_it_never_makes():
    torch.manual_seed(0)
    conv, image = torch.nn.Conv2d(3, 5, 5, padding=2), torch.randn(2, 3, 6, 4, requires_grad=True)
    doubled = torch.nn.functional.interpolate(image, scale_factor=2.0)
    found, true = convolve_doubled(image, conv), conv(doubled)
    torch.testing.assert_close(found, true)
    grads = [torch.autograd.grad(out.square().sum(), [image, conv.weight, conv.bias]) for out in (found, true)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_normalised_numbers_are_in_units_of_their_deviation_and_decoded_in_the_envs():
    perception = Perception(WALKER, "size1m", normalise=True)
    obs = {name: 50.0 + 8.0 * x for name, x in some_obs(WALKER, 40, B).items()}
    perception.take_in({name: x[:30] for name, x in obs.items()})
    perception.take_in({name: x[30:] for name, x in obs.items()})
    for name, seen in perception.normalised(obs).items():
        flat = seen.reshape(40 * B, -1)
        torch.testing.assert_close(flat.mean(0), torch.zeros(flat.shape[1]), atol=1e-5, rtol=0.0)
        torch.testing.assert_close(flat.std(0, correction=0), torch.ones(flat.shape[1]))
        torch.testing.assert_close(perception.restored({**obs, name: seen})[name], obs[name])


def test_with_normalisation_the_envs_units_change_neither_states_nor_losses():
    found = []
    for unit in (1.0, 1000.0):
        torch.manual_seed(0)
        model = WorldModel(Perception(WALKER, "size1m", normalise=True))
        obs = {name: unit * x for name, x in some_obs(WALKER, T, B).items()}
        first = torch.zeros(T, B, dtype=torch.bool)
        model.perception.take_in(obs)
        latents = model.observe(obs, torch.randn(T, B, 6), first, model.perception.initial(B))
        found.append({"deter": latents.deter, **model.losses(latents, obs, torch.zeros(T, B), first)})
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, atol=1e-4, rtol=1e-4)


def test_normalisation_leaves_images_alone():
    perception, obs = Perception(CAMERA, "size1m", normalise=True), some_obs(CAMERA, T, B)
    perception.take_in(obs)
    assert perception.normalised(obs)["image/front"] is obs["image/front"]
    assert list(perception.normalisers) == ["state"]


def test_imagination_begins_where_it_is_told_and_takes_the_actions_it_is_given(model):
    state = model.perception.initial(B)
    given = torch.randn(4, B, 6)
    steps = iter(given)
    with torch.no_grad():
        dream = model.imagine(state["deter"], state["stoch"], lambda features: next(steps), 4)
    assert dream.features.shape == (5, B, model.perception.size.features)
    assert torch.equal(dream.action, given)
    assert torch.equal(dream.features[0], torch.cat([state["deter"], state["stoch"]], -1))


@pytest.mark.parametrize("classes", [4, 16])
def test_probabilities_are_softmax_with_a_share_of_the_uniform(classes):
    size = dataclasses.replace(model_size("size1m"), classes=classes)
    raw = (10.0 * torch.randn(3, size.stoch)).requires_grad_()
    found = RSSM(2, 8, size)._probs(raw)
    right = 0.99 * torch.softmax(raw.view(3, size.latents, classes), -1) + 0.01 / classes
    torch.testing.assert_close(found, right)
    toward = torch.randn_like(right)
    torch.testing.assert_close(torch.autograd.grad(found, raw, toward), torch.autograd.grad(right, raw, toward))


def test_imagination_in_bfloat16_is_nearly_that_in_float32(model):
    state = {k: torch.rand_like(v) for k, v in model.perception.initial(B).items()}
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(model.imagine(state["deter"], state["stoch"], lambda f: f[:, :6].float(), 1).features)
    assert found[0].dtype == torch.float32
    assert found[1].dtype == torch.bfloat16
    torch.testing.assert_close(found[1][1, :, :512].float(), found[0][1, :, :512], atol=0.02, rtol=0.02)


def test_actions_are_scaled_to_the_models_units():
    spec = EnvSpec("x", WALKER.obs, ActionSpec("continuous", (2,), (-2.0, -math.inf), (4.0, math.inf)))
    code = Perception(spec, "size1m").actions
    torch.testing.assert_close(code(torch.tensor([[4.0, 7.0], [1.0, -7.0]])), torch.tensor([[1.0, 7.0], [0.0, -7.0]]))


@pytest.mark.learn
def test_one_batch_is_learnt_by_heart(model):
    torch.manual_seed(0)
    obs = {name: value[:, :2] for name, value in some_obs(WALKER, 4, 2).items()}
    action, reward = torch.randn(4, 2, 6), torch.randn(4, 2)
    first = torch.zeros(4, 2, dtype=torch.bool)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(400):
        latents = model.observe(obs, action, first, model.perception.initial(2))
        losses = model.losses(latents, obs, reward, first)
        optimiser.zero_grad()
        sum(loss.mean() for loss in losses.values()).backward()
        optimiser.step()
    error = sum(v.mean() for k, v in losses.items() if k.startswith("reconstruction")) / 24
    assert error < 0.01
    assert (model.reward.mean(latents.features) - reward).abs().max() < 0.3


@pytest.mark.parametrize(
    ("spec", "size", "told"),
    [
        (WALKER, "size2m", r"no world model size 'size2m'\. Did you mean .*'size12m'.* Known: tiny, size1m"),
        (EnvSpec("x", {"image/a": ArraySpec((3, 40, 64), "uint8")}, WALKER.action), "size1m", "40x64 .*such as 64"),
        (EnvSpec("x", {"privileged": ArraySpec((3,))}, WALKER.action), "size1m", "at least one observation group"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(spec, size, told):
    with pytest.raises(RobotRLError, match=told):
        Perception(spec, size)


def test_an_unknown_group_is_refused_by_name():
    with pytest.raises(RobotRLError, match=r"groups \['touch'\], but walker has"):
        Perception(WALKER, "size1m", groups=("touch",))


@pytest.mark.parametrize("name", SIZES)
def test_blocks_and_classes_divide_every_size(name):
    size = model_size(name)
    assert size.deter % size.blocks == 0
    assert size.features == size.deter + size.latents * size.classes

"""The scripted loops over time give what plain code with autograd gives, gradients included."""

import pytest
import torch

from robotrl.nets.normed import normed_silu
from robotrl.world_models.recurrence import drawn, gated_pull, gated_run
from robotrl.world_models.rssm import RSSM
from robotrl.world_models.sizes import SIZES

T, B = 5, 4


@pytest.fixture
def rssm():
    torch.manual_seed(0)
    made = RSSM(3, 20, SIZES["tiny"]).double()
    for p in made.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return made


def layer(it, x):
    return normed_silu(it.linear(x), it.norm)


def plainly(rssm, tokens, action, is_first, state, uniform):
    """Eq. 3, one operation after the other."""
    s = rssm.size
    keep = (~is_first).double().unsqueeze(-1)
    deter, stoch, steps = state["deter"], state["stoch"], []
    for t in range(T):
        deter, stoch = deter * keep[t], stoch * keep[t]
        shared = [layer(rssm.deter_in, deter), layer(rssm.stoch_in, stoch), rssm.embed_action(action[t] * keep[t])]
        by_block = deter.unflatten(1, (s.blocks, -1)).transpose(0, 1)
        x = (torch.cat(shared, 1) @ rssm.core.shared).unflatten(1, (s.blocks, -1)).transpose(0, 1)
        x = x + by_block @ rssm.core.weight + rssm.core.bias
        x = normed_silu(x.transpose(0, 1).flatten(1), rssm.core_norm).unflatten(1, (s.blocks, -1)).transpose(0, 1)
        gates = (x @ rssm.gates.weight + rssm.gates.bias).transpose(0, 1).unflatten(2, (3, -1))
        reset, candidate, update = gates.unbind(2)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate).flatten(1)
        deter = torch.lerp(deter, candidate, torch.sigmoid(update - 1.0).flatten(1))
        hidden = layer(rssm.posterior_in, torch.cat([deter, tokens[t]], 1))
        probs = torch.softmax(rssm.posterior_out(hidden).unflatten(1, (s.latents, s.classes)), -1)
        probs = 0.99 * probs + 0.01 / s.classes
        chosen = (probs.cumsum(-1)[..., :-1] <= uniform[t].transpose(-1, -2)).sum(-1)
        sample = torch.nn.functional.one_hot(chosen, s.classes)
        stoch = (sample + probs - probs.detach()).flatten(1)  # the gradient of the probabilities
        steps.append((deter, stoch, probs.log()))
    return [torch.stack(values) for values in zip(*steps, strict=True)]


def test_a_sequence_and_all_its_gradients_are_those_of_plain_code(rssm):
    tokens = torch.randn(T, B, 20, dtype=torch.float64, requires_grad=True)
    action = torch.randn(T, B, 3, dtype=torch.float64, requires_grad=True)
    is_first = torch.rand(T, B) < 0.3
    state = {k: torch.randn_like(v).requires_grad_() for k, v in rssm.initial(B).items()}
    torch.manual_seed(1)
    uniform = torch.rand(T, B, 1, rssm.size.latents, dtype=torch.float64)
    right = plainly(rssm, tokens, action, is_first, state, uniform)
    by = [tokens, action, *state.values(), *(p for n, p in rssm.named_parameters() if not n.startswith("prior"))]
    towards = [torch.randn_like(value) for value in right]
    gradients = torch.autograd.grad(right, by, towards)
    for _ in range(3):  # a script is compiled anew once it has seen what it works on
        torch.manual_seed(1)
        found = rssm.observe(tokens, action, is_first, state)
        for one, other in zip(found, right, strict=True):
            torch.testing.assert_close(one, other)
        for one, other in zip(torch.autograd.grad(found, by, towards), gradients, strict=True):
            torch.testing.assert_close(one, other)
    torch.manual_seed(1)
    with torch.no_grad():
        without = rssm.observe(tokens, action, is_first, state)
    assert all(torch.equal(one, other) for one, other in zip(without, found, strict=True))


def test_taking_in_a_sequence_stays_in_float32_whatever_autocast_says(rssm):
    rssm = rssm.float()
    given = torch.randn(T, B, 20), torch.randn(T, B, 3), torch.zeros(T, B, dtype=torch.bool), rssm.initial(B)
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(rssm.observe(*given))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_samples_are_one_hot_and_follow_their_probabilities():
    probs = torch.tensor([0.7, 0.2, 0.1])
    torch.manual_seed(0)
    samples = drawn(probs.unsqueeze(-1).expand(20_000, 3, 2), torch.rand(20_000, 1, 2)).unflatten(-1, (2, 3))
    assert torch.equal(samples.sum(-1), torch.ones(20_000, 2))
    assert torch.equal(samples.max(-1).values, torch.ones(20_000, 2))
    torch.testing.assert_close(samples.mean((0, 1)), probs, atol=0.015, rtol=0.0)


def test_a_sample_is_the_first_class_whose_cumulative_probability_lies_above_the_number():
    probs = torch.tensor([[0.5, 0.0], [0.0, 0.25], [0.5, 0.5]])  # classes, latents; the second's do not add up to 1
    samples = drawn(probs, torch.tensor([[0.5, 0.9]]))
    assert torch.equal(samples, torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0]))


def test_the_cells_last_step_has_the_gradient_of_what_it_is_put_together_from():
    torch.manual_seed(0)
    deter, gates = torch.randn(5, 24, requires_grad=True), (3.0 * torch.randn(5, 4, 18)).requires_grad_()
    reset, candidate, update = gates.unflatten(2, (3, 6)).unbind(2)
    moved = torch.tanh(torch.sigmoid(reset) * candidate / -2.0).flatten(1)
    plain = torch.lerp(deter, moved, torch.sigmoid(update).flatten(1))
    one, *kept = gated_run(deter.detach(), gates.detach())
    torch.testing.assert_close(one, plain)
    toward = torch.randn(5, 24)
    right = torch.autograd.grad(plain, (deter, gates), toward)
    by_deter, by_gates = gated_pull(toward, deter.detach(), *kept)
    torch.testing.assert_close(by_deter, right[0])
    torch.testing.assert_close(by_gates.flatten(2), right[1])

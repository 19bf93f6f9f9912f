"""What is particular to Dreamer; what holds for every learner is in `test_every_learner.py`."""

import pytest
import torch

from robotrl.learners.dreamer import DreamerConfig
from robotrl.policies.io import load_policy, save_policy
from robotrl.seeding import seed_everything
from robotrl.types import Progress, RobotRLError
from tests import envs_for_tests as envs
from tests.learners.cases import make


def with_data(env=None, steps=40, **config):
    parts = make("dreamer", env or envs.Clock(num_envs=3, length=4), **config)
    parts.replay.add(parts.collector.collect(parts.learner.acting, steps))
    return parts


def a_batch(parts):
    (batch,) = parts.replay.batches(parts.learner.batch_spec, 1)
    return batch


def test_a_reward_belongs_to_the_observation_it_came_with():
    parts = with_data()
    part = a_batch(parts)["online"]
    part["reward"] = part["obs/state"][..., 1] + 10.0 * part["obs/state"][..., 0]  # names the step that earned it
    seen = parts.learner._observe_sequences(part)
    before, first = seen.rows["reward_before"], seen.rows["is_first"]
    assert (before[first] == 0.0).all()
    assert torch.equal(before[~first] + 1.0, seen.rows["reward"][~first])


def test_the_last_observation_of_an_episode_is_taken_in_with_its_reward_and_its_end():
    parts = with_data(envs.Clock(num_envs=3, length=4, ends="terminated"))
    learner, part = parts.learner, a_batch(parts)["online"]
    seen = learner._observe_sequences(part)
    assert seen.ended.any()
    assert seen.ends.deter.shape[0] == int(seen.ended.sum())
    called = {}
    learner.model.losses, losses = (
        lambda *given: called.update({len(called): given}) or losses(*given),
        learner.model.losses,
    )
    learner._model_losses(seen)
    (_, _, _, alive), (_, obs, reward, terminal) = called[0], called[1]
    assert not alive.any()
    assert terminal.all()
    assert (obs["state"][:, 1] == 4).all(), "the observation after the last step, before any reset"
    assert torch.equal(reward, seen.rows["reward"][seen.ended])


def test_a_sequence_begins_from_the_latent_state_that_was_stored_and_new_ones_are_written_back():
    parts = with_data()
    learner, batch = parts.learner, a_batch(parts)
    started = {}
    observe = learner.policy.perception.observe
    learner.policy.perception.observe = lambda obs, action, first, state: (
        started.update(state) or observe(obs, action, first, state)
    )
    metrics, written = learner.update(batch)
    part = batch["online"]
    assert torch.equal(started["deter"], part["latent/deter"][0])
    assert torch.equal(learner.model.rssm.classes(started["stoch"]), part["latent/stoch"][0])
    assert torch.equal(written["row"], part["row"][1:])
    assert not torch.equal(written["latent/deter"], part["latent/deter"][1:])
    parts.replay.write(written)
    assert metrics["grad_norm/nonfinite"] == 0.0


def test_the_actor_gets_no_gradient_through_the_model_and_the_model_none_from_the_actor():
    parts = with_data(policy_coef=1.0)
    learner = parts.learner
    seen = learner._observe_sequences(a_batch(parts)["online"])
    losses, _, _ = learner._behaviour_losses(learner._imagine(seen.latents))
    model = list(learner.model.parameters())
    for name in ("policy", "value"):
        grads = torch.autograd.grad(losses[name].sum(), model, retain_graph=True, allow_unused=True)
        assert all(g is None for g in grads), name
    actor = torch.autograd.grad(losses["policy"].sum(), list(learner.policy.actor.parameters()), allow_unused=True)
    assert all(g is not None for g in actor)


def test_the_critics_loss_on_real_sequences_reaches_the_model():
    parts = with_data()
    learner = parts.learner
    seen = learner._observe_sequences(a_batch(parts)["online"])
    torch.nn.init.normal_(learner.critic.net.out.weight)  # at first it is zero, and so is what it passes on
    loss = learner._replay_value_loss(seen, torch.zeros(seen.ended.numel()))
    (grad,) = torch.autograd.grad(loss.sum(), [learner.model.rssm.core.weight])
    assert grad.any()


def test_bad_updates_are_skipped_counted_and_rolled_back():
    parts = with_data(max_bad_updates=3)
    learner = parts.learner
    good = learner._optimiser.flat.detach().clone()
    batch = a_batch(parts)
    batch["online"]["reward"] = torch.full_like(batch["online"]["reward"], torch.nan)
    for _ in range(3):
        metrics, written = learner.update(batch)
        assert metrics["grad_norm/nonfinite"] == 1.0
        assert written["latent/deter"].isfinite().all()
    assert torch.equal(learner._optimiser.flat.detach(), good)
    learner._optimiser.flat.data.add_(1.0)  # weights gone astray in a way that shows up later
    learner.observe({}, Progress(100))
    assert torch.equal(learner._optimiser.flat.detach(), good)
    metrics, _ = learner.update(a_batch(parts))
    assert metrics["grad_norm/nonfinite"] == 0.0


def test_what_was_seen_moves_the_normaliser_that_is_deployed(tmp_path):
    parts = make("dreamer", envs.Clock(num_envs=3, length=4))
    fresh = parts.collector.collect(parts.learner.acting, 8)
    parts.learner.observe(fresh, Progress(24))
    save_policy(parts.learner.policy, tmp_path / "policy")
    normaliser = load_policy(tmp_path / "policy").perception.normalisers["state"]
    assert normaliser.count == 24
    torch.testing.assert_close(normaliser.mean, fresh["obs/state"].reshape(24, 2).double().mean(0))


def test_what_is_deployed_has_no_decoder_no_heads_and_no_critic(tmp_path):
    parts = with_data()
    save_policy(parts.learner.policy, tmp_path / "policy")
    names = {name.split(".")[0] for name, _ in load_policy(tmp_path / "policy").named_parameters()}
    assert names == {"perception", "actor"}


def test_imagining_from_a_part_of_the_states_leaves_the_other_losses_as_they_are():
    parts = with_data(imagine_share=0.5)
    metrics, _ = parts.learner.update(a_batch(parts))
    assert all(value.isfinite() for value in metrics.values())


def test_bfloat16_products_give_nearly_the_losses_of_float32():
    found = {}
    for precision in ("fp32", "bf16"):
        parts = with_data(matmul_precision=precision)
        batch = a_batch(parts)
        seed_everything(1)
        metrics, written = parts.learner.update(batch)
        found[precision] = {name: value.item() for name, value in metrics.items() if name.startswith("loss/")}
        assert metrics["grad_norm/nonfinite"] == 0.0
        assert written["latent/deter"].dtype == torch.float32
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.05, abs=0.02)
    assert found["bf16"] != found["fp32"]


def test_latent_states_of_another_model_are_refused():
    parts = with_data()
    batch = a_batch(parts)
    batch["online"]["latent/deter"] = torch.zeros(*batch["online"]["reward"].shape, 32)
    with pytest.raises(RobotRLError, match=r"latent states of 32 and 8 numbers, but the model tiny has 64 and 8"):
        parts.learner.update(batch)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"horizon": 0}, "learner.horizon is 0; it must be at least 1"),
        ({"batch_length": 1}, "learner.batch_length is 1; it must be at least 2"),
        ({"gamma": 1.5}, r"learner.gamma is 1.5; it must lie in \[0, 1\]"),
        ({"matmul_precision": "fp8"}, "learner.matmul_precision is 'fp8'; it must be fp32 or bf16"),
        ({"imagine_share": 0.0}, "learner.imagine_share is 0.0; it must be greater than 0"),
    ],
)
def test_values_out_of_range_are_refused(values, told):
    with pytest.raises(RobotRLError, match=told):
        DreamerConfig(**values)


def test_a_replay_too_short_for_a_sequence_says_what_to_do():
    parts = make("dreamer", envs.Clock(num_envs=3, length=4))
    parts.replay.add(parts.collector.collect(parts.learner.acting, 5))
    with pytest.raises(RobotRLError, match=r"needs 9 steps of each env, but the replay holds 5.*warmup_env_steps"):
        a_batch(parts)

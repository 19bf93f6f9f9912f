import pytest
import torch

from robotrl.functional.flow import flow_times, guidance, integrate, noised, prefix_weights, shifted, velocity


def test_time_one_is_noise_and_time_zero_is_data():
    data, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(noised(data, noise, torch.ones(2)), noise)
    assert torch.equal(noised(data, noise, torch.zeros(2)), data)
    half = noised(data, noise, torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(half[0], 0.25 * noise[0] + 0.75 * data[0])


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_integrating_the_true_velocity_gives_the_data_in_any_number_of_steps(steps):
    data, noise = torch.randn(5, 4), torch.randn(5, 4)
    torch.testing.assert_close(integrate(lambda x, t: velocity(data, noise), noise, steps), data)


def test_the_field_is_asked_at_times_that_fall_from_one_and_never_reach_zero():
    asked = []
    integrate(lambda x, t: (asked.append(t[0].item()), torch.zeros_like(x))[1], torch.zeros(2, 1), 4)
    assert asked == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_times_follow_their_distribution_and_stay_off_zero():
    torch.manual_seed(0)
    times = flow_times((200_000,))
    assert times.min() >= 0.001 and times.max() <= 1.0
    assert times.mean().item() == pytest.approx(0.001 + 0.999 * 0.6, abs=0.003)  # Beta(1.5, 1): 1.5 / 2.5
    assert (times < 0.5).float().mean().item() == pytest.approx(0.4995**1.5, abs=0.005)


def test_a_shift_moves_times_towards_the_noise_and_keeps_the_ends():
    assert shifted(torch.tensor([0.0, 0.5, 1.0]), 5.0).tolist() == pytest.approx([0.0, 5 / 6, 1.0])
    assert shifted(torch.tensor(0.3), 1.0).item() == pytest.approx(0.3)


def test_what_will_have_been_executed_is_held_fully_and_what_the_old_chunk_lacks_not_at_all():
    weight = prefix_weights(10, 3, 7)
    assert (weight[:3] == 1).all() and (weight[7:] == 0).all()
    assert (weight[3:7] > 0).all() and (weight[3:7] < 1).all()
    assert (weight.diff() <= 0).all()
    assert prefix_weights(4, 0, 0).tolist() == [0, 0, 0, 0]


def test_guidance_is_bounded_and_vanishes_towards_the_data():
    weight = guidance(torch.tensor([1.0, 0.5, 1e-4]), most=5.0)
    assert weight[0] == 5.0 and weight[1] == pytest.approx(2.0)
    assert guidance(torch.linspace(0.0, 1.0, 50)).isfinite().all()

import pytest
import torch

from robotrl.functional.returns import discounted_sums, gae, lambda_returns

T, F = True, False


def column(*values):
    return torch.tensor(values).unsqueeze(-1)


def test_advantages_by_hand_with_both_kinds_of_end():
    advantage = gae(
        reward=column(1.0, 2.0, 3.0, 4.0),
        value=column(0.5, 0.5, 0.5, 0.5),
        next_value=column(10.0, 20.0, 30.0, 40.0),
        terminated=column(F, T, F, F),
        truncated=column(F, F, T, F),
        gamma=0.5,
        gae_lambda=0.5,
    )
    # deltas: 1 + .5*10 - .5 = 5.5; 2 - .5 = 1.5 (no future); 3 + .5*30 - .5 = 17.5 (cut off); 4 + .5*40 - .5 = 23.5
    assert advantage.squeeze(-1).tolist() == [5.5 + 0.25 * 1.5, 1.5, 17.5, 23.5]


def naive(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    """Sum of discounted deltas up to the episode's end, for each step by itself."""
    steps, width = reward.shape
    out = torch.zeros(steps, width, dtype=reward.dtype)
    for n in range(width):
        for start in range(steps):
            weight = 1.0
            for t in range(start, steps):
                future = 0.0 if terminated[t, n] else gamma * next_value[t, n]
                out[start, n] += weight * (reward[t, n] + future - value[t, n])
                if terminated[t, n] or truncated[t, n]:
                    break
                weight *= gamma * gae_lambda
    return out


@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.97, 1.0])
def test_advantages_equal_a_naive_loop(gamma, gae_lambda):
    generator = torch.Generator().manual_seed(3)
    reward, value, next_value = torch.randn(3, 12, 5, generator=generator, dtype=torch.float64)
    terminated, truncated = torch.rand(2, 12, 5, generator=generator) < 0.2
    args = (reward, value, next_value, terminated, truncated, gamma, gae_lambda)
    torch.testing.assert_close(gae(*args), naive(*args))


def test_with_lambda_one_the_target_is_the_return_and_with_zero_one_step():
    reward, value = torch.ones(6, 1), torch.full((6, 1), 3.0)
    none = torch.zeros(6, 1, dtype=torch.bool)
    following = torch.cat([value[1:], torch.full((1, 1), 7.0)])
    full = gae(reward, value, following, none, none, 0.9, 1.0) + value
    assert full[0].item() == pytest.approx(sum(0.9**i for i in range(6)) + 0.9**6 * 7.0)
    short = gae(reward, value, following, none, none, 0.9, 0.0) + value
    torch.testing.assert_close(short, reward + 0.9 * following)


def test_what_comes_after_an_end_does_not_reach_back():
    reward = torch.zeros(4, 2)
    reward[3] = 1e6
    ends = torch.zeros(4, 2, dtype=torch.bool)
    ends[1, 0] = True
    none = torch.zeros(4, 2, dtype=torch.bool)
    zeros = torch.zeros(4, 2)
    for terminated, truncated in ((ends, none), (none, ends)):
        advantage = gae(reward, zeros, zeros, terminated, truncated, 0.99, 0.95)
        assert (advantage[:2, 0] == 0).all()
        assert (advantage[:2, 1] > 1e5).all()


def test_discounted_sums_by_hand_and_across_rollouts():
    reward, done = column(1.0, 2.0, 4.0, 8.0), column(F, T, F, F)
    sums, after = discounted_sums(reward, done, torch.tensor([10.0]), 0.5)
    assert sums.squeeze(-1).tolist() == [6.0, 5.0, 4.0, 10.0]
    assert after.tolist() == [10.0]
    first, middle = discounted_sums(reward[:2], done[:2], torch.tensor([10.0]), 0.5)
    second, last = discounted_sums(reward[2:], done[2:], middle, 0.5)
    assert torch.equal(torch.cat([first, second]), sums)
    assert torch.equal(last, after)
    assert middle.tolist() == [0.0]


def test_lambda_returns_are_those_of_a_plain_loop():
    reward, value = torch.randn(5, 3), torch.randn(5, 3)
    discount = 0.97 * (torch.rand(5, 3) > 0.2)
    got = lambda_returns(reward, discount, value, value[-1], 0.9)
    running = value[-1]
    for t in reversed(range(5)):
        running = reward[t] + discount[t] * (0.1 * value[t] + 0.9 * running)
        torch.testing.assert_close(got[t], running)


def test_lambda_returns_end_where_the_trace_is_cut():
    reward, value, discount = torch.randn(4, 2), torch.randn(4, 2), torch.full((4, 2), 0.9)
    trace = torch.full((4, 2), 0.95)
    trace[1] = 0.0
    got = lambda_returns(reward, discount, value, value[-1], trace)
    torch.testing.assert_close(got[1], reward[1] + 0.9 * value[1])

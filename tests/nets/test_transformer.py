import torch
from torch.nn import functional as F

from robotrl.nets.tokens import Gaze, Sight, Words
from robotrl.nets.transformer import Transformer, attend, sinusoid


def trunk():
    torch.manual_seed(0)
    return Transformer(16, 2, 2)


def whole(net, x, allowed):
    """One pass over all tokens with a mask `[T, T]` of what a row may see: the slow way to say the same."""
    for layer in net.layers:
        q, k, v = layer.project(x)
        x = layer.finish(x, F.scaled_dot_product_attention(q, k, v, attn_mask=allowed))
    return net.norm(x)


def test_block_by_block_is_one_pass_with_a_block_causal_mask():
    net, a, b, c = trunk(), torch.randn(3, 5, 16), torch.randn(3, 4, 16), torch.randn(3, 2, 16)
    block = torch.tensor([0] * 5 + [1] * 4 + [2] * 2)
    expected = whole(net, torch.cat([a, b, c], 1), block[:, None] >= block)
    out_a, seen_a = net(a)
    out_b, seen_b = net(b, [seen_a])
    out_c, _ = net(c, [seen_a, seen_b])
    torch.testing.assert_close(torch.cat([out_a, out_b, out_c], 1), expected, atol=1e-5, rtol=1e-4)


def test_a_block_may_be_left_out_of_what_another_sees():
    net, a, b, c = trunk(), torch.randn(2, 3, 16), torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    seen_a, seen_b = net(a)[1], net(b)[1]
    assert not torch.allclose(net(c, [seen_a])[0], net(c, [seen_a, seen_b])[0])
    assert torch.equal(net(c, [seen_a])[0], net(c, [net(a)[1]])[0])


def test_tokens_that_are_not_there_change_nothing():
    net, a, c = trunk(), torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    valid = torch.tensor([[True] * 5, [True, True, False, False, True]])
    other = torch.where(valid.unsqueeze(-1), a, torch.randn_like(a))
    out, seen = net(a, (), valid)
    out2, seen2 = net(other, (), valid)
    torch.testing.assert_close(out[valid], out2[valid])
    torch.testing.assert_close(net(c, [seen])[0], net(c, [seen2])[0])
    alone, shorter = net(a[1:, [0, 1, 4]])[1], net(c[1:], [net(a[1:, [0, 1, 4]])[1]])[0]
    assert alone.valid is None
    torch.testing.assert_close(net(c, [seen])[0][1:], shorter, atol=1e-5, rtol=1e-4)


def test_repeated_prefixes_serve_rows_one_after_the_other():
    net, a, c = trunk(), torch.randn(2, 5, 16), torch.randn(6, 3, 16)
    out = net(c, [net(a)[1].repeat(3)])[0]
    one_by_one = [net(c[i : i + 1], [net(a[i // 3 : i // 3 + 1])[1]])[0] for i in range(6)]
    torch.testing.assert_close(out, torch.cat(one_by_one), atol=1e-5, rtol=1e-4)


def test_attention_is_pytorchs_and_can_be_watched():
    q, k, v = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 6, 4), torch.randn(2, 2, 6, 4)
    mask, watch = torch.rand(2, 1, 1, 6) > 0.3, []
    mask[..., 0] = True
    found = attend(q, k, v, mask, watch)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
    torch.testing.assert_close(watch[0].sum(-1), torch.ones(2, 2, 3))
    assert (watch[0].masked_select(~mask) == 0).all()


def test_a_sinusoid_tells_times_apart():
    codes = sinusoid(torch.linspace(0, 1, 101), 32)
    assert codes.shape == (101, 32)
    distance = torch.cdist(codes, codes) + 9 * torch.eye(101)
    assert distance.min() > 0.3


def test_the_summary_of_an_instruction_tells_the_order_of_words_and_ignores_padding():
    words = Words(20, 6, 16)
    tokens, valid, told = words(torch.tensor([[5, 7, 9, 0, 0, 0], [9, 7, 5, 0, 0, 0], [5, 7, 0, 0, 0, 0]]))
    assert tokens.shape == (3, 3, 16)  # as long as the longest
    assert valid.tolist() == [[True] * 3, [True] * 3, [True, True, False]]
    assert (told[0] - told[1]).abs().max() > 1e-3
    torch.testing.assert_close(told[2], words(torch.tensor([[5, 7, 0, 0, 0, 0]]))[2][0])
    assert words(torch.zeros(2, 6, dtype=torch.int64))[1].sum() == 0  # nothing said is no mistake


def test_a_gaze_finds_the_place_of_what_is_asked_for_to_a_fraction_of_a_cell():
    torch.manual_seed(1)
    gaze = Gaze(2, (6, 6), 16, 2, 2)
    read, adam = torch.nn.Linear(32, 2), None
    adam = torch.optim.Adam([*gaze.parameters(), *read.parameters()], 1e-2)
    for _ in range(150):
        place = torch.randint(0, 6, (64, 2, 2))  # of a red and a blue thing: row, column
        seen = torch.zeros(64, 2, 6, 6)
        for colour in (0, 1):
            seen[torch.arange(64), colour, place[:, colour, 0], place[:, colour, 1]] = 1.0
        which = torch.randint(0, 2, (64,))
        asked = torch.zeros(64, 32).index_put((torch.arange(64), which), torch.tensor(1.0))
        wanted = place[torch.arange(64), which].float() / 2.5 - 1.0
        error = (read(gaze(seen.flatten(2).transpose(1, 2), asked).flatten(1)) - wanted).square().mean()
        adam.zero_grad()
        error.backward()
        adam.step()
    assert error.item() < 0.02


def test_sight_gives_a_few_tokens_of_pictures_of_any_size():
    for shape, grid in (((3, 64, 64), (16, 16)), ((3, 16, 16), (8, 8)), ((6, 48, 64), (12, 16))):
        sight = Sight(shape, 16, (8, 8, 8), 3, 2)
        watch = []
        out = sight(torch.randint(0, 256, (2, *shape), dtype=torch.uint8), torch.randn(2, 32), watch)
        assert out.shape == (2, 3, 16) and sight.gaze.grid == grid
        assert watch[0].shape == (2, 2, 3, grid[0] * grid[1])

import torch

from robotrl.nets.flat import Adam


def test_adam_takes_the_steps_of_torch_adam():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2))
    adam, reference = Adam(ours, 1e-2, eps=1e-5), torch.optim.Adam([theirs], lr=1e-2, eps=1e-5)
    for _ in range(100):
        gradient = torch.randn(50)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        adam.step()
        reference.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_adam_continues_from_its_state():
    torch.manual_seed(0)
    gradients = torch.randn(20, 5)

    def steps(adam, rows):
        for row in rows:
            adam.flat.grad = row.clone()
            adam.step()

    whole, half = (Adam(torch.nn.Parameter(torch.zeros(5)), 1e-2) for _ in range(2))
    steps(whole, gradients)
    steps(half, gradients[:10])
    resumed = Adam(torch.nn.Parameter(half.flat.detach().clone()), 1.0)
    resumed.load_state_dict(half.state_dict())
    steps(resumed, gradients[10:])
    assert torch.equal(resumed.flat, whole.flat)

import torch

from cifarfast.optim import build_optimizer, empty_state, set_hyperparameters
from cifarfast.recipe import Recipe


def test_it_is_adam_with_l2_and_cycled_beta1() -> None:
    """Against the update written out: Kingma and Ba, algorithm 1, with the penalty in the gradient."""
    model = torch.nn.Linear(3, 2, bias=False).double()
    weight = model.weight.detach().clone()
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    optimizer = build_optimizer(model, Recipe(weight_decay=0.1))
    product = 1.0
    for step, (lr, momentum) in enumerate([(0.01, 0.95), (0.02, 0.85), (0.005, 0.9)], start=1):
        gradient = torch.full_like(weight, 0.3 * step)
        model.weight.grad = gradient.clone()
        set_hyperparameters(optimizer, lr=lr, momentum=momentum)
        optimizer.step()
        gradient = gradient + 0.1 * weight
        first = momentum * first + (1 - momentum) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        product = momentum**step  # torch corrects the bias with the present beta1, not with the product of all
        weight = weight - lr * (first / (1 - product)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        torch.testing.assert_close(model.weight.detach(), weight)


def test_the_room_for_its_state_is_what_the_first_step_makes() -> None:
    model = torch.nn.Conv2d(4, 5, 3).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, Recipe())
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    made, room = optimizer.state[model.weight], empty_state(optimizer, model.weight)
    assert room.keys() == made.keys()
    for key, tensor in made.items():
        assert (room[key].shape, room[key].dtype, room[key].stride()) == (tensor.shape, tensor.dtype, tensor.stride())

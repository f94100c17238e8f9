import torch

from cifarfast.optim import build_optimizer, set_hyperparameters
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

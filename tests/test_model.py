from dataclasses import replace

import pytest
import torch

from cifarfast.model import build_model, flops_per_image, layer_table
from cifarfast.networks.convnet import ConvNet
from cifarfast.networks.resnet import ResNet
from cifarfast.recipe import Recipe

RESNET, CONVNET = Recipe(), Recipe(network="convnet", width=16, dropout=0.0)
GATED = replace(CONVNET, squeeze_excitation=True)
both = pytest.mark.parametrize("recipe", [RESNET, CONVNET, GATED], ids=["resnet", "convnet", "gated"])


def test_a_recipe_names_its_network() -> None:
    resnet, convnet = build_model(Recipe(dropout=0.3), seed=0), build_model(CONVNET, seed=0)
    assert isinstance(resnet, ResNet)
    assert resnet.layer2.dropout == 0.3
    assert isinstance(convnet, ConvNet)
    assert convnet.head.in_features == 4 * 16


def test_the_layer_table_adds_up_and_the_five_main_stages_cost_the_same() -> None:
    layers = {layer.name: layer for layer in layer_table(Recipe())}
    assert sum(layer.parameters for layer in layers.values()) == 6_573_130
    assert sum(layer.flops for layer in layers.values()) == flops_per_image(Recipe())["forward"]
    stages = [layers[name].flops for name in ("layer1", "layer2", "layer3")]
    stages += [layers[f"{name}.block1"].flops + layers[f"{name}.block2"].flops for name in ("residual1", "residual3")]
    assert set(stages) == {2 * 75_497_472}
    assert layers["prep"].flops == 2 * 3 * 64 * 9 * 32 * 32
    assert layers["head"].output == (10,)


def test_whitened_filters_are_not_counted_as_trained() -> None:
    layers, plain = layer_table(Recipe(whitening=True)), layer_table(Recipe())
    assert layers[1:] == plain[1:]
    assert (layers[0].name, layers[0].parameters, layers[0].flops) == ("prep", 128, plain[0].flops)


def test_the_layer_table_of_the_convnet_adds_up() -> None:
    layers = {layer.name: layer for layer in layer_table(CONVNET)}
    gates = {layer.name: layer for layer in layer_table(GATED) if layer.name not in layers}
    assert {name: gate.parameters for name, gate in gates.items()} == {
        "stage1.gate.linear": 16 * 16, "stage2.gate.linear": 64 * 64, "stage3.gate.linear": 64 * 64,
    }  # fmt: skip
    assert gates["stage2.gate.linear"].flops == 2 * 64 * 64
    inner = [f"stage{n}.{kind}{m}" for n in (1, 2, 3) for m in (1, 2) for kind in ("conv", "norm")]
    assert list(layers) == ["stem", *inner, "head"]
    assert sum(layer.flops for layer in layers.values()) == flops_per_image(CONVNET)["forward"]
    assert (layers["stem"].output, layers["stem"].parameters) == ((24, 31, 31), 0)
    assert layers["stem"].flops == 2 * (3 * 2 * 2) * 24 * 31 * 31
    assert layers["stage2.conv1"].output == (64, 14, 14)  # of 15, the pooling leaves out the last
    assert layers["stage2.conv1"].parameters == 16 * 64 * 9
    assert layers["stage2.conv1"].flops == 2 * (16 * 9) * 64 * 14 * 14
    assert (layers["head"].output, layers["head"].parameters) == ((10,), 64 * 10)
    assert (layers["stage2.norm1"].parameters, layers["stage2.norm1"].flops) == (64, 0)  # it shifts, but does not scale
    trained = sum(parameter.numel() for parameter in build_model(CONVNET, seed=0).parameters())
    assert sum(layer.parameters for layer in layers.values()) == trained


@both
def test_a_training_step_costs_three_forwards_but_for_the_gradient_of_the_images(recipe: Recipe) -> None:
    """The stem of the convnet is not trained either, and so it has no gradient, and no first convolution needs one."""
    flops, layers = flops_per_image(recipe), layer_table(recipe)
    backward = 2 * flops["forward"] - (layers[0].flops if recipe is RESNET else 2 * layers[0].flops + layers[1].flops)
    assert flops["train"] == flops["forward"] + backward


@both
def test_initialisation_is_a_function_of_the_seed_alone(recipe: Recipe) -> None:
    torch.manual_seed(1)
    first = build_model(recipe, seed=3).state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, other = (build_model(recipe, seed=seed).state_dict() for seed in (3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])

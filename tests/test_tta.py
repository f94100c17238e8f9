import torch
from torch import nn

from cifarfast.tta import Augmented, augmented_logits

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(10, 3 * 32 * 32, generator=torch.Generator().manual_seed(1)) / 55


def _network(images: torch.Tensor) -> torch.Tensor:
    return torch.tanh(images.flatten(1) @ WEIGHT.T)


def _moved(image: torch.Tensor, by: int, mirrored: bool) -> torch.Tensor:
    """Pixel by pixel: moved by `by` down and right, then mirrored."""
    out = torch.empty_like(image)
    for y in range(32):
        for x in range(32):
            from_y, from_x = (31 - abs(31 - abs(i - by)) for i in (y, x))
            out[:, y, 31 - x if mirrored else x] = image[:, from_y, from_x]
    return out


def _mean(by: int) -> torch.Tensor:
    views = [torch.stack([_moved(image, by, mirrored) for image in IMAGES]) for mirrored in (False, True)]
    return (_network(views[0]) + _network(views[1])) / 2


def test_none_is_the_network() -> None:
    assert torch.equal(augmented_logits(_network, IMAGES, "none"), _network(IMAGES))


def test_flip_is_the_mean_with_the_mirror_image() -> None:
    torch.testing.assert_close(augmented_logits(_network, IMAGES, "flip"), _mean(0))


def test_shifts_weigh_as_much_as_the_image() -> None:
    torch.testing.assert_close(
        augmented_logits(_network, IMAGES, "flip+shift"), (_mean(0) + (_mean(1) + _mean(-1)) / 2) / 2
    )


def test_means_are_taken_in_fp32_whatever_the_network_computes_in() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = Augmented(network, "flip")(IMAGES)
        plain, mirrored = network(IMAGES), network(IMAGES.flip(3))
        assert plain.dtype == torch.bfloat16
        assert torch.equal(found, (plain.float() + mirrored.float()) / 2)
        assert not torch.equal(found, ((plain + mirrored) / 2).float())

import torch
from torch import nn

from cifarfast.tta import UNSURE, Augmented, augmented_logits

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


def test_selective_asks_again_where_two_classes_are_near_each_other() -> None:
    factor = UNSURE / _lead(_network(IMAGES)).median()

    def network(images: torch.Tensor) -> torch.Tensor:
        return factor * 1.001 * _network(images)

    lead, found = _lead(network(IMAGES)), augmented_logits(network, IMAGES, "selective")
    expected = augmented_logits(network, IMAGES, "flip+shift")
    assert (lead < UNSURE).sum() == 1
    torch.testing.assert_close(found, torch.where(lead[:, None] < UNSURE, expected, network(IMAGES)))


def test_selective_answers_each_image_as_it_would_alone() -> None:
    together = augmented_logits(_network, IMAGES, "selective")
    alone = [augmented_logits(_network, image[None], "selective") for image in IMAGES]
    torch.testing.assert_close(together, torch.cat(alone))


def test_selective_asks_once_where_nothing_is_unsure() -> None:
    asked: list[int] = []

    def network(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return 1000 * _network(images)

    assert torch.equal(augmented_logits(network, IMAGES, "selective"), 1000 * _network(IMAGES))
    assert asked == [3]


def _lead(logits: torch.Tensor) -> torch.Tensor:
    """By how much the highest logit is above the next."""
    first, second = logits.topk(2).values.unbind(1)
    return first - second


def test_means_are_taken_in_fp32_whatever_the_network_computes_in() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = Augmented(network, "flip")(IMAGES)
        plain, mirrored = network(IMAGES), network(IMAGES.flip(3))
        assert plain.dtype == torch.bfloat16
        assert torch.equal(found, (plain.float() + mirrored.float()) / 2)
        assert not torch.equal(found, ((plain + mirrored) / 2).float())

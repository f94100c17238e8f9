import torch

from cifarfast.randomness import generator, seed_of
from tests.commands import printed


def test_the_same_in_another_process() -> None:
    code = "from cifarfast.randomness import seed_of; print(seed_of(4, 'order', 2))"
    assert int(printed(code)) == seed_of(4, "order", 2)


def test_every_part_counts_and_parts_do_not_run_together() -> None:
    seeds = {seed_of(*place) for place in ((1, "a"), (11, "a"), (1, "b"), (1, "a", 1), (1, "a", 1, 1), (1, "a", 11))}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(0, "augment"))
    assert torch.equal(torch.get_rng_state(), before)

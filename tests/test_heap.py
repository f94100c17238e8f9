import resource

import pytest
import torch

from cifarfast.heap import keep_freed_memory

PAGES = 128 * 1024 * 1024 // resource.getpagesize()
needs_glibc = pytest.mark.skipif(not keep_freed_memory(), reason="this C library cannot be told")


def fewest_new_pages() -> int:
    """Pages that the system has to hand out for 128 MiB that are filled and freed: the least of ten times."""
    counts = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(128 << 20, dtype=torch.uint8).add_(1)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counts)


@needs_glibc
def test_memory_that_is_kept_is_not_handed_out_again() -> None:
    keep_freed_memory()
    assert fewest_new_pages() < PAGES / 10


@needs_glibc
def test_memory_that_is_given_back_is() -> None:
    try:
        assert keep_freed_memory(False)
        assert fewest_new_pages() >= PAGES
    finally:
        keep_freed_memory()

import resource

import pytest
import torch

from cifarfast.heap import keep_freed_memory

PAGES = 128 * 1024 * 1024 // resource.getpagesize()
needs_glibc = pytest.mark.skipif(not keep_freed_memory(), reason="this C library cannot be told")


def new_pages(times: int) -> int:
    """Pages that the system had to hand out for filling 128 MiB, and freeing them again, so often."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.zeros(128 << 20, dtype=torch.uint8).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_memory_that_is_kept_is_not_handed_out_again() -> None:
    keep_freed_memory()
    new_pages(3)  # until there is a place large enough
    assert new_pages(5) < PAGES


@needs_glibc
def test_memory_that_is_given_back_is() -> None:
    try:
        assert keep_freed_memory(False)
        assert new_pages(5) > 4 * PAGES
    finally:
        keep_freed_memory()

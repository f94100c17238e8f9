"""What the C library does with memory that is freed."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of mallopt(3)."""
MiB = 1 << 20
KEEPING = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1}
GIVING_BACK = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * MiB, M_TRIM_THRESHOLD: 64 * MiB}
"""Where glibc's own thresholds, which follow the sizes that are freed, end up in training."""


def keep_freed_memory(keep: bool = True) -> bool:
    """Whether freed memory stays with the process, ready for the next allocation, from now on (glibc only).

    By itself glibc gives a large block back to the system as soon as it is freed, and every activation is one: each
    step then gets them anew, 4 KiB at a time, filled with zeros first. What is kept is what the largest step needed.

    Returns:
        Whether this C library could be told.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # musl, macOS
        return False
    told = [library.mallopt(name, value) for name, value in (KEEPING if keep else GIVING_BACK).items()]
    if not keep:
        library.malloc_trim(0)  # what was kept so far
    return all(told)

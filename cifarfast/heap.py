"""What the C library does with memory that is freed."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""


def keep_freed_memory() -> bool:
    """Let freed memory stay with the process, ready for the next allocation, from now on (glibc only).

    By itself glibc gives a large block back to the system as soon as it is freed, and every activation is one: each
    step then gets them anew, 4 KiB at a time, filled with zeros first.

    Returns:
        Whether this C library could be told.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # musl, macOS
        return False
    no_blocks_of_their_own = library.mallopt(M_MMAP_MAX, 0)
    return bool(no_blocks_of_their_own and library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))

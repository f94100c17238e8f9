"""What the C library does with memory that is freed, and how the system hands it out."""

import ctypes
import mmap
import os
import resource
from functools import cache
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""
SHARE = 0.5
"""Of the machine's memory, the addresses that are reserved in huge pages; of it only what is used is ever taken."""
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
"""Holds 2 where the system counts what is reserved as taken."""


@cache
def keep_freed_memory() -> bool:
    """Let freed memory stay with the process, ready for the next allocation, and in huge pages (glibc only).

    By itself glibc gives a large block back to the system as soon as it is freed, and every activation is one: each
    step then gets them anew, 4 KiB at a time, filled with zeros first. And what lies in so small pages is found more
    slowly than it is read.

    Returns:
        Whether this C library could be told.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # musl, macOS
        return False
    no_blocks_of_their_own = library.mallopt(M_MMAP_MAX, 0)
    kept = bool(no_blocks_of_their_own and library.mallopt(M_TRIM_THRESHOLD, -1))
    if kept and _may_reserve():
        _ask_for_huge_pages(library)
    return kept


def _may_reserve() -> bool:
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    lavish = OVERCOMMIT.exists() and OVERCOMMIT.read_text().strip() != "2"
    return lavish and all(limit == resource.RLIM_INFINITY for limit in limits)


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    # Of a block that is freed untouched the heap keeps the addresses, and with them what was asked of the system.
    library.malloc.restype = ctypes.c_void_p
    size = int(SHARE * os.sysconf("SC_PHYS_PAGES")) * mmap.PAGESIZE
    start = library.malloc(ctypes.c_size_t(size))
    if start is not None:
        page = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        library.madvise(ctypes.c_void_p(page), ctypes.c_size_t(start + size - page), mmap.MADV_HUGEPAGE)
        library.free(ctypes.c_void_p(start))

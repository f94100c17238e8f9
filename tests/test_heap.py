import ctypes
from pathlib import Path

import pytest

from tests.commands import printed

CAN_BE_TOLD = hasattr(ctypes.CDLL(None), "mallopt")
FEWEST_NEW_PAGES = """
import resource
from cifarfast.heap import keep_freed_memory
{first}
counts = []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"1") * (64 << 20)
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(counts) * resource.getpagesize() / (64 << 20))
"""


@pytest.mark.skipif(not CAN_BE_TOLD, reason="this C library cannot be told")
@pytest.mark.parametrize(("first", "again"), [("", True), ("keep_freed_memory()", False)])
def test_memory_that_is_kept_is_not_handed_out_again(first: str, again: bool) -> None:
    """64 MiB, filled and freed five times: what share of it the system hands out anew, the least of all times."""
    share = float(printed(FEWEST_NEW_PAGES.format(first=first)))
    assert (share > 0.9) == again
    assert (share < 0.1) != again


def in_huge_pages(block: str, before: str = "") -> bool:
    """Whether the system is asked for huge pages where this expression, evaluated by another process, lies."""
    code = f"""
import re
from cifarfast import heap
{before}
block = {block}
for line in open("/proc/self/smaps"):
    if ends := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
        start, end = (int(one, 16) for one in ends.groups())
    elif line.startswith("VmFlags:") and start <= id(block) + (1 << 20) < end:
        print("hg" in line.split())
"""
    return {"True\n": True, "False\n": False}[printed(code)]


needs_huge_pages = pytest.mark.skipif(
    not (CAN_BE_TOLD and Path("/sys/kernel/mm/transparent_hugepage").exists()), reason="no huge pages here"
)
KEPT = "heap.keep_freed_memory() and bytes(64 << 20)"


@needs_huge_pages
def test_memory_is_asked_for_in_huge_pages() -> None:
    assert not in_huge_pages("bytes(64 << 20)")
    assert in_huge_pages(KEPT)


@needs_huge_pages
def test_where_what_is_reserved_counts_as_taken_nothing_is(tmp_path: Path) -> None:
    assert not in_huge_pages(KEPT, "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**42, 2**42))")
    strict, free = tmp_path / "strict", tmp_path / "free"
    strict.write_text("2\n")
    free.write_text("1\n")
    assert not in_huge_pages(KEPT, f"import pathlib; heap.OVERCOMMIT = pathlib.Path({str(strict)!r})")
    assert in_huge_pages(KEPT, f"import pathlib; heap.OVERCOMMIT = pathlib.Path({str(free)!r})")

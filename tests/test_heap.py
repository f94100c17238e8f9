import subprocess
import sys

import pytest

from cifarfast.heap import keep_freed_memory

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


@pytest.mark.skipif(not keep_freed_memory(), reason="this C library cannot be told")
@pytest.mark.parametrize(("first", "again"), [("", True), ("keep_freed_memory()", False)])
def test_memory_that_is_kept_is_not_handed_out_again(first: str, again: bool) -> None:
    """64 MiB, filled and freed five times: what share of it the system hands out anew, the least of all times."""
    code = FEWEST_NEW_PAGES.format(first=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (float(done.stdout) > 0.9) == again
    assert (float(done.stdout) < 0.1) != again

from pathlib import Path

import pytest

from bench.comparable import refuse_unless_forced
from cifarfast.errors import UserError


def test_differences_are_refused_unless_forced() -> None:
    refuse_unless_forced(Path("a"), Path("b"), [], force=False)
    refuse_unless_forced(Path("a"), Path("b"), ["threads (2, 4)"], force=True)
    with pytest.raises(UserError, match=r"a and b are not comparable, they differ in threads \(2, 4\): .* --force"):
        refuse_unless_forced(Path("a"), Path("b"), ["threads (2, 4)"], force=False)

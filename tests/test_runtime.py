import pytest

from cifarfast.runtime import Runtime


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 0, not -1"):
        Runtime(workers=-1)

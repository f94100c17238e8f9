import pytest

from cifarfast.runtime import Runtime


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 0, not -1"):
        Runtime(workers=-1)


def test_a_precision_for_amp_without_amp_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^amp_dtype must be auto without amp, [^\n]* not 'bf16'$"):
        Runtime(amp_dtype="bf16")
    assert Runtime(amp=True, amp_dtype="bf16").amp_dtype == "bf16"

import numba
import numpy as np
import pytest
import torch
from numba.core.codegen import get_host_cpu_features

from cifarfast.networks import bfloat16
from tests.commands import printed
from tests.networks.threads import with_threads


def test_all_bf16_become_the_fp32_of_the_same_value() -> None:
    bits = np.arange(2**16).astype(np.uint16)
    wide = np.empty(len(bits), np.float32)
    bfloat16.widen(bits, wide)
    exact = torch.from_numpy(bits).view(torch.bfloat16).float()
    assert torch.equal(torch.from_numpy(wide).view(torch.int32), exact.view(torch.int32))


def test_fp32_is_rounded_as_torch_rounds_it() -> None:
    """Between any two neighbours in bf16: next to the lower one, just below the middle, at it, and just above."""
    lower = (np.arange(2**16).astype(np.uint32) << 16)[:, None]
    wide = (lower + np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).ravel().view(np.float32)
    bits = np.empty(len(wide), np.uint16)
    bfloat16.narrow(wide, bits)
    values = torch.from_numpy(wide)
    ours, theirs = torch.from_numpy(bits).view(torch.bfloat16), values.bfloat16()
    number = ~values.isnan()
    assert torch.equal(ours[number].view(torch.int16), theirs[number].view(torch.int16))


def test_powers_of_two_are_exact() -> None:
    assert [bfloat16.power_of_two(np.int32(one)) for one in range(-126, 128)] == [2.0**one for one in range(-126, 128)]


def test_a_pass_has_as_many_threads_as_torch() -> None:
    found: list[int] = []

    def ask() -> None:
        bfloat16.run(lambda _: found.append(numba.get_num_threads()), torch.zeros(1))

    with_threads(ask)
    assert found == [1, min(2, vars(numba.config)["NUMBA_NUM_THREADS"])]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8])
def test_a_pass_sees_bits_of_bf16_and_writes_where_they_are(dtype: torch.dtype) -> None:
    tensor = torch.ones(3).to(dtype).requires_grad_(dtype.is_floating_point)

    def kernel(values: np.typing.NDArray[np.generic]) -> None:
        assert values.dtype == {torch.bfloat16: np.uint16, torch.float32: np.float32, torch.uint8: np.uint8}[dtype]
        values[1] = 0

    bfloat16.run(kernel, tensor)
    assert tensor.tolist() == [1, 0, 1]


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_there_are_passes_for_bf16_on_a_cpu(kind: str) -> None:
    device = torch.device(kind)
    assert bfloat16.runs_on(device, torch.bfloat16) == (kind == "cpu")
    assert not bfloat16.runs_on(device, torch.float32)


@pytest.mark.skipif("+avx512f" not in get_host_cpu_features(), reason="no vectors of 512 bits")  # type: ignore[no-untyped-call]
def test_vectors_are_as_wide_as_there_are() -> None:
    """In a process of its own: what numba has compiled before decides, too."""
    code = """
import cifarfast.setup
import numba
import numpy as np
from cifarfast.networks.bfloat16 import widen

@numba.njit
def kernel(bits, wide):
    widen(bits, wide)

kernel(np.zeros(5, np.uint16), np.zeros(5, np.float32))
print("zmm" in next(iter(kernel.inspect_asm().values())))
"""
    assert printed(code) == "True\n"

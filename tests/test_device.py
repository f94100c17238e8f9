from collections.abc import Callable

import pytest
import torch

from cifarfast import device as device_module
from cifarfast.device import Device, open_device, probe_bf16
from cifarfast.errors import UserError
from cifarfast.runtime import Runtime


def notes() -> tuple[list[str], Callable[[str], None]]:
    said: list[str] = []
    return said, said.append


def test_fp32_unless_asked_otherwise() -> None:
    said, note = notes()
    device = open_device(Runtime(device="cpu"), note)
    assert (device.target.type, device.amp_dtype, device.compute_dtype) == ("cpu", None, torch.float32)
    assert device.memory_format == torch.channels_last
    assert not device.scaler().is_enabled()
    assert said == []


@pytest.mark.parametrize(("speed", "amp_dtype", "lines"), [(1.6, "bf16", 0), (0.07, None, 1), (1.0, None, 1)])
def test_bf16_on_a_cpu_only_where_the_probe_finds_it_faster(
    monkeypatch: pytest.MonkeyPatch, speed: float, amp_dtype: str | None, lines: int
) -> None:
    monkeypatch.setattr(device_module, "probe_bf16", lambda: speed)
    said, note = notes()
    assert open_device(Runtime(device="cpu", amp=True), note).amp_dtype == amp_dtype
    assert len(said) == lines
    assert all(f"{speed:.2f}" in line and "fp32" in line for line in said)


def test_a_named_precision_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "probe_bf16", lambda: pytest.fail("probed"))
    device = open_device(Runtime(device="cpu", amp=True, amp_dtype="bf16"), pytest.fail)
    assert device.compute_dtype == torch.bfloat16
    with device.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_fp16_scales_its_loss() -> None:
    device = open_device(Runtime(device="cpu", amp=True, amp_dtype="fp16"), pytest.fail)
    assert device.scaler().is_enabled()


def test_the_probe_measures() -> None:
    assert 0.0 < probe_bf16(rounds=1) < 100.0


def test_the_probe_is_not_misled_by_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which take the processor in four of five rounds."""
    disturbed = [0.0, 9.0, 0.0, 30.0]  # from when to when in fp32, and in bf16
    ticks = [0.0, 0.0, *disturbed * 2, *[0.0, 4.0, 0.0, 2.0], *disturbed * 2]
    monkeypatch.setattr("time.perf_counter", lambda: ticks.pop(0))
    assert probe_bf16() == 2.0
    assert not ticks


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"--device cuda: .* use --device cpu"):
        open_device(Runtime(device="cuda"), pytest.fail)


def test_deterministic_kernels_are_asked_for_and_given_up_again() -> None:
    open_device(Runtime(device="cpu", deterministic=True), pytest.fail)
    assert torch.are_deterministic_algorithms_enabled()
    open_device(Runtime(device="cpu"), pytest.fail)
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_cudnn_is_told_is_not_in_effect_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing some libraries sets it; a run must not seem another one for that."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    device = open_device(Runtime(device="cpu"), pytest.fail)
    assert (device.cudnn_benchmark, device.tf32) == (False, False)


def test_memory_is_in_bytes() -> None:
    device = Device(target=torch.device("cpu"), amp_dtype=None, memory_format=torch.channels_last)
    # A process with torch in it holds more than 50 MB and, in these tests, less than 100 GB.
    assert 50e6 < device.peak_memory_bytes() < 100e9


@pytest.mark.parametrize(("kind", "told"), [("cpu", 1), ("cuda", 0)])
def test_freed_memory_is_kept_where_the_cpu_computes(monkeypatch: pytest.MonkeyPatch, kind: str, told: int) -> None:
    calls: list[None] = []
    monkeypatch.setattr(device_module, "keep_freed_memory", lambda: calls.append(None))
    monkeypatch.setattr(device_module, "_choose", lambda asked: kind)
    monkeypatch.setattr(device_module, "_fast_math", lambda kind, deterministic: None)
    open_device(Runtime(), pytest.fail)
    open_device(Runtime(), pytest.fail, keep_memory=False)
    assert len(calls) == told

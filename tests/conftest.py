"""What holds for every test: the same result on every machine, whatever its user has set."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from cifarfast import Recipe, Runtime, fit
from data_prep.convert import convert
from data_prep.sources.synthetic import Synthetic
from tests.tiny import build_tiny

CORRUPTIONS = 2500
"""Damaged files that are read in an ordinary run; `make fuzz` reads more."""

# Examples are drawn the same way each time, and a slow machine is not a failure.
settings.register_profile("cifarfast", deadline=None, derandomize=True)
settings.load_profile("cifarfast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--corruptions", type=int, default=CORRUPTIONS, metavar="N", help="files that tests/fuzz damages")


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CIFAR10_SOURCE", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _nothing_reserved() -> Iterator[None]:
    """What this process had in reserve could be had in spite of a limit to its memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifarfast.heap._may_reserve", lambda: False)
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted folder of synthetic images: 160 to train on, 40 to test on."""
    folder = tmp_path_factory.mktemp("data")
    convert(Synthetic.parse("synthetic:160,40"), folder)
    return folder


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, for reading only: an epoch of three steps on the CPU in fp32, evaluated on 10 images."""
    out = tmp_path_factory.mktemp("trained") / "run"
    recipe, runtime = Recipe(batch_size=4, epochs=1, max_lr=1e-4), Runtime(device="cpu", loader="resident")
    fit(recipe, runtime, data=data, out=out, seed=1, train_images=12, test_images=10)
    return out


@pytest.fixture
def restored_sigterm() -> Iterator[None]:
    """Undoes the handlers that `door.run` sets."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny network, in this process, on one thread as in the others."""
    monkeypatch.setattr("cifarfast.setup.build_model", build_tiny)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

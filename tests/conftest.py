"""What holds for every test: the same result on every machine, whatever its user has set."""

import pytest
from hypothesis import settings

# Examples are drawn the same way each time, and a slow machine is not a failure.
settings.register_profile("cifarfast", deadline=None, derandomize=True)
settings.load_profile("cifarfast")


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CIFAR10_SOURCE", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

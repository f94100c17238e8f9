from dataclasses import replace
from pathlib import Path

import pytest

from cifarfast.errors import UserError
from cifarfast.range_record import PLOT_NAME, RANGE_NAME, check_no_range, read_range, write_range
from tests.commands import printed
from tests.reporting.conftest import range_record


def test_what_is_written_is_read(tmp_path: Path) -> None:
    check_no_range(tmp_path)
    assert read_range(tmp_path, hint="") is None
    assert read_range(tmp_path / "nowhere", hint="") is None
    record = range_record()
    write_range(tmp_path, record)
    assert read_range(tmp_path, hint="") == record
    assert {path.name for path in tmp_path.iterdir()} == {RANGE_NAME, PLOT_NAME}
    with pytest.raises(UserError, match="already holds a range test"):
        check_no_range(tmp_path)


def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    write_range(tmp_path, replace(range_record(), seed=5))
    path = tmp_path / RANGE_NAME
    path.write_text(path.read_text().replace('"seed": 5', '"seed": 6'))
    with pytest.raises(UserError, match=rf"^{path} is damaged .*: take another$"):
        read_range(tmp_path, hint="take another")
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=rf"^{path} cannot be read .*: take another$"):
        read_range(tmp_path, hint="take another")


def test_reading_needs_no_torch() -> None:
    code = "import sys, cifarfast.range_record; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(printed(code).split())
    assert "msgspec" in loaded
    assert not {"torch", "matplotlib", "numpy"} & loaded

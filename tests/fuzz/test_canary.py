"""Whatever is read, a program put in its place is not run."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cifarfast.errors import UserError
from tests.fuzz.targets import TARGETS, Target

MARK = "mark"


class Payload:
    """Its pickle makes a file when it is loaded."""

    def __reduce__(self) -> Any:
        return os.mkdir, (MARK,)


def written(write: Any, **arguments: Any) -> bytes:
    file = io.BytesIO()
    write(file, **arguments)
    return file.getvalue()


def as_zip(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


PROGRAMS = {
    **{f"pickle {protocol}": pickle.dumps(Payload(), protocol=protocol) for protocol in range(6)},
    "torch": written(lambda file: torch.save(Payload(), file)),
    "old torch": written(lambda file: torch.save(Payload(), file, _use_new_zipfile_serialization=False)),
    "array of objects": written(lambda file: np.save(file, np.array([Payload()]), allow_pickle=True)),
    "zip": as_zip("__main__.py", b"import os; os.mkdir('mark')"),
    "python": b"__import__('os').mkdir('mark')\n",
    "shell": b"#!/bin/sh\nmkdir mark\n",
    "yaml": b"!!python/object/apply:os.mkdir ['mark']\n",
    "json": b'{"py/reduce": [{"py/type": "os.mkdir"}, {"py/tuple": ["mark"]}]}\n',
    "template": b"{{ cycler.__init__.__globals__.os.mkdir('mark') }}\n",
    "postscript": b"%!PS\n(mark) (w) file closefile\n",
}


@pytest.mark.parametrize("name", ["pickle 2", "torch", "old torch", "array of objects", "zip", "python"])
def test_the_programs_would_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO(PROGRAMS[name])
    if "torch" in name:
        torch.load(file, weights_only=False)
    elif name == "array of objects":
        np.load(file, allow_pickle=True)
    elif name == "zip":
        exec(zipfile.ZipFile(file).read("__main__.py"))
    elif name == "python":
        exec(file.read())
    else:
        pickle.load(file)
    assert Path(MARK).exists()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_program_is_refused_and_not_run(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = target.write(tmp_path)
    whole = path.read_bytes()
    for program in PROGRAMS.values():
        for content in (program, target.pack(whole, program)):
            path.write_bytes(content + b"\n")  # without it, a line of metrics is still being written
            path.chmod(0o755)
            with pytest.raises(UserError):
                target.read(tmp_path)
    assert not list(here.iterdir())

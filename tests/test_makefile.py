"""The Makefile, in a folder of its own, with a stand-in for the interpreter of .venv that notes how it is called."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FAKE_PYTHON = """#!/bin/sh
echo "$*" >>calls
folder() { while [ "$1" != --out ]; do shift; done; echo "$2"; }
case "$*" in
*.[[]dev[]]*) exit 1 ;;
*data_prep.to_ffcv*"--source synthetic"*) kind=synthetic ;;
*data_prep.to_ffcv*) kind=cifar10; [ "$CONVERT_EXIT" = 0 ] || exit "$CONVERT_EXIT" ;;
-c*) exit "$NO_GPU" ;;
*) exit 0 ;;
esac
mkdir -p "$(folder "$@")" && echo "{\\"kind\\": \\"$kind\\"}" >"$(folder "$@")/manifest.json"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    project = tmp_path / "a folder"
    (project / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, project)
    python = project / ".venv" / "bin" / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    (project / ".venv" / ".installed").touch()
    return project


def _make(
    folder: Path, *arguments: str, convert_exit: int = 0, gpu: bool = False, **environment: str
) -> tuple[int, str, list[str]]:
    """Exit code, what was printed, and how the interpreter was called."""
    ours = {name: value for name, value in os.environ.items() if "MAKE" not in name and name != "MFLAGS"}
    ours |= {"CONVERT_EXIT": str(convert_exit), "NO_GPU": str(int(not gpu)), **environment}
    done = subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=ours,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    calls = folder / "calls"
    return done.returncode, done.stdout, calls.read_text().splitlines() if calls.exists() else []


def test_train_converts_what_it_downloads(folder: Path) -> None:
    code, printed, calls = _make(folder, "train", gpu=True)
    assert code == 0
    assert calls[0] == "-m data_prep.to_ffcv --out data/cifar10"
    assert calls[-1].split() == ["-m", "cifarfast.train", "--data", "data/cifar10", "--compile", "--amp"]
    assert "SYNTHETIC" not in printed


def test_train_takes_the_source_that_it_is_given(folder: Path) -> None:
    _write_manifest(folder / "data" / "cifar10", "cifar10")
    code, _, calls = _make(folder, "train", CIFAR10_SOURCE="some file.tar.gz")
    assert code == 0
    assert calls[0] == "-m data_prep.to_ffcv --out data/cifar10"


def test_train_takes_data_that_is_there(folder: Path) -> None:
    _write_manifest(folder / "data" / "cifar10", "cifar10")
    code, printed, calls = _make(folder, "train")
    assert code == 0
    assert not any("to_ffcv" in call for call in calls)
    assert "SYNTHETIC" not in printed
    # A short run, and the command of the long one.
    assert re.search(r"--epochs \d+ --train-images \d+ --test-images \d+", calls[-1])
    assert "cifarfast.train --data data/cifar10 --compile --amp" in printed


def test_train_without_a_network_takes_a_stand_in_and_says_so(folder: Path) -> None:
    code, printed, calls = _make(folder, "train", convert_exit=2)
    assert code == 0
    assert calls[1] == "-m data_prep.to_ffcv --source synthetic --out data/synthetic"
    assert "--data data/synthetic" in calls[-1]
    assert printed.count("SYNTHETIC") == 2
    assert not (folder / "data" / "cifar10" / "manifest.json").exists()


def test_train_does_not_replace_a_bad_source(folder: Path) -> None:
    code, _, calls = _make(folder, "train", convert_exit=2, CIFAR10_SOURCE="nowhere")
    assert code != 0
    assert len(calls) == 1


def test_train_stops_when_conversion_is_interrupted(folder: Path) -> None:
    code, _, calls = _make(folder, "train", convert_exit=130)
    assert code != 0
    assert len(calls) == 1


def test_train_keeps_an_asked_for_stand_in_apart(folder: Path) -> None:
    _, _, calls = _make(folder, "train", CIFAR10_SOURCE="synthetic:2000,500")
    assert calls[0] == "-m data_prep.to_ffcv --out data/synthetic"


def test_install_does_nothing_when_nothing_changed(folder: Path) -> None:
    code, _, calls = _make(folder, "install")
    assert (code, calls) == (0, [])


def test_fuzz_reads_as_many_damaged_files_as_it_is_told(folder: Path) -> None:
    for arguments, corruptions in (((), 50000), (("CORRUPTIONS=7",), 7)):
        code, _, calls = _make(folder, "fuzz", *arguments)
        assert code == 0
        assert f"-m pytest tests/fuzz --corruptions {corruptions} " in calls[-1] + " "
    assert re.search("^make fuzz +Read CORRUPTIONS=50000 damaged files", _make(folder, "help")[1], re.MULTILINE)


def _tools(folder: Path, **scripts: str) -> str:
    """A PATH with nothing on it but a shell, make, and `scripts`, each of which notes how it is called."""
    tools = folder.parent / "tools"
    tools.mkdir()
    for name in ("sh", "make", "uname", "touch", "mkdir", "cat", "env"):
        (tools / name).symlink_to(shutil.which(name) or pytest.skip(f"there is no {name}"))
    for name, script in scripts.items():
        path = tools / name.replace("_", "-")
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >>calls\n{script}\n')
        path.chmod(0o755)
    return str(tools)


def test_install_goes_on_without_ffcv(folder: Path) -> None:
    code, printed, calls = _make(folder, "-B", "install", f"PYTHON={sys.executable}", PATH=_tools(folder))
    assert code == 0, printed
    assert len(re.findall("^Going on without FFCV", printed, re.MULTILINE)) == 1
    assert any("--editable .[tools]" in call for call in calls)


def test_install_names_a_python_that_is_too_old(folder: Path) -> None:
    code, printed, calls = _make(folder, "-B", "install", "PYTHON=/bin/false")
    assert code != 0
    assert "no Python 3.10 or newer" in printed
    assert calls == []


LIBRARIES = ("g++", "pkg-config", "libopencv-dev", "libturbojpeg0-dev")


BROWSER = ("chromium", "chromium-driver")
TARGETS = [("system-packages", LIBRARIES), ("browser", BROWSER)]


@pytest.mark.parametrize(("target", "packages"), TARGETS)
@pytest.mark.parametrize(
    ("scripts", "prefix"),
    [
        ({"id": "echo 0"}, "apt-get install"),
        (
            {"id": "echo 1000", "sudo": '[ "$1" = -n ] || "$@"'},
            "sudo env DEBIAN_FRONTEND=noninteractive apt-get install",
        ),
    ],
    ids=["root", "sudo"],
)
def test_system_packages_are_installed(
    folder: Path, scripts: dict[str, str], prefix: str, target: str, packages: tuple[str, ...]
) -> None:
    code, printed, calls = _make(folder, target, f"PYTHON={sys.executable}", PATH=_tools(folder, apt_get="", **scripts))
    assert code == 0, printed
    (install,) = (call for call in calls if re.match(prefix, call))
    assert set(packages) <= set(install.split())


@pytest.mark.parametrize("target", ["system-packages", "browser"])
@pytest.mark.parametrize("scripts", [{}, {"sudo": "exit 1"}], ids=["nobody", "sudo with a password"])
def test_system_packages_are_left_alone_without_rights(folder: Path, scripts: dict[str, str], target: str) -> None:
    path = _tools(folder, apt_get="", id="echo 1000", **scripts)
    code, printed, calls = _make(folder, target, f"PYTHON={sys.executable}", PATH=path)
    assert (code, printed) == (0, "")
    assert not any(call.startswith("apt-get") for call in calls)


@pytest.mark.parametrize("scripts", [{"apt_get": "", "chromedriver": ""}, {}], ids=["there", "no apt"])
def test_a_browser_that_is_there_or_cannot_be_had_is_left_alone(folder: Path, scripts: dict[str, str]) -> None:
    assert _make(folder, "browser", PATH=_tools(folder, id="echo 0", **scripts)) == (0, "", [])


def test_clean_leaves_data_and_runs(folder: Path) -> None:
    for name in ("cifarfast/__pycache__", "data_prep", "bench", "tests", ".ruff_cache", "runs/mine", ".venv/kept"):
        (folder / name).mkdir(parents=True)
    _write_manifest(folder / "data" / "cifar10", "cifar10")
    code, _, _ = _make(folder, "clean")
    assert code == 0
    assert not (folder / "cifarfast" / "__pycache__").exists()
    assert not (folder / ".ruff_cache").exists()
    for kept in ("cifarfast", "runs/mine", ".venv/kept", "data/cifar10/manifest.json"):
        assert (folder / kept).exists()


def _write_manifest(folder: Path, kind: str) -> None:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"kind": kind}, indent=2))

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "ffcv", "numba", "matplotlib", "scipy"}
DOORS = ["cifarfast.train", "data_prep.to_ffcv"]

# Runs a module as a command and reports what it imported.
PROBE = """
import runpy, sys
module, sys.argv[1:] = sys.argv[1], ["--help"]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as leaving:
    assert not leaving.code, leaving.code
print("imported", *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)


def test_importing_the_package_is_light() -> None:
    done = _python("-c", "import sys, cifarfast; print(*{name.partition('.')[0] for name in sys.modules})")
    assert "cifarfast" in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("door", DOORS)
def test_help_is_light(door: str) -> None:
    done = _python("-c", PROBE, door)
    assert f"python -m {door}" in done.stdout
    imported = set(done.stderr.rpartition("imported")[2].split())
    assert "tyro" in imported
    assert not HEAVY & imported


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in metadata.requires("cifarfast") or ()]


def _constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def test_extras() -> None:
    extras = metadata.metadata("cifarfast").get_all("Provides-Extra")
    assert set(extras or ()) == {"bench", "dev", "ffcv", "lr-finder", "tools"}


@pytest.mark.parametrize(
    ("extra", "system", "wanted"),
    [("ffcv", "linux", True), ("dev", "linux", True), ("dev", "darwin", False), ("tools", "linux", False)],
)
def test_which_extras_bring_ffcv(extra: str, system: str, wanted: bool) -> None:
    markers = [r.marker for r in _requirements() if r.name == "ffcv"]
    assert any(marker.evaluate({"extra": extra, "sys_platform": system}) for marker in markers if marker) == wanted


def test_every_direct_dependency_has_a_tested_release_within_its_bounds() -> None:
    pins = _constraints()
    for requirement in _requirements():
        if (name := canonicalize_name(requirement.name)) == "cifarfast":
            continue
        (pin,) = pins[name].specifier
        assert pin.operator == "=="
        assert pin.version in requirement.specifier, name


def test_everything_imported_is_declared() -> None:
    declared = {canonicalize_name(r.name) for r in _requirements()} | {"cifarfast"}
    # `numba` comes with ffcv, and is imported only beside it.
    declared.add("numba")
    owners = metadata.packages_distributions()
    for folder in ("cifarfast", "data_prep", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in _imported(path) - set(sys.stdlib_module_names) - {"cifarfast", "data_prep", "bench"}:
                packages = {canonicalize_name(owner) for owner in owners.get(name, [name])}
                assert packages & declared, f"{path} imports {name}"


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


# The Makefile, in a folder of its own, with a stand-in for the interpreter of .venv that notes how it is called.

FAKE_PYTHON = """#!/bin/sh
echo "$*" >>calls
folder() { while [ "$1" != --out ]; do shift; done; echo "$2"; }
case "$*" in
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
        ["make", *arguments], cwd=folder, env=ours, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
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


def test_install_goes_on_without_ffcv(folder: Path, tmp_path: Path) -> None:
    # A machine with neither pkg-config nor a compiler, nor apt.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "make", "uname", "touch", "mkdir", "cat"):
        (tools / name).symlink_to(shutil.which(name) or pytest.skip(f"there is no {name}"))
    code, printed, calls = _make(folder, "-B", "install", f"PYTHON={sys.executable}", PATH=str(tools))
    assert code == 0, printed
    assert len(re.findall("^Going on without FFCV", printed, re.MULTILINE)) == 1
    assert any("--editable .[tools]" in call for call in calls)
    assert not any("[dev]" in call for call in calls)


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

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "ffcv", "numba", "matplotlib", "scipy", "jinja2"}
DOORS = [
    "bench.compare",
    "bench.report",
    "cifarfast.evaluate",
    "cifarfast.export",
    "cifarfast.find_lr",
    "cifarfast.predict",
    "cifarfast.report",
    "cifarfast.study",
    "cifarfast.train",
    "data_prep.to_ffcv",
]

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
    assert set(extras or ()) == {"bench", "dev", "ffcv", "lr-finder", "onnx", "tensorboard", "tools"}


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

import re
import subprocess
import sys
from pathlib import Path

from data_prep.convert import convert
from data_prep.sources.synthetic import Synthetic

ROOT = Path(__file__).parents[1]
RANGE_TEST, TRAINING = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def run(code: str, folder: Path) -> str:
    """Run an example as it stands; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_of_a_range_test(tmp_path: Path) -> None:
    assert 0.001 < float(run(RANGE_TEST, tmp_path)) < 1


def test_the_example_of_training(tmp_path: Path) -> None:
    convert(Synthetic.parse("synthetic:512,100"), tmp_path / "data" / "cifar10")
    printed = run(TRAINING, tmp_path)
    assert re.search(r"^\d+\.\d% at \d+ images/s on ", printed, flags=re.MULTILINE)
    assert (tmp_path / "runs" / "mine" / "summary.json").exists()

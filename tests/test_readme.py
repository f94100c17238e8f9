import re
import subprocess
import sys
from pathlib import Path

from data_prep.convert import convert
from data_prep.sources.synthetic import Synthetic

ROOT = Path(__file__).parents[1]


def test_the_python_example_runs_as_it_stands(tmp_path: Path) -> None:
    convert(Synthetic.parse("synthetic:512,100"), tmp_path / "data" / "cifar10")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\d+\.\d% at \d+ images/s on ", done.stdout, flags=re.MULTILINE)
    assert (tmp_path / "runs" / "mine" / "summary.json").exists()

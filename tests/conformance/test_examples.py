"""The programs of examples/client, as a reader of the documentation would run them. They check their own answers."""

import pathlib
import subprocess
import sys

import pytest
from harness import environment

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "client"
# What each ends with once it has checked its answers.
LAST_LINES = {
    "algebra.py": "NumPy says the same.",
    "dataframe.py": "pandas says the same.",
    "futures.py": "That is what others have found.",
    "weather.py": "Xarray alone says the same.",
}


def test_all_examples_are_run():
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(LAST_LINES)


@pytest.mark.parametrize("name", LAST_LINES)
def test_an_example(shared, client, name):
    """`client` sees to it that nothing is left on the workers."""
    run = subprocess.run([sys.executable, EXAMPLES / name, shared.address], capture_output=True, text=True, timeout=120, env=environment())
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == LAST_LINES[name], run.stdout + run.stderr

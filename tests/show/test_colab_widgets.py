"""The widgets' tests once more, with the ipywidgets 7.7.1 that Colab has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD = ROOT / ".venv" / "colab-widgets"


def test_with_the_ipywidgets_of_colab() -> None:
    if not (OLD / ".installed").exists():
        pytest.skip("ipywidgets 7.7.1 is not installed beside the newer one; `make colab-widgets` does it")
    told = os.environ | {"PYTHONPATH": os.pathsep.join([str(OLD), str(ROOT), os.environ.get("PYTHONPATH", "")])}
    version = [sys.executable, "-c", "import ipywidgets; print(ipywidgets.__version__)"]
    assert subprocess.run(version, env=told, capture_output=True, text=True, check=True).stdout.strip() == "7.7.1"
    # It opens its comms in a way that today's ipykernel calls old.
    quiet = ["-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    tests = [sys.executable, "-m", "pytest", "-q", *quiet, "tests/show/test_widgets.py"]
    done = subprocess.run(tests, env=told, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]

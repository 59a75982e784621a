"""A notebook whose kernel is killed while it trains, and that is run again, ends as if it had not been."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from runs import ENVIRON, NOTEBOOK, kill_kernel, timeless, wait


def run_notebook(folder: Path, steps: int, **environ: str) -> subprocess.Popen[str]:
    """papermill with notebook 02 on CartPole, where compiling takes seconds."""
    words = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(folder.with_suffix(".ipynb")), "--no-progress-bar"]
    for name, value in {
        "preset": "smoke",
        "env_id": "cartpole-v1",
        "run_dir": folder,
        "total_timesteps": steps,
    }.items():
        words += ["-p", name, str(value)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRON | environ)


def ended(folder: Path) -> Any:
    result = json.loads((folder / "result.json").read_text())
    return result["status"], result["metrics"], timeless(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("whole") / "run"
    said = wait(child := run_notebook(folder, STEPS))
    assert child.returncode == 0, said
    return ended(folder)


STEPS = 1_000_000


@pytest.mark.parametrize("lost", [False, True], ids=["kernel", "kernel_and_disk"])
def test_a_killed_notebook_ends_as_if_it_had_not_been(lost: bool, whole: Any, tmp_path: Path) -> None:
    """Once with the run folder still there, once with nothing left but the archive, as when Colab disconnects."""
    folder, drive = tmp_path / "run", tmp_path / "drive"
    environ = {"MXNB_SAVE_MINUTES": "0.02", "MXNB_ARCHIVE": str(drive), "MXNB_ARCHIVE_MINUTES": "0.02"}
    child = run_notebook(folder, STEPS, **environ)
    deadline = time.monotonic() + 300
    while len(list(drive.rglob("run-*.tar"))) < 2 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    kill_kernel(child)
    said = wait(child)
    assert child.returncode != 0 and "DeadKernelError" in said
    assert not (folder / "result.json").exists()
    if lost:
        shutil.rmtree(folder)
    again = run_notebook(folder, STEPS, **environ)
    said = wait(again)
    assert again.returncode == 0, said
    printed = folder.with_suffix(".ipynb").read_text()
    assert "goes on after update" in printed and ("brought " in printed) == lost
    assert ended(folder) == whole

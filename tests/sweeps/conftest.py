"""Notebooks of a few lines, which a sweep's processes execute for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

CELL = """preset = "auto"
seed = 0
env_id = "catch"
total_timesteps = 0
run_dir = ""
resume = True
wait = 0
overrides = {}"""
RESULT = """import json, pathlib, time
time.sleep(wait)
value = seed + overrides.get("ent_coef", 0.0)
pathlib.Path(run_dir, "result.json").write_text(json.dumps({"metrics": {"train/mean_episode_return": value}}))
with open(pathlib.Path(run_dir, "times.txt"), "a") as file:
    file.write("once\\n")"""
TRAIN = """import mxnb
from mxnb.agents.ppo import PPOConfig

p = mxnb.parameters(PPOConfig, extra=["wait"])
agent, env = mxnb.build(p.config)
mxnb.fit(agent, p.run_dir, seed=p.seed, chunk_seconds=0.1, save_updates=20)"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, and the working folder."""
    for name in ("notebooks", "papermill_runs/sweeps"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MXNB_RUN_DIR", raising=False)
    monkeypatch.setenv("MXNB_PRESET", "smoke")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return tmp_path


@pytest.fixture
def notebook(here: Path) -> Callable[..., Path]:
    """notebook(code, name="tiny", cell=...) -> its path."""

    def write(code: str = RESULT, name: str = "tiny", cell: str = CELL) -> Path:
        new: Any = nbformat.v4
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        cells = [new.new_code_cell(cell, metadata={"tags": ["parameters"]}), new.new_code_cell(code)]
        path = here / "notebooks" / f"{name}.ipynb"
        metadata = {"kernelspec": kernel, "mxnb": {"agent": "ppo"}}
        nbformat.write(new.new_notebook(cells=cells, metadata=metadata), path)
        return path

    return write

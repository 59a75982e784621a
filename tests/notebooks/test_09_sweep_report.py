"""Notebook 09 on a sweep that is half done, and its example as far as the first kernel."""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
import yaml

from mxnb.__main__ import main

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCE = (FOLDER / "09_sweep_report.py").read_text()


@pytest.fixture
def half_done(tmp_path: Path) -> Path:
    """A sweep of which two runs are done, one goes on, one was killed, one failed and one waits."""
    folder, now = tmp_path / "papermill_runs" / "half", time.time()
    states = {"done": {"seconds": 60.0}, "started": {"begun": now - 60}, "queued": {}}
    states["failed"] = {"seconds": 9.0, "error": "ValueError: it broke"}
    runs = []
    for i, status in enumerate(("done", "done", "started", "killed", "failed", "queued")):
        run = {"id": f"run-{i}", "values": {"lr": (0.1, 0.2)[i % 2], "seed": i // 2}, "params": {}}
        runs.append(run)
        out = folder / run["id"]
        out.mkdir(parents=True)
        more = {"status": "started", "time": now - 999} if status == "killed" else {"status": status, "time": now}
        (out / "job.json").write_text(json.dumps(more | states.get(status, {})))
        if status in ("done", "started"):
            rows = [{"update": u, "timesteps": 8 * u, "train/mean_reward": u / 9} for u in range(1, 9)]
            (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if status == "done":
            (out / "result.json").write_text(json.dumps({"metrics": {"train/mean_reward": 0.5 + i}}))
    (folder / "sweep.json").write_text(json.dumps({"notebook": "tiny.ipynb", "tags": [], "runs": runs}))
    return folder


@pytest.mark.filterwarnings("default")  # papermill's own
def test_it_reports_on_a_sweep_that_is_half_done(
    half_done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To its end, without starting a run or touching the sweep's folder; the name alone is enough where it belongs."""
    monkeypatch.setenv("MXNB_PRESET", "smoke")
    (tmp_path / "notebooks").mkdir()
    before = sorted(half_done.rglob("*"))
    executed = papermill.execute_notebook(
        FOLDER / "09_sweep_report.ipynb",
        tmp_path / "out.ipynb",
        parameters={"sweep_dir": "half", "run_dir": str(tmp_path / "report")},
        progress_bar=False,
        cwd=tmp_path,
    )
    assert sorted(half_done.rglob("*")) == before
    said = json.dumps([cell.get("outputs", []) for cell in executed.cells])
    for words in ("2 of 6 runs are done", "it broke", "no sign of life", "Final reward per step of 2 of 6 runs"):
        assert words in said, words
    assert "no episodes of run-1" in said  # nothing was saved there that could play
    pictures = {path.stem for path in (tmp_path / "report" / "figures" / "half").glob("*.png")}
    assert pictures == {"progress", "curves", "why_seeds", "results", "best_of_many", "importance"}


def notebooks_own(**scope: Any) -> dict[str, Any]:
    """What the notebook defines for its example: the cells of the tiny notebook, and the function that writes it."""
    for node in ast.parse(SOURCE).body:
        own = isinstance(node, ast.FunctionDef) and node.name == "tiny_notebook"
        names = [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []
        if own or set(names) & {"CELL", "TRAIN", "plan"}:
            exec(ast.unparse(node), scope)
    return scope


def test_the_example_is_a_sweep_of_four_runs_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    p = type("P", (), {"seed": 5})
    told = {"p": p, "env_id": "catch", "total_timesteps": 0, "overrides": {"ent_coef": 0.0}, "nbformat": nbformat}
    own = notebooks_own(**told)
    notebook, file = tmp_path / "notebooks" / "tiny.ipynb", tmp_path / "papermill_runs" / "sweeps" / "example.yaml"
    own["tiny_notebook"](notebook)
    first = notebook.read_bytes()
    own["tiny_notebook"](notebook)
    assert notebook.read_bytes() == first  # else the runs would be others, and done again
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(own["plan"], sort_keys=False))
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "run", str(file), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("queued") == 4 and "in papermill_runs/example;" in said
    assert said.count("seed 5") == said.count("seed 6") == 2 and "lr 0.003" in said

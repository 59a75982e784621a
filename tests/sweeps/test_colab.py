"""A sweep through a `colab` that behaves as Google's: results come back, and no machine is left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RESULT, TRAIN

from mxnb.__main__ import main
from mxnb.run.sweep import rows

Write = Callable[..., Path]
SWEEP = "notebook: tiny\nseeds: [0, 1]\n"


@pytest.fixture
def colab(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `colab` in it, first on PATH; the repository has what is sent there."""
    folder = here / "bin"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("fake_colab.py"), folder / "colab.py")
    (folder / "colab").write_text(f'#!/bin/sh\nexec {sys.executable} {folder / "colab.py"} "$@"\n')
    (folder / "colab").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    (here / "mxnb").mkdir()
    for name in ("mxnb/build.py", "pyproject.toml", "README.md", "LICENSE"):
        (here / name).write_text("")
    return folder


def calls(colab: Path) -> list[list[str]]:
    return [json.loads(row) for row in (colab / "calls.jsonl").read_text().splitlines()]


def write_sweep(here: Path, text: str = SWEEP) -> str:
    path = here / "papermill_runs" / "sweeps" / "far.yaml"
    path.write_text(text)
    return str(path)


def test_results_come_back_and_every_machine_is_stopped(notebook: Write, here: Path, colab: Path) -> None:
    notebook(RESULT + "\nassert pathlib.Path('mxnb/mxnb/build.py').exists()")
    file = write_sweep(here)
    assert main(["sweep", "run", file, "--executor", "colab", "--jobs", "2", "-p", "ent_coef", "0.5"]) == 0
    found = {row["values"]["seed"]: row for row in rows(here / "papermill_runs" / "far")}
    assert [found[seed]["status"] for seed in (0, 1)] == ["done", "done"]
    assert [found[seed]["metrics"]["train/mean_episode_return"] for seed in (0, 1)] == [0.5, 1.5]
    made = calls(colab)
    names = {name for word, name, *_ in made if word == "new"}
    assert len(names) == 2 == len({name for word, name, *_ in made if word == "stop"})
    assert all(rest == ["--gpu", "T4"] for word, _, *rest in made if word == "new")
    assert not list((colab / "machines").iterdir())
    params = json.loads((here / "papermill_runs" / "far" / found[0]["id"] / "job.json").read_text())
    assert params["host"] == "colab"
    assert main(["sweep", "resume", file]) == 0 and len(calls(colab)) == len(made)  # nothing is left, nothing is asked


def test_what_fails_is_told_and_its_machine_is_stopped(notebook: Write, here: Path, colab: Path) -> None:
    notebook("if seed == 1:\n    raise ValueError('one is no seed')")
    assert main(["sweep", "run", write_sweep(here), "--executor", "colab"]) == 1
    found = {row["values"]["seed"]: row for row in rows(here / "papermill_runs" / "far")}
    assert found[0]["status"] == "done" and found[1]["status"] == "failed" and "one is no seed" in found[1]["error"]
    assert not list((colab / "machines").iterdir())
    (colab / "broken").write_text("new")
    assert main(["sweep", "resume", write_sweep(here)]) == 1
    assert "400" in {row["values"]["seed"]: row for row in rows(here / "papermill_runs" / "far")}[1]["error"]


def test_a_run_goes_on_where_another_machine_stood(notebook: Write, here: Path, colab: Path) -> None:
    notebook(
        TRAIN.replace("save_updates=20", "save_updates=20, hooks=[stop]").replace("agent, env", STOP + "agent, env")
    )
    file = write_sweep(here, "notebook: tiny\npreset: smoke\nparameters: {total_timesteps: 40000}\n")
    assert main(["sweep", "run", file, "--executor", "colab"]) == 1
    (row,) = rows(here / "papermill_runs" / "far")
    out = here / "papermill_runs" / "far" / row["id"]
    before = (out / "metrics.jsonl").read_text().splitlines()
    assert row["status"] == "failed" and len(before) >= 20
    assert main(["sweep", "resume", file]) == 0
    after = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["update"] for r in after] == list(range(1, len(after) + 1)) and len(after) > len(before)
    assert json.loads((out / "status.json").read_text())["status"] == "done"
    assert [json.loads(line)["time/wall_seconds"] for line in before[:20]] == [
        r["time/wall_seconds"] for r in after[:20]
    ]


STOP = """import json, os, pathlib

def stop(run_dir, rows):  # the first machine breaks down
    first = not pathlib.Path(run_dir, "second").exists()
    if first and rows[-1]["update"] >= 25:
        pathlib.Path(run_dir, "second").write_text("")
        raise RuntimeError("broke down")

"""


@pytest.mark.parametrize("how", ["limit", "signal"])
def test_one_that_is_ended_brings_back_what_there_is(notebook: Write, here: Path, colab: Path, how: str) -> None:
    notebook("import pathlib, time\npathlib.Path(run_dir, 'here').write_text('')\ntime.sleep(600)")
    limits = "limits: {minutes: 0.5}\n" if how == "limit" else ""
    file = write_sweep(here, "notebook: tiny\nseeds: [0]\n" + limits)
    words = [sys.executable, "-m", "mxnb", "sweep", "run", file, "--executor", "colab"]
    child = subprocess.Popen(words)
    if how == "signal":
        while not list((colab / "machines").glob("*/run/here") if (colab / "machines").exists() else []):
            assert child.poll() is None
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
    assert child.wait(120) == 1
    (row,) = rows(here / "papermill_runs" / "far")
    assert row["status"] == ("timeout" if how == "limit" else "preempted")
    assert (here / "papermill_runs" / "far" / row["id"] / "here").exists()
    assert not list((colab / "machines").iterdir())


def test_machines_of_a_sweep_that_was_killed_are_given_back_by_stop(
    notebook: Write, here: Path, colab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook("import time\ntime.sleep(600)")
    file = write_sweep(here)
    child = subprocess.Popen([sys.executable, "-m", "mxnb", "sweep", "run", file, "--executor", "colab", "--jobs", "2"])
    while len(list((colab / "machines").glob("*/run")) if (colab / "machines").exists() else []) < 2:
        assert child.poll() is None
        time.sleep(0.1)
    child.kill()
    child.wait()
    assert main(["sweep", "stop", file]) == 0 and "stopped 2 machines" in capsys.readouterr().out
    assert not list((colab / "machines").iterdir())


def test_where_the_connection_breaks_the_machine_is_stopped_and_the_others_run(
    notebook: Write, here: Path, colab: Path
) -> None:
    notebook()
    (colab / "broken").write_text("upload")
    file = write_sweep(here)
    assert main(["sweep", "run", file, "--executor", "colab"]) == 1
    found = rows(here / "papermill_runs" / "far")
    assert [row["status"] for row in found] == ["failed"] * 2 and "connection lost in upload" in found[0]["error"]
    assert not list((colab / "machines").iterdir())
    (colab / "broken").write_text("")
    assert main(["sweep", "resume", file]) == 0


def test_without_a_colab_it_says_so(
    notebook: Write, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook()
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(SystemExit):
        main(["sweep", "run", write_sweep(here), "--executor", "colab"])
    assert "pip install google-colab-cli" in capsys.readouterr().err
    assert not (here / "papermill_runs" / "far").exists()

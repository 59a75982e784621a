"""Sweeps: strict before the first kernel, resumable after any end, and a table that tells the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import RESULT, TRAIN

from mxnb.__main__ import main
from mxnb.run import sweep_file as sweep_file_module
from mxnb.run.job import read_job
from mxnb.run.lock import locked
from mxnb.run.sweep import rows, table

Write = Callable[..., Path]
GRID = "notebook: tiny\npreset: smoke\ngrid: {ent_coef: [0.25, 0.5]}\nseeds: [0, 1]\n"


def sweep_file(here: Path, text: str = GRID, name: str = "mine") -> str:
    path = here / "papermill_runs" / "sweeps" / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def times(folder: Path) -> dict[str, int]:
    """How often each run's notebook came to its end."""
    return {path.parent.name: path.read_text().count("once") for path in folder.glob("*/times.txt")}


def test_all_runs_are_done_once(notebook: Write, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook()
    folder = here / "papermill_runs" / "mine"
    assert main(["sweep", "run", sweep_file(here), "--jobs", "2"]) == 0
    found = {tuple(row["values"].values()): row for row in rows(folder)}
    assert set(found) == {(0.25, 0), (0.25, 1), (0.5, 0), (0.5, 1)}
    for (coefficient, seed), row in found.items():
        assert row["status"] == "done" and row["metrics"]["train/mean_episode_return"] == seed + coefficient
    assert "4 done" in capsys.readouterr().out
    assert main(["sweep", "run", sweep_file(here), "--jobs", "2"]) == 0
    assert "4 of 4 runs are done, 0 to do" in capsys.readouterr().out and set(times(folder).values()) == {1}
    sweep_file(here, GRID.replace("[0, 1]", "[0, 1, 2]"))  # a larger one does what is new
    assert main(["sweep", "run", sweep_file(here, GRID.replace("[0, 1]", "[0, 1, 2]")), "--jobs", "2"]) == 0
    assert len(times(folder)) == 6 and set(times(folder).values()) == {1}
    assert main(["sweep", "table", sweep_file(here)]) == 0 and "6 done" in capsys.readouterr().out
    notebook(RESULT + "\nprint('other source')")  # other code, other results
    assert main(["sweep", "run", sweep_file(here), "--dry-run"]) == 0
    assert capsys.readouterr().out.count("queued") == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("notebook: tiny\ngird: {}", "gird: unknown key (did you mean grid?)"),
        ("notebook: tiny\nrandom: {lr: {log_uniform: [1e-4, 1e-3]}}", "reads 1e-4 as a text; write 1.0e-4"),
        ("notebook: tiny\npreset: smoke\nseeds: [0, 1, 2]\nparameters: {ent_cof: 0.1}", "1 mistake in"),
        ("notebook: tyni", "there is no 'tyni'; tiny"),
        ("- 1", "holds no keys"),
        ("a: [", "cannot be read"),
        ("notebook: tiny\npreset: smok", "did you mean smoke"),
        ("notebook: tiny\npreset: smoke\ngrid: {ent_cof: [0.1]}", "did you mean ent_coef"),
        ("notebook: tiny\npreset: smoke\ngrid: {lr: [1e-3]}", "in YAML write 1.0e-3"),
        ("notebook: tiny\npreset: smoke\nparameters: {num_envs: many}", "expected a whole number, got 'many'"),
        ("notebook: tiny\npreset: smoke\nparameters: {num_envs: 0}", "num_envs"),
        ("notebook: tiny\nseeds: 3", "seeds: expected a list"),
        ("notebook: tiny\nseeds: [a]", "seeds: expected a list of whole numbers"),
        ("notebook: tiny\ngrid: {lr: 0.1}", "lr needs a list"),
        ("notebook: tiny\ngrid: {lr: [0.1]}\nparameters: {lr: 0.2}", "lr is given in more than one"),
        ("notebook: tiny\nrandom: {lr: {log_uniform: [0.0, 1.0]}}", "log_uniform takes [low, high] above 0"),
        ("notebook: tiny\nrandom: {lr: {normal: [0.0, 1.0]}}", "needs one of uniform"),
        ("notebook: tiny\nrandom: {lr: {uniform: [0.1, 1.0]}}\nsamples: 0", "how many random sets"),
        ("notebook: tiny\npreset: smoke\nseeds: [0]\nseeds: [1]", "seeds is given twice (line 4)"),
        ("notebook: tiny\npreset: smoke\nparameters: {overrides: 3}", "overrides"),
        ("notebook: tiny\nsamples: 3", "samples: of what"),
        ("notebook: tiny\nrandom: {n: {integer: [1, 3.5]}}", "integer takes [low, high], both whole"),
        ("notebook: tiny\nlimits: {hours: 1}", "limits: unknown hours"),
        ("notebook: tiny\nlimits: {minutes: -1}", "a number of 0 or more"),
        ("notebook: tiny\nlimits: {minutes: .nan}", "a number of 0 or more"),
        ("notebook: tiny\ngrid: {1: [2], lr: [0.1]}", "1 is no name"),
        ("notebook: tiny\nseeds: [99999999999999999999]", "whole numbers below 2^31"),
        ("notebook: tiny\nrandom: {}\nsamples: 5", "random: is empty"),
        (
            "notebook: tiny\nparameters: {total_steps: 4096}\ngrid: {total_timesteps: [8192]}",
            "total_timesteps is given",
        ),
        ("notebook: tiny\nparameters: {overrides: {lr: 0.1}}\ngrid: {lr: [0.2]}", "lr is given in more than one"),
        ("notebook: tiny\nparameters: {overrides: {lr: 0.1}, learning_rate: 0.2}", "lr is given twice"),
        ("notebook: tiny\ngrid: {overrides: [{lr: 0.1}]}", "vary its fields by their own names"),
        ("notebook: tiny\nparameters: {resume: false}", "resume: a sweep decides that itself"),
        ("notebook: tiny\npreset: smoke\nparameters: {preset: cpu}", "preset is given twice"),
    ],
)
def test_a_mistake_is_refused_before_the_first_kernel(
    notebook: Write, here: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook()
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "run", sweep_file(here, text)])
    assert ended.value.code == 2 and words in capsys.readouterr().err
    assert not (here / "papermill_runs" / "mine").exists()


def test_random_values_are_the_same_every_time(notebook: Write, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook()
    text = "notebook: tiny\npreset: smoke\nsamples: 5\nrandom:\n  lr: {log_uniform: [1.0e-4, 1.0e-2]}\n"
    text += "  num_layers: {integer: [1, 3]}\n  use_mask: {choice: [true, false]}\n  discount: {uniform: [0.9, 0.99]}\n"
    said = []
    for _ in range(2):
        assert main(["sweep", "run", sweep_file(here, text), "--dry-run"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "5 runs of tiny.ipynb" in said[0]
    rates = [float(line.split("lr ")[1].split(",")[0]) for line in said[0].splitlines() if "lr " in line]
    assert len(set(rates)) == 5 and all(1e-4 <= rate <= 1e-2 for rate in rates)


def test_failures_are_told_and_tried_again_as_asked(
    notebook: Write, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook(
        "import os\nif seed == 1:\n    raise ValueError('one is no seed')\nif seed == 2:\n    os.kill(os.getpid(), 9)"
    )
    text = "notebook: tiny\npreset: smoke\nseeds: [0, 1, 2]\nlimits: {retries: 1}\n"
    assert main(["sweep", "run", sweep_file(here, text), "--jobs", "2"]) == 1
    found = {row["values"]["seed"]: row for row in rows(here / "papermill_runs" / "mine")}
    assert [found[seed]["status"] for seed in range(3)] == ["done", "failed", "dead_kernel"]
    assert [found[seed]["attempt"] for seed in range(3)] == [1, 2, 2]
    assert "one is no seed" in found[1]["error"] and "1 done, 1 failed, 1 dead_kernel" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_sweep_that_was_ended_is_resumed(notebook: Write, here: Path, number: int) -> None:
    """Nothing is done twice, nothing is lost; the runs of a killed sweep go on alone and are waited for."""
    notebook()
    text = "notebook: tiny\npreset: smoke\nparameters: {wait: 4}\nseeds: [0, 1, 2, 3]\n"
    folder, file = here / "papermill_runs" / "mine", sweep_file(here, text)
    child = subprocess.Popen([sys.executable, "-m", "mxnb", "sweep", "run", file, "--jobs", "2"])
    while sum(read_job(out).get("status") == "started" for out in folder.glob("*")) < 2:
        assert child.poll() is None
        time.sleep(0.1)
    os.kill(child.pid, number)
    child.wait(60)
    assert main(["sweep", "resume", file, "--jobs", "2"]) == 0
    assert times(folder) == {row["id"]: 1 for row in rows(folder)} and len(times(folder)) == 4


def test_what_yaml_merges_is_no_name_given_twice(notebook: Write, here: Path) -> None:
    notebook()
    text = "notebook: tiny\npreset: smoke\nlist:\n  - &one {lr: 0.1, ent_coef: 0.2}\n  - {<<: *one, lr: 0.3}\n"
    assert main(["sweep", "run", sweep_file(here, text), "--dry-run"]) == 0


def test_a_stop_that_comes_before_a_run_has_begun_is_not_lost(notebook: Write, here: Path) -> None:
    notebook()
    file = sweep_file(here, "notebook: tiny\npreset: smoke\nparameters: {wait: 300}\n")
    child = subprocess.Popen([sys.executable, "-m", "mxnb", "sweep", "run", file])
    while not list((here / "papermill_runs" / "mine").glob("*/params.json")):
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    assert child.wait(120) == 1
    assert [row["status"] for row in rows(here / "papermill_runs" / "mine")] == ["preempted"]


def test_a_closed_terminal_and_a_closed_pipe_end_no_sweep_that_shall_go_on(notebook: Write, here: Path) -> None:
    notebook()
    file = sweep_file(here, "notebook: tiny\npreset: smoke\nseeds: [0, 1]\nparameters: {wait: 1}\n")
    words = f"nohup {sys.executable} -m mxnb sweep run {file} --jobs 1"
    child = subprocess.Popen(words.split(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    child.send_signal(signal.SIGHUP)
    child.wait(120)
    assert [row["status"] for row in rows(here / "papermill_runs" / "mine")] == ["done"] * 2


def _begun(job: dict[str, Any]) -> bool:
    return job.get("status") == "started" and "papermill" in job


def test_a_run_whose_runner_was_killed_is_waited_for_and_can_be_asked(notebook: Write, here: Path) -> None:
    notebook()
    folder = here / "papermill_runs" / "mine"
    for wait, stops in ((8, False), (300, True)):
        file = sweep_file(here, f"notebook: tiny\npreset: smoke\nparameters: {{wait: {wait}}}\n")
        child = subprocess.Popen([sys.executable, "-m", "mxnb", "sweep", "run", file])
        while not (jobs := [job for out in folder.glob("*") if _begun(job := read_job(out))]):
            time.sleep(0.1)
        os.kill(jobs[0]["pid"], signal.SIGKILL)
        if stops:
            time.sleep(3)  # the kernel is there by now
            child.send_signal(signal.SIGTERM)
        code = child.wait(120)
        (row,) = rows(folder)
        assert (code, row["status"]) == ((1, "killed") if stops else (0, "done"))


def test_what_is_given_replaces_what_is_varied_and_is_told(
    notebook: Write, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook()
    text = "notebook: tiny\npreset: smoke\nparameters: {total_steps: 4096}\ngrid: {ent_coef: [0.25, 0.5]}\n"
    words = ["-p", "entropy_coef", "0.75", "-p", "total_timesteps", "8192"]
    assert main(["sweep", "run", sweep_file(here, text), *words]) == 0
    (row,) = rows(here / "papermill_runs" / "mine")
    assert row["values"] == {"ent_coef": 0.75, "seed": 0}
    params = json.loads((here / "papermill_runs" / "mine" / row["id"] / "params.json").read_text())
    assert params["total_timesteps"] == 8192 and params["overrides"] == {"ent_coef": 0.75}
    assert "0.75" in capsys.readouterr().out


def test_a_second_sweep_changes_nothing_of_one_that_goes_on(notebook: Write, here: Path) -> None:
    notebook()
    folder, file = here / "papermill_runs" / "mine", sweep_file(here)
    assert main(["sweep", "run", file, "--dry-run"]) == 0 and not folder.exists()
    folder.mkdir()
    (folder / "sweep.json").write_text('{"runs": []}')
    (folder / "stop").write_text("")
    with locked(folder):
        assert main(["sweep", "run", file]) == 1
    assert (folder / "sweep.json").read_text() == '{"runs": []}' and (folder / "stop").exists()


def test_stop_says_whether_anybody_listens(notebook: Write, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook()
    folder, file = (
        here / "papermill_runs" / "mine",
        sweep_file(here, "notebook: tiny\npreset: smoke\nparameters: {wait: 60}\n"),
    )
    with pytest.raises(SystemExit):
        main(["sweep", "stop", file])
    assert "has no sweep.json" in capsys.readouterr().err
    child = subprocess.Popen([sys.executable, "-m", "mxnb", "sweep", "run", file])
    while not any(read_job(out).get("status") == "started" for out in folder.glob("*")):
        time.sleep(0.1)
    child.kill()
    child.wait()
    time.sleep(1)
    assert main(["sweep", "stop", file]) == 0
    assert "no process does this sweep; asked 1 runs" in capsys.readouterr().out and not (folder / "stop").exists()
    last = time.monotonic() + 30
    while [row["status"] for row in rows(folder)] != ["preempted"]:
        assert time.monotonic() < last
        time.sleep(0.1)


def test_resume_keeps_what_auto_came_to(
    notebook: Write, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook()
    file = sweep_file(here, "notebook: tiny\n")
    assert main(["sweep", "run", file]) == 0
    monkeypatch.setenv("MXNB_PRESET", "cpu")
    sweep_file_module._hardware.cache_clear()
    assert main(["sweep", "resume", file]) == 0 and "1 of 1 runs are done" in capsys.readouterr().out
    assert main(["sweep", "run", file, "-p", "preset", "cpu"]) == 0
    assert "1 runs of before are no longer asked for" in capsys.readouterr().out


def test_stop_lets_the_runs_end(notebook: Write, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook()
    text = "notebook: tiny\npreset: smoke\nparameters: {wait: 60}\nseeds: [0, 1, 2]\n"
    folder, file = here / "papermill_runs" / "mine", sweep_file(here, text)
    child = subprocess.Popen([sys.executable, "-m", "mxnb", "sweep", "run", file, "--jobs", "2"])
    while sum(read_job(out).get("status") == "started" for out in folder.glob("*")) < 2:
        time.sleep(0.1)
    assert main(["sweep", "stop", file]) == 0 and "2 runs save first" in capsys.readouterr().out
    assert child.wait(60) == 1
    states = sorted(row["status"] for row in rows(folder))
    assert states == ["preempted", "preempted", "queued"]


def test_wandb_gets_the_sweep_as_a_group(notebook: Write, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    notebook(TRAIN)
    text = (
        "notebook: tiny\npreset: smoke\nwandb: games\ntags: [night, exploring]\nparameters: {total_timesteps: 8192}\n"
    )
    assert main(["sweep", "run", sweep_file(here, text)]) == 0
    (out,) = (here / "papermill_runs" / "mine").glob("*/job.json")
    told = json.loads((out.parent / "wandb.json").read_text())
    assert (told["project"], told["mode"]) == ("games", "offline")
    (record,) = out.parent.glob("wandb/offline-run-*/*.wandb")
    for word in (b"games", b"mine", b"night", b"exploring"):
        assert word in record.read_bytes()


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_many_runs_each_once(notebook: Write, here: Path, count: int) -> None:
    notebook()
    file = sweep_file(here, f"notebook: tiny\npreset: smoke\nseeds: {list(range(count))}\n")
    assert main(["sweep", "run", file, "--jobs", "2"]) == 0
    found = rows(here / "papermill_runs" / "mine")
    assert [row["metrics"]["train/mean_episode_return"] for row in found] == list(range(count))
    assert set(times(here / "papermill_runs" / "mine").values()) == {1}


def test_the_table_of_a_thousand_runs_takes_no_time(here: Path) -> None:
    folder = here / "papermill_runs" / "large"
    runs = [{"id": f"{i:010d}", "values": {"lr": i * 1e-5, "seed": i}, "params": {}} for i in range(1000)]
    for run in runs:
        out = folder / run["id"]
        out.mkdir(parents=True)
        (out / "job.json").write_text(json.dumps({"status": "done", "seconds": 60.0, "attempt": 1}))
        (out / "result.json").write_text(json.dumps({"metrics": {"train/mean_episode_return": 1.0}}))
    (folder / "sweep.json").write_text(json.dumps({"runs": runs}))
    started = time.perf_counter()
    said = table(folder)
    assert time.perf_counter() - started < 2.0 and "1000 done" in said and len(said.splitlines()) == 1003

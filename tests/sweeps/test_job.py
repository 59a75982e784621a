"""One run of a sweep: whatever becomes of it, job.json says so, and no process is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import RESULT, TRAIN

from mxnb.run import job
from mxnb.run.job import read_job, run_notebook
from mxnb.run.lock import InUse, held, locked
from mxnb.run.sweep import state

Write = Callable[..., Path]


def test_a_run_is_done(notebook: Write, here: Path) -> None:
    assert run_notebook(notebook(), {"seed": 3, "overrides": {"ent_coef": 0.5}}, here / "out", cores=(0,)) == "done"
    told = read_job(here / "out")
    assert (told["status"], told["exit_code"], told["attempt"]) == ("done", 0, 1) and "error" not in told
    assert json.loads((here / "out" / "result.json").read_text())["metrics"]["train/mean_episode_return"] == 3.5
    assert json.loads((here / "out" / "params.json").read_text())["run_dir"] == str(here / "out")
    assert (here / "out" / "run.ipynb").exists() and told["seconds"] > 0


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("1 / 0", "failed", "ZeroDivisionError: division by zero"),
        ("import os; os.kill(os.getpid(), 9)", "dead_kernel", "the kernel was killed"),
        ('raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")', "oom", "try preset cpu"),
        ("raise SystemExit(3)", "failed", "SystemExit"),
    ],
)
def test_what_went_wrong_has_a_name(notebook: Write, here: Path, code: str, status: str, error: str) -> None:
    out = here / "out"
    assert run_notebook(notebook(code), {"preset": "colab_t4_small"}, out) == status == read_job(out)["status"]
    assert error in read_job(out)["error"] and read_job(out)["exit_code"] != 0


def test_a_limit_ends_everything_that_was_started(notebook: Write, here: Path) -> None:
    """Also what the kernel has started, in groups of their own."""
    code = "import os, pathlib, subprocess, sys\nsleeps = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
    code += "child = subprocess.Popen(sleeps, start_new_session=True)\n"
    code += "pathlib.Path(run_dir, 'pids').write_text(f'{os.getpid()} {os.getppid()} {child.pid}')\nchild.wait()"
    assert run_notebook(notebook(code), {}, here / "out", minutes=0.4) == "timeout"
    assert read_job(here / "out")["error"] == "ended after its limit, nothing to save"
    pids = [int(pid) for pid in (here / "out" / "pids").read_text().split()]
    last = time.monotonic() + 10
    while alive := [pid for pid in pids if runs(pid)]:
        assert time.monotonic() < last, alive
        time.sleep(0.1)


def runs(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_numbers_reach_the_notebook_as_numbers(notebook: Write, here: Path) -> None:
    """YAML 1.1, which papermill reads, takes 1e-05 for a text."""
    values = {"lr": 1e-5, "eps": 1e-8, "large": 1e16, "flag": True, "word": "1e-5"}
    assert run_notebook(notebook(f"assert repr(overrides) == {repr(values)!r}, overrides"),
                        {"overrides": values}, here / "out") == "done", read_job(here / "out")  # fmt: skip


def test_a_killed_runner_leaves_its_lock_to_its_notebook(notebook: Write, here: Path) -> None:
    """So that the run is not begun a second time beside it."""
    out = here / "out"
    (here / "params.json").write_text(json.dumps({"wait": 6}))
    words = [sys.executable, "-m", "mxnb", "run", str(notebook()), "--params", "params.json", "--out", str(out)]
    child = subprocess.Popen(words)
    while '"started"' not in ((out / "job.json").read_text() if (out / "job.json").exists() else ""):
        time.sleep(0.05)
    time.sleep(2)
    child.kill()
    child.wait()
    with pytest.raises(InUse, match=str(child.pid)):
        run_notebook(notebook(), {}, out)
    last = time.monotonic() + 60
    while held(out, "job.lock"):
        assert time.monotonic() < last
        time.sleep(0.1)
    assert (out / "times.txt").read_text() == "once\n" and state(out) == "killed"
    assert run_notebook(notebook(), {}, out) == "done"


def test_what_an_earlier_attempt_said_is_not_taken_for_this_ones(notebook: Write, here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "status.json").write_text(json.dumps({"status": "oom", "update": 3, "time": time.time() - 60}))
    said = "print('RESOURCE_EXHAUSTED is what a full device says')\n"
    assert run_notebook(notebook(said + "1 / 0"), {}, here / "out") == "failed"
    oom = "raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory')"
    assert run_notebook(notebook(oom), {"preset": "smoke"}, here / "out") == "oom"
    assert read_job(here / "out")["error"].endswith("try a smaller num_envs")


@pytest.mark.parametrize("to_all", [False, True], ids=["to_it_alone", "to_every_process"])
def test_a_signal_lets_fit_save_and_the_next_one_go_on(notebook: Write, here: Path, to_all: bool) -> None:
    """Slurm's scancel sends SIGTERM to every process of a job, papermill's and the kernel's too."""
    out = here / "out"
    params = {"preset": "smoke", "total_timesteps": 60_000}
    (here / "params.json").write_text(json.dumps(params))
    words = [sys.executable, "-m", "mxnb", "run", str(notebook(TRAIN)), "--params", "params.json", "--out", str(out)]
    child = subprocess.Popen(words)
    metrics = out / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 30):
        assert child.poll() is None
        time.sleep(0.1)
    asked = [psutil.Process(child.pid)]
    asked += asked[0].children(recursive=True) if to_all else []
    assert len(asked) == 1 or len(asked) > 2  # papermill and the kernel
    for process in asked:
        process.send_signal(signal.SIGTERM)
    assert child.wait(120) == 143
    told = read_job(out)
    assert told["status"] == "preempted" and told["error"] == "asked to end, saved"
    at = json.loads((out / "status.json").read_text())
    assert at["status"] == "interrupted" and at["update"] >= 30
    assert run_notebook(notebook(TRAIN), params, out) == "done" and read_job(out)["attempt"] == 2
    rows = [json.loads(line)["update"] for line in metrics.read_text().splitlines()]
    assert rows == list(range(1, len(rows) + 1))


def test_a_kernel_that_does_not_start_is_tried_once_more(
    notebook: Write, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def execute(notebook: Path, out: Path, *rest: Any) -> tuple[int, str]:
        calls.append(1)
        (out / "log.txt").write_text("attempt 1\nRuntimeError: Kernel died before replying to kernel_info\n")
        return 1, ""

    really = job._execute
    monkeypatch.setattr(job, "_execute", execute)
    assert run_notebook(notebook(), {}, here / "out") == "dead_kernel" and len(calls) == 2
    monkeypatch.setattr(job, "_execute", lambda *a: execute(*a) if len(calls) < 3 else really(*a))
    assert run_notebook(notebook(), {}, here / "out") == "done" and len(calls) == 3


def test_one_process_a_run(notebook: Write, here: Path) -> None:
    with locked(here / "out", "job.lock"), pytest.raises(InUse, match=str(os.getpid())):
        run_notebook(notebook(RESULT), {}, here / "out")


def test_no_jax_is_imported(notebook: Write, here: Path) -> None:
    code = (
        "import sys; from mxnb.__main__ import main; (__import__('pathlib').Path('p.json')).write_text('{}'); "
        f"main(['run', {str(notebook())!r}, '--params', 'p.json', '--out', 'out']); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

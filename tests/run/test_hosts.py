"""A run of two real processes on this machine, with virtual CPU devices, against one process that has as many."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from hosts_child import agent
from tiny import assert_same_bits, host

from mxnb.run.checkpoint import restore_at
from mxnb.run.metrics import read_rows

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("hosts_child.py")
UPDATES = 12


def begin(folder: Path, processes: int, devices: int, *scenes: str) -> list[subprocess.Popen[str]]:
    """Starts the processes of a run with `devices` in each; what they print goes to `folder`/log-PROCESSES-PROCESS."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(folder / "cache")),
    }
    started = []
    for process in range(processes):
        words = [sys.executable, str(CHILD), str(process), str(processes), str(port), str(folder), *scenes]
        with open(folder / f"log-{processes}-{process}", "a") as log:
            started.append(subprocess.Popen(words, env=told, stdout=log, stderr=subprocess.STDOUT, text=True))
    return started


def end(folder: Path, started: list[subprocess.Popen[str]]) -> None:
    """Waits for all; a hang or a failure of one is told with what it printed."""
    until = time.monotonic() + 240
    try:
        codes = [child.wait(timeout=until - time.monotonic()) for child in started]
    finally:
        for child in started:
            child.kill()
    assert codes == [0] * len(started), "\n".join(log.read_text()[-3000:] for log in sorted(folder.glob("log-*")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """All runs and what each process said: one process, two, cut and ended by as many, and by another number."""
    folder = tmp_path_factory.mktemp("hosts")
    end(folder, begin(folder, 1, 2, "run:one", "failing:begun"))
    pair = begin(folder, 2, 1, "errors:errors", "failing:stopped", "twice:two", "slow:cut")
    until = time.monotonic() + 200
    while len(read_rows(folder / "cut" / "metrics.jsonl")) < 3 and time.monotonic() < until and pair[0].poll() is None:
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGTERM)
    end(folder, pair)
    shutil.copytree(folder / "cut", folder / "moved")
    first = said(folder)
    end(folder, begin(folder, 2, 2, "run:cut", "run:begun"))
    end(folder, begin(folder, 1, 2, "run:moved"))
    return SimpleNamespace(folder=folder, first=first, last=said(folder))


def said(folder: Path) -> dict[str, Any]:
    """What each process told of each run, as RUN-PROCESS."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*-?.json")}


def assert_same_run(folder: Path, name: str) -> None:
    """The last checkpoint of run `name` has the environments of run "one", and its parameters but for rounding."""
    shapes = agent().kept_shapes()
    ours, one = (restore_at(folder / run, UPDATES, shapes) for run in (name, "one"))
    assert_same_bits(ours.envs, one.envs, name)
    for x, y in zip(*(jax.tree.leaves(host(state.policy)) for state in (ours, one)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)
    rows = read_rows(folder / name / "metrics.jsonl")
    assert [row["update"] for row in rows] == list(range(1, UPDATES + 1))
    assert json.loads((folder / name / "status.json").read_text())["status"] == "done"


def test_two_processes_do_what_one_does(made: Any) -> None:
    """State, rows and evaluations; both processes end alike, and only the first has a folder."""
    assert_same_run(made.folder, "two")
    first, second = (made.first[f"two-{process}"] for process in (0, 1))
    assert first == second and (first["status"], first["update"]) == ("done", UPDATES)
    rows = read_rows(made.folder / "two" / "metrics.jsonl")
    assert [row["update"] for row in rows if row.get("eval/return")] == [4, 8, 12]
    assert (made.folder / "two" / "checkpoints" / "best" / "params.npz").exists()
    assert not (made.folder / "nobody").exists()


def test_a_finished_run_is_shown_to_both(made: Any) -> None:
    log = (made.folder / "log-2-0").read_text()
    assert "This run is finished (12 updates); nothing is trained" in log
    other = (made.folder / "log-2-1").read_text()  # which says of the signal, and nothing of updates
    assert "stopping: " in other and "to go" not in other and "This run" not in other


def test_a_signal_to_one_stops_both_and_they_go_on(made: Any) -> None:
    first, second = (made.first[f"cut-{process}"] for process in (0, 1))
    assert first == second and first["status"] == "interrupted" and 3 <= first["update"] < UPDATES
    first, second = (made.last[f"cut-{process}"] for process in (0, 1))
    assert first == second and (first["status"], first["update"]) == ("done", UPDATES)
    assert_same_run(made.folder, "cut")


@pytest.mark.parametrize("name", ["moved", "begun"])
def test_a_run_goes_on_with_another_number_of_processes(made: Any, name: str) -> None:
    """moved: from two to one; begun: from one to two."""
    assert_same_run(made.folder, name)


def test_an_error_of_the_first_ends_both(made: Any) -> None:
    """What was done is saved, as in a run of one process."""
    assert made.first["begun-0"] == made.first["stopped-0"] == [["OSError", "no room"]]
    ((kind, words),) = made.first["stopped-1"]
    assert kind == "Ended" and "process 0 ended this run after" in words and words.endswith("OSError: no room")
    status = json.loads((made.folder / "stopped" / "status.json").read_text())
    assert status["status"] == "failed" and status["error"] == "OSError: no room"
    assert restore_at(made.folder / "stopped", status["update"], agent().kept_shapes()).update == status["update"]


def test_what_is_refused(made: Any) -> None:
    """By both, so that neither waits; and both are well afterwards."""
    mend = 'and jax has 2 in 2 processes; use mesh=jax.make_mesh((jax.device_count(),), ("envs",)) in each'
    other = "process 1 was asked for another run than process 0: other "
    uneven = "num_envs = 7 does not divide over the mesh's 2 devices: use a multiple of 2; shards = 1 does not divide"
    both = [
        f"mesh is None in process 0, {mend}",
        f"the mesh is of 1 devices in process 0, {mend}",
        f"mesh is None in process 1, {mend}",
        other + "seed",
        other + "lr",
        uneven,
    ]
    for process in (0, 1):
        *found, last = made.first[f"errors-{process}"]
        for (kind, words), expected in zip(found, both, strict=True):
            assert kind == "ValueError" and words.startswith(expected)
        assert last[0] == ("Ended" if process else "ValueError") and "keep is 0; use 1 or more" in last[1]
    assert not (made.folder / "errors").exists()

"""One folder, one run: the second is refused by name, and a killed owner leaves nothing locked."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from walking import walk

from mxnb.__main__ import main
from mxnb.run import lock
from mxnb.run.fit import fit
from mxnb.run.lock import InUse, held, locked

HOLD = """
import sys, time
from pathlib import Path
from mxnb.run.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Another process that holds the lock of tmp_path/run."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate()


def owner(run: Path) -> dict[str, Any]:
    return json.loads((run / "lock").read_text())


def test_the_second_is_refused_and_a_killed_owner_frees_it(holder: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = f"run is in use by process {holder.pid} on {socket.gethostname()}; wait for it, stop it, or use another"
    with pytest.raises(InUse, match=words), locked(run):
        pytest.fail("both have it")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert owner(run)["pid"] == holder.pid  # it could not tidy up
    started = time.monotonic()
    with locked(run):
        assert owner(run)["pid"] == os.getpid()
    assert time.monotonic() - started < 2
    assert (run / "lock").read_text() == ""


def test_the_second_thread_of_one_process_is_refused_too(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(InUse, match=f"in use by process {os.getpid()}"), locked(tmp_path):
            pytest.fail("both have it")
        assert owner(tmp_path)["pid"] == os.getpid()
    with locked(tmp_path), pytest.raises(KeyError):
        raise KeyError  # an error inside frees it
    with locked(tmp_path):
        pass


def test_another_machine_counts_while_its_heart_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "_WATCH", 0.5)
    path = tmp_path / "lock"
    there = {"host": "elsewhere", "pid": 7, "beat": time.time() - 60}
    path.write_text(json.dumps(there))
    beat = threading.Timer(0.2, lambda: path.write_text(json.dumps(there | {"beat": time.time()})))
    beat.start()
    with pytest.raises(InUse, match="in use by process 7 on elsewhere"), locked(tmp_path):
        pytest.fail("both have it")
    assert "in use by process 7 on elsewhere, or was; watching for" in capsys.readouterr().out
    with locked(tmp_path):  # it beats no more
        assert owner(tmp_path)["pid"] == os.getpid()
    path.write_text(json.dumps(there | {"beat": time.time() - 3600}))
    monkeypatch.setattr(lock, "_WATCH", 1e9)
    with locked(tmp_path):  # nobody watches for one that old
        pass


def test_without_the_systems_lock_the_heartbeat_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: Any, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock, "_WATCH", 0.5)
    monkeypatch.setattr(lock, "_BEAT", 0.1)
    with locked(tmp_path), pytest.raises(InUse, match=f"in use by process {os.getpid()} "), locked(tmp_path):
        pytest.fail("both have it")
    with locked(tmp_path):
        pass
    monkeypatch.setattr(lock, "fcntl", None)  # as on Windows: no lock at all
    with locked(tmp_path), locked(tmp_path):
        pass


def test_a_folder_renamed_while_one_waits_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, whole = tmp_path / "run", fcntl.flock
    renamed = []

    def flock(file: Any, how: int) -> None:
        if not renamed:
            renamed.append(run.rename(tmp_path / "run.old1"))
        whole(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(run):
        assert owner(run)["pid"] == os.getpid() and (tmp_path / "run.old1" / "lock").read_text() == ""


def test_runs_tells_a_killed_run_from_one_that_goes_on(
    holder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "config.json").write_text('{"agent": "ppo", "env": "e", "seed": 0}')
    (run / "status.json").write_text('{"status": "running", "update": 3, "time": 0}')
    assert main(["runs", str(tmp_path)]) == 0 and " running " in capsys.readouterr().out
    holder.kill()
    holder.wait()
    assert main(["runs", str(tmp_path)]) == 0 and " killed " in capsys.readouterr().out


def test_a_lock_that_cannot_be_opened_counts_as_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not held(tmp_path)

    def refuse(*args: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert held(tmp_path)


def test_the_heart_beats_and_a_full_disk_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT", 0.05)
    whole, full = os.pwrite, [True]

    def pwrite(file: int, data: bytes, at: int) -> int:
        if full[0]:
            full[0] = False
            raise OSError(28, "No space left on device")
        return whole(file, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with locked(tmp_path):
        assert (tmp_path / "lock").read_text() == ""  # the disk was full; the lock holds all the same
        with pytest.raises(InUse, match="in use by another process"), locked(tmp_path):
            pytest.fail("both have it")
        beats: set[float] = set()
        deadline = time.monotonic() + 20
        while len(beats) < 3:
            assert time.monotonic() < deadline
            beats.add(json.loads((tmp_path / "lock").read_text() or '{"beat": 0}')["beat"])
            time.sleep(0.02)


def test_a_held_folder_may_be_renamed(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "other")
    assert (tmp_path / "other" / "lock").read_text() == "" and not (tmp_path / "run").exists()


def test_a_damaged_lock_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("{half")
    with locked(tmp_path):
        assert owner(tmp_path)["host"] == socket.gethostname()


def test_a_second_run_in_one_folder_is_refused_and_changes_nothing(
    holder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for resume in (True, False):
        with pytest.raises(InUse, match=f"in use by process {holder.pid} "):
            fit(walk(), run, resume=resume)
    line = f"train --preset smoke --env-id probe-mask --num-envs 8 --num-steps 8 --total-timesteps 64 --run-dir {run}"
    assert main(line.split()) == 1
    assert f"python -m mxnb train: {run} is in use by process {holder.pid} " in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["run"] and [p.name for p in run.iterdir()] == ["lock"]
    holder.kill()
    holder.wait()
    assert fit(walk(), run).status == "done"

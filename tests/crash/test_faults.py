"""Disks that fill up, refuse and break: whatever fails, the newest whole checkpoint is there and the run goes on.

Errors are raised at Python's own seams, where our files and orbax's folders are made; what TensorStore writes in C++
is met by a limit on the size of files.
"""

from __future__ import annotations

import builtins
import errno
import gc
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import pytest
from runs import finish, half_written, start, timeless
from tiny import sha256
from walking import WalkConfig, stop_at, walk
from walking import timeless as rows

from mxnb.run import checkpoint
from mxnb.run import fit as runner
from mxnb.run.fit import fit

# orbax leaves coroutines behind that nobody awaits when a save fails half-way.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ERRORS = (errno.ENOSPC, errno.EACCES, errno.EIO)
AGENT = walk(WalkConfig(total=6))


@pytest.fixture(autouse=True)
def _collected() -> Any:
    """Those coroutines go while the filter above holds."""
    yield
    gc.collect()


class Faults:
    """Counts writes, renames and new folders below a path, and fails one of them."""

    def __init__(self, below: Path, fail_at: int, number: int, lasting: bool = False) -> None:
        self.below, self.fail_at, self.number, self.lasting = str(below), fail_at, number, lasting
        self.calls: list[str] = []

    def __call__(self, what: str, path: Any) -> None:
        if not isinstance(path, int) and self.below in os.path.abspath(os.fspath(path)):
            self.calls.append(f"{what} {os.path.basename(os.fspath(path))}")
            if len(self.calls) == self.fail_at or (self.lasting and len(self.calls) > self.fail_at):
                raise OSError(self.number, os.strerror(self.number), os.fspath(path))


class Writer:
    """A file whose every write may fail, half-way."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def write(self, data: Any) -> Any:
        try:
            self._faults("write", self._file.name)
        except OSError:
            self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextmanager
def failing(faults: Faults) -> Iterator[None]:
    """Inside, our and orbax's writes, renames and new folders go through `faults`."""
    whole = {name: getattr(os, name) for name in ("mkdir", "rename", "replace")}
    opened = builtins.open

    def open_(path: Any, mode: str = "r", *args: Any, **how: Any) -> Any:
        if not set(mode) & set("wax+"):
            return opened(path, mode, *args, **how)
        faults("open", path)
        file = opened(path, mode, *args, **how)
        return file if isinstance(path, int) else Writer(file, faults)

    def seam(name: str) -> Any:
        def call(path: Any, *args: Any, **how: Any) -> Any:
            faults(name, path)
            return whole[name](path, *args, **how)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in whole:
            patch.setattr(os, name, seam(name))
        patch.setattr(builtins, "open", open_)
        patch.setattr(io, "open", open_)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted run: (sha256 of its State, rows, number of seams passed)."""
    run = tmp_path_factory.mktemp("whole") / "run"
    faults = Faults(run, 0, 0)
    with pytest.MonkeyPatch.context() as patch, failing(faults):
        patch.setattr(runner, "_MAX_CHUNK", 1)
        result = fit(AGENT, run, save_updates=2)
    kinds = {call.split()[0] for call in faults.calls}
    assert kinds >= {"mkdir", "rename", "open", "write"} and len(faults.calls) > 40, faults.calls
    return sha256(result.state), rows(run), len(faults.calls)


def whole_updates(run: Path) -> list[int]:
    """The checkpoints that can be restored."""
    shapes = jax.eval_shape(AGENT.init, jax.random.key(0))
    found = []
    for update in checkpoint.kept_updates(run):
        try:
            checkpoint.restore_at(run, update, shapes)
            found.append(update)
        except Exception:
            continue
    return found


def broken_at(run: Path, at: int, number: int, whole: Any, sitting: int = 1) -> int:
    """One fault, then a start without any: the end is the same; the checkpoints before the fault are still there.

    In the first sitting, or in a second one that goes on after update 3, whose newest checkpoint is damaged. Returns
    the number of seams passed.
    """
    newest: list[int] = []
    if sitting == 2:
        fit(AGENT, run, save_updates=2, hooks=[stop_at(3)])
        shutil.rmtree(run / "checkpoints" / "steps" / "3" / "state")
        newest = [2]

    def look(run_dir: Path, new: Any) -> None:
        newest.append(max(checkpoint.kept_updates(run_dir), default=0))

    faults = Faults(run, at, number)
    try:
        with failing(faults):
            fit(AGENT, run, save_updates=2, hooks=[look])
    except OSError as error:
        assert os.strerror(number) in str(error), faults.calls[at - 1]
    before = max(newest, default=0)
    assert max(whole_updates(run), default=0) >= before, f"{faults.calls[at - 1]}: the newest checkpoint was lost"
    again = fit(AGENT, run, save_updates=2)
    assert (sha256(again.state), rows(run)) == whole[:2], faults.calls[at - 1]
    assert len(list(run.glob("checkpoints/bad/*"))) == sitting - 1, faults.calls[at - 1]
    return len(faults.calls)


@pytest.mark.parametrize("part", range(4))
def test_one_fault_loses_nothing(part: int, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_MAX_CHUNK", 1)
    for at in range(1 + part, whole[2] + 1, 16):
        broken_at(tmp_path / f"at{at}", at, ERRORS[at % 3], whole)


def every_fault(run: Path, number: int, whole: Any, sitting: int, step: int = 1) -> None:
    at = 1
    while broken_at(run.with_name(f"at{at}"), at, number, whole, sitting) >= at:
        at += step


def test_one_fault_in_a_second_sitting_loses_nothing(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_MAX_CHUNK", 1)
    every_fault(tmp_path / "run", errno.ENOSPC, whole, 2, step=8)


@pytest.mark.slow
@pytest.mark.parametrize("sitting", [1, 2])
@pytest.mark.parametrize("number", ERRORS)
def test_one_fault_anywhere_loses_nothing(
    number: int, sitting: int, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_MAX_CHUNK", 1)
    every_fault(tmp_path / "run", number, whole, sitting)


def test_a_disk_that_stays_full_is_told_once_and_the_last_checkpoint_is_whole(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "_MAX_CHUNK", 1)
    run = tmp_path / "run"
    full = Faults(run, 10**9, errno.ENOSPC, lasting=True)

    def fill(run_dir: Path, new: Any) -> None:
        if new[-1]["update"] == 3:
            full.fail_at = len(full.calls)

    with failing(full), pytest.raises(OSError, match=r"the checkpoint of update 2 is whole. Make room, then start"):
        fit(AGENT, run, save_updates=2, hooks=[fill])
    said = capsys.readouterr().out
    assert (
        said.count("could not be written in full (OSError: [Errno 28]") == 1
        and "training goes on and tries again" in said
    )
    assert whole_updates(run) == [2] and len(half_written(run)) <= 1  # torn saves do not pile up
    again = fit(AGENT, run, save_updates=2)
    assert (sha256(again.state), rows(run)) == whole[:2]


def test_a_disk_with_room_again_is_told(
    whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "_MAX_CHUNK", 1)
    run = tmp_path / "run"
    full = Faults(run, 10**9, errno.ENOSPC, lasting=True)

    def fill(run_dir: Path, new: Any) -> None:
        full.fail_at = len(full.calls) if new[-1]["update"] == 2 else 10**9 if new[-1]["update"] == 5 else full.fail_at

    with failing(full):
        result = fit(AGENT, run, save_updates=2, hooks=[fill])
    said = capsys.readouterr().out
    assert said.count("could not be written in full") == 1 and "update 5 is saved; all is well again" in said
    assert (sha256(result.state), rows(run)) == whole[:2] and result.status == "done"


@pytest.mark.parametrize("kilobytes", [8, 24])
def test_files_that_cannot_grow(kilobytes: int, tmp_path: Path) -> None:
    """A real short write, in metrics.jsonl or in TensorStore's files: the run says so; with room it goes on."""
    (whole,) = finish("ppo", tmp_path / "whole", save_updates=20)
    child = start("ppo", tmp_path / "run", save_updates=20, file_limit=1000 * kilobytes)
    out, err = child.communicate(timeout=600)
    assert child.returncode != 0 and "could not be written in full" in out + err, out + err
    assert finish("ppo", tmp_path / "run", save_updates=20)[0][1] == whole[1]
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")

"""What a run keeps: the state it begins with, and rows, checkpoint, policy and archive at every save."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from mxnb.config import policy_file
from mxnb.run import checkpoint, hosts
from mxnb.run.archive import Archive, archive_folder, in_colab, unpack, was_archived
from mxnb.run.folder import (
    check_config,
    check_run,
    read_status,
    read_update,
    shown,
    start_file,
    write_config,
    write_status,
)
from mxnb.run.metrics import cut_back, judge, read_rows, write_rows
from mxnb.run.program import first_state


@dataclass
class Run:
    """What changes while a run goes on."""

    dir: Path
    state: Any
    update: int
    rows: list[dict[str, Any]]
    wall: float  # seconds trained in earlier sittings
    began: float  # this sitting's start, by time.perf_counter
    about: dict[str, Any]  # what config.json says
    archive: Archive
    kept: Callable[..., Any]  # what of the state a checkpoint keeps
    written: int = 0  # bytes of metrics.jsonl
    pending: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # rows not yet in metrics.jsonl
    saved: int = -1  # update of the newest checkpoint
    saved_at: float = 0.0
    unsaved: bool = False  # the last save failed
    best: tuple[Any, int, float] | None = None  # (policy, update, return) of a best evaluation that is not yet on disk
    compile_seconds: float = 0.0
    said: set[str] = dataclasses.field(default_factory=set)  # metrics warned about: once is enough

    def wall_seconds(self) -> float:
        """Seconds trained in all sittings."""
        return self.wall + time.perf_counter() - self.began


def start(agent: Any, run_dir: Path, seed: int, manager: Any, about: dict[str, Any]) -> Run:
    """The state to begin with: the newest checkpoint here or in the archive, or a fresh one."""
    key = jax.random.key(seed)
    found = _newest(agent, run_dir, seed, manager, agent.kept_shapes())
    if found is None:
        write_config(run_dir, about)
        if before := len(read_rows(run_dir / "metrics.jsonl")):
            print(f"nothing was saved before this run stopped; its {before:,} updates are made again")
        (run_dir / "metrics.jsonl").write_text("")
        started = time.perf_counter()
        # Placed as a restored state is, or resuming would compile another program.
        state = jax.block_until_ready(jax.device_put(first_state(agent).call(key), jax.local_devices()[0]))
        print(f"{agent.name} on {agent.spec.id}: made the first worlds in {time.perf_counter() - started:.1f} s")
        if about.get("init_from"):  # whose policy was copied here when the run was prepared
            policy = checkpoint.load_params(start_file(run_dir), state.policy)
            state = agent.begun(dataclasses.replace(state, policy=jax.device_put(policy, jax.local_devices()[0])))
            print(f"began with the policy of {about['init_from']}")
        now = time.perf_counter()
        return Run(run_dir, state, 0, [], 0.0, now, about, Archive(run_dir), kept=agent.kept, saved_at=now)
    state, meta = found
    update = int(meta["update"])
    who = {name: about[name] for name in ("agent", "seed") if name in meta}
    theirs = {name: meta[name] for name in who} | meta["config"]
    check_config(agent, theirs, f"the checkpoint of update {update} in {run_dir}", who)
    if not (run_dir / "config.json").exists():
        about.pop("init_from", None)  # it is not known how this run began
    write_config(run_dir, about)
    written = cut_back(run_dir / "metrics.jsonl", meta["metrics_offset"], update)
    rows = read_rows(run_dir / "metrics.jsonl")
    print(f"{agent.name} on {agent.spec.id}: goes on after update {update:,} of {agent.num_updates:,}")
    if len(rows) < update:
        print(f"warning: metrics.jsonl has lost {update - len(rows):,} rows; the curve has gaps, the training has none")
    whole = jax.tree.structure(jax.eval_shape(agent.init, key))
    if update < agent.num_updates and jax.tree.structure(state) != whole:
        print(f"the checkpoint holds no replay: the policy plays {agent.steps_before:,} steps first to fill one")
        state = jax.block_until_ready(jax.device_put(jax.jit(agent.regrown)(state), jax.local_devices()[0]))
    for words in judge(agent.health, rows) if update < agent.num_updates else ():
        print(f"warning: this run was not healthy when it stopped: {words}")
    wall, now = float(meta["wall_seconds"]), time.perf_counter()
    archive = Archive(run_dir)
    return Run(run_dir, state, update, rows, wall, now, about, archive, agent.kept, written, saved=update, saved_at=now)


def fetch(agent: Any, run_dir: Path, seed: int, init_from: str | Path | None) -> None:
    """Brings the archived run into `run_dir` if it got further than what is there; the folder's lock is held."""
    here = max(checkpoint.kept_updates(run_dir), default=-1)

    def check(folder: Path, update: int) -> None:
        check_run(agent, folder, seed, True, init_from)
        if here >= 0:  # a checkpoint that cannot be trusted must not replace the rows of what is here
            checkpoint.restore_at(folder, update, agent.kept_shapes())

    unpack(run_dir, check, above=here)
    if (folder := archive_folder(run_dir)) is not None:
        print(f"archived in {shown(folder)}")
    elif in_colab():
        print("not archived: a Drive that is mounted before the run would keep it when Colab disconnects")


def _newest(agent: Any, run_dir: Path, seed: int, manager: Any, shapes: Any) -> Any:
    """(state, meta) of the newest checkpoint that is whole, here or in the archive; None where there was no run.

    Raises `Lost` where there was one and neither has a whole checkpoint.
    """
    found, lost, damaged = None, None, {}
    try:
        found = checkpoint.restore(manager, shapes)
    except checkpoint.Lost as error:
        lost, damaged = error, error.damaged

    def check(folder: Path, update: int) -> None:
        check_run(agent, folder, seed, True, None)
        checkpoint.restore_at(folder, update, shapes)
        checkpoint.set_aside(manager, damaged)

    if unpack(run_dir, check, above=int(found[1]["update"]) if found else -1):
        manager.reload()
        found = checkpoint.restore(manager, shapes)
    elif lost:
        raise lost
    if found is None and was_archived(run_dir):
        raise checkpoint.Lost(
            f"{archive_folder(run_dir)} has this run, and no run-*.tar in it can be used. Bring one back from a copy "
            "and start again, or begin anew with resume=False (--no-resume), which keeps that folder aside."
        )
    if found is None and _was_saved(run_dir):
        raise checkpoint.Lost(
            f"{run_dir} holds a run that was saved, but none of its checkpoints. Bring checkpoints/steps back from a "
            "copy, or begin anew with resume=False (--no-resume), which keeps this folder aside."
        )
    return found


def _was_saved(run_dir: Path) -> bool:
    """Whether there must have been a checkpoint. A run that failed early tells of its updates without one."""
    told = read_update(run_dir) > 0 and read_status(run_dir) in ("running", "interrupted", "done")
    return told or policy_file(run_dir).exists() or (run_dir / "result.json").exists()


def write_new_rows(run: Run) -> None:
    """Brings metrics.jsonl up to date."""
    run.written = write_rows(run.dir / "metrics.jsonl", run.pending, run.written)
    run.pending = []


def save(run: Run, manager: Any) -> None:
    """Rows, checkpoint, policy, status and archive, in this order: a checkpoint never knows rows that are not there."""
    write_new_rows(run)
    meta = {
        "metrics_offset": run.written,
        "wall_seconds": run.wall_seconds(),
        **{name: run.about[name] for name in ("agent", "seed", "config", "versions")},
    }
    try:
        checkpoint.save(manager, run.update, hosts.gathered(run.kept(run.state)), meta)
    except Exception as error:
        full = any(word in str(error) for word in _DISK) and "out of memory" not in str(error).lower()
        if full:  # TensorStore's errors are of no class of their own
            raise OSError(str(error)) from error
        raise
    run.saved, run.saved_at = run.update, time.perf_counter()
    checkpoint.save_params(policy_file(run.dir), run.state.policy)
    _write_best(run)
    write_status(run.dir, "running", run.update)
    run.archive(run.update)
    if run.unsaved:
        print(f"update {run.update} is saved; all is well again", flush=True)
        run.unsaved = False


_DISK = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAVAILABLE", "No space", "too large", "Input/output")


def note_best(run: Run) -> None:
    """Keeps the policy apart if its evaluation was the best so far."""
    value = run.rows[-1]["eval/return"]
    best = value > max(checkpoint.best_value(run.dir), run.best[2] if run.best else -math.inf)
    print(f"evaluated after update {run.update:,}: return {value:.2f}{', the best so far' if best else ''}", flush=True)
    if best:
        run.best = (jax.device_get(run.state.policy), run.update, value)
    _write_best(run)


def _write_best(run: Run) -> None:
    if run.best:
        checkpoint.keep_best(run.dir, *run.best)
        run.best = None


def try_to(run: Run, write: Callable[[Run], None]) -> None:
    """Writes what can wait: where that fails, training goes on with a word, and the next chunk tries again."""
    try:
        write(run)
    except Exception as error:
        if run.saved < 0 and not isinstance(error, OSError):
            raise  # nothing says that it will ever work
        if not run.unsaved:
            print(f"warning: {unsaved(run, error)}; training goes on and tries again after every chunk", flush=True)
        run.unsaved = True


def unsaved(run: Run, error: Exception) -> str:
    """What could not be written, and what is there all the same."""
    whole = f"the checkpoint of update {run.saved} is whole" if run.saved >= 0 else "there is no checkpoint yet"
    return f"update {run.update} could not be written in full ({type(error).__name__}: {error}); {whole}"

"""The training loop: one compiled program for any number of updates, and a run folder that survives.

Knows an Agent only through its record, so every algorithm trains, saves, resumes and reports alike.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mxnb.config import write_json
from mxnb.run import checkpoint, hosts
from mxnb.run.archive import in_colab, minutes_from, set_archive_aside
from mxnb.run.cache import keep_programs, restore_programs
from mxnb.run.folder import check_numbers, check_run, prepare, read_status, read_update, set_aside, shown, write_status
from mxnb.run.lock import locked
from mxnb.run.memory import check_dtype, check_memory, words
from mxnb.run.metrics import final_metrics, judge, to_rows
from mxnb.run.mirror import check_options, mirror, unsent
from mxnb.run.program import MAX_ROWS, placement, updates
from mxnb.run.progress import Progress, warn
from mxnb.run.saving import Run, fetch, note_best, save, start, try_to, unsaved, write_new_rows

_MAX_CHUNK = MAX_ROWS


@dataclass(frozen=True)
class Result:
    """How a run ended: status "done" or "interrupted", the final State, updates done, and its folder."""

    status: str
    state: Any
    update: int
    run_dir: Path


def fit(
    agent: Any,
    run_dir: str | Path,
    *,
    seed: int = 0,
    resume: bool = True,
    save_minutes: float | None = None,
    save_updates: int = 0,
    keep: int = 3,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    eval_updates: int = 0,
    chunk_seconds: float = 2.0,
    hooks: Sequence[Callable[[Path, list[dict[str, Any]]], None]] = (),
    init_from: str | Path | None = None,
    log_updates: int = 0,
    wandb: bool | Mapping[str, Any] = False,
    mesh: Any = None,
) -> Result:
    """Trains `agent` to its last update, or goes on where the run folder's newest checkpoint stands.

    A finished run is shown, not trained again. Ctrl-C and SIGTERM finish the running chunk, save, and return
    "interrupted"; a second Ctrl-C stops when the running call returns. The same seed gives the same bits however
    often the run is cut and resumed: the clock chooses only how many updates one call does.

    Args:
      agent: an `mxnb.agents.api.Agent`.
      run_dir: the run folder; made if it is not there.
      seed: of everything random in the run.
      resume: False sets an earlier run in this folder aside and starts anew.
      save_minutes, save_updates: how often to save, by default every 10 minutes (5 in Colab); $MXNB_SAVE_MINUTES wins
        over what is given, and updates, where given, replace minutes. Always at the end. What cannot be written is
        told and tried again after every chunk.
      keep: newest checkpoints to keep.
      evaluate, eval_updates: evaluate(policy parameters) -> numbers, every `eval_updates` updates, as eval/. The
        policy of the highest "return" is kept in checkpoints/best.
      chunk_seconds: how long one call of the compiled program should take.
      hooks: hook(run_dir, new rows) after every chunk; an error there stops the run after a save.
      init_from: a run folder whose policy is the first one here (a warm start); all else begins anew.
      log_updates: updates between lines on the console; 0: a line for every 5 % or 30 seconds. metrics.jsonl has
        every update either way.
      mesh: a jax.sharding.Mesh of devices that share the environments (`jax.make_mesh((8,), ("envs",))`); num_envs and
        shards of the configuration must be multiples of its size. Which devices they are changes results only in the
        order of sums. Several processes (`jax.distributed.initialize`) call fit alike, with a mesh of all their
        devices: process 0 decides, writes, prints, evaluates and calls hooks, a signal to any of them stops all, and
        the others need no run folder.
      wandb: True or its options mirror every row to Weights & Biases; see `mxnb.run.mirror.mirror`.

    Raises:
      ValueError: the folder holds a run of another configuration, or one that did not begin with init_from; the
        policy there does not fit; an option is unknown or out of range; the state is too large for the device;
        the processes ask for different runs, or their mesh lacks devices.
      FileNotFoundError: init_from has no policy.
      FloatingPointError: the loss is not a number; the newest checkpoint is from before.
      mxnb.run.hosts.Ended: in a process that is not the first: that one's run ended with an error, which it names.
      mxnb.run.lock.InUse: another process trains in this folder.
      mxnb.run.checkpoint.Lost: this run was saved, and neither the folder nor the archive has a whole checkpoint.
      OSError: the last checkpoint could not be written; the newest one is whole.
    """
    run_dir = Path(run_dir)
    hosts.check(agent, seed, mesh)
    places = placement(agent, mesh)
    if not hosts.leads():
        with _signals() as stop:
            return Result(*hosts.follow(agent, places, mesh, stop, _MAX_CHUNK), run_dir)
    with hosts.leading():
        check_options(wandb)
        check_numbers(
            save_minutes=save_minutes,
            save_updates=save_updates,
            keep=keep,
            eval_updates=eval_updates,
            log_updates=log_updates,
        )
        minutes = save_minutes if save_minutes is not None else 5.0 if in_colab() else 10.0
        minutes = minutes_from("MXNB_SAVE_MINUTES", minutes)
        minutes_from("MXNB_ARCHIVE_MINUTES", 30.0)
        restore_programs()
        check_run(agent, run_dir, seed, resume, init_from)
        if not resume:
            with locked(run_dir):  # not while another process trains there
                set_aside(run_dir)
                set_archive_aside(run_dir)
        saving, evals = (minutes, save_updates), (evaluate, eval_updates)
        how = (chunk_seconds, saving, evals, tuple(hooks), log_updates)
        return _run(agent, run_dir, seed, keep, init_from, wandb, mesh, places, how)


def _run(
    agent: Any,
    run_dir: Path,
    seed: int,
    keep: int,
    init_from: str | Path | None,
    wandb: bool | Mapping[str, Any],
    mesh: Any,
    places: Any,
    how: tuple[Any, ...],
) -> Result:
    """The run from its lock to its last word; in a run of several processes, process 0's."""
    chunk_seconds, saving, evals, hooks, log_updates = how
    with locked(run_dir), _signals() as stop:
        check_memory(agent)
        check_dtype(agent)
        fetch(agent, run_dir, seed, init_from)
        about = prepare(agent, run_dir, seed, init_from)
        run = None
        try:
            with checkpoint.open_checkpoints(run_dir, keep) as manager:
                run = start(agent, run_dir, seed, manager, about)
                if run.update >= agent.num_updates:
                    return _show_finished(agent, run, manager, wandb)
                write_status(run_dir, "running", run.update)
                with mirror(wandb, run_dir, run.update) as mirrored:
                    all_hooks = (mirrored, *hooks)
                    run.state = hosts.placed(run.state, places, run.update)
                    program = hosts.ordered(_compile(agent, run, mesh), stop)
                    keep_programs()
                    _train(agent, run, program, manager, stop, chunk_seconds, saving, evals, all_hooks, log_updates)
                    status = "done" if run.update >= agent.num_updates else "interrupted"
                    _finish(agent, run, manager, status)
        except BaseException as error:
            _say_why(run_dir, run, error)
            raise
    return Result(status, run.state, run.update, run_dir)


def _say_why(run_dir: Path, run: Run | None, error: BaseException) -> None:
    """Writes how the run failed into status.json; a disk that is full must not hide the error itself."""
    if (run is None or run.saved == run.update) and read_status(run_dir) in ("done", "interrupted"):
        return  # what is there is as good as before; or the run had ended, and only a copy of it was cut off
    oom = "RESOURCE_EXHAUSTED" in str(error) and not isinstance(error, OSError)  # a full disk is called so too
    words = f"{type(error).__name__}: {error}"[:2000]
    with suppress(OSError):
        write_status(run_dir, "oom" if oom else "failed", run.update if run else read_update(run_dir), error=words)
    if oom:
        print(
            "Out of memory. Does another process hold the device (nvidia-smi shows it)? Else begin a new run: preset "
            "'auto' plans its memory; or use a smaller preset (colab_t4_small), or half of num_envs in overrides."
        )


def _show_finished(agent: Any, run: Run, manager: Any, wandb: bool | Mapping[str, Any]) -> Result:
    if read_status(run.dir) != "done":
        _finish(agent, run, manager, "done")  # it was stopped between its last save and its export
    run.archive.catch_up(run.update)
    with mirror(wandb if unsent(run.dir, run.update) else False, run.dir, run.update):
        pass  # what could not be sent then is sent now
    print(f"This run is finished ({run.update:,} updates); nothing is trained. Its folder: {shown(run.dir)}")
    print("To train it anew, say after a change to your environment or network: resume=False (--no-resume).")
    hosts.shown(run.state, run.update)
    return Result("done", run.state, run.update, run.dir)


def _train(
    agent: Any,
    run: Run,
    program: Any,
    manager: Any,
    stop: Any,
    chunk_seconds: float,
    saving: Any,
    evals: Any,
    hooks: Any,
    log_updates: int,
) -> None:
    """Chunk after chunk until the last update or a signal."""
    (save_minutes, save_updates), (evaluate, eval_updates) = saving, evals
    per_update, say = 0.0, Progress(agent, log_updates)
    while run.update < agent.num_updates and not stop.is_set():
        count = max(1, min(_MAX_CHUNK, int(chunk_seconds / per_update))) if per_update else 1
        for every in (save_updates, eval_updates if evaluate else 0):
            count = min(count, every - run.update % every) if every else count
        count = min(count, agent.num_updates - run.update)
        started = time.perf_counter()
        run.state, metrics = program(run.state, jnp.int32(count))
        metrics = jax.device_get(metrics)  # waits for the chunk
        per_update = (time.perf_counter() - started) / count
        rows = _rows(agent, run, metrics, count, per_update)
        problem: Exception | None = None
        if evaluate and eval_updates and run.update % eval_updates == 0:
            try:
                found = {f"eval/{k}": float(v) for k, v in evaluate(hosts.local(run.state.policy)).items()}
                rows[-1] |= {k: v if math.isfinite(v) else None for k, v in found.items()}
            except Exception as error:  # the updates are good: keep them, then stop
                problem = error
        run.rows += rows
        run.pending += rows
        try_to(run, write_new_rows)
        if rows[-1].get("eval/return") is not None:
            try_to(run, note_best)
        if rows[-1].get("train/total_loss", 0.0) is None:
            raise FloatingPointError(
                f"the loss is not a number after update {run.update}. Lower lr, clip gradients harder, check rewards; "
                + (
                    f"the newest checkpoint is of update {run.saved}"
                    if run.saved >= 0
                    else "no checkpoint was saved yet"
                )
            )
        say(run)
        try:
            for hook in () if problem else hooks:
                hook(run.dir, rows)
        except Exception as error:
            problem = error
        if problem:
            try:
                try_to(run, partial(save, manager=manager))
            finally:
                raise problem
        due = run.update % save_updates == 0 if save_updates else time.perf_counter() - run.saved_at > 60 * save_minutes
        if due or run.unsaved:
            try_to(run, partial(save, manager=manager))


def _compile(agent: Any, run: Run, mesh: Any) -> Any:
    """`updates(state, n)`, with a word on how long it took and what it will need."""
    program = updates(agent, _MAX_CHUNK, mesh=mesh)
    run.compile_seconds = program.traced + program.compiled
    how = f"traced in {program.traced:.1f} s, compiled in {program.compiled:.1f} s"
    print(
        f"{how if run.compile_seconds else 'compiled with the plan'}; "
        f"{agent.num_updates - run.update:,} updates of {agent.steps_per_update:,} steps to go",
        flush=True,
    )
    print(words(agent, program, mesh), flush=True)
    return program.call


def _rows(agent: Any, run: Run, metrics: Any, count: int, per_update: float) -> list[dict[str, Any]]:
    """Metric rows of a chunk, with what the clock says under time/; moves the run's counter on."""
    first, run.update = run.update, run.update + count
    wall = run.wall_seconds()
    rows = []
    for i, row in enumerate(to_rows(metrics, count)):
        update = first + i + 1
        head = {"update": update, "timesteps": agent.timesteps(update)}
        clock = {
            "time/steps_per_second": agent.steps_per_update / per_update,
            "time/wall_seconds": wall - (count - 1 - i) * per_update,
        }
        rows.append(head | row | clock)
    return rows


def _finish(agent: Any, run: Run, manager: Any, status: str) -> None:
    """Saves, writes result.json and status.json, and archives, in this order."""
    try_to(run, partial(save, manager=manager))
    if run.unsaved:
        time.sleep(1.0)  # threads of orbax's that write for the save that failed come to their end
        try:
            save(run, manager)
        except Exception as error:
            words = f"{unsaved(run, error)}. Make room, then start the run again: it goes on from there"
            raise OSError(words) from error
    metrics = final_metrics(run.rows)
    result = {
        "status": status,
        "update": run.update,
        "timesteps": agent.timesteps(run.update),
        "metrics": metrics,
        "health": judge(agent.health, run.rows),
        "wall_seconds": run.wall_seconds(),
        "compile_seconds": run.compile_seconds,
    }
    write_json(run.dir / "result.json", result)
    write_status(run.dir, status, run.update)
    run.archive(run.update, last=True)
    keep_programs()  # those of evaluations too
    minutes = run.wall_seconds() / 60
    after = f"after {run.update:,} updates in {minutes:.1f} minutes"
    warn(run, result["health"])
    judged = sum(any(row.get(rule.metric) is not None for row in run.rows) for rule in agent.health)
    if judged and not result["health"]:
        print(f"healthy: none of the {judged} rules is broken", flush=True)
    if status == "done":
        print(f"finished {after}; the run is in {shown(run.dir)}", flush=True)
    else:
        print(f"interrupted {after} and saved in {shown(run.dir)}; run it again to go on", flush=True)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C raises. Outside the main thread, no handler."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        print("not in the main thread: Ctrl-C and SIGTERM do not reach this run; it saves as the clock says")
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        with suppress(RuntimeError):  # Python does not print into a print that the signal cut in two
            print("stopping: the running updates are finished and saved first; Ctrl-C again stops at once", flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The training loop: one compiled program for any number of updates, and a run folder that survives.

Knows an Agent only through its record, so every algorithm trains, saves, resumes and reports alike.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mxnb.config import policy_file, write_json
from mxnb.run import checkpoint
from mxnb.run.folder import prepare, shown, write_status
from mxnb.run.metrics import append_rows, final_metrics, judge, read_rows, to_rows
from mxnb.run.mirror import check_options, mirror

_MAX_CHUNK = 256  # rows of the on-device metric buffer, and so the most updates in one call


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
    save_minutes: float = 10.0,
    save_updates: int = 0,
    keep: int = 3,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    eval_updates: int = 0,
    chunk_seconds: float = 2.0,
    hooks: Sequence[Callable[[Path, list[dict[str, Any]]], None]] = (),
    init_from: str | Path | None = None,
    log_updates: int = 0,
    wandb: bool | Mapping[str, Any] = False,
) -> Result:
    """Trains `agent` to its last update, or goes on where the run folder's newest checkpoint stands.

    A finished run is shown, not trained again. Ctrl-C and SIGTERM finish the running chunk, save, and return
    "interrupted"; a second Ctrl-C stops at once. The same seed gives the same bits however often the run is
    cut and resumed: the clock chooses only how many updates one call does.

    Args:
      agent: an `mxnb.agents.api.Agent`.
      run_dir: the run folder; made if it is not there.
      seed: of everything random in the run.
      resume: False sets an earlier run in this folder aside and starts anew.
      save_minutes, save_updates: how often to save; updates, where given, replace minutes. Always at the end.
      keep: newest checkpoints to keep.
      evaluate, eval_updates: evaluate(policy parameters) -> numbers, every `eval_updates` updates, as eval/.
      chunk_seconds: how long one call of the compiled program should take.
      hooks: hook(run_dir, new rows) after every chunk; an error there stops the run after a save.
      init_from: a run folder whose policy is the first one here (a warm start); all else begins anew.
      log_updates: updates between lines on the console; 0: a line for every 5 % or 30 seconds. metrics.jsonl has
        every update either way.
      wandb: True or its options mirror every row to Weights & Biases; see `mxnb.run.mirror.mirror`.

    Raises:
      ValueError: the folder holds a run of another configuration, init_from a policy that does not fit, or wandb
        an unknown option.
      FileNotFoundError: init_from has no policy.
      FloatingPointError: the loss is not a number; the newest checkpoint is from before.
    """
    run_dir = Path(run_dir)
    check_options(wandb)
    prepare(agent, run_dir, seed, resume, init_from)
    saving, evals = (save_minutes, save_updates), (evaluate, eval_updates)
    with checkpoint.open_checkpoints(run_dir, keep) as manager, _signals() as stop:
        run = None
        try:
            run = _start(agent, run_dir, seed, manager, init_from)
            if run.update >= agent.num_updates:
                return _show_finished(agent, run, manager)
            write_status(run_dir, "running", run.update)
            with mirror(wandb, run_dir, run.update) as mirrored:
                all_hooks = (mirrored, *hooks)
                _train(agent, run, manager, stop, chunk_seconds, saving, evals, all_hooks, log_updates)
                status = "done" if run.update >= agent.num_updates else "interrupted"
                _finish(agent, run, manager, status)
        except BaseException as error:
            oom = "RESOURCE_EXHAUSTED" in str(error)
            status = "oom" if oom else "failed"
            write_status(run_dir, status, run.update if run else 0, error=f"{type(error).__name__}: {error}"[:2000])
            if oom:
                print("Out of memory. Use a smaller preset (colab_t4_small), or halve num_envs in overrides.")
            raise
    return Result(status, run.state, run.update, run_dir)


def _show_finished(agent: Any, run: _Run, manager: Any) -> Result:
    said = run.dir / "status.json"
    if not said.exists() or json.loads(said.read_text())["status"] != "done":
        _finish(agent, run, manager, "done")  # it was stopped between its last save and its export
    print(f"This run is finished ({run.update:,} updates); nothing is trained. Its folder: {shown(run.dir)}")
    print("To train it anew, say after a change to your environment or network: resume=False (--no-resume).")
    return Result("done", run.state, run.update, run.dir)


@dataclass
class _Run:
    """What changes while a run goes on."""

    dir: Path
    state: Any
    update: int
    rows: list[dict[str, Any]]
    wall: float  # seconds trained in earlier sittings
    began: float  # this sitting's start, by time.perf_counter
    saved: int = -1  # update of the newest checkpoint
    saved_at: float = 0.0
    compile_seconds: float = 0.0
    said: set[str] = dataclasses.field(default_factory=set)  # metrics warned about: once is enough

    def wall_seconds(self) -> float:
        return self.wall + time.perf_counter() - self.began


def _start(agent: Any, run_dir: Path, seed: int, manager: Any, init_from: str | Path | None) -> _Run:
    """The state to begin with: the newest checkpoint, or a fresh one, with another run's policy where asked for."""
    key = jax.random.key(seed)
    found = checkpoint.restore(manager, jax.eval_shape(agent.init, key))
    if found is None:
        (run_dir / "metrics.jsonl").write_text("")
        started = time.perf_counter()
        state = jax.block_until_ready(jax.jit(agent.init)(key))
        print(f"{agent.name} on {agent.spec.id}: made the first worlds in {time.perf_counter() - started:.1f} s")
        if init_from:
            policy = checkpoint.load_params(policy_file(init_from), state.policy)
            state = dataclasses.replace(state, policy=jax.tree.map(jnp.asarray, policy))
            print(f"began with the policy of {shown(Path(init_from))}")
        return _Run(run_dir, state, 0, [], 0.0, time.perf_counter(), saved_at=time.perf_counter())
    state, meta = found
    with open(run_dir / "metrics.jsonl", "r+b") as file:
        file.truncate(meta["metrics_offset"])  # rows after the checkpoint will be made again
    rows = read_rows(run_dir / "metrics.jsonl")
    update = int(meta["update"])
    print(f"{agent.name} on {agent.spec.id}: goes on after update {update:,} of {agent.num_updates:,}")
    for words in judge(agent.health, rows) if update < agent.num_updates else ():
        print(f"warning: this run was not healthy when it stopped: {words}")
    now = time.perf_counter()
    return _Run(run_dir, state, update, rows, float(meta["wall_seconds"]), now, saved=update, saved_at=now)


def _train(
    agent: Any,
    run: _Run,
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
    program = _compile(agent, run)
    per_update, say = 0.0, _Progress(agent, log_updates)
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
                rows[-1] |= {f"eval/{k}": float(v) for k, v in evaluate(run.state.policy).items()}
            except Exception as error:  # the updates are good: keep them, then stop
                problem = error
        append_rows(run.dir / "metrics.jsonl", rows)
        run.rows += rows
        if rows[-1].get("train/total_loss", 0.0) is None:
            raise FloatingPointError(
                f"the loss is not a number after update {run.update}. Lower lr or max_grad_norm and check the rewards; "
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
            _save(run, manager)
            raise problem
        due = run.update % save_updates == 0 if save_updates else time.perf_counter() - run.saved_at > 60 * save_minutes
        if due:
            _save(run, manager)


def _compile(agent: Any, run: _Run) -> Any:
    """`updates(state, n)`: n updates in one call. n is traced, so its choice cannot change a result."""

    @partial(jax.jit, donate_argnums=0)
    def updates(state: Any, count: Any) -> Any:
        shapes = jax.eval_shape(agent.step, state)[1]
        buffer = jax.tree.map(lambda x: jnp.zeros((_MAX_CHUNK, *x.shape), x.dtype), shapes)

        def one(i: Any, carry: Any) -> Any:
            state, buffer = carry
            state, metrics = agent.step(state)
            return state, jax.tree.map(lambda rows, x: rows.at[i].set(x), buffer, metrics)

        return jax.lax.fori_loop(0, count, one, (state, buffer))

    started = time.perf_counter()
    traced = updates.trace(run.state, jnp.int32(1))
    lowered = traced.lower()
    traced_at = time.perf_counter()
    program = lowered.compile()
    run.compile_seconds = time.perf_counter() - started
    print(
        f"traced in {traced_at - started:.1f} s, compiled in {time.perf_counter() - traced_at:.1f} s; "
        f"{agent.num_updates - run.update:,} updates of {agent.steps_per_update:,} steps to go",
        flush=True,
    )
    return program


def _rows(agent: Any, run: _Run, metrics: Any, count: int, per_update: float) -> list[dict[str, Any]]:
    """Metric rows of a chunk, with what the clock says under time/; moves the run's counter on."""
    first, run.update = run.update, run.update + count
    wall = run.wall_seconds()
    rows = []
    for i, row in enumerate(to_rows(metrics, count)):
        update = first + i + 1
        head = {"update": update, "timesteps": update * agent.steps_per_update}
        clock = {
            "time/steps_per_second": agent.steps_per_update / per_update,
            "time/wall_seconds": wall - (count - 1 - i) * per_update,
        }
        rows.append(head | row | clock)
    return rows


class _Progress:
    """Plain lines: the first chunk, then every 5 % or 30 seconds, or every `every` updates; a warning once."""

    def __init__(self, agent: Any, every: int) -> None:
        self.agent, self.every, self.share, self.at = agent, every, -1, 0.0

    def __call__(self, run: _Run) -> None:
        share = run.update // self.every if self.every else 20 * run.update // self.agent.num_updates
        now = time.perf_counter()
        if share == self.share and (self.every or now - self.at < 30):
            return
        self.share, self.at = share, now
        recent = run.rows[-max(1, len(run.rows) // 20) :]
        seen = final_metrics(recent, 1.0)
        speed = len(recent) / sum(1 / row["time/steps_per_second"] for row in recent)
        left = (self.agent.num_updates - run.update) * self.agent.steps_per_update / speed
        parts = [
            f"{run.update / self.agent.num_updates:4.0%}",
            f"{run.update * self.agent.steps_per_update:,} steps",
            f"{speed:,.0f} steps/s",
        ]
        for label, name in (("return", "train/mean_episode_return"), ("entropy", "train/entropy_frac")):
            if name in seen:
                parts.append(f"{label} {seen[name]:.2f}")
        parts.append(f"{int(left // 60)} min {int(left % 60):02d} s to go")
        print("  ".join(parts), flush=True)
        if len(run.rows) >= 10:
            _warn(run, judge(self.agent.health, run.rows))


def _warn(run: _Run, judgement: list[str]) -> None:
    for words in judgement:
        topic = words.split(" ")[0]
        if topic not in run.said:
            run.said.add(topic)
            print(f"warning: {words}", flush=True)


def _save(run: _Run, manager: Any) -> None:
    meta = {"metrics_offset": (run.dir / "metrics.jsonl").stat().st_size, "wall_seconds": run.wall_seconds()}
    checkpoint.save(manager, run.update, run.state, meta)
    run.saved, run.saved_at = run.update, time.perf_counter()
    write_status(run.dir, "running", run.update)


def _finish(agent: Any, run: _Run, manager: Any, status: str) -> None:
    """Saves, exports the policy, and writes result.json and status.json, in this order."""
    _save(run, manager)
    checkpoint.save_params(policy_file(run.dir), run.state.policy)
    metrics = final_metrics(run.rows)
    result = {
        "status": status,
        "update": run.update,
        "timesteps": run.update * agent.steps_per_update,
        "metrics": metrics,
        "health": judge(agent.health, run.rows),
        "wall_seconds": run.wall_seconds(),
        "compile_seconds": run.compile_seconds,
    }
    write_json(run.dir / "result.json", result)
    write_status(run.dir, status, run.update)
    minutes = run.wall_seconds() / 60
    words = "finished" if status == "done" else "interrupted and saved; run it again to go on"
    _warn(run, result["health"])
    judged = sum(any(row.get(rule.metric) is not None for row in run.rows) for rule in agent.health)
    if judged and not result["health"]:
        print(f"healthy: none of the {judged} rules is broken", flush=True)
    print(f"{words} after {run.update:,} updates in {minutes:.1f} minutes; the run is in {shown(run.dir)}", flush=True)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C raises. Outside the main thread, no handler."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        print("stopping: the running updates are finished and saved first; Ctrl-C again stops at once", flush=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

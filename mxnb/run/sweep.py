"""Doing a sweep: its folder, its runs as processes side by side, and a table that tells what became of each.

papermill_runs/NAME holds sweep.json (what was asked for) and a folder for each run, where `mxnb.run.job` writes
job.json and `fit` the rest. Whatever ends, however: started again, the sweep does what is left.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mxnb.config import write_json
from mxnb.run.folder import shown
from mxnb.run.job import ENDED, read_job, spent
from mxnb.run.lock import held, locked
from mxnb.run.sweep_file import Run, Sweep

AGAIN = (
    "dead_kernel",
    "killed",
    "timeout",
    "preempted",
    "failed",
)  # what `limits: retries` is for; a full device stays full
_NEWS = 60.0  # seconds between two words about what runs
METRICS = ("train/mean_episode_return", "train/mean_reward")


def state(out: Path) -> str:
    """What became of the run in this folder, also where its processes were killed before they could say: `killed`."""
    told = str(read_job(out).get("status", "queued"))
    return "killed" if told == "started" and not held(out, "job.lock") else told


def left(sweep: Sweep) -> list[Run]:
    """The runs that are not done yet."""
    return [run for run in sweep.runs if state(sweep.folder / run.id) != "done"]


def prepare(sweep: Sweep, say: Callable[[str], None] = print) -> None:
    """Writes sweep.json, and job.json of the runs that have none; for who holds the sweep's lock."""
    runs = [{"id": run.id, "values": dict(run.values), "params": dict(run.params)} for run in sweep.runs]
    before = {run["id"] for run in begun_with(sweep.folder).get("runs", ())} - {run.id for run in sweep.runs}
    if before:
        say(f"{len(before)} runs of before are no longer asked for; their folders stay in {shown(sweep.folder)}")
    about = {"notebook": str(sweep.notebook), "tags": sweep.tags, "runs": runs}
    write_json(sweep.folder / "sweep.json", about | dict(sweep.about))
    (sweep.folder / "stop").unlink(missing_ok=True)
    for run in sweep.runs:
        out = sweep.folder / run.id
        if not read_job(out):
            write_json(out / "job.json", {"status": "queued", "time": time.time()})


def command(sweep: Sweep, run: Run, cores: Sequence[int] = ()) -> list[str]:
    """The process that does a run; its parameters lie in the run's folder."""
    out = sweep.folder / run.id
    write_json(out / "params.json", {**run.params, "run_dir": str(out)})
    words = [sys.executable, "-m", "mxnb", "run", str(sweep.notebook), "--params", str(out / "params.json")]
    words += ["--out", str(out)]
    words += ["--minutes", str(sweep.minutes)] if sweep.minutes else []
    words += ["--wandb", sweep.wandb] if sweep.wandb else []
    words += ["--tags", ",".join(sweep.tags)] if sweep.wandb and sweep.tags else []
    return words + (["--cores", ",".join(map(str, cores))] if cores else [])


def run_local(sweep: Sweep, jobs: int = 0, say: Callable[[str], None] = print) -> bool:
    """Does what is left, `jobs` at a time (0: one for each GPU, one on a TPU, else one a core); True when all are done.

    Each process has a GPU of its own, or its share of the cores. Ctrl-C and SIGTERM let the runs save and end. Raises
    `mxnb.run.lock.InUse` where another process does this sweep.
    """
    gpus = _gpus()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    jobs = jobs or sweep.parallel or len(gpus) or (1 if _on_tpu(sweep) else max(1, len(cores)))
    say = quietly(say)
    with locked(sweep.folder), Signals() as asked:
        prepare(sweep, say)
        waiting, tries = left(sweep), dict[str, int]()
        alone = [run for run in waiting if held(sweep.folder / run.id, "job.lock")]  # of a sweep that was killed
        waiting = [run for run in waiting if run not in alone]
        done = len(sweep.runs) - len(waiting) - len(alone)
        goes_on = f", {len(alone)} go on from before" if alone else ""
        say(f"{done} of {len(sweep.runs)} runs are done, {len(waiting)} to do, {jobs} at a time{goes_on}")
        running: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}
        look, told, said = 0.0, set[str](), time.monotonic()
        while running or told & {run.id for run in alone} or ((waiting or alone) and not stopped(sweep, asked)):
            if alone and time.monotonic() >= look:
                look = time.monotonic() + 2
                over = [run for run in alone if not held(sweep.folder / run.id, "job.lock")]
                for run in alone if sweep.minutes else ():  # nobody else counts their minutes
                    late = time.time() - read_job(sweep.folder / run.id).get("begun", math.inf) > 60 * sweep.minutes
                    if (
                        late and run.id not in told and ask(sweep.folder / run.id)
                    ):  # a second signal would cut its saving
                        told.add(run.id)
                alone = [run for run in alone if run not in over]
                told -= {run.id for run in over}  # done again, they may be asked again
                for run in over:
                    say(line(sweep, run))
                again = [run for run in over if tries.get(run.id, 0) <= 1 + sweep.retries]  # not for ever
                waiting += [run for run in again if state(sweep.folder / run.id) != "done"]
            places = 0 if stopped(sweep, asked) or (alone and gpus) else jobs - len(alone)
            for place in range(places):
                if place not in running and waiting:
                    share = cores[place::jobs] if jobs <= len(cores) else []
                    running[place] = _start(sweep, waiting.pop(0), share, gpus[place % len(gpus)] if gpus else "")
            time.sleep(0.1)
            if time.monotonic() > said + _NEWS:
                said = time.monotonic()
                say(news(sweep))
            if stopped(sweep, asked):
                for run in [*alone, *(run for run, _ in running.values())]:
                    if run.id not in told and ask(sweep.folder / run.id):  # one that has yet to begin is asked then
                        told.add(run.id)
            for place, (run, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[place]
                ended, tries[run.id] = state(sweep.folder / run.id), tries.get(run.id, 0) + 1
                say(line(sweep, run))
                if ended == "started":  # its runner was killed, and its notebook lives
                    alone.append(run)
                if ended in AGAIN and tries[run.id] <= sweep.retries and not stopped(sweep, asked):
                    waiting.append(run)
    return not left(sweep)


def _start(sweep: Sweep, run: Run, cores: Sequence[int], gpu: str) -> tuple[Run, subprocess.Popen[bytes]]:
    env = os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
    words = command(sweep, run, cores)
    return run, subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, start_new_session=True)


def ask(out: Path) -> bool:
    """Asks the process of this machine that does the run in this folder to save and end; whether there is one."""
    import psutil

    job = read_job(out)
    if job.get("status") != "started" or job.get("host") != socket.gethostname() or not held(out, "job.lock"):
        return False
    for name in ("pid", "papermill"):  # the latter where the runner was killed: then its kernel is asked
        with suppress(psutil.Error, KeyError):
            process = psutil.Process(job[name])
            if process.create_time() > job["time"] + 1:
                continue  # another process has that number by now
            for each in [process] if name == "pid" else process.children(recursive=True):
                each.send_signal(signal.SIGTERM)
            return True
    return False


def quietly(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, also where nobody reads any more: a closed pipe or terminal is no reason to leave runs alone."""

    def told(words: str) -> None:
        with suppress(OSError):
            say(words)

    return told


def stopped(sweep: Sweep, asked: Signals) -> bool:
    """Whether the sweep shall end: by a signal, or by `sweep stop`; once it shall, it shall."""
    asked.heard = asked.heard or (sweep.folder / "stop").exists()
    return asked.heard


class Signals:
    """Notes that Ctrl-C, SIGTERM or a closed terminal came, instead of ending this process at once."""

    def __init__(self) -> None:
        self.heard = False

    def __enter__(self) -> Signals:
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup
        self.before = {number: signal.signal(number, self._hear) for number in numbers}
        return self

    def _hear(self, number: int, frame: Any) -> None:
        self.heard = True
        with suppress(RuntimeError, OSError):  # it came in the midst of a print, or the terminal is gone
            print("stopping: the runs save and end", flush=True)

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _on_tpu(sweep: Sweep) -> bool:
    """Whether the runs want the TPU, which one process at a time may have."""
    return any(run.params.get("preset") == "tpu" for run in sweep.runs) or Path("/dev/accel0").exists()


def _gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, without jax, which would take them."""
    if (told := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in told.split(",") if name]
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
        return re.findall(r"(?m)^GPU (\d+):", done.stdout)
    return []


def line(sweep: Sweep, run: Run) -> str:
    """A run that has ended, in a line."""
    job = read_job(sweep.folder / run.id)
    took = f" after {job.get('seconds', 0.0) / 60:.1f} min" if "seconds" in job else ""
    values = ", ".join(f"{name} {value}" for name, value in run.values.items())
    return (
        f"{state(sweep.folder / run.id):<12} {run.id}  {values}{took}{'; ' + job['error'] if job.get('error') else ''}"
    )


def news(sweep: Sweep) -> str:
    """What is done and what runs, in a line."""
    found = rows(sweep.folder)
    done = sum(row["status"] == "done" for row in found)
    runs = [row for row in found if row["status"] == "started"]
    metric = next((name for name in METRICS if any(name in row["metrics"] for row in runs)), METRICS[0])
    each = [f"{row['id']} {row['metrics'].get(metric, math.nan):.3g}" for row in runs]
    return f"{done} of {len(found)} done; {metric.split('/')[1].replace('_', ' ')} of those that run: {', '.join(each)}"


def rows(folder: Path) -> list[dict[str, Any]]:
    """A row for each run of a sweep's folder: id, values, status, seconds, error, and result.json's metrics.

    Of a run that goes on, they are those of its last update.

    Raises FileNotFoundError where the folder is no sweep's.
    """
    try:
        asked = json.loads((folder / "sweep.json").read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} has no sweep.json; start one with `python -m mxnb sweep run FILE`") from None
    found = []
    for run in asked["runs"]:
        out = folder / run["id"]
        job, metrics = read_job(out), {}
        with suppress(OSError, ValueError, KeyError):
            metrics = json.loads((out / "result.json").read_text())["metrics"]
        status = state(out) if job.get("status") not in ENDED else job["status"]
        if status == "started":
            metrics, job = metrics or _last_update(out), job | {"seconds": spent(job | {"time": time.time()})}
        row = {"id": run["id"], "values": run["values"], "status": status, "metrics": metrics}
        found.append(row | {name: job.get(name) for name in ("seconds", "error", "attempt")})
    return found


def _last_update(out: Path) -> dict[str, float]:
    """The last whole row of metrics.jsonl."""
    with suppress(OSError, ValueError, IndexError), open(out / "metrics.jsonl", "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
        return dict(json.loads(file.read().split(b"\n")[-2]))
    return {}


def table(folder: Path, metric: str = "") -> str:
    """What became of each run, in lines to read. metric: of result.json; "": the first of METRICS that a run has."""
    found = rows(folder)
    told = {name for row in found for name in row["metrics"]}
    if metric and told and metric not in told:
        raise ValueError(f"no run has the metric {metric!r}; they have {', '.join(sorted(told))}")
    metric = metric or next((name for name in METRICS if name in told), METRICS[0])
    names = list(dict.fromkeys(name for row in found for name in row["values"]))
    head = ["status", *names, metric.split("/")[-1].replace("_", " "), "minutes", "run"]
    lines = [head]
    for row in found:
        value, seconds = row["metrics"].get(metric), row["seconds"]
        numbers = ["" if value is None else f"{value:.3g}", "" if seconds is None else f"{seconds / 60:.1f}"]
        lines.append([row["status"], *(str(row["values"].get(name, "")) for name in names), *numbers, row["id"]])
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(head))]
    said = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in lines]
    said += [""] * any(row["error"] for row in found)
    for row in found:
        if row["error"]:
            said.append(f"{row['id']}  {row['error']} ({shown(folder / row['id'] / 'log.txt')})")
    counts: dict[str, int] = {}
    for row in found:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    return "\n".join([*said, "", f"{shown(folder)}: " + ", ".join(f"{count} {name}" for name, count in counts.items())])


def begun_with(folder: Path) -> dict[str, Any]:
    """sweep.json: what the sweep was started with; {} where it was not."""
    with suppress(OSError, ValueError):
        return dict(json.loads((folder / "sweep.json").read_text()))
    return {}


def stop(folder: Path) -> str:
    """Asks the process that does a sweep to end, or its runs where that process is gone; what was asked, in words."""
    running = [row["id"] for row in rows(folder) if row["status"] == "started"]
    if held(folder):
        (folder / "stop").write_text(f"{time.time()}\n")
        return f"asked the sweep to end; {len(running)} runs save first"
    executor = begun_with(folder).get("executor")
    if executor == "slurm":
        from mxnb.run.slurm import cancel

        return cancel(folder)
    if executor == "colab":
        from mxnb.run.colab import give_back

        return give_back(folder)
    if not running:
        return "nothing of this sweep is running"
    asked = sum(ask(folder / name) for name in running)
    elsewhere = f"; {len(running) - asked} run on other machines: end them there" if asked < len(running) else ""
    return f"no process does this sweep; asked {asked} runs that go on alone to save and end{elsewhere}"

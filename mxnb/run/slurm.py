"""Doing a sweep on Slurm: a job for each run, in arrays through submitit, with the folders and words of one machine.

What became of a run stands in its job.json, as everywhere: without accounting, Slurm forgets a job that has ended.
The sweep's folder has besides slurm/, with submitit's files, the jobs' logs, and jobs.json: which job does which run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mxnb.config import write_json
from mxnb.run.folder import Refused, shown
from mxnb.run.job import read_job, spent
from mxnb.run.lock import locked
from mxnb.run.sweep import AGAIN, Signals, command, left, line, prepare, quietly, state, stopped
from mxnb.run.sweep_file import Run, Sweep

_ARRAY = 1000  # jobs in one array; Slurm's MaxArraySize is 1001 where nobody has changed it
_MINUTES = 240  # of a job, where no limit is given; after that it has saved, and is queued again
_WARNED = 120  # seconds before its end in which a job may save; `mxnb.run.job` takes 90 at most
_CUTS = 100  # how often a run may be cut by its job's time


class Task:
    """What a job of the array does: the run as a process of its own. submitit pickles it."""

    def __init__(self, words: list[str], out: Path) -> None:
        self.words, self.out = words, out
        self.child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> str:
        """Does the run; job.json's status."""
        if self._status() != "done":  # by a job that another, killed process had submitted
            self.child = subprocess.Popen(self.words)
            while self.child.poll() is None:
                time.sleep(0.2)
        return self._status()

    def checkpoint(self) -> Any:
        """The task to queue again where the job's time is over, or Slurm wants its place: when the run has saved."""
        from submitit.helpers import DelayedSubmission

        if self.child and self.child.returncode is None:
            with suppress(ProcessLookupError, ChildProcessError):
                self.child.send_signal(signal.SIGTERM)
                # this is called in the midst of __call__: Popen.wait's lock may be taken, and the child not yet reaped
                os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)
        ended = self._status() in ("done", "failed", "oom", "timeout")
        return None if ended else DelayedSubmission(Task(self.words, self.out))

    def _status(self) -> str:
        return str(read_job(self.out).get("status", ""))


def check_slurm() -> None:
    """Refused, a ValueError that names the mend, where this machine cannot submit jobs."""
    if importlib.util.find_spec("submitit") is None:
        raise Refused("sweeps on Slurm need submitit: pip install 'mxnb[slurm]'")
    if missing := [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]:
        raise Refused(f"there is no {missing[0]} here: start this where jobs are submitted, or run it locally")


def run_slurm(sweep: Sweep, jobs: int = 0, say: Callable[[str], None] = print) -> bool:
    """Does what is left as Slurm jobs, at most `jobs` at a time (0: the file's limit, or none); True when all are done.

    Partition, account, GPUs and so on are the sweep file's, under slurm. A job whose time is over saves, is queued
    again and goes on. Jobs outlive this process, even by SIGKILL: started again, it waits for them. Ctrl-C and SIGTERM
    let the runs save and end. Raises `mxnb.run.lock.InUse` where another process does this sweep, and Refused where
    Slurm is not here or does not take the jobs.
    """
    check_slurm()
    say = quietly(say)
    most, file = jobs or sweep.parallel or _ARRAY, sweep.folder / "slurm" / "jobs.json"
    with locked(sweep.folder), Signals() as asked:
        if (active := _active(sweep.folder)) is None:
            raise Refused("Slurm does not answer (try squeue); start this again when it does")
        prepare(sweep, say)
        at, waiting = _read(file), left(sweep)
        if lost := active - set(at.values()):  # their process was killed before it could note which run they do
            say(f"{len(lost)} jobs of an earlier start are taken back")
            while (active is None or lost & active) and not stopped(sweep, asked):
                _cancel(sorted(lost))
                _wait(2.0, sweep, asked)
                active = _active(sweep.folder)
        running = {run.id: run for run in waiting if at.get(run.id) in (active or ())}
        waiting, tries = [run for run in waiting if run.id not in running], dict[str, int]()
        done = len(sweep.runs) - len(waiting) - len(running)
        say(f"{done} of {len(sweep.runs)} runs are done, {len(waiting)} to submit, {len(running)} are in the queue")
        pause, silent = 1.0, 0
        while (waiting and not stopped(sweep, asked)) or running:
            room = max(0, most - len(running)) if running else _ARRAY
            if waiting[:room] and not stopped(sweep, asked):
                at |= _submit(sweep, waiting[:room], most)
                write_json(file, at)
                running |= {run.id: run for run in waiting[:room]}
                waiting = waiting[room:]
            _wait(pause, sweep, asked)
            if over := stopped(sweep, asked):
                _cancel([at[name] for name in running])
            active = _active(sweep.folder)
            silent = silent + 1 if active is None else 0
            if silent > (2 if over else 40):
                raise Refused("Slurm does not answer (try squeue); its jobs go on. `sweep resume` waits for them again")
            ended = [run for run in running.values() if active is not None and at[run.id] not in active]
            pause = max(1.0, pause / 2) if ended else min(15.0, 1.3 * pause)  # squeue is not for asking all the time
            for run in ended:
                del running[run.id]
                status, tries[run.id] = _became(sweep, run, at[run.id], over), tries.get(run.id, 0) + 1
                say(line(sweep, run))
                if status in AGAIN and tries[run.id] <= sweep.retries and not over:
                    waiting.append(run)
    return not left(sweep)


def _submit(sweep: Sweep, runs: Sequence[Run], most: int) -> dict[str, str]:
    """Submits one array, and says which job does which run."""
    import submitit
    from submitit.core.utils import UncompletedJobError

    given = dict(sweep.slurm)
    # with exec, the job's shell becomes the Python that saves and asks to be queued again, which B: signals alone
    executor = submitit.SlurmExecutor(
        sweep.folder / "slurm", max_num_timeout=_CUTS, python=f"exec {shlex.quote(sys.executable)}"
    )
    about = {"signal": f"B:{submitit.JobEnvironment.USR_SIG}@{_WARNED}", "requeue": True, **given.pop("sbatch", {})}
    if "mem_gb" in given:
        given["mem"] = f"{math.ceil(1024 * given.pop('mem_gb'))}M"
    # beside the run's own limit: the time to start, to be warned (up to a minute early), and to save
    given["time"] = math.ceil(given.pop("minutes", 0) or (sweep.minutes + 6 if sweep.minutes else _MINUTES))
    for run in runs:
        before = read_job(sweep.folder / run.id)
        job = {"status": "queued", "time": time.time(), "attempt": before.get("attempt", 0), "spent": spent(before)}
        write_json(sweep.folder / run.id / "job.json", job)
    try:
        executor.update_parameters(
            job_name=_name(sweep.folder),
            use_srun=False,
            stderr_to_stdout=True,
            array_parallelism=most,
            additional_parameters=about,
            **given,
        )
        with executor.batch():
            jobs = [executor.submit(Task(command(sweep, run), sweep.folder / run.id)) for run in runs]
    except UncompletedJobError as error:
        raise Refused(f"Slurm does not take the jobs; see slurm: in the sweep file. {str(error).strip()}") from None
    return {run.id: job.job_id for run, job in zip(runs, jobs, strict=True)}


def cancel(folder: Path) -> str:
    """Ends the jobs of a sweep whose process is gone: those that run save first; what was done, in words."""
    check_slurm()
    if not (active := _active(folder)):
        return (
            "Slurm does not answer (try squeue)"
            if active is None
            else "no process does this sweep, and no job of it is left"
        )
    _cancel(sorted(active))
    return f"asked Slurm to end {len(active)} jobs; those that run save first"


def _name(folder: Path) -> str:
    """The jobs' name: this folder's own, for another checkout may have a sweep called the same."""
    return f"mxnb-{folder.name}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:6]}"


def _active(folder: Path) -> set[str] | None:
    """The sweep's jobs that wait, run, or are about to end; None where Slurm does not answer."""
    words = ["squeue", "--me", f"--name={_name(folder)}", "--noheader", "--array", "--format=%i"]
    with suppress(subprocess.SubprocessError):
        return set(subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.split())
    return None


def _cancel(jobs: Sequence[str]) -> None:
    """Takes jobs that wait out of the queue, and asks those that run to save: Slurm's own end may come too soon."""
    arrays = sorted({job.split("_")[0] for job in jobs})
    for how in (["--state=PENDING"], ["--full", "--signal=TERM"]):
        with suppress(subprocess.SubprocessError):
            subprocess.run(["scancel", "--quiet", *how, *arrays], capture_output=True, timeout=60, check=False)


def _wait(seconds: float, sweep: Sweep, asked: Signals) -> None:
    """Waits; not longer than until somebody asks to stop."""
    until, before = time.monotonic() + seconds, stopped(sweep, asked)
    while time.monotonic() < until and stopped(sweep, asked) == before:
        time.sleep(0.1)


def _became(sweep: Sweep, run: Run, job: str, over: bool) -> str:
    """What became of a run whose job has left the queue; one that had not begun has failed, but where we stop."""
    out = sweep.folder / run.id
    os.listdir(out)  # on NFS: look anew, the job wrote there on another machine
    if (status := state(out)) == "queued" and not over:
        log = shown(sweep.folder / "slurm" / f"{job}_0_log.out")
        told = {"error": f"Slurm's job {job} ended before the run began; its log: {log}", "time": time.time()}
        write_json(out / "job.json", read_job(out) | told | {"status": (status := "failed")})
    return status


def _read(file: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        return dict(json.loads(file.read_text()))
    return {}

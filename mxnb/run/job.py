"""One run of a sweep: a notebook through papermill, in processes that are watched, limited and ended together.

What became of it stands in job.json, which is written here alone: papermill's own record says "completed" for a kernel
that was killed. No jax is imported, so a TPU or a GPU is the notebook's.
"""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mxnb.config import write_json
from mxnb.run.lock import locked

ENDED = ("done", "failed", "oom", "timeout", "dead_kernel", "preempted")
"""What job.json may say of a run that has ended; `queued` and `started` are the others."""
_BEAT = 10.0  # seconds between two heartbeats
_GRACE = 90.0  # seconds that a run which was asked to stop has for its last checkpoint
# Slurm asks every process of a job to end. papermill must not, for a kernel leaves with its parent, and `fit` has yet
# to save; a handler, unlike SIG_IGN, is not inherited by the kernel.
_PAPERMILL = (
    "import signal; signal.signal(signal.SIGTERM, lambda *_: None); from papermill.cli import papermill; papermill()"
)
_NO_START = ("Kernel died before replying", "Timeout waiting for kernel", "Kernel didn't respond")
_SMALLER = {"gpu": "colab_t4", "tpu": "colab_t4", "colab_t4": "colab_t4_small", "colab_t4_small": "cpu", "cpu": "smoke"}


def run_notebook(
    notebook: Path,
    params: Mapping[str, Any],
    out: Path,
    *,
    minutes: float = 0.0,
    cores: Iterable[int] = (),
    env: Mapping[str, str] | None = None,
) -> str:
    """Executes a notebook with these parameters into `out`, and says in out/job.json what became of it.

    notebook: an .ipynb with a parameters cell. params: for that cell; run_dir is `out`. minutes: of the whole notebook,
    in one attempt, 0 for no limit; one that takes longer is asked to save and then ended (`timeout`). cores: the CPU's,
    if not all. env: variables for its environment.

    A signal to end (SIGTERM, Ctrl-C), to this process or to all below it too, lets the notebook's `fit` save:
    `preempted`. A kernel that does not start is tried once more. Returns job.json's status; what ended may be called
    again, and `fit` goes on.

    Raises `mxnb.run.lock.InUse` where another process runs this one.
    """
    stop = threading.Event()
    with _signals(stop), locked(out, "job.lock") as lock:
        job = started(out, notebook, socket.gethostname())
        told = dict(params) | {"run_dir": str(out)}
        write_json(out / "params.json", told)
        run = partial(_execute, notebook, out, job, told, minutes, tuple(cores), dict(env or {}), stop, lock)
        code, why = run()
        if code and not why and any(words in _tail(out / "log.txt") for words in _NO_START):
            print("the kernel did not start; once more", flush=True)
            code, why = run()
        return ended(out, job, code, why)


def given(params: Mapping[str, Any]) -> list[str]:
    """papermill's words for these parameters. Not as JSON in a file: it reads YAML 1.1, where 1e-05 is a text."""
    import yaml

    return ["-b", base64.b64encode(yaml.safe_dump(dict(params), sort_keys=False).encode()).decode()]


def started(out: Path, notebook: Path, host: str) -> dict[str, Any]:
    """What job.json says of a run that begins; it is written here."""
    before, now = read_job(out), time.time()
    job = {"status": "started", "attempt": before.get("attempt", 0) + 1, "host": host, "pid": os.getpid()}
    job |= {"begun": now, "time": now, "spent": spent(before), "notebook": str(notebook)}
    write_json(out / "job.json", job)
    return read_job(out)


def spent(job: Mapping[str, Any]) -> float:
    """Seconds of a run's attempts so far; of one that was killed, until its last heartbeat."""
    running = job["time"] - job["begun"] if job.get("status") == "started" else 0.0
    return job.get("seconds") or job.get("spent", 0.0) + running


def ended(out: Path, job: Mapping[str, Any], code: int, why: str) -> str:
    """Writes what became of a run to job.json, from its exit status, log.txt and what `fit` said; the status.

    why: timeout or preempted where it was ended from outside, else empty.
    """
    status, error = _judged(out, code, why, _tail(out / "log.txt"), job["begun"])
    told = {
        "status": status,
        "exit_code": code,
        "time": time.time(),
        "seconds": job["spent"] + time.time() - job["begun"],
    }
    write_json(out / "job.json", dict(job) | told | ({"error": error} if error else {}))
    return status


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Sets `stop` where this process is asked to end."""
    ask = lambda number, frame: stop.set()
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_job(out: Path) -> dict[str, Any]:
    """job.json, {} where there is none."""
    try:
        return json.loads((out / "job.json").read_text())
    except (OSError, ValueError):
        return {}


def _execute(
    notebook: Path,
    out: Path,
    job: dict[str, Any],
    params: Mapping[str, Any],
    minutes: float,
    cores: tuple[int, ...],
    env: dict[str, str],
    stop: threading.Event,
    lock: int | None,
) -> tuple[int, str]:
    """(papermill's exit status, why it was ended by us: "", timeout or preempted)."""
    command = [sys.executable, "-c", _PAPERMILL, str(notebook), str(out / "run.ipynb"), *given(params)]
    command += ["--no-progress-bar", "--log-output", "--log-level", "INFO", "--cwd", str(notebook.parent)]
    told = os.environ | {"MXNB_WIDGETS": "off", "PYDEVD_DISABLE_FILE_VALIDATION": "1"} | env
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    keep = () if lock is None else (lock,)  # held as long as papermill lives, should this process be killed
    with open(out / "log.txt", "a") as log:
        log.write(f"\nattempt {job['attempt']}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        log.flush()
        child = subprocess.Popen(
            command, stdout=log, stderr=log, env=told, start_new_session=True, preexec_fn=pin, pass_fds=keep
        )
    end = time.monotonic() + 60 * minutes if minutes else math.inf
    job["papermill"] = child.pid  # whom to ask, should this process be killed
    look, beat, why, family = -math.inf, -math.inf, "", list[Any]()
    try:
        while child.poll() is None and not (why and (_status(out, job["begun"]) != "running" or _past(end))):
            if _past(look + 1):
                look, family = time.monotonic(), _family(child, family)
            if _past(beat + _BEAT):
                beat = time.monotonic()
                beats(out, job)
            if not why and (stop.is_set() or _past(end)):
                why, end = "preempted" if stop.is_set() else "timeout", time.monotonic() + _GRACE
                family = _family(child, family)
                for process in family[1:]:
                    with suppress(Exception):  # it has ended by itself
                        process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.2)
        code = child.poll()
        return -signal.SIGKILL if code is None else code, why or ("preempted" if code and stop.is_set() else "")
    finally:
        _end(child, _family(child, family))


def _past(moment: float) -> bool:
    return time.monotonic() >= moment


def beats(out: Path, job: Mapping[str, Any]) -> None:
    """Says in job.json that the run goes on; where that cannot be written, a full disk say, it goes on all the same."""
    with suppress(OSError):
        write_json(out / "job.json", dict(job) | {"time": time.time()})


def _family(child: subprocess.Popen[bytes], known: list[Any]) -> list[Any]:
    """papermill's process and all that was ever seen below it: a kernel has a process group of its own."""
    import psutil

    with suppress(psutil.Error):
        parent = psutil.Process(child.pid)
        return list(dict.fromkeys([parent, *known, *parent.children(recursive=True)]))
    return known


def _end(child: subprocess.Popen[bytes], family: list[Any]) -> None:
    """Ends papermill and its kernel, with everything they started."""
    for process in family:
        with suppress(Exception):  # psutil knows a process number that another one has by now
            process.kill()
    if child.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _judged(out: Path, code: int, why: str, log: str, begun: float) -> tuple[str, str]:
    """(status, error in words) of a run that has ended."""
    trained = _status(out, begun)
    if code == 0:
        if trained in ("", "done"):
            return "done", ""
        return why or "failed", f"the notebook ended, and its run says {trained!r}"
    if why:
        saved = "saved" if trained in ("interrupted", "done") else "not saved in time" if trained else "nothing to save"
        return why, f"ended after its limit, {saved}" if why == "timeout" else f"asked to end, {saved}"
    if trained == "oom" or "RESOURCE_EXHAUSTED" in _raised(out):
        smaller = _SMALLER.get(_preset(out))
        return "oom", f"out of the device's memory: try {f'preset {smaller}' if smaller else 'a smaller num_envs'}"
    if code in (137, 138, -signal.SIGKILL) or "DeadKernelError" in log or "Kernel died" in log:
        return "dead_kernel", "the kernel was killed, for want of the machine's memory perhaps"
    lines = [line for line in log.splitlines() if line.strip()]
    return "failed", lines[-1][:500] if lines else f"papermill ended with {code}"


def _raised(out: Path) -> str:
    """The words of the error that ended the notebook; a cell may well print of others."""
    with suppress(OSError, ValueError, KeyError):
        cells = json.loads((out / "run.ipynb").read_text())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        return "".join(str(output["evalue"]) for output in outputs if output["output_type"] == "error")
    return ""


def _preset(out: Path) -> str:
    with suppress(OSError, ValueError):
        return str(json.loads((out / "params.json").read_text()).get("preset", ""))
    return ""


def _status(out: Path, begun: float) -> str:
    """What `fit` has said of the run in this folder since then; "" where it has said nothing."""
    with suppress(OSError, ValueError, KeyError):
        told = json.loads((out / "status.json").read_text())
        return str(told["status"]) if told["time"] >= begun else ""
    return ""


def _tail(path: Path, size: int = 20_000) -> str:
    """The end of a text file, without what earlier attempts wrote."""
    with suppress(OSError):
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            text = file.read().decode(errors="replace")
        return text[text.rfind("\nattempt ") + 1 :]
    return ""

"""A sweep on Colab's machines, through Google's own command line `colab` (google-colab-cli), which is not imported.

A machine there costs from `colab new` until `colab stop`: each that was asked for is stopped, whatever happens.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from mxnb.config import run_root
from mxnb.run.job import beats, ended, given, started
from mxnb.run.lock import locked
from mxnb.run.sweep import AGAIN, Signals, left, line, prepare, state, stopped
from mxnb.run.sweep_file import Run, Sweep

_UNPACK = "import tarfile; tarfile.open('/content/sent.tgz').extractall('/content', filter='data')"
_PACK = "import tarfile; tarfile.open('/content/back.tgz', 'w:gz').add('/content/run', '.')"


def run_colab(sweep: Sweep, jobs: int = 0, say: Callable[[str], None] = print) -> bool:
    """Does what is left, each run on a machine of its own, `jobs` at a time (0: one); True when all are done.

    A run that is cut short, by its limit or by us, has no signal to save at once: it goes on from the checkpoint of
    its last 10 minutes. Nothing is mirrored to Weights & Biases, whose key is not sent.
    """
    with locked(sweep.folder), Signals() as asked, ThreadPoolExecutor(jobs or sweep.parallel or 1) as pool:
        prepare(sweep, say)
        if sweep.wandb:
            say("wandb: is left out on Colab, where no key of yours is sent")
        over = lambda: stopped(sweep, asked)
        for future in as_completed([pool.submit(_tries, sweep, run, over) for run in left(sweep)]):
            say(line(sweep, future.result()))
    return not left(sweep)


def _tries(sweep: Sweep, run: Run, over: Callable[[], bool]) -> Run:
    for _ in range(1 + sweep.retries):
        if not over():
            _one(sweep, run, over)
        if state(sweep.folder / run.id) not in AGAIN:
            break
    return run


def _one(sweep: Sweep, run: Run, over: Callable[[], bool]) -> None:
    out, code, why, errors = sweep.folder / run.id, 1, "", list[str]()
    with locked(out, "job.lock"), TemporaryDirectory() as here, open(out / "log.txt", "a") as log:
        job = started(out, sweep.notebook, "colab")
        print(f"\nattempt {job['attempt']}", file=log, flush=True)
        colab = lambda *words, **how: _colab(out, job, log, *words, **how)
        try:
            _pack(sweep, run, Path(here))
            if (out / "colab.json").exists():  # a machine of an attempt that was killed may live there
                colab("stop", known=False)
            colab("new", *(("--tpu", "v5e1") if run.params["preset"] == "tpu" else ("--gpu", "T4")))
            colab("upload", f"{here}/sent.tgz", "/content/sent.tgz")
            colab("exec", "-f", f"{here}/unpack.py", "--timeout", "600")
            limit = 60 * sweep.minutes or 24 * 3600.0  # told to `exec` as well, which otherwise gives a cell 30 s
            words = ("exec", "-f", f"{here}/run.ipynb", "--env", "MXNB_WIDGETS=off", "--timeout", str(limit))
            if why := colab(*words, limit=limit, over=over):
                colab("restart-kernel")
            else:
                cells = json.loads(Path(here, "run_output.ipynb").read_text())["cells"]
                shown = [output for cell in cells for output in cell.get("outputs", ())]  # `exec` goes on after errors
                errors = [f"{o['ename']}: {o['evalue']}" for o in shown if o["output_type"] == "error"]
                code = int(bool(errors))
            colab("exec", "-f", f"{here}/pack.py", "--timeout", "600")
            colab("download", "/content/back.tgz", f"{here}/back.tgz")
            with tarfile.open(f"{here}/back.tgz") as back:
                back.extractall(f"{here}/back", filter="data")
            shutil.copytree(f"{here}/back", out, dirs_exist_ok=True)
        except (subprocess.SubprocessError, OSError, tarfile.TarError) as error:
            errors.append(" ".join(str(error).split()))
        finally:
            if not any(colab("stop", known=False) == "" for _ in range(3)):  # also where there never was one
                print(f"mxnb-{run.id} could not be stopped; see `colab sessions` whether it still runs", flush=True)
            if Path(here, "run_output.ipynb").exists():
                shutil.copy(f"{here}/run_output.ipynb", out / "run.ipynb")
        print(*errors[:1], sep="\n", file=log, flush=True)
        ended(out, job, code, why)


def _colab(
    out: Path,
    job: Mapping[str, Any],
    log: IO[str],
    word: str,
    *words: str,
    limit: float = 0.0,
    over: Callable[[], bool] = bool,
    known: bool = True,
) -> str:
    """One command; "" when it ended well, else OSError; with a limit, timeout or preempted where it was cut short.

    known: whether there must be such a machine; if not, what went wrong is returned.
    """
    what = ["colab", "--config", str(out / "colab.json"), word, "-s", f"mxnb-{out.name}", *words]
    child = subprocess.Popen(what, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    last, beat = time.monotonic() + (limit or 900.0), time.monotonic()
    while child.poll() is None:
        if over() or time.monotonic() > last:
            child.kill()
            child.wait()
            if limit:
                return "preempted" if over() else "timeout"
        elif time.monotonic() > beat + 10:
            beat = time.monotonic()
            beats(out, job)
        time.sleep(0.1)
    if child.returncode and known:
        raise OSError(f"colab {word}: {Path(log.name).read_text().rstrip().splitlines()[-1]}")
    return "failed" if child.returncode else ""


def _pack(sweep: Sweep, run: Run, here: Path) -> None:
    """What goes there: the notebook with its parameters, mxnb's source, and what the run has so far."""
    words = [sys.executable, "-m", "papermill", str(sweep.notebook), str(here / "run.ipynb"), "--prepare-only"]
    words += [*given({**run.params, "run_dir": "/content/run"}), "--no-progress-bar"]
    subprocess.run(words, check=True, capture_output=True)
    (here / "unpack.py").write_text(_UNPACK)
    (here / "pack.py").write_text(_PACK)
    own = ("job.json", "job.lock", "lock", "log.txt", "run.ipynb", "colab.json", "__pycache__")
    keep = lambda info: None if Path(info.name).name in own else info
    with tarfile.open(here / "sent.tgz", "w:gz") as sent:
        for name in ("mxnb", "pyproject.toml", "README.md", "LICENSE"):
            sent.add(run_root().parent.parent / name, f"mxnb/{name}", filter=keep)
        sent.add(sweep.folder / run.id, "run", filter=keep)

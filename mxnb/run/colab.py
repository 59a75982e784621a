"""A sweep on Colab's machines, through Google's own command line `colab` (google-colab-cli), which is not imported.

A machine there costs from `colab new` until `colab stop`: each that was asked for is stopped, whatever happens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from mxnb.config import run_root
from mxnb.run.job import beats, ended, given, started
from mxnb.run.lock import locked
from mxnb.run.sweep import AGAIN, Signals, left, line, prepare, quietly, state, stopped
from mxnb.run.sweep_file import Run, Sweep

_UNPACK = (
    "import tarfile\nwith tarfile.open('/content/sent.tgz') as sent:\n    sent.extractall('/content', filter='data')"
)
_PACK = "import tarfile\nwith tarfile.open('/content/back.tgz', 'w:gz') as back:\n    back.add('/content/run', '.')"


def run_colab(sweep: Sweep, jobs: int = 0, say: Callable[[str], None] = print) -> bool:
    """Does what is left, each run on a machine of its own, `jobs` at a time (0: one); True when all are done.

    A run that is cut short, by its limit or by us, has no signal to save at once: it goes on from the checkpoint of
    its last 10 minutes. Nothing is mirrored to Weights & Biases, whose key is not sent.
    """
    say = quietly(say)
    with locked(sweep.folder), Signals() as asked, ThreadPoolExecutor(jobs or sweep.parallel or 1) as pool:
        prepare(sweep, say)
        if sweep.wandb:
            say("wandb: is left out on Colab, where no key of yours is sent")
        over = lambda: stopped(sweep, asked)
        for future in as_completed([pool.submit(_tries, sweep, run, over) for run in left(sweep)]):
            say(line(sweep, future.result()))
    return not left(sweep)


def give_back(folder: Path) -> str:
    """Stops the machines of a sweep whose process was killed; what was done, in words."""
    machines = [file.parent for file in folder.glob("*/colab.json")]
    codes = [subprocess.run(_words(out, "stop"), capture_output=True, check=False).returncode for out in machines]
    return f"no process does this sweep; stopped {codes.count(0)} machines that it had left"


def _tries(sweep: Sweep, run: Run, over: Callable[[], bool]) -> Run:
    for _ in range(1 + sweep.retries):
        if not over():
            _one(sweep, run, over)
        if state(sweep.folder / run.id) not in AGAIN:
            break
    return run


def _one(sweep: Sweep, run: Run, over: Callable[[], bool]) -> None:
    """One attempt. What the machine has is brought back also where the notebook or the connection broke."""
    out, error, why, limit = sweep.folder / run.id, "", "", 60 * sweep.minutes or 24 * 3600.0
    with locked(out, "job.lock"), TemporaryDirectory() as here, open(out / "log.txt", "a") as log:
        job = started(out, sweep.notebook, "colab")
        print(f"\nattempt {job['attempt']}", file=log, flush=True)
        colab = lambda *words, **how: _colab(out, job, log, *words, **how)
        script = lambda name: ("exec", "-f", f"{here}/{name}.py", "--timeout", "600")
        try:
            _pack(sweep, run, Path(here))
            if (out / "colab.json").exists():  # a machine of an attempt that was killed may live there
                colab("stop")
            new = ("new", *(("--tpu", "v5e1") if run.params["preset"] == "tpu" else ("--gpu", "T4")))
            sent = ("upload", f"{here}/sent.tgz", "/content/sent.tgz")
            if not (error := _first(colab, new, sent, script("unpack"))):
                book = ("exec", "-f", f"{here}/run.ipynb", "--env", "MXNB_WIDGETS=off", "--timeout", str(limit))
                error = colab(*book, limit=limit, over=over)
                if error in ("timeout", "preempted"):
                    why, error = error, colab("restart-kernel")
                error = error or _raised(Path(here, "run_output.ipynb"), out / "run.ipynb")
                back = ("download", "/content/back.tgz", f"{here}/back.tgz")
                if not (lost := _first(colab, script("pack"), back)):
                    with tarfile.open(f"{here}/back.tgz") as archive:
                        archive.extractall(out, filter="data")
                error = error or lost
        except Exception as broken:  # whatever it is, the machine is given back and the other runs go on
            error = error or " ".join(f"{type(broken).__name__}: {broken}".split())
        finally:
            if (out / "colab.json").exists() and all(colab("stop") for _ in range(3)):
                print(f"mxnb-{run.id} could not be stopped; see `colab sessions` whether it still runs", flush=True)
        print(error, file=log, flush=True)
        ended(out, job, int(bool(error or why)), why)


def _first(colab: Callable[..., str], *commands: tuple[str, ...]) -> str:
    """Commands one after another, until one fails; why it did."""
    return next(filter(None, (colab(*words) for words in commands)), "")


def _words(out: Path, word: str, *words: str) -> list[str]:
    return ["colab", "--config", str(out / "colab.json"), word, "-s", f"mxnb-{out.name}", *words]


def _colab(
    out: Path, job: Mapping[str, Any], log: IO[str], *words: str, limit: float = 0.0, over: Callable[[], bool] = bool
) -> str:
    """One command; "" when it ended well, else why not; with a limit, timeout or preempted where it was cut short."""
    child = subprocess.Popen(
        _words(out, *words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
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
    told = Path(log.name).read_text().rstrip().splitlines()[-1]
    return f"colab {words[0]}: {told}" if child.returncode else ""


def _raised(executed: Path, kept: Path) -> str:
    """The error in an executed notebook, which is kept: `colab exec` goes on after one, and ends well."""
    with suppress(OSError, ValueError, KeyError):
        kept.write_text(executed.read_text())
        outputs = [each for cell in json.loads(kept.read_text())["cells"] for each in cell.get("outputs", ())]
        return next((f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"), "")
    return ""


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

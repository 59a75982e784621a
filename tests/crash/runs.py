"""Training processes, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
NOTEBOOK = HERE.parents[1] / "notebooks" / "02_masked_ppo.ipynb"
ENVIRON = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}


def start(agent: str, *run_dirs: Path, save_updates: int = 1, **options: int) -> subprocess.Popen[str]:
    """A process that trains `agent` in each folder."""
    words = [sys.executable, str(HERE / "child.py"), agent, *map(str, run_dirs), "--save-updates", str(save_updates)]
    words += [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRON)


def finish(agent: str, *run_dirs: Path, **options: int) -> list[tuple[int, str]]:
    """(update it went on after, sha256 of the final State) of runs that are let alone."""
    child = start(agent, *run_dirs, **options)
    out, err = child.communicate(timeout=600)
    assert child.returncode == 0, err
    hashes = [line.split()[1] for line in out.splitlines() if line.startswith("state ")]
    return list(zip(began(out), hashes, strict=True))


def wait(child: subprocess.Popen[str]) -> str:
    """What a process printed, once it has ended."""
    return child.communicate(timeout=600)[0]


def kill_kernel(child: subprocess.Popen[str]) -> None:
    """Kills the kernel of papermill's."""
    (kernel,) = [p for p in psutil.Process(child.pid).children(recursive=True) if "ipykernel" in " ".join(p.cmdline())]
    os.kill(kernel.pid, signal.SIGKILL)


def began(out: str) -> list[int]:
    """The updates after which a process went on with its runs, as far as it got to say so."""
    return [int(line.split()[1]) for line in out.splitlines() if line.startswith("from ")]


def timeless(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))} for row in rows]


def rows_now(run_dir: Path) -> int:
    """Whole lines of metrics.jsonl."""
    path = run_dir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def half_written(run_dir: Path) -> list[Path]:
    """What a killed process left unfinished: folders of orbax and temporary files of ours."""
    folder = run_dir / "checkpoints" / "steps"
    torn = [path for path in folder.iterdir() if not path.name.isdigit()] if folder.is_dir() else []
    return torn + [path for path in run_dir.rglob(".*") if path.is_file()]

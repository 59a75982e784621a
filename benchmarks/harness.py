"""Runs named measurements side by side in alternating subprocesses, compares medians, writes the JSON.

Each measurement is a script of this folder that prints one JSON line. A machine's speed drifts, so runs
alternate (A B A B ...) and only ratios of medians within one call are compared with the targets."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REJAX_VENV = ROOT / ".venv-rejax"
REJAX_PINS = HERE / "rejax_requirements.txt"


@dataclass(frozen=True)
class Measurement:
    """One script with its arguments. peer: run it in rejax's environment. `{scratch}` in `env` and
    `args` stands for a folder that lasts for one round; every other path is relative to the repository."""

    name: str
    args: tuple[str, ...]
    seconds: float  # about how long it takes on two cores, for the announcement
    peer: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """median of `top`'s `key` (divided by `bottom`'s, when given) at least or at most `limit`."""

    name: str
    top: str
    limit: float
    bottom: str = ""
    key: str = "steps_per_s"
    at_least: bool = True

    def words(self) -> str:
        what = f"{self.top} / {self.bottom}" if self.bottom else self.top
        return f"{what} {self.key} {'>=' if self.at_least else '<='} {self.limit:g}"


@cache
def commit() -> str:
    """The commit that runs, with -dirty for what is not committed; asked once, so that a later edit changes nothing."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def make_rejax_venv() -> Path:
    """rejax's own environment from the pinned list; made once, made again when the list changes."""
    python = REJAX_VENV / "bin" / "python"
    stamp = REJAX_VENV / "pins.txt"
    if python.exists() and stamp.exists() and stamp.read_text() == REJAX_PINS.read_text():
        return python
    print(
        f"Making {REJAX_VENV.name}/ for rejax (about 1 minute, 1.1 GB; with a cold pip cache a few more) ...",
        flush=True,
    )
    shutil.rmtree(REJAX_VENV, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(REJAX_VENV)], check=True)
    (REJAX_VENV / ".gitignore").write_text("*\n")
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(REJAX_PINS)], check=True)
    stamp.write_text(REJAX_PINS.read_text())
    return python


def run_once(measurement: Measurement, scratch: str, timeout: float) -> dict:
    """Runs one measurement; its numbers, or {"error": last words} when it failed."""
    python = make_rejax_venv() if measurement.peer else Path(sys.executable)
    env = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR", "PYTHONPATH")}
    if not measurement.peer:
        env["PYTHONPATH"] = str(ROOT)
    env |= {k: v.format(scratch=scratch) for k, v in measurement.env.items()}
    script, *rest = (arg.format(scratch=scratch) for arg in measurement.args)
    run = {"name": measurement.name, "load_before": os.getloadavg()[0]}
    begin = time.time()
    env["BENCH_BEGIN"] = repr(begin)
    try:
        done = subprocess.run(
            [str(python), str(HERE / script), *rest], cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return run | {"error": f"stopped after {timeout:.0f} s"}
    run["process_s"] = time.time() - begin
    for line in reversed(done.stdout.splitlines()):
        if done.returncode == 0 and line.startswith("{"):
            return run | json.loads(line)
    words = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
    return run | {"error": plain(f"exit {done.returncode}: {words}".replace(scratch, "<scratch>"))}


def plain(text: str) -> str:
    """Text without this machine's folders."""
    for folder, short in ((str(ROOT), "."), (sys.prefix, "<venv>"), (str(Path.home()), "~")):
        text = text.replace(folder, short)
    return text


def device(runs: Sequence[Mapping]) -> dict:
    """CPU model, usable cores and what jax ran on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kinds = sorted({run["device_kind"] for run in runs if "device_kind" in run})
    return {"cpu": cpu, "cores": cores, "jax_device_kind": ", ".join(kinds)}


def medians(runs: Sequence[Mapping]) -> dict[str, dict[str, float]]:
    """name -> the median of each number over the runs that did not fail."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(run["name"] for run in runs):
        good = [run for run in runs if run["name"] == name and "error" not in run]
        keys = [k for k, v in good[0].items() if isinstance(v, (int, float))] if good else []
        found[name] = {key: statistics.median(run[key] for run in good) for key in keys}
    return found


def judge(target: Target, median: Mapping[str, Mapping[str, float]]) -> dict:
    """The target in words, its measured value (None when a side is missing) and whether it is met."""
    top = median.get(target.top, {}).get(target.key)
    bottom = median.get(target.bottom, {}).get(target.key) if target.bottom else 1.0
    value = top / bottom if top is not None and bottom else None
    met = value is not None and (value >= target.limit if target.at_least else value <= target.limit)
    return {"name": target.name, "rule": target.words(), "limit": target.limit, "value": value, "met": met}


def run_suite(
    name: str,
    measurements: Sequence[Measurement],
    targets: Sequence[Target],
    *,
    pairs: int,
    command: str,
    out: Path | None,
) -> dict:
    """Runs all measurements `pairs` times in turn, prints the table and writes `out`/<name>.json."""
    if any(m.peer for m in measurements):
        make_rejax_venv()
    measured, runs = commit(), []
    for index in range(pairs):
        with tempfile.TemporaryDirectory(prefix="mxnb-bench-") as scratch:
            for m in measurements:
                run = run_once(m, scratch, timeout=max(300.0, 8 * m.seconds)) | {"round": index}
                runs.append(run)
                said = run.get("error") or "  ".join(f"{k} {run[k]:,.4g}" for k in show_keys(targets) if k in run)
                print(f"  {name} round {index + 1}/{pairs}  {m.name:<20} {said}", flush=True)
    median = medians(runs)
    judged = [judge(target, median) for target in targets]
    result = {
        "name": name,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "commit": measured,
        "versions": {("rejax" if m.peer else "mxnb"): run["versions"] for m in measurements for run in runs
                     if run["name"] == m.name and "versions" in run},
        "device": device(runs),
        "runs": [{k: v for k, v in run.items() if k not in ("versions", "device_kind")} for run in runs],
        "medians": median,
        "ratios": {t["name"]: t["value"] for t, target in zip(judged, targets, strict=True) if target.bottom},
        "targets": judged,
        "met": all(t["met"] for t in judged),
    }  # fmt: skip
    print(table(result, show_keys(targets)), flush=True)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {plain(str(out.resolve() / (name + '.json')))}", flush=True)
    return result


def show_keys(targets: Sequence[Target]) -> list[str]:
    """The numbers a table shows: those the targets are about, and some that explain them."""
    return list(dict.fromkeys(["steps_per_s", *(t.key for t in targets), "compile_s", "cores_used"]))


def table(result: Mapping, keys: Sequence[str]) -> str:
    """Medians with their range over the rounds, then one line for each target."""
    width = max(len(name) for name in result["medians"])
    keys = [key for key in dict.fromkeys([*keys, "peak_rss_mb"]) if any(key in m for m in result["medians"].values())]
    lines = [
        "",
        f"{result['name']}: medians (lowest to highest), {result['device']['cpu']}, {result['device']['cores']} cores",
    ]
    for name, median in result["medians"].items():
        good = [run for run in result["runs"] if run["name"] == name and "error" not in run]
        cells = []
        for key in keys:
            values = [run[key] for run in good if key in run]
            if values:
                cells.append(f"{key} {median[key]:,.4g} ({min(values):,.4g} to {max(values):,.4g})")
        lines.append(f"  {name:<{width}}  " + ("   ".join(cells) or "failed in every round"))
    for t in result["targets"]:
        value = "not measured" if t["value"] is None else f"{t['value']:.3g}"
        lines.append(f"  {'met   ' if t['met'] else 'NOT met'} {t['name']}: {value}   [{t['rule']}]")
    return "\n".join(lines)

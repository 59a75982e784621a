"""A run folder's own account of itself: config.json, which says what runs there, and status.json, how it stands."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import time
from pathlib import Path
from typing import Any

import jax

from mxnb.config import as_json, policy_file, write_json


def check_run(agent: Any, run_dir: Path, seed: int, resume: bool, init_from: str | Path | None) -> list[str]:
    """Whether `run_dir` may go on as `agent`; the harmless differences, in words.

    ValueError if it holds a run of another configuration, or if init_from comes too late or its policy does not fit;
    FileNotFoundError if it has none. A Config may name the fields that a resumed run may change without becoming
    another run, as `harmless`.
    """
    path = run_dir / "config.json"
    goes_on = path.exists() and resume
    known = json.loads(path.read_text()) if goes_on else {}
    same = init_from and Path(known.get("init_from", "")).name == Path(init_from).resolve().name
    if init_from and not same and not (resume and _archived(run_dir)):
        _check_start(agent, run_dir, resume, Path(init_from))
    if not goes_on:
        return []
    flat = [{"agent": c["agent"], "seed": c["seed"], **c["config"]} for c in (known, _described(agent, seed))]
    differ = [k for k in sorted({*flat[0], *flat[1]}) if flat[0].get(k) != flat[1].get(k)]
    words = {k: f"{k}: {flat[0].get(k)!r} there, {flat[1].get(k)!r} asked for" for k in differ}
    if set(differ) - set(getattr(agent.config, "harmless", ())):
        lines = "\n".join(f"  {line}" for line in words.values())
        raise ValueError(
            f"{run_dir} holds a run of another configuration:\n{lines}\n"
            "Use another run_dir, or the same values, or resume=False (--no-resume) to set that run aside."
        )
    return list(words.values())


def _check_start(agent: Any, run_dir: Path, resume: bool, init_from: Path) -> None:
    """Whether a run in `run_dir` can begin with the policy of `init_from`."""
    from mxnb.run.checkpoint import load_params

    if not policy_file(init_from).exists():
        raise FileNotFoundError(
            f"init_from={str(init_from)!r} has no policy to begin with; give the folder of a run that was "
            "trained to its end or interrupted"
        )
    if (run_dir / "config.json").exists() and resume:
        raise ValueError(
            f"{run_dir} holds a run that did not begin with init_from={str(init_from)!r}; "
            "use another run_dir, or resume=False (--no-resume) to set that run aside"
        )
    if run_dir.resolve() == init_from.resolve():
        raise ValueError("init_from is the folder that the run itself would begin in; use another run_dir")
    load_params(policy_file(init_from), jax.eval_shape(agent.init, jax.random.key(0)).policy)


def _archived(run_dir: Path) -> bool:
    from mxnb.run.archive import archives

    return bool(archives(run_dir))


def _sweep(run_dir: Path) -> None:
    """Removes the temporary files that a killed process left; for the holder of the folder's lock."""
    for folder in (run_dir, run_dir / "policy", run_dir / "checkpoints" / "best"):
        for path in folder.glob(".*"):
            if re.fullmatch(r"\.(.+\.)?\d+(\.npz)?", path.name) and path.is_file():
                path.unlink(missing_ok=True)
    shutil.rmtree(run_dir / ".unpacking", ignore_errors=True)


def check_numbers(**given: float | None) -> None:
    """ValueError lists the options of `fit` that are out of range."""
    least = {"keep": 1, "eval_episodes": 1}
    low = [
        f"{k} is {v}; use {least.get(k, 0)} or more" for k, v in given.items() if v is not None and v < least.get(k, 0)
    ]
    if low:
        raise ValueError("; ".join(low))


def _described(agent: Any, seed: int) -> dict[str, Any]:
    return {"agent": agent.name, "seed": seed, "config": json.loads(json.dumps(as_json(agent.config)))}


def free_name(path: Path) -> Path:
    """The first of path.old1, path.old2, ... that does not exist."""
    return next(p for n in range(1, 10_000) if not (p := path.with_name(f"{path.name}.old{n}")).exists())


def set_aside(run_dir: Path) -> None:
    """Renames an earlier run's folder, so that another can take its place."""
    if (run_dir / "config.json").exists():
        aside = run_dir.rename(free_name(run_dir))
        print(f"resume=False: the earlier run is kept in {shown(aside)}")


def prepare(agent: Any, run_dir: Path, seed: int, init_from: str | Path | None) -> dict[str, Any]:
    """Writes config.json, or checks that the one there describes the same run; returns what it says."""
    path = run_dir / "config.json"
    changed = check_run(agent, run_dir, seed, True, init_from)
    _sweep(run_dir)
    if path.exists():
        known = json.loads(path.read_text())
        if changed:
            print(f"changed for the rest of the run: {'; '.join(changed)}")
            write_json(path, known | _described(agent, seed))
        return known | _described(agent, seed)
    origins = dict(getattr(agent.config, "origins", {}))
    versions = {"python": platform.python_version()}
    for package in ("mxnb", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "craftax", "orbax-checkpoint"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    extra = {
        "env": agent.spec.id,
        "preset": origins.pop("preset", ""),
        "origins": origins,
        "health": [dataclasses.asdict(rule) for rule in agent.health],
        "versions": versions,
        "device": jax.devices()[0].device_kind,
        **({"init_from": shown(Path(init_from))} if init_from else {}),
    }
    if init_from and not _archived(run_dir):  # a copy of our own: that run may train on
        policy_file(run_dir).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(policy_file(init_from), policy_file(run_dir))
    write_json(path, _described(agent, seed) | extra)
    return _described(agent, seed) | extra


def shown(path: Path) -> str:
    """As one would type it here: executed notebooks are shared, and home folders are nobody's business."""
    try:
        return os.path.relpath(path)
    except ValueError:  # another drive, on Windows
        return str(path)


def read_status(run_dir: Path) -> str:
    """The status in status.json; "" where there is none that can be read."""
    try:
        return str(json.loads((run_dir / "status.json").read_text())["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read_update(run_dir: Path) -> int:
    """The update in status.json; 0 where there is none that can be read."""
    try:
        return int(json.loads((run_dir / "status.json").read_text())["update"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def write_status(run_dir: Path, status: str, update: int, **more: Any) -> None:
    """Writes status.json: how far the run is, and when that was."""
    write_json(run_dir / "status.json", {"status": status, "update": update, "time": time.time(), **more})

"""A run folder's own account of itself: config.json, which says what runs there, and status.json, how it stands."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax

from mxnb.config import as_json, policy_file, write_json


def check_run(agent: Any, run_dir: Path, seed: int, resume: bool, init_from: str | Path | None) -> None:
    """ValueError if `run_dir` holds a run of another configuration, FileNotFoundError if init_from has no policy."""
    if init_from and not policy_file(init_from).exists():
        raise FileNotFoundError(
            f"init_from={str(init_from)!r} has no policy to begin with; give the folder of a run that was "
            "trained to its end or interrupted"
        )
    path = run_dir / "config.json"
    if path.exists() and resume:
        theirs = json.loads(path.read_text())
        flat = [{"agent": c["agent"], "seed": c["seed"], **c["config"]} for c in (theirs, _described(agent, seed))]
        differ = [k for k in sorted({*flat[0], *flat[1]}) if flat[0].get(k) != flat[1].get(k)]
        if differ:
            lines = "\n".join(f"  {k}: {flat[0].get(k)!r} there, {flat[1].get(k)!r} asked for" for k in differ)
            raise ValueError(
                f"{run_dir} holds a run of another configuration:\n{lines}\n"
                "Use another run_dir, or the same values, or resume=False (--no-resume) to set that run aside."
            )


def _described(agent: Any, seed: int) -> dict[str, Any]:
    return {"agent": agent.name, "seed": seed, "config": json.loads(json.dumps(as_json(agent.config)))}


def prepare(agent: Any, run_dir: Path, seed: int, resume: bool, init_from: str | Path | None) -> None:
    """Makes the folder and writes config.json, or checks that the one there describes the same run."""
    check_run(agent, run_dir, seed, resume, init_from)
    path = run_dir / "config.json"
    if path.exists() and not resume:
        aside = next(p for n in range(1, 10_000) if not (p := run_dir.with_name(f"{run_dir.name}.old{n}")).exists())
        run_dir.rename(aside)
        print(f"resume=False: the earlier run is kept in {shown(aside)}")
    if path.exists():
        return
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
    write_json(path, _described(agent, seed) | extra)


def shown(path: Path) -> str:
    """As one would type it here: executed notebooks are shared, and home folders are nobody's business."""
    try:
        return os.path.relpath(path)
    except ValueError:  # another drive, on Windows
        return str(path)


def write_status(run_dir: Path, status: str, update: int, **more: Any) -> None:
    """Writes status.json: how far the run is, and when that was."""
    write_json(run_dir / "status.json", {"status": status, "update": update, "time": time.time(), **more})

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

from mxnb.config import LATER, SCHEMA, as_json, check_schema, policy_file, write_json

PLANNED = "plan"  # how the origin of a field begins that was made smaller to fit the memory


class Refused(ValueError):
    """A run that cannot go on, or begin, in its folder as it was asked for."""


def check_run(agent: Any, run_dir: Path, seed: int, resume: bool, init_from: str | Path | None) -> list[str]:
    """Whether `run_dir` may go on as `agent`; the harmless differences, in words.

    Refused if it holds a run of another configuration or its config.json cannot be read, or if init_from comes too
    late; ValueError if the policy there does not fit; FileNotFoundError if there is none.
    """
    from mxnb.run.archive import was_archived

    path = run_dir / "config.json"
    goes_on = path.exists() and resume
    known = _load(path) if goes_on else {}
    same = init_from and Path(known.get("init_from", "")).name == Path(init_from).resolve().name
    if init_from and not same and not (resume and not path.exists() and was_archived(run_dir)):
        _check_start(agent, run_dir, resume, Path(init_from))
    if not goes_on:
        return []
    who = {"agent": agent.name, "seed": seed}
    return check_config(agent, {name: known[name] for name in who} | known["config"], str(run_dir), who)


def check_config(agent: Any, theirs: dict[str, Any], where: str, who: dict[str, Any]) -> list[str]:
    """The harmless differences between a stored configuration and `agent`'s, in words; Refused where others differ.

    who: the agent's name and the seed that `theirs` is compared with, where it has them.
    A Config may name the fields that a resumed run may change without becoming another run, as `harmless`.
    """
    ours = {**who, **json.loads(json.dumps(as_json(agent.config)))}
    theirs = {**{name: before for name, before in LATER.items() if name in ours}, **theirs}
    differ = [k for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)]
    words = {k: f"{k}: {theirs.get(k)!r} there, {ours.get(k)!r} asked for" for k in differ}
    if set(differ) - set(getattr(agent.config, "harmless", ())):
        lines = "\n".join(f"  {line}" for line in words.values())
        if set(differ) == {"total_timesteps"}:
            lines += " (lr or ent_coef is annealed over it, so a longer run is another one from its first update)"
        raise Refused(
            f"{where} holds a run of another configuration:\n{lines}\n"
            "Use another run_dir, or the same values, or resume=False (--no-resume) to set that run aside."
        )
    return list(words.values())


def planned_before(run_dir: Path) -> dict[str, Any]:
    """Fields that an earlier plan made smaller for the run that is in `run_dir`, or archived from there."""
    from mxnb.run.archive import archive_folder

    for folder in (run_dir, archive_folder(run_dir)):
        if folder is not None and (folder / "config.json").exists():
            known = _load(folder / "config.json")
            origins = known.get("origins", {})
            return {k: v for k, v in known["config"].items() if str(origins.get(k, "")).startswith(PLANNED)}
    return {}


def _load(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
        whole = {"agent", "seed", "config"} <= set(known)
    except (ValueError, TypeError):
        whole = False
    if not whole:
        raise Refused(
            f"{path} is damaged. Remove it, and start the run as before: it is written anew, and compared with what "
            "the newest checkpoint knows"
        )
    try:
        check_schema(known, path)
    except ValueError as error:
        raise Refused(str(error)) from None
    return known


def _check_start(agent: Any, run_dir: Path, resume: bool, init_from: Path) -> None:
    """Whether a run in `run_dir` can begin with the policy of `init_from`."""
    from mxnb.run.checkpoint import load_params

    if not policy_file(init_from).exists():
        raise FileNotFoundError(
            f"init_from={str(init_from)!r} has no policy to begin with; give the folder of a run that was "
            "trained to its end or interrupted"
        )
    if (run_dir / "config.json").exists() and resume:
        raise Refused(
            f"{run_dir} holds a run that did not begin with init_from={str(init_from)!r}; "
            "use another run_dir, or resume=False (--no-resume) to set that run aside"
        )
    if run_dir.resolve() == init_from.resolve():
        raise Refused("init_from is the folder that the run itself would begin in; use another run_dir")
    import jax

    load_params(policy_file(init_from), jax.eval_shape(agent.init, jax.random.key(0)).policy)


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
    if any(
        (run_dir / name).exists() for name in ("config.json", "result.json", "metrics.jsonl", "checkpoints", "policy")
    ):
        aside = run_dir.rename(free_name(run_dir))
        print(f"resume=False: the earlier run is kept in {shown(aside)}")


def prepare(agent: Any, run_dir: Path, seed: int, init_from: str | Path | None) -> dict[str, Any]:
    """Sweeps the folder and returns what config.json says, or is to say; the one there must describe the same run."""
    import jax  # not above: `python -m mxnb run` comes by this module, and leaves the device to the notebook

    path = run_dir / "config.json"
    changed = check_run(agent, run_dir, seed, True, init_from)
    _sweep(run_dir)
    versions = _versions()
    if path.exists():
        known = _load(path)
        before = known.get("versions", {})
        upgraded = [f"{k} {before[k]} -> {v}" for k, v in versions.items() if before.get(k, v) != v]
        if upgraded:
            print(f"warning: other versions than before, so the bits may differ: {', '.join(upgraded)}")
        if changed:
            print(f"changed for the rest of the run: {'; '.join(changed)}")
        return known | _described(agent, seed) | {"versions": versions}
    origins = dict(getattr(agent.config, "origins", {}))
    extra = {
        "schema": SCHEMA,
        "env": agent.spec.id,
        "preset": origins.pop("preset", ""),
        "origins": origins,
        "health": [dataclasses.asdict(rule) for rule in agent.health],
        "versions": versions,
        "device": jax.devices()[0].device_kind,
        **({"init_from": shown(Path(init_from))} if init_from else {}),
    }
    if init_from and policy_file(init_from).exists():  # a copy of our own: that run may train on
        start_file(run_dir).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(policy_file(init_from), start_file(run_dir))
    return _described(agent, seed) | extra


def write_config(run_dir: Path, about: dict[str, Any]) -> None:
    """Writes config.json where it does not say so already, once the run is known to be the one that it describes."""
    path = run_dir / "config.json"
    known = _load(path) if path.exists() else {}
    if any(known.get(name) != about[name] for name in ("agent", "seed", "config")):
        write_json(path, about)


def start_file(run_dir: Path) -> Path:
    """The policy that a run with init_from begins with; policy/params.npz is there only once it was saved itself."""
    return policy_file(run_dir).with_name("init.npz")


def _versions() -> dict[str, str]:
    """The versions of what a run's bits depend on."""
    versions = {"python": platform.python_version()}
    for package in ("mxnb", "jax", "jaxlib", "flax", "optax", "distrax", "gymnax", "craftax", "orbax-checkpoint"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


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

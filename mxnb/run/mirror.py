"""Weights & Biases as a mirror of metrics.jsonl, which stays the truth: what fails here never stops a run."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mxnb.config import policy_file, write_json

OPTIONS = ("project", "entity", "name", "suffix", "rewind", "artifacts")
"""What `fit(wandb={...})` takes; see `mirror`."""


@contextmanager
def mirror(wandb: bool | Mapping[str, Any], run_dir: Path, update: int) -> Iterator[Callable[[Path, Any], None]]:
    """A hook for `fit` that sends each row to W&B, with the update as its step.

    The W&B run's id and the last update sent are kept in wandb.json, so a resumed run goes on in the same W&B run
    and no step is sent twice (rows made again after a kill have the same numbers). Without a login or with
    WANDB_MODE=offline all is kept below the run folder, for `wandb sync`.

    wandb: False: nothing is sent. True, or a mapping of project (default mxnb), entity, name (default the run
    folder's), suffix (put behind the name), rewind (True: on resume, ask the server to forget the steps after the
    checkpoint, where it allows that), artifacts (True: keep the final policy there as well).
    update: the update that the run goes on from.
    Raises ValueError for an unknown option.
    """
    options = dict(wandb) if isinstance(wandb, Mapping) else {}
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ValueError(f"wandb: unknown option {', '.join(unknown)}; it takes {', '.join(OPTIONS)}")
    run = _open(options, run_dir, update) if wandb or isinstance(wandb, Mapping) else None
    if run is None:
        yield lambda run_dir, rows: None
        return
    mark = run_dir / "wandb.json"
    sent = json.loads(mark.read_text())["update"]
    failed = False

    def hook(run_dir: Path, rows: Any) -> None:
        nonlocal sent, failed
        try:
            for row in () if failed else rows:
                if row["update"] > sent:
                    run.log({k: v for k, v in row.items() if v is not None}, step=row["update"])
                    sent = row["update"]
            write_json(mark, json.loads(mark.read_text()) | {"update": sent})
        except Exception as error:
            failed = True
            _say(error)

    code = 1
    try:
        yield hook
        code = 0
    finally:
        try:
            if options.get("artifacts") and policy_file(run_dir).exists() and not failed:
                _keep(run, run_dir)
            run.finish(exit_code=code)
        except Exception as error:
            _say(error)


def _open(options: Mapping[str, Any], run_dir: Path, update: int) -> Any:
    """The W&B run, or None and a word when there is none to be had."""
    mark = run_dir / "wandb.json"
    try:
        import wandb

        known = json.loads(mark.read_text()) if mark.exists() else {}
        mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
        name = (options.get("name") or run_dir.name) + (options.get("suffix") or "")
        settings: dict[str, Any] = {
            "project": options.get("project") or "mxnb",
            "entity": options.get("entity"),
            "name": name,
            "config": json.loads((run_dir / "config.json").read_text()),
            "dir": str(run_dir),
            "mode": mode,
        }
        again = known.get("id")
        run = None
        if again and options.get("rewind") and known["update"] > update and mode == "online":
            try:
                run = wandb.init(**settings, resume_from=f"{again}?_step={update}")
                known["update"] = update
            except Exception as error:
                print(f"wandb: the server does not rewind ({error}); the steps sent before stay", flush=True)
        run = run or wandb.init(**settings, id=again or uuid.uuid4().hex[:8], resume="allow")
        write_json(mark, {"id": run.id, "update": known.get("update", 0), "project": settings["project"]})
        where = run.url if mode == "online" else f"{mode}; `wandb sync` sends what is below {run_dir.name}/wandb"
        print(f"mirrored to W&B run {run.id} ({where})", flush=True)
        return run
    except Exception as error:
        _say(error)
        return None


def _keep(run: Any, run_dir: Path) -> None:
    import wandb

    artifact = wandb.Artifact(f"policy-{run.id}", type="policy")
    artifact.add_file(str(policy_file(run_dir)))
    run.log_artifact(artifact)


def _say(error: Exception) -> None:
    print(f"wandb: {type(error).__name__}: {error}; the run goes on, metrics.jsonl has everything", flush=True)

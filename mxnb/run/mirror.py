"""Weights & Biases as a mirror of metrics.jsonl, which stays the truth: what fails there never stops a run."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mxnb.config import policy_file, write_json
from mxnb.run.metrics import read_rows

OPTIONS = ("project", "entity", "name", "suffix", "rewind", "artifacts")
"""What `fit(wandb={...})` takes; see `mirror`."""


def check_options(wandb: bool | Mapping[str, Any]) -> None:
    """ValueError for an unknown option."""
    if unknown := sorted(set(wandb) - set(OPTIONS)) if isinstance(wandb, Mapping) else []:
        raise ValueError(f"wandb: unknown option {', '.join(unknown)}; it takes {', '.join(OPTIONS)}")


def unsent(run_dir: Path, update: int) -> bool:
    """Whether the mirror of a run lacks rows up to `update`."""
    try:
        return json.loads((run_dir / "wandb.json").read_text())["update"] < update
    except (OSError, ValueError, KeyError, TypeError):
        return True


@contextmanager
def mirror(wandb: bool | Mapping[str, Any], run_dir: Path, update: int) -> Iterator[Callable[[Path, Any], None]]:
    """A hook for `fit` that sends every row of metrics.jsonl to W&B, once, with its update as the step.

    W&B's run id and the last update sent are kept in wandb.json. A resumed run goes on in the same W&B run; rows
    made again after a kill have the same numbers and are not sent twice; rows that could not be sent then are sent
    now. Without a login, a network, or with WANDB_MODE=offline all is kept below the run folder for `wandb sync`.

    wandb: False: nothing is sent. True, or a mapping of project (default mxnb), entity, name (default the run
    folder's), suffix (put behind the name), rewind (default False: on resume, ask the server to forget the steps
    after the checkpoint, where it allows that), artifacts (default True: keep the final policy there as well).
    update: the update that the run goes on from.

    The run of a sweep (one with a job.json) is sent as well where MXNB_WANDB names a project.
    """
    swept = os.environ.get("MXNB_WANDB") and (run_dir / "job.json").exists()
    options = dict(wandb) if isinstance(wandb, Mapping) else {}
    run = _open(options, run_dir, update) if wandb or isinstance(wandb, Mapping) or swept else None
    if run is None:
        yield lambda run_dir, rows: None
        return
    mark, failed = run_dir / "wandb.json", False
    known = json.loads(mark.read_text())

    def send(rows: Any) -> None:
        nonlocal failed
        try:
            for row in () if failed else rows:
                if row["update"] > known["update"]:
                    run.log({k: v for k, v in row.items() if v is not None}, step=row["update"])
                    known["update"] = row["update"]
            write_json(mark, known)
        except Exception as error:
            failed = True
            _say(error)

    send(read_rows(run_dir / "metrics.jsonl"))
    code = 1
    try:
        yield lambda run_dir, rows: send(rows)
        code = 0
    finally:
        send(read_rows(run_dir / "metrics.jsonl"))  # what a failing evaluation or hook kept from being sent
        ended = code == 0 and not failed and options.get("artifacts", True) and policy_file(run_dir).exists()
        if ended:
            _try(partial(_keep, run, run_dir))
        _try(partial(run.finish, exit_code=code))


def _open(options: Mapping[str, Any], run_dir: Path, update: int) -> Any:
    """The W&B run, or None and a word when there is none to be had."""
    mark = run_dir / "wandb.json"
    project, entity = options.get("project") or os.environ.get("MXNB_WANDB") or "mxnb", options.get("entity")
    try:
        import wandb

        known = json.loads(mark.read_text()) if mark.exists() else {}
        if (known.get("project"), known.get("entity")) != (project, entity):
            known = {}  # an id belongs to its project
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if _logged_in(wandb) else "offline")
        settings: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "name": (options.get("name") or run_dir.name) + (options.get("suffix") or ""),
            "config": json.loads((run_dir / "config.json").read_text()),
            "dir": str(run_dir),
            "reinit": "create_new",  # a run that the user has open is not ours to write into
        }
        run_id, sent = known.get("id") or uuid.uuid4().hex[:8], known.get("update", 0)
        run = None
        if options.get("rewind") and sent > update and mode == known.get("mode") == "online":
            try:
                run = wandb.init(**settings, mode=mode, resume_from=f"{run_id}?_step={update}")
                sent = update
            except Exception as error:
                print(f"wandb: the server does not rewind ({error}); the steps sent before stay", flush=True)
        if run is None:
            run, mode = _init(wandb, settings | {"id": run_id, "resume": "allow"}, mode)
            sent = sent if mode == known.get("mode") else 0  # the server drops the steps it has
        about = {"id": run.id, "update": sent, "project": project, "entity": entity, "mode": mode}
        write_json(mark, about)
        where = run.url if mode == "online" else f"{mode}; `wandb sync` sends what is below {run_dir.name}/wandb"
        print(f"mirrored to W&B run {run.id} ({where})", flush=True)
        return run
    except ModuleNotFoundError:
        print("wandb: not installed (pip install 'mxnb[wandb]'); the run goes on without a mirror", flush=True)
    except Exception as error:
        _say(error)
    return None


def _init(wandb: Any, settings: dict[str, Any], mode: str) -> tuple[Any, str]:
    """(the run, the mode it got): offline where the server cannot be reached."""
    try:
        return wandb.init(**settings, mode=mode), mode
    except Exception as error:
        if mode != "online":
            raise
        print(f"wandb: {type(error).__name__}: {error}; offline instead", flush=True)
        return wandb.init(**settings, mode="offline"), "offline"


def _logged_in(wandb: Any) -> bool:
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # before 0.31 login could only ask; this property is deprecated since
        return bool(wandb.api.api_key)


def _keep(run: Any, run_dir: Path) -> None:
    import wandb

    artifact = wandb.Artifact(f"policy-{run.id}", type="policy")
    artifact.add_file(str(policy_file(run_dir)))
    run.log_artifact(artifact)


def _try(close: Callable[[], Any]) -> None:
    try:
        close()
    except (Exception, KeyboardInterrupt) as error:  # the run is complete, whatever becomes of its mirror
        _say(error)


def _say(error: BaseException) -> None:
    print(f"wandb: {type(error).__name__}: {error}; the run goes on, metrics.jsonl has everything", flush=True)

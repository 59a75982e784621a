"""`python -m mxnb run` and `python -m mxnb sweep`: no jax in the first, and none that takes a device in the second."""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mxnb.config import nearest, run_root
from mxnb.run import sweep as sweeps
from mxnb.run.folder import shown
from mxnb.run.job import run_notebook
from mxnb.run.lock import InUse, held
from mxnb.run.sweep_file import Check, Sweep, find_notebook, read_sweep
from mxnb.run.sweep_rules import canonical

USAGE = "(run|resume|table|report|stop) FILE [options]"
EXITS = {"done": 0, "preempted": 143}  # any other end: 1


def run_options(command: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """Options of `run`."""
    command.add_argument("notebook", type=Path, help="an .ipynb with a parameters cell")
    command.add_argument("--params", type=Path, required=True, metavar="FILE", help="JSON for its parameters cell")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run folder; run.ipynb goes there")
    command.add_argument(
        "--minutes", type=float, default=0.0, metavar="M", help="limit of the whole run (default none)"
    )
    command.add_argument("--cores", default="", metavar="0,1", help="of the CPU (default all)")
    command.add_argument("--wandb", default="", metavar="PROJECT", help="mirror it there, offline without WANDB_MODE")
    command.add_argument("--tags", default="", metavar="A,B", help="its tags at Weights & Biases")


def run(args: argparse.Namespace) -> Callable[[], int]:
    """Executes one notebook; its end is told in job.json and by the exit status."""
    if not args.notebook.is_file():
        raise ValueError(f"there is no notebook {args.notebook}")
    try:
        params = json.loads(args.params.read_text())
        cores = [int(core) for core in args.cores.split(",") if core]
    except (OSError, ValueError) as error:
        raise ValueError(f"--params or --cores cannot be read: {error}") from None
    notebook, out, env = args.notebook.resolve(), args.out.resolve(), {}
    if args.wandb:
        env = {"MXNB_WANDB": args.wandb, "WANDB_RUN_GROUP": out.parent.name}
        env |= {"WANDB_TAGS": args.tags} if args.tags else {}
        env["WANDB_MODE"] = os.environ.get("WANDB_MODE", "offline")

    def job() -> int:
        status = run_notebook(notebook, params, out, minutes=args.minutes, cores=cores, env=env)
        print(f"{status}: {args.out}")
        return EXITS.get(status, 1)

    return job


def sweep_options(command: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """Options of `sweep`."""
    words = (
        "run: check all and do what is left; resume: the same, with -p and --executor as before; table: what became "
    )
    words += "of each run; stop: let the runs save and end; report: execute notebook 09 for it"
    command.add_argument("what", choices=("run", "resume", "table", "stop", "report"), help=words)
    command.add_argument("file", type=Path, help="a sweep file, or the name of one in papermill_runs/sweeps")
    command.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="for every run, in the file's place"
    )
    command.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="runs at a time (default 0: one a GPU or core)"
    )
    command.add_argument("--executor", choices=("local", "slurm", "colab"), default="", help="where (default local)")
    command.add_argument("--metric", default="", metavar="NAME", help="what table and report show of result.json")
    command.add_argument("--dry-run", action="store_true", help="check all, start nothing")


def sweep(args: argparse.Namespace, check: Check) -> Callable[[], int]:
    """Does what one of the words after `sweep` says."""
    if args.jobs < 0:
        raise ValueError(f"--jobs is {args.jobs}; use 1 or more, or 0 for one a device")
    if os.name == "nt":
        raise ValueError("sweeps need the file locks and signals of Unix: use Linux, macOS or WSL")
    file = _file(args.file)
    folder = run_root().parent / file.stem
    where = os.path.relpath(file.resolve(), run_root().parent)
    before = sweeps.begun_with(folder)
    if file.exists() and before.get("file", where) != where:
        raise ValueError(
            f"{shown(folder)} is the sweep of {before['file']}, another file called {file.stem}: rename this one"
        )
    if args.what == "table":
        return _shows(sweeps.table(folder, args.metric))
    if args.what == "stop":
        sweeps.rows(folder)  # an error, if it is no sweep
        return lambda: _told(sweeps.stop(folder))
    if args.what == "report":
        return _report(folder, args.metric)
    given, executor = {name: _value(text) for name, text in args.p}, args.executor or "local"
    auto = AUTO[executor]
    if args.what == "resume":
        given = {**before.get("given", {}), **given}
        executor = args.executor or before.get("executor", executor)
        auto = (lambda: before["preset"]) if before.get("preset") else AUTO[executor]
    engine = _engine(executor)
    plan = read_sweep(file, check, given, auto)
    replaced = [name for name in given if canonical(name) in {canonical(each) for each in plan.varied}]
    presets = {run.params.get("preset") for run in plan.runs}
    about = {"file": where, "given": given, "executor": executor}
    about |= {"preset": presets.pop()} if len(presets) == 1 else {}  # what auto came to, for `resume`

    def job() -> int:
        if replaced:
            print(f"-p {', -p '.join(replaced)}: in place of all that the file varies there")
        if args.dry_run:
            return _told("\n".join(_listed(plan, executor)))
        if args.what == "resume":
            print(f"as it was started: on {executor}{''.join(f', {name} {value}' for name, value in given.items())}")
        try:
            complete = engine(replace(plan, about=about), args.jobs)
        except InUse as error:
            who = str(error).split(" is in use by ")[1].split(";")[0]
            raise InUse(f"{who} does this sweep; `sweep table` shows it, `sweep stop` ends it") from None
        print(sweeps.table(plan.folder))
        return 0 if complete else 1

    return job


def _file(named: Path) -> Path:
    """The sweep file: a path, or a name in papermill_runs/sweeps; where there is none, its folder may still be."""
    there = run_root().parent / "sweeps" / f"{named.name.removesuffix('.yaml')}.yaml"
    if named.is_file() or not (there.is_file() and named.parent == Path()):
        if not named.is_file() and not (run_root().parent / named.stem / "sweep.json").exists():
            names = sorted(path.stem for path in there.parent.glob("*.yaml"))
            words = f"; papermill_runs/sweeps has {', '.join(names)}" if names else ""
            raise ValueError(f"there is no sweep file {named}{nearest(named.stem, names)}{words}")
        return named
    return there


def _elsewhere() -> str:
    raise ValueError("preset auto would be this machine's, and the sweep runs on others: name one, as in -p preset gpu")


AUTO: dict[str, Callable[[], str] | None] = {"local": None, "slurm": _elsewhere, "colab": lambda: "colab_t4"}


def _engine(executor: str) -> Callable[[Sweep, int], bool]:
    if executor == "slurm":
        from mxnb.run.slurm import check_slurm, run_slurm

        check_slurm()
        return run_slurm
    if executor == "colab":
        from mxnb.run.colab import run_colab

        if not shutil.which("colab"):
            raise ValueError("there is no `colab` on PATH: pip install google-colab-cli (Python 3.12), then log in")
        return run_colab
    return sweeps.run_local


def _shows(words: str) -> Callable[[], int]:
    return lambda: _told(words)


def _report(folder: Path, metric: str) -> Callable[[], int]:
    """Executes notebook 09 for a sweep, into its folder report/."""
    sweeps.table(folder, metric)  # an error, if it is no sweep, or if there is no such metric
    notebook, out = find_notebook("09_sweep_report", folder), folder / "report"

    def job() -> int:
        env = {"JAX_PLATFORMS": "cpu"} if held(folder) else {}  # the sweep has the accelerator
        status = run_notebook(notebook, {"sweep_dir": str(folder), "metric": metric}, out, env=env)
        print(f"{status}: {shown(out / 'run.ipynb')}")
        return EXITS.get(status, 1)

    return job


def _told(words: str) -> int:
    print(words)
    return 0


def _value(text: str) -> Any:
    """A value as papermill's -p reads it."""
    if text in ("True", "False", "true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float | dict | list) else text


def _listed(plan: Sweep, executor: str) -> list[str]:
    names = [", ".join(f"{name} {value}" for name, value in run.values.items()) for run in plan.runs]
    states = [sweeps.state(plan.folder / run.id) for run in plan.runs]
    lines = [f"{state:<12} {run.id}  {words}" for run, state, words in zip(plan.runs, states, names, strict=True)]
    count = f"{len(lines)} run{'s' * (len(lines) != 1)} of {plan.notebook.name}, {states.count('done')} done"
    return [*lines, f"{count}, on {executor}, in {shown(plan.folder)}; nothing was started"]

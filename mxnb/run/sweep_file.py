"""What a sweep file asks for: the runs of one notebook, each checked before any kernel starts.

A run is named by what decides its result: the notebook's source, its resolved parameters, the seed, the version. So a
sweep that is started again does what is left, and a changed one does what is new.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mxnb.config import nearest, run_root
from mxnb.run.sweep_rules import KEYS, LIMITS, OURS, canonical, is_seed, level, mistakes, strict

_RESERVED = ("sweeps", "reference", "local")

Check = Callable[[Path, Mapping[str, Any]], dict[str, Any]]
"""(notebook, values of its parameters cell) -> what decides the result; ValueError lists every mistake."""


@dataclass(frozen=True)
class Run:
    """One run: its id, what it varies, and the values of the notebook's parameters cell."""

    id: str
    values: Mapping[str, Any]
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """A sweep file that was read and checked."""

    name: str
    folder: Path
    notebook: Path
    runs: tuple[Run, ...]
    minutes: float = 0.0
    retries: int = 0
    parallel: int = 0
    tags: tuple[str, ...] = ()
    wandb: str = ""
    varied: tuple[str, ...] = field(default=())
    slurm: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


def read_sweep(
    file: Path, check: Check, given: Mapping[str, Any] | None = None, auto: Callable[[], str] | None = None
) -> Sweep:
    """Reads a sweep file (YAML) and checks every run's parameters, before any kernel starts.

    file: keys notebook, preset, parameters, grid (name -> values), list (of sets of values), random (name ->
    {uniform, log_uniform, integer: [low, high]} or {choice: [...]}) with samples, seeds, limits {minutes of one
    attempt at a run, retries, parallel}, tags, wandb (a project at Weights & Biases; the sweep is its group) and
    slurm. Names are those of the notebook's parameters cell or fields of its agent's Config. slurm is for
    `mxnb.run.slurm`: partition, account, qos, constraint, nodelist, exclude, gres, gpus_per_node, cpus_per_task,
    mem_gb, minutes of a job (the run goes on in the next), setup (lines of the shell before it), and sbatch:
    {OPTION: VALUE} for any other. given: values that replace the file's, as `-p` gives them. auto: what preset auto
    means where the runs will be; without it, what this machine would choose.

    Raises ValueError with every mistake.
    """
    import yaml

    try:
        told = yaml.load(file.read_text(), strict(yaml))
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{file} cannot be read:\n{error}") from None
    if not isinstance(told, dict):
        raise ValueError(f"{file} holds no keys; it needs notebook and what to vary: {', '.join(KEYS)}")
    problems = mistakes(told)
    if file.stem in _RESERVED:
        problems.append(f"a sweep cannot be called {file.stem}, for papermill_runs/{file.stem} has another use")
    notebook = Path()
    try:
        notebook = find_notebook(str(told.get("notebook", "")), file.parent)
    except ValueError as error:
        problems.append(f"notebook: {error}")
    if problems:
        raise ValueError(_said(file, problems))
    given = level(given or {})
    if own_names := sorted(OURS & set(given)):
        raise ValueError(_said(file, [f"-p {name}: a sweep decides that itself" for name in own_names]))
    fixed = {"preset": told.get("preset", "auto"), **level(told.get("parameters", {}))}
    seeds = [given.pop("seed")] if "seed" in given else list(told.get("seeds", [0]))
    if not all(map(is_seed, seeds)):
        raise ValueError(_said(file, [f"-p seed {seeds[0]!r}: expected a whole number below 2^31"]))
    own, runs, seen, wrong = cell_of(notebook), [], set[str](), dict[str, list[str]]()
    for values in _points(told):
        for seed in seeds:
            values = {name: given.get(canonical(name), value) for name, value in values.items()}
            params = _cell({**fixed, **level(values), **given, "seed": seed}, own)
            if params.get("preset", "auto") in ("", "auto"):
                params["preset"] = (auto or _hardware)()
            try:
                decides = check(notebook, params)
            except ValueError as error:
                for line in str(error).splitlines():
                    if not line.endswith("nothing was trained:"):  # what follows says it
                        wrong.setdefault(line.strip(), []).append(_words({**values, "seed": seed}))
                continue
            run = Run(_id(notebook, decides, seed), {**values, "seed": seed}, params)
            if run.id not in seen:  # two that come to the same are one
                runs.append(run)
                seen.add(run.id)
    for words, where in wrong.items():
        every = len(where) == len(seeds) * len(list(_points(told)))
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        problems.append(words if every else f"{words} (in {where[0]}{more})")
    if problems:
        raise ValueError(_said(file, problems[:20]))
    limits = {**LIMITS, **told.get("limits", {})}
    varied = (*dict.fromkeys(name for values in _points(told) for name in values),)
    folder = run_root().parent / file.stem
    tags = tuple(str(tag) for tag in told.get("tags", ()))
    return Sweep(
        file.stem,
        folder,
        notebook,
        tuple(runs),
        **limits,
        tags=tags,
        varied=varied,
        wandb=told.get("wandb", ""),
        slurm=told.get("slurm", {}),
    )


def _points(told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each set of values that the file asks for, in a fixed order; random ones depend on nothing but the file."""
    grid = told.get("grid", {})
    sets = told.get("list") or [{}]
    dice = random.Random(json.dumps(told.get("random", {}), sort_keys=True, default=str))
    drawn = [
        {name: _draw(dice, *next(iter(how.items()))) for name, how in told["random"].items()}
        for _ in range(told.get("samples", 1))
    ] if told.get("random") else [{}]  # fmt: skip
    for values in itertools.product(*grid.values()):
        for one in sets:
            for chance in drawn:
                yield {**dict(zip(grid, values, strict=True)), **one, **chance}


def _draw(dice: random.Random, kind: str, values: list[Any]) -> Any:
    if kind == "choice":
        return dice.choice(values)
    if kind == "integer":
        return dice.randint(*values)
    low, high = values
    value = math.exp(dice.uniform(math.log(low), math.log(high))) if kind == "log_uniform" else dice.uniform(low, high)
    return float(f"{value:.4g}")


def cell_of(notebook: Path) -> dict[str, Any]:
    """The names of a notebook's parameters cell with their defaults; ValueError where it has no such cell."""
    cells = _json(notebook)["cells"]
    found = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    if len(found) != 1:
        raise ValueError(f"{notebook} has {len(found)} cells tagged parameters; it needs one")
    lines = [line for line in ast.parse(found[0]).body if isinstance(line, ast.Assign)]
    for line in lines:
        try:
            ast.literal_eval(line.value)
        except ValueError:
            wrong = ast.unparse(line)
            raise ValueError(f"{notebook}: its parameters cell takes plain values only, not {wrong}") from None
    return {
        target.id: ast.literal_eval(line.value)
        for line in lines
        for target in line.targets
        if isinstance(target, ast.Name)
    }


@cache
def _hardware() -> str:
    """What preset auto is on this machine; asked in a process of its own, which gives the device back."""
    asks = "from mxnb import presets; print(presets.choose('auto')[0])"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"preset auto: {(done.stderr.strip() or 'no answer').splitlines()[-1]}; name a preset")
    return done.stdout.split()[-1]


def _json(notebook: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(notebook.read_text()))
    except (OSError, ValueError) as error:
        raise ValueError(f"{notebook} is no notebook that can be read: {error}") from None


def agent_of(notebook: Path) -> str:
    """The agent that a notebook names in its metadata (`mxnb.agent`); ValueError where it names none."""
    named = _json(notebook)["metadata"].get("mxnb", {}).get("agent", "")
    if not named:
        raise ValueError(
            f'{notebook} does not say which agent it trains: in Jupyter\'s "Edit Notebook Metadata" add "mxnb": '
            '{"agent": "ppo"}'
        )
    return str(named)


def _cell(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the parameters cell; what it has no name for goes into its overrides."""
    if not isinstance(values.get("overrides", {}), dict):
        return dict(values)  # the check will say so
    overrides = {**values.get("overrides", {}), **{name: value for name, value in values.items() if name not in own}}
    mine = {name: value for name, value in values.items() if name in own and name != "overrides"}
    return mine | ({"overrides": overrides} if overrides else {})


def find_notebook(name: str, near: Path) -> Path:
    """The .ipynb called so: a path from the folder `near` or from here, or a name in notebooks/; else ValueError."""
    root = run_root().parent.parent
    tries = [base / path for base in (near, Path.cwd(), root / "notebooks") for path in (name, f"{name}.ipynb")]
    for path in tries if name else ():
        if path.suffix == ".ipynb" and path.is_file():
            return path.resolve()
    there = ", ".join(sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))) or "no notebooks/ here"
    known = there.split(", ")
    raise ValueError(f"there is no {name!r}{nearest(name, known)}; {there}" if name else f"name one of {there}")


def _id(notebook: Path, decides: Mapping[str, Any], seed: int) -> str:
    source = notebook.with_suffix(".py")
    text = source.read_text() if source.exists() else _code(notebook)
    about = {"notebook": text, "decides": decides, "seed": seed, "version": version("mxnb")}
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:10]


def _code(notebook: Path) -> str:
    cells = _json(notebook)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _said(file: Path, problems: list[str]) -> str:
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return "\n".join([f"{count} in {file}; nothing was started:", *(f"  {problem}" for problem in problems)])

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

from mxnb.config import ALIASES, run_root

_KEYS = ("notebook", "preset", "parameters", "grid", "list", "random", "samples", "seeds", "limits", "tags")
_KEYS += ("slurm", "wandb")
_LIMITS = {"minutes": 0.0, "retries": 0, "parallel": 0}
_SLURM: dict[str, type] = {
    "partition": str, "account": str, "qos": str, "constraint": str, "nodelist": str, "exclude": str, "gres": str,
    "gpus_per_node": int, "cpus_per_task": int, "mem_gb": float, "minutes": float, "setup": list, "sbatch": dict,
}  # fmt: skip
_OF = {"uniform": "", "log_uniform": " above 0", "integer": ", both whole"}
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
        told = yaml.load(file.read_text(), _strict(yaml))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(told, dict):
        raise ValueError(f"{file} holds no keys; it needs notebook and what to vary: {', '.join(_KEYS)}")
    problems = _mistakes(told)
    if file.stem in _RESERVED:
        problems.append(f"a sweep cannot be called {file.stem}, for papermill_runs/{file.stem} has another use")
    notebook = Path()
    try:
        notebook = find_notebook(str(told.get("notebook", "")), file.parent)
    except ValueError as error:
        problems.append(f"notebook: {error}")
    if problems:
        raise ValueError(_said(file, problems))
    given = dict(given or {})
    of_all = {_canonical(name): value for name, value in given.items()}
    fixed = {"preset": told.get("preset", "auto"), **told.get("parameters", {})}
    seeds = [given.pop("seed")] if "seed" in given else list(told.get("seeds", [0]))
    own, runs, seen = cell_of(notebook), [], set[str]()
    for values in _points(told):
        for seed in seeds:
            values = {name: of_all.get(_canonical(name), value) for name, value in values.items()}
            others = {name: value for name, value in {**fixed, **values}.items() if _canonical(name) not in of_all}
            params = _cell({**others, **given, "seed": seed}, own)
            if params.get("preset", "auto") in ("", "auto"):
                params["preset"] = (auto or _hardware)()
            try:
                decides = check(notebook, params)
            except ValueError as error:
                problems.append(f"{_words({**values, 'seed': seed})}: {error}")
                continue
            run = Run(_id(notebook, decides, seed), {**values, "seed": seed}, params)
            if run.id not in seen:  # two that come to the same are one
                runs.append(run)
                seen.add(run.id)
    if problems:
        raise ValueError(_said(file, problems[:20]))
    limits = {**_LIMITS, **told.get("limits", {})}
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


def _strict(yaml: Any) -> Any:
    """A loader that refuses a key given twice, of which YAML silently takes the last."""

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise yaml.YAMLError(f"{twice[0]} is given twice,{str(node.start_mark).strip()}")
            return super().construct_mapping(node, deep)

    return Strict


def _mistakes(told: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys and their kinds."""
    kinds = {
        "parameters": dict,
        "grid": dict,
        "list": list,
        "random": dict,
        "limits": dict,
        "slurm": dict,
        "seeds": list,
        "tags": list,
        "wandb": str,
    }
    called = {dict: "names and values", list: "a list", str: "a name"}
    problems = [f"{key}: unknown key; there are {', '.join(_KEYS)}" for key in told if key not in _KEYS]
    problems += [
        f"{key}: expected {called[kind]}, got {told[key]!r}"
        for key, kind in kinds.items()
        if key in told and not isinstance(told[key], kind)
    ]
    if problems:
        return problems
    problems += [f"grid: {name} needs a list of values" for name, v in told.get("grid", {}).items() if not _some(v)]
    problems += [f"list: {v!r} is no set of names and values" for v in told.get("list", []) if not isinstance(v, dict)]
    limits = told.get("limits", {})
    problems += [f"limits: unknown {name}; there are {', '.join(_LIMITS)}" for name in limits if name not in _LIMITS]
    for name, default in _LIMITS.items():
        value = limits.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float if name == "minutes" else int) or value < 0:
            problems.append(f"limits: {name} is {value!r}; it takes a number of 0 or more")
    problems += [words for name, value in told.get("slurm", {}).items() if (words := _wrong_slurm(name, value))]
    if not _some(told.get("seeds", [0])) or not all(isinstance(seed, int) for seed in told.get("seeds", [0])):
        problems.append(f"seeds: expected a list of whole numbers, got {told['seeds']!r}")
    samples = told.get("samples", 1)
    if "random" in told and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        problems.append(f"samples: how many random sets of values; got {samples!r}")
    if "samples" in told and "random" not in told:
        problems.append("samples: of what? there is no random")
    problems += [words for name, how in told.get("random", {}).items() if (words := _wrong_range(name, how))]
    groups = [set(told.get(key, {})) for key in ("parameters", "grid", "random")]
    groups.append({name for values in told.get("list", []) for name in values})
    for name in sorted(set().union(*groups)):
        if sum(name in group for group in groups) > 1:
            problems.append(f"{name} is given in more than one of parameters, grid, list, random")
        if name == "seed":
            problems.append("seed: list them under seeds")
    return problems


def _canonical(name: str) -> str:
    return ALIASES.get(name, name)


def _some(values: Any) -> bool:
    return isinstance(values, list) and bool(values)


def _wrong_slurm(name: str, value: Any) -> str:
    kind = _SLURM.get(name)
    if kind is None:
        return f"slurm: unknown {name}; there are {', '.join(_SLURM)} (others under sbatch, as sbatch calls them)"
    if kind in (int, float):
        right = isinstance(value, int | kind) and not isinstance(value, bool) and value > 0
    elif kind is list:
        right = _some(value) and all(isinstance(row, str) for row in value)
    else:
        right = isinstance(value, kind) and bool(value)
    if right and name == "minutes" and value < 5:
        return f"slurm: minutes is {value!r}; give a job 5 or more, for it saves two minutes before they are over"
    words = {int: "a whole number of 1 or more", float: "a number above 0", str: "a word", list: "a list of lines"}
    return "" if right else f"slurm: {name} is {value!r}; it takes {words.get(kind, 'names and values')}"


def _wrong_range(name: str, how: Any) -> str:
    known = ("uniform", "log_uniform", "integer", "choice")
    if (
        not isinstance(how, dict)
        or len(how) != 1
        or next(iter(how)) not in known
        or not _some(next(iter(how.values())))
    ):
        return f"random: {name} needs one of {', '.join(known)} with a list, such as {{log_uniform: [1.0e-4, 1.0e-2]}}"
    (kind, values), *_ = how.items()
    if kind == "choice":
        return ""
    kinds = int if kind == "integer" else int | float
    numbers = all(isinstance(v, kinds) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) != 2 or values[0] >= values[1] or (kind == "log_uniform" and values[0] <= 0):
        return f"random: {name}: {kind} takes [low, high]{_OF[kind]}, got {values!r}"
    return ""


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
    cells = json.loads(notebook.read_text())["cells"]
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


def agent_of(notebook: Path) -> str:
    """The agent that a notebook names in its metadata (`mxnb.agent`); ValueError where it names none."""
    named = json.loads(notebook.read_text())["metadata"].get("mxnb", {}).get("agent", "")
    if not named:
        raise ValueError(f"{notebook} does not say which agent it trains; put mxnb: {{agent: NAME}} into its metadata")
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
    raise ValueError(f"there is no {name!r}; {there}" if name else f"name one of {there}")


def _id(notebook: Path, decides: Mapping[str, Any], seed: int) -> str:
    source = notebook.with_suffix(".py")
    text = source.read_text() if source.exists() else _code(notebook)
    about = {"notebook": text, "decides": decides, "seed": seed, "version": version("mxnb")}
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:10]


def _code(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _said(file: Path, problems: list[str]) -> str:
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return "\n".join([f"{count} in {file}; nothing was started:", *(f"  {problem}" for problem in problems)])

"""From a notebook's parameters cell to a checked configuration. Strict: every mistake is listed at once.

Order of precedence: the class's default < the preset < the environment's recipe < the parameters cell < overrides.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import json
import math
import os
import re
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mxnb import presets
from mxnb.recipes import recipe

ALIASES = {
    "learning_rate": "lr",
    "entropy_coef": "ent_coef",
    "gamma": "discount",
    "gae_lambda": "lambda_",
    "lam": "lambda_",
    "n_envs": "num_envs",
    "total_steps": "total_timesteps",
    "total_frames": "total_timesteps",
    "unroll": "num_steps",
}
"""Other people's names for our fields."""

GYMNAX = (
    *("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
    *("Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar", "SpaceInvaders-MinAtar"),
    *("Catch-bsuite", "DeepSea-bsuite", "MemoryChain-bsuite", "UmbrellaChain-bsuite", "DiscountingChain-bsuite"),
    *("SimpleBandit-bsuite", "FourRooms-misc", "MetaMaze-misc", "PointRobot-misc", "BernoulliBandit-misc"),
    *("GaussianBandit-misc", "Reacher-misc", "Swimmer-misc", "Pong-misc", "FrozenLake-misc"),
)
"""gymnax 1.0's registered tasks in its own spelling, without MNISTBandit-bsuite, which downloads its images."""

PROBES = tuple(
    f"probe-{name}-v0"
    for name in ("value", "observation", "discount", "action", "policy", "mask", "truncation", "memory")
)
"""Environments with known answers; see `mxnb.envs.probes`."""

CHAINS = tuple(
    f"chain-{name}-v0"
    for name in ("two-states", "cycle", "control", "hazard", "risk", "access-control", "river-swim", "memory")
)
"""Continuing tasks with exact answers; see `mxnb.envs.chains`."""

ENV_IDS = (
    *(f"craftax-{kind}-v1" for kind in ("classic-symbolic", "classic-pixels", "symbolic", "pixels")),
    *(name.lower() for name in GYMNAX),
    *PROBES,
    "hackmatrix-v1",
    *CHAINS,
)
"""Every environment's canonical id; `mxnb.build.ENVS` holds their makers."""

CELL = {
    "preset": (str, "auto"),
    "seed": (int, 0),
    "env_id": (str, ""),
    "total_timesteps": (int, 0),
    "run_dir": (str, ""),
    "resume": (bool, True),
    "overrides": (dict, {}),
}
"""The names of every parameters cell: type and default. "" and 0 leave the value to the preset."""


@dataclass(frozen=True)
class Parameters:
    """A checked parameters cell.

    config: the agent's configuration; preset: the one chosen; run_dir: where the run lives; extra: the
    notebook's own parameters; notes: values that were read differently from how they were written; auto: whether the
    hardware chose the preset, so that `mxnb.plan` may choose less of it.
    """

    config: Any
    preset: str
    seed: int
    run_dir: Path
    resume: bool
    extra: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    auto: bool = False

    def __getattr__(self, name: str) -> Any:
        extra = object.__getattribute__(self, "extra")
        if name in extra:
            return extra[name]
        raise AttributeError(name)


def make_config(cls: type, *, preset: str = "", overrides: Mapping[str, Any] | None = None, **given: Any) -> Any:
    """A configuration of type `cls` from a preset and values; ValueError lists every mistake.

    preset: a name in `mxnb.presets.NAMES`, or "" for the class's defaults alone.
    overrides: any fields, aliases allowed; given: the same, of lower precedence.
    """
    config, notes, problems = _assemble(cls, preset, {"parameter": given, "override": overrides or {}})
    _raise(cls, problems)
    for note in notes:
        print(f"note: {note}")
    return replace(config, origins={**config.origins, "preset": preset}) if preset else config


def parameters(
    cls: type, *, notebook: str = "", extra: Iterable[str] | Mapping[str, Any] = (), expect: str = ""
) -> Parameters:
    """Reads the caller's parameters cell, checks it, and prints every value with its origin.

    cls: the agent's Config. notebook: names the default run folder. extra: the notebook's own integer
    parameters, whose 0 leaves them to the preset; or name -> default, of the default's type. expect: how long it takes,
    where that is not the training that the preset speaks of. Under papermill, names it injects that the cell does not
    have are refused. Raises ValueError listing every mistake, before anything is trained.
    """
    frame = inspect.currentframe()
    scope = frame.f_back.f_globals if frame and frame.f_back else {}
    extra = dict(extra) if isinstance(extra, Mapping) else dict.fromkeys(extra, 0)
    known = (*CELL, *extra)
    problems = [
        f"{name}: unknown parameter{nearest(name, (*known, *_names(cls)))}; the cell has {', '.join(known)}"
        f"{'; put it into overrides' if _canonical(name) in _names(cls) else ''}"
        for name in _injected_names()
        if name not in known
    ]
    cell, notes = {}, []
    for name, (type_, default) in {**CELL, **{name: (type(value), value) for name, value in extra.items()}}.items():
        cell[name] = _coerce(name, type_, scope.get(name, default), problems, notes)
    try:
        chosen, why = presets.choose(cell["preset"])
    except ValueError as error:
        problems.append(str(error))
        chosen, why = "cpu", ""
    config, more, found = _assembled(cls, chosen, cell)
    _raise(cls, problems + found)
    env_id = getattr(config, "env_id", "")
    cooked = recipe(_agent(cls), env_id, chosen)
    own = presets.PRESETS[_agent(cls)][chosen] | cooked
    values = {name: cell[name] or own.get(name, default) for name, default in extra.items()}
    told = {name: f"recipe {env_id}" if name in cooked else f"preset {chosen}" for name in own}
    told |= {name: "parameter" if cell[name] != default else "default" for name, default in extra.items() if cell[name]}
    config = replace(config, origins={**config.origins, "preset": chosen})
    run_dir = Path(cell["run_dir"] or default_run_dir(config, notebook, cell["seed"]))
    result = Parameters(
        config, chosen, cell["seed"], run_dir, cell["resume"], values, tuple(notes + more), why.startswith("auto")
    )
    announce(result, why, expect or own.get("expect", ""), told)
    return result


def check_cell(cls: type, values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the result of a notebook with these values in its parameters cell; the hardware is not looked at.

    values: name -> value; own: the cell's names with their defaults. ValueError lists every mistake.
    """
    problems = [
        f"{name}: unknown parameter{nearest(name, (*own, *_names(cls)))}; the cell has {', '.join(own)}"
        for name in values
        if name not in own
    ]
    kinds = {name: CELL.get(name, (type(default), default))[0] for name, default in own.items()}
    cell = {name: _coerce(name, kinds[name], values.get(name, own[name]), problems, []) for name in own}
    config, _, found = _assembled(cls, str(cell.get("preset") or ""), cell)
    _raise(cls, problems + found)
    more = {name: cell[name] for name in own if name not in CELL}
    return as_json(config) | {"preset": cell.get("preset")} | more


def _assembled(cls: type, preset: str, cell: Mapping[str, Any]) -> tuple[Any, list[str], list[str]]:
    """(config, notes, problems) of a parameters cell's values."""
    given = {k: cell[k] for k in ("env_id", "total_timesteps") if cell.get(k)}
    overrides = cell["overrides"] if isinstance(cell.get("overrides"), dict) else {}
    return _assemble(cls, preset, {"parameter": given, "override": overrides})


def canonical_env_id(env_id: str) -> str:
    """The canonical id that `env_id` means: any case, _ for -, without -symbolic, chain-, the suite or the version.

    Raises ValueError with the nearest ids when there is none.
    """

    def plain(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum())

    spellings = {}
    for name in ENV_IDS:
        stem = re.sub(r"-(v\d+|minatar|bsuite|misc)$", "", name)
        short = stem.removeprefix("chain-")
        for other in (name, stem, short, name.replace("-symbolic", ""), stem.replace("-symbolic", "")):
            spellings[plain(other)] = name
    if plain(env_id) in spellings:
        return spellings[plain(env_id)]
    if plain(env_id).startswith("mnistbandit"):
        raise ValueError("MNISTBandit-bsuite downloads its images when it is made; mxnb runs without a network")
    if plain(env_id).startswith("survival"):
        raise ValueError(f"{env_id!r} is what agent average_reward makes of an environment; give that one's own id")
    near = dict.fromkeys(spellings[n] for n in difflib.get_close_matches(plain(env_id), spellings, n=3, cutoff=0.5))
    meant = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise ValueError(f"unknown environment {env_id!r}{meant} All: {', '.join(ENV_IDS)}")


def run_root() -> Path:
    """papermill_runs/local of the repository around the working folder, or of the working folder itself."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "papermill_runs").is_dir() and (folder / "notebooks").is_dir():
            return folder / "papermill_runs" / "local"
    return here / "papermill_runs" / "local"


SCHEMA = 1  # of config.json, and so of the policy that it describes


def check_schema(stored: Mapping[str, Any], path: Path) -> None:
    """ValueError where a config.json is of a schema that this version does not know."""
    if stored.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"{path} has schema {stored['schema']}, this version of mxnb reads {SCHEMA}; upgrade mxnb")


def policy_file(run_dir: str | Path) -> Path:
    """Where a run folder keeps its exported policy."""
    return Path(run_dir) / "policy" / "params.npz"


def as_json(config: Any) -> dict[str, Any]:
    """A Config's fields without their origins, ready for JSON."""
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name != "origins"}


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    fresh.replace(path)


def use_compilation_cache() -> None:
    """Keeps compiled programs between processes; JAX_COMPILATION_CACHE_DIR wins where it is set."""
    import jax

    if not getattr(jax.config, "jax_compilation_cache_dir", None):
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "mxnb" / "jax"))


def _assemble(cls: type, preset: str, layers: Mapping[str, Mapping[str, Any]]) -> tuple[Any, list[str], list[str]]:
    """(config, notes, problems) from the preset and then each layer of values in turn."""
    names, hints = _names(cls), typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    origins: dict[str, str] = dict.fromkeys(names, "default")
    notes: list[str] = []
    problems: list[str] = []
    if preset:
        table = presets.PRESETS[_agent(cls)]
        if preset not in table:
            problems.append(f"preset: {preset!r} is not one of {', '.join((*table, 'auto'))}{nearest(preset, table)}")
        for name, value in table.get(preset, {}).items():
            if name in names:
                values[name], origins[name] = value, f"preset {preset}"
        env_id = _told_env_id(cls, layers)
        for name, value in recipe(_agent(cls), env_id, preset).items():
            if name in names:
                values[name], origins[name] = value, f"recipe {env_id}"
    for origin, layer in layers.items():
        written_as: dict[str, str] = {}
        for written, value in layer.items():
            name = _canonical(str(written))
            if name in written_as:
                problems.append(f"{written}: the same field as {written_as[name]}; give it once")
            written_as[name] = str(written)
            if name not in names:
                problems.append(
                    f"{written}: unknown field of {cls.__name__}{nearest(str(written), (*names, *ALIASES))}"
                )
                continue
            values[name] = _coerce(str(written), hints[name], value, problems, notes)
            origins[name] = origin
    if isinstance(values.get("env_id"), str):
        try:
            values["env_id"] = canonical_env_id(values["env_id"])
        except ValueError as error:
            problems.append(f"env_id: {error}")
    if problems:
        return None, notes, problems
    try:
        return cls(**values, origins=origins).resolve(), notes, problems
    except ValueError as error:
        return None, notes, str(error).split("\n")


def _told_env_id(cls: type, layers: Mapping[str, Mapping[str, Any]]) -> str:
    """The canonical environment that the layers ask for, the class's own where they do not; "" for a misspelt one."""
    told = getattr(cls, "env_id", "")
    for layer in layers.values():
        told = layer.get("env_id", told)
    try:
        return canonical_env_id(told)
    except (ValueError, AttributeError):
        return ""


def _coerce(name: str, type_: Any, value: Any, problems: list[str], notes: list[str]) -> Any:
    """`value` as `type_`, or None and a problem that names the mend."""
    if type_ is bool:
        if isinstance(value, bool):
            return value
        hint = (
            f"; papermill's -p passes {value!r} as text: write {value.title()}"
            if isinstance(value, str) and value in ("true", "false")
            else ""
        )
        problems.append(f"{name}: expected True or False, got {value!r}{hint}")
    elif type_ is int:
        if isinstance(value, int) and not isinstance(value, bool):
            if value >= 0:
                return value
            problems.append(f"{name}: expected a count of 0 or more, got {value}")
            return None
        if isinstance(value, float) and value.is_integer() and value >= 0:
            notes.append(f"{name}: {value!r} was taken as {int(value)}")
            return int(value)
        hint = f"; write {name} = {value}" if isinstance(value, str) and value.isdigit() else ""
        problems.append(f"{name}: expected a whole number, got {value!r}{hint}")
    elif type_ is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            if math.isfinite(value):
                return float(value)
            problems.append(f"{name}: expected a finite number, got {value!r}")
            return None
        power = isinstance(value, str) and "e" in value.lower() and _is_number(value)
        hint = "; in YAML write 1.0e-3, since 1e-3 is text there" if power else ""
        problems.append(f"{name}: expected a number, got {value!r}{hint}")
    elif isinstance(value, type_):
        return value
    else:
        problems.append(f"{name}: expected {type_.__name__}, got {value!r} ({type(value).__name__})")
    return None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _raise(cls: type, problems: list[str]) -> None:
    if problems:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = "\n".join(f"  {p}" for p in problems)
        raise ValueError(f"{count} in the parameters for {cls.__name__}; nothing was trained:\n{lines}")


def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.name != "origins")


def _canonical(name: str) -> str:
    return ALIASES.get(name, name)


def _agent(cls: type) -> str:
    """PPOConfig -> ppo, PPORnnConfig -> ppo_rnn, AverageRewardConfig -> average_reward."""
    stem = cls.__name__.removesuffix("Config")
    return re.sub(r"(?<=[a-zA-Z])(?=[A-Z][a-z])", "_", stem).lower()


def nearest(name: str, names: Iterable[str]) -> str:
    """Words that name what may have been meant, "" where nothing is near."""
    near = difflib.get_close_matches(name, list(names), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def injected_cell() -> str:
    """The parameters cell that papermill put into the running notebook; "" elsewhere, or when it had none."""
    shell = _shell()
    cells = getattr(shell, "user_ns", {}).get("In", [])
    return next((cell for cell in cells if cell.lstrip().startswith("# Parameters\n")), "")


def _injected_names() -> list[str]:
    assigned = [node for node in ast.parse(injected_cell()).body if isinstance(node, ast.Assign)]
    return [target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)]


def _shell() -> Any:
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()


LATER = {
    "shards": 1,
    "num_microbatches": 1,
    "remat": False,
    "compute_dtype": "float32",
    "cell_dim": 0,
    "reward_scale": {},
}
"""Fields that were added later, each with what was done before: runs from before go on, in the same folder."""


def default_run_dir(config: Any, notebook: str, seed: int) -> Path:
    """$MXNB_RUN_DIR, else papermill_runs/local/<notebook, or runs>/<hash of the configuration>-s<seed>."""
    if os.environ.get("MXNB_RUN_DIR"):
        return Path(os.environ["MXNB_RUN_DIR"])
    told = {name: value for name, value in as_json(config).items() if name not in LATER or LATER[name] != value}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:10]
    return run_root() / (notebook or "runs") / f"{digest}-s{seed}"


def announce(p: Parameters, why: str, expect: str, origins: Mapping[str, str] | None = None) -> None:
    """Prints the preset, why it was chosen, what to expect, and every value with its origin (`origins`: of extras)."""
    print(f"preset {p.preset} ({why}): {expect}" if expect else f"preset {p.preset} ({why})")
    rows = [(name, getattr(p.config, name), p.config.origins.get(name, "")) for name in _names(type(p.config))]
    rows += [(name, value, (origins or {}).get(name, "default")) for name, value in p.extra.items()]
    width = max(len(name) for name, _, _ in rows)
    for name, value, origin in rows:
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"
        print(f"  {name:<{width}}  {shown:<28}  {origin}")
    print(f"  {'seed':<{width}}  {p.seed}")
    print(f"  {'run_dir':<{width}}  {os.path.relpath(p.run_dir)}")
    for note in p.notes:
        print(f"note: {note}")

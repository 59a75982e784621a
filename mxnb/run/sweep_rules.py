"""What a sweep file may say: its keys, and every mistake in them, in words that name the mend."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from mxnb.config import ALIASES, nearest

KEYS = ("notebook", "preset", "parameters", "grid", "list", "random", "samples", "seeds", "limits", "tags")
KEYS += ("slurm", "wandb")
LIMITS = {"minutes": 0.0, "retries": 0, "parallel": 0}
_SLURM: dict[str, type] = {
    "partition": str, "account": str, "qos": str, "constraint": str, "nodelist": str, "exclude": str, "gres": str,
    "gpus_per_node": int, "cpus_per_task": int, "mem_gb": float, "minutes": float, "setup": list, "sbatch": dict,
}  # fmt: skip
_OF = {"uniform": "", "log_uniform": " above 0", "integer": ", both whole"}
OURS = {"run_dir", "resume"}


def strict(yaml: Any) -> Any:
    """A loader that refuses a key given twice, of which YAML silently takes the last."""

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            named = [key for key, _ in node.value if not key.tag.endswith(":merge")]
            keys = [self.construct_object(key, deep=True) for key in named]
            if wrong := [key for key in keys if not isinstance(key, str)]:
                raise yaml.YAMLError(f"{wrong[0]!r} is no name (line {node.start_mark.line + 1})")
            at = {
                key: node.start_mark.line + 1 for key, node in zip(keys, named, strict=True)
            }  # the last of equal ones
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise yaml.YAMLError(f"{twice[0]} is given twice (line {at[twice[0]]})")
            return super().construct_mapping(node, deep)

    return Strict


def mistakes(told: Mapping[str, Any]) -> list[str]:
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
    problems = [
        f"{key}: unknown key{nearest(key, KEYS)}; there are {', '.join(KEYS)}" for key in told if key not in KEYS
    ]
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
    problems += [
        f"limits: unknown {name}{nearest(name, LIMITS)}; there are {', '.join(LIMITS)}"
        for name in limits
        if name not in LIMITS
    ]
    for name, default in LIMITS.items():
        value = limits.get(name, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float if name == "minutes" else int)
            or not 0 <= value < math.inf
        ):
            problems.append(f"limits: {name} is {value!r}; it takes a number of 0 or more")
    problems += [words for name, value in told.get("slurm", {}).items() if (words := _wrong_slurm(name, value))]
    if not _some(told.get("seeds", [0])) or not all(map(is_seed, told.get("seeds", [0]))):
        problems.append(f"seeds: expected a list of whole numbers below 2^31, got {told['seeds']!r}")
    problems += [
        f"{key}: is empty; leave it out" for key in ("grid", "list", "random") if told.get(key, True) in ({}, [])
    ]
    samples = told.get("samples", 1)
    if "random" in told and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        problems.append(f"samples: how many random sets of values; got {samples!r}")
    if "samples" in told and "random" not in told:
        problems.append("samples: of what? there is no random")
    problems += [words for name, how in told.get("random", {}).items() if (words := _wrong_range(name, how))]
    return problems or _doubled(told)


def _doubled(told: Mapping[str, Any]) -> list[str]:
    """Names that are given twice, by whatever alias or under overrides, or that are no business of a sweep file's."""
    places = [*({name: values} for name, values in told.get("grid", {}).items()), told.get("random", {})]
    groups, problems = [], list[str]()
    for place in [[told.get("parameters", {})], *([place] for place in places), told.get("list", [])]:
        names = set[str]()
        for values in place:
            try:
                names |= set(level(values))
            except ValueError as error:
                problems.append(str(error))
        groups.append(names)
    for name in sorted(set().union(*groups)):
        if sum(name in group for group in groups) > 1:
            problems.append(f"{name} is given in more than one of parameters, grid, list, random")
        if name == "seed":
            problems.append("seed: list them under seeds")
        if name == "overrides":
            problems.append("overrides: vary its fields by their own names")
        if name in OURS:
            problems.append(f"{name}: a sweep decides that itself")
    if "preset" in told and "preset" in groups[0]:
        problems.append("preset is given twice, the second time under parameters")
    return problems


def level(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their one name, those under overrides among them; ValueError where one is given twice."""
    overrides = values.get("overrides", {})
    if not isinstance(overrides, dict):
        return dict(values)  # the check will say so; a grid's list of them is looked at one by one
    found: dict[str, Any] = {}
    for name, value in [*((name, value) for name, value in values.items() if name != "overrides"), *overrides.items()]:
        if canonical(name) in found:
            raise ValueError(f"{canonical(name)} is given twice, by another name or under overrides")
        found[canonical(name)] = value
    return found


def is_seed(value: Any) -> bool:
    """Whether it is a whole number that every seed may be."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def canonical(name: str) -> str:
    """The one name of a parameter that has aliases."""
    return ALIASES.get(name, name)


def _some(values: Any) -> bool:
    return isinstance(values, list) and bool(values)


def _wrong_slurm(name: str, value: Any) -> str:
    kind = _SLURM.get(name)
    if kind is None:
        known = f"there are {', '.join(_SLURM)} (others under sbatch, as sbatch calls them)"
        return f"slurm: unknown {name}{nearest(name, _SLURM)}; {known}"
    if kind in (int, float):
        right = isinstance(value, int | kind) and not isinstance(value, bool) and 0 < value < math.inf
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
    if texts := [v for v in values if isinstance(v, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", v)]:
        return f"random: {name}: YAML reads {texts[0]} as a text; write {texts[0].replace('e', '.0e', 1)}"
    numbers = all(isinstance(v, kinds) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) != 2 or values[0] >= values[1] or (kind == "log_uniform" and values[0] <= 0):
        return f"random: {name}: {kind} takes [low, high]{_OF[kind]}, got {values!r}"
    return ""

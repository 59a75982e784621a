"""What a run needs of a device's memory: read off its compiled programs before it begins, and made to fit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from mxnb.run.folder import PLANNED
from mxnb.run.program import Program, first_state, hand_over, placement, updates

SHARE = 0.7  # of the device's usable memory that a run is planned to stay under
LIMITS = {"T4": 11.2 * 2**30, "v5e": 16e9}
"""Usable bytes of devices that are not here: a T4 at JAX's default (75 % of 15,360 MiB), a v5e chip's 16 GB."""
_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SMALLER = "use a smaller preset, or fewer environments"
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_PARTS = {"policy": "parameters", "slow": "parameters", "opt_state": "optimiser", "envs": "environments"}


@dataclass(frozen=True)
class Budget:
    """What one run needs of one device, in bytes."""

    device: str  # its name, "(estimated)" behind it where the programs were compiled for another one
    limit: int  # what the device lets programs use
    parts: Mapping[str, int]  # of the State: parameters, optimiser, environments, replay, the rest
    work: int  # what the programs need besides the State, at most
    known: bool = True  # whether the platform says what its programs need; if not, work is 0

    @property
    def peak(self) -> int:
        """State and work together."""
        return sum(self.parts.values()) + self.work

    @property
    def usable(self) -> int:
        """What a run is planned to stay under: 0.7 of the limit. The rest is for libraries, evaluation and luck."""
        return int(SHARE * self.limit)

    @property
    def fits(self) -> bool:
        """Whether the peak stays under it."""
        return self.peak <= self.usable

    def __str__(self) -> str:
        told = ", ".join(f"{name} {size(n)}" for name, n in self.parts.items())
        told += f", work {size(self.work) if self.known else 'unknown'}"
        limit = f"{size(self.limit)} usable on {self.device}, {size(self.usable)} of it planned for"
        return f"memory: {size(self.peak)} of {limit} ({told})"


@dataclass(frozen=True)
class Plan:
    """A configuration that fits, what was built from it, and what was changed to make it fit."""

    config: Any
    agent: Any
    env: Any
    budget: Budget
    changes: tuple[str, ...] = ()
    parameters: Any = None  # what `mxnb.parameters` gave, with this configuration


def device_bytes() -> int:
    """Usable bytes: what the device reports as its limit; on a CPU the machine's memory, or what a container leaves."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _GROUPS:
        with suppress(OSError, ValueError):  # another system, no such group, or "max"
            found.append(int(Path(name).read_text()))
    return min(found)


def parts(agent: Any, mesh: Any = None) -> dict[str, int]:
    """Bytes of a State by part: parameters, optimiser, environments, replay, the rest; with a mesh, on each device."""
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    places = jax.tree.leaves(placement(agent, mesh))
    found: dict[str, int] = {}
    for (path, leaf), place in zip(jax.tree_util.tree_flatten_with_path(shapes)[0], places, strict=True):
        names = [str(getattr(key, "name", key)) for key in path]
        part = "replay" if "replay" in names else _PARTS.get(names[0], "the rest")
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        numbers = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
        size = math.prod(place.shard_shape(leaf.shape)) * (numbers.size // max(1, leaf.size))  # a key has two numbers
        found[part] = found.get(part, 0) + size * numbers.dtype.itemsize
    return found


def measure(agent: Any, device: str = "", *, donate: bool = True, begin: bool = True) -> Budget:
    """Compiles the run's programs for the device that is here and reads how much memory they ask for.

    device: "" for the one that is here, or a name in `LIMITS`: its limit, and programs compiled for this one, which
    is an estimate. A program's need is arguments + outputs + temporaries - what is used twice (donated buffers). Where
    compiling itself ends for want of memory (a TPU's compiler does), the work is the whole limit. `fit` takes the
    programs over. Without `begin` the one that makes the first State is left out: half the seconds, and the same answer
    where an update needs more than that does.

    Raises ValueError for an unknown device, and for bfloat16 on one without.
    """
    check_dtype(agent, device)
    try:
        programs = ([first_state(agent)] if begin else []) + [updates(agent, donate=donate)]
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        name, limit = _device(device)
        return Budget(name, limit, parts(agent), limit)
    if begin:
        hand_over("init", agent, programs[0])
    hand_over("updates", agent, programs[-1], donate=donate)
    return _budget(agent, device, programs)


def _budget(agent: Any, device: str, programs: Sequence[Program], mesh: Any = None) -> Budget:
    name, limit = _device(device)
    found = parts(agent, mesh)
    state = sum(found.values())
    asked = [
        a.argument_size_in_bytes + a.output_size_in_bytes + a.temp_size_in_bytes - a.alias_size_in_bytes
        for program in programs
        if (a := program.call.memory_analysis()) is not None  # a platform without it
    ]
    return Budget(name, limit, found, max(0, *asked, state) - state if asked else 0, known=bool(asked))


def check_dtype(agent: Any, device: str = "") -> None:
    """ValueError where layers shall compute in bfloat16 and the device (see `measure`) has none, only an imitation."""
    if getattr(agent.config, "compute_dtype", "float32") != "bfloat16":
        return
    here = jax.devices()[0]
    old = here.platform in ("gpu", "cuda") and float(getattr(here, "compute_capability", 8)) < 8
    if device == "T4" or (not device and old):
        name = device or here.device_kind
        raise ValueError(f"compute_dtype is 'bfloat16', which {name} only imitates, slower than float32: use 'float32'")


def plan(
    config: Any, build: Callable[[Any], Any], device: str = "", *, shrink: bool = True, ahead: bool = True
) -> Plan:
    """The configuration as it is where it fits; else, with `shrink`, the nearest smaller one that does.

    build(config) -> (agent, environment). In this order, each as far as it helps: a smaller replay, minibatches sent
    through the network in parts and steps computed again on the way back (the same batch), fewer imagined starts, half
    the replayed sequences or environments (a smaller batch), half the network. What was given by hand stays as it is.
    Every change is printed. Without `ahead` nothing is compiled: the budget has the State alone.

    Raises ValueError where even the smallest does not fit, or, without `shrink`, where the State alone does not.
    """
    agent, env = build(config)
    if not shrink:
        check_memory(agent, device)
    budget, changes = measure(agent, device) if ahead else _budget(agent, device, ()), []
    for fields, words in _LEVERS:
        while shrink and not budget.fits:
            smaller = _smaller(config, fields)
            if smaller is None:
                break
            tried = build(smaller)
            less = measure(tried[0], device)
            if not less.fits and 0.95 * budget.peak < less.peak < less.limit:
                break  # that is not where the bytes are
            told = words.format(**{name: getattr(smaller, name) for name in fields if hasattr(smaller, name)})
            changes.append(f"{size(budget.peak)} is too much for {size(budget.usable)}: {told}, {size(less.peak)}")
            print(f"memory: {changes[-1]}", flush=True)
            config, (agent, env), budget = smaller, tried, less
    if not budget.fits and shrink:
        by_hand = [f"{k} = {getattr(config, k)}" for fields, _ in _LEVERS for k in fields if _given(config, k)]
        kept = f" (given by hand, so kept: {', '.join(dict.fromkeys(by_hand))})" if by_hand else ""
        raise ValueError(f"{budget}; nothing smaller was found that fits{kept}: {_SMALLER}")
    return Plan(config, agent, env, budget, tuple(changes))


_LEVERS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("replay_size",), "keeps {replay_size:,} rows"),
    (("num_microbatches",), "sends each minibatch through in {num_microbatches} parts (the same batch)"),
    (("remat",), "computes steps again on the way back (the same result, slower)"),
    (("starts",), "imagines from {starts} states"),
    (("batch_size", "starts"), "replays {batch_size} sequences (a smaller batch)"),
    (("num_envs",), "takes {num_envs} environments (a smaller batch)"),
    (("hidden_dim", "units", "deter"), "takes layers of {hidden_dim} (a smaller network)"),
)
_LEAST = {"num_envs": 8, "hidden_dim": 32, "batch_size": 4, "replay_size": 10_000}


def _given(config: Any, field: str) -> bool:
    return config.origins.get(field) in ("parameter", "override")


def _smaller(config: Any, fields: tuple[str, ...]) -> Any:
    """The configuration with those fields halved (parts doubled); None where that is too small or does not fit."""
    if not hasattr(config, fields[0]) or any(_given(config, name) for name in fields):
        return None
    now = {name: getattr(config, name) for name in fields if hasattr(config, name)}
    new = {name: value * 2 if name == "num_microbatches" else value // 2 for name, value in now.items()}
    if "remat" in now:
        if now["remat"]:
            return None
        new = {"remat": True}
    if "batch_size" in new:  # as many neighbours as before, and two at least
        new["starts"] = max(new["starts"], 2 * new["batch_size"])
    if any(value < _LEAST.get(name, 1) for name, value in new.items()):
        return None
    fewer = {} if fields[0] != "num_envs" else {"num_microbatches": max(1, getattr(config, "num_microbatches", 1) // 2)}
    for also in ({}, {k: v for k, v in fewer.items() if hasattr(config, k)}):  # half the rows may not divide as before
        origins = dict(config.origins) | dict.fromkeys({**new, **also}, f"{PLANNED}: to fit the memory")
        try:
            return replace(config, **new, **also, origins=origins).resolve()
        except ValueError:
            pass
    return None


def _device(device: str) -> tuple[str, int]:
    """(name, usable bytes) of the device that is here or of one that is named."""
    if not device:
        here = jax.devices()[0]
        return ("this CPU" if here.platform == "cpu" else here.device_kind), device_bytes()
    if device not in LIMITS:
        raise ValueError(f"unknown device {device!r}; use '' for the one that is here, or {', '.join(LIMITS)}")
    return f"{device} (estimated)", int(LIMITS[device])


def check_memory(agent: Any, device: str = "") -> None:
    """ValueError where the State alone would take more than 0.7 of the device, with the replay that would fit."""
    name, limit = _device(device)
    found, usable = parts(agent), SHARE * limit
    total = sum(found.values())
    if total <= usable:
        return
    told = ", ".join(f"{part} {size(n)}" for part, n in found.items())
    replay, rows = found.get("replay", 0), getattr(agent.config, "replay_size", 0)
    fits = max(0, int(rows * (usable - total + replay) / replay)) if replay and rows else 0
    mend = f"use replay_size = {fits} or less" if fits and _allowed(agent.config, fits) else _SMALLER
    raise ValueError(
        f"this run's state takes {size(total)} ({told}), and {SHARE:.0%} of {name} are {size(usable)}; {mend}"
    )


def _allowed(config: Any, replay_size: int) -> bool:
    """Whether the configuration would be accepted with that replay."""
    try:
        replace(config, replay_size=replay_size).resolve()
    except ValueError:
        return False
    return True


def words(agent: Any, program: Program, mesh: Any = None) -> str:
    """The budget of the program that is going to run, in a line; a warning where it leaves too little room."""
    budget = _budget(agent, "", (program,), mesh)
    if mesh is not None:
        budget = replace(budget, device=f"each of {mesh.size} x {budget.device}")
    if budget.fits:
        return str(budget)
    return f"{budget}\nwarning: the run may end for want of memory: {_SMALLER}"


def size(count: float) -> str:
    """Bytes in words."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"

"""What a run's state needs of the device's memory: told before training, and refused before anything is allocated."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import jax

SHARE = 0.7  # of the device's usable memory that a run is planned to stay under
_SMALLER = "use a smaller preset, or fewer environments"
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_PARTS = {"policy": "parameters", "slow": "parameters", "opt_state": "optimiser", "envs": "environments"}


def device_bytes() -> int:
    """Usable bytes: what the device reports as its limit; on a CPU the machine's memory."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def parts(agent: Any) -> dict[str, int]:
    """Bytes of a State by part: parameters, optimiser, environments, replay, the rest. Nothing is allocated."""
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    found: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        names = [str(getattr(key, "name", key)) for key in path]
        part = "replay" if "replay" in names else _PARTS.get(names[0], "the rest")
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        numbers = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
        found[part] = found.get(part, 0) + numbers.size * numbers.dtype.itemsize
    return found


def check_memory(agent: Any) -> None:
    """ValueError where the State alone would take more than 0.7 of the device, with the replay that would fit."""
    found, usable = parts(agent), SHARE * device_bytes()
    total = sum(found.values())
    if total <= usable:
        return
    told = ", ".join(f"{name} {size(n)}" for name, n in found.items())
    replay, rows = found.get("replay", 0), getattr(agent.config, "replay_size", 0)
    fits = max(0, int(rows * (usable - total + replay) / replay)) if replay and rows else 0
    mend = f"use replay_size = {fits} or less" if fits and _allowed(agent.config, fits) else _SMALLER
    raise ValueError(
        f"this run's state takes {size(total)} ({told}), and {SHARE:.0%} of this device are {size(usable)}; {mend}"
    )


def _allowed(config: Any, replay_size: int) -> bool:
    """Whether the configuration would be accepted with that replay."""
    try:
        replace(config, replay_size=replay_size).resolve()
    except ValueError:
        return False
    return True


def words(agent: Any, program: Any) -> str:
    """The State's parts, and what the compiled program works in besides; a warning where both leave too little room."""
    told = ", ".join(f"{name} {size(n)}" for name, n in parts(agent).items())
    analysis = program.memory_analysis()
    work = f"; works in {size(analysis.temp_size_in_bytes)} besides" if analysis is not None else ""
    line = f"memory: {told}{work}; the device has {size(device_bytes())}"
    planned = sum(parts(agent).values()) + (analysis.temp_size_in_bytes if analysis is not None else 0)
    if planned > SHARE * device_bytes():
        line += f"\nwarning: that is more than {SHARE:.0%} of it, and the run may end for want of memory: {_SMALLER}"
    return line


def size(count: float) -> str:
    """Bytes in words."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"

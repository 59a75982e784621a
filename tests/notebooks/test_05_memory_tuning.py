"""Every size that notebook 05 may try is one that its agent accepts."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mxnb.agents.dreamer import DreamerConfig
from mxnb.agents.ppo import PPOConfig
from mxnb.config import make_config
from mxnb.presets import NAMES, PRESETS

SOURCE = (Path(__file__).parents[2] / "notebooks" / "05_memory_tuning.py").read_text()
FIELDS = {PPOConfig: ("num_envs", "hidden_dim", "num_steps"), DreamerConfig: ("num_envs", "deter", "num_steps")}


def notebooks_own(*names: str) -> dict[str, Any]:
    """Functions as the notebook defines them."""
    scope: dict[str, Any] = {"replace": replace}
    for node in ast.parse(SOURCE).body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            exec(ast.unparse(node), scope)
    return scope


@pytest.mark.parametrize("preset", NAMES)
@pytest.mark.parametrize("cls", FIELDS)
def test_every_size_is_accepted(cls: type, preset: str) -> None:
    """Also three of the smallest preset, which nobody has by default."""
    scope = notebooks_own("sized", "tried_all")
    tried: list[tuple[str, int]] = []

    def note(config: Any, field: str, value: int) -> dict[str, Any]:
        assert getattr(scope["sized"](config, field, value), field) == value
        tried.append((field, value))
        return {"steps_per_second": 1.0}

    sizes = max(3, PRESETS["ppo"][preset]["sizes"])
    more = {"total_timesteps": 10**7} if cls is DreamerConfig else {}
    config = make_config(cls, preset=preset, env_id="craftax-classic-v1", **more)
    scope |= {"p": type("P", (), {"sizes": sizes}), "tried": note}
    rows = list(scope["tried_all"](config, FIELDS[cls]))
    assert len(rows) == 3 * sizes and len(set(tried)) == len(tried) == 3 * sizes - 2  # the preset's own sizes once
    for field in FIELDS[cls]:
        values = [row["value"] for row in rows if row["field"] == field]
        assert values[1] == getattr(config, field) and values == [values[0] * 2**k for k in range(sizes)]

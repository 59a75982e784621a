"""The 198 deterministic positions of the specification's appendix A, by group."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mxnb.envs.hackmatrix import action_mask, exit_distance, hackmatrix, make_state, observe, siphon_quality
from mxnb.envs.hackmatrix.tables import COMPONENTS

SCENARIOS = json.loads((Path(__file__).parents[2] / "golden" / "hackmatrix_scenarios.json").read_text())
GROUPS = sorted({scenario["group"] for scenario in SCENARIOS})
SEEDS = (0, 1, 2)
FIELDS = {"attack": "attack_damage", "next_task": "next_scheduled_task_turn", "interval": "scheduled_task_interval",
          "atk_uses": "atk_plus_uses", "pending": "pending_siphon_transmissions", "show": "show_activated",
          "calm": "scheduled_tasks_disabled"}  # fmt: skip
FIELDS |= {
    name: name
    for name in ("hp", "credits", "energy", "data_siphons", "score", "stage", "turn", "step_active", "snapshot_valid")
}
ENEMY = ("type", "row", "col", "hp", "disabled", "stunned", "from_siphon", "from_task")
TRANSMISSION = ("row", "col", "timer", "type", "from_siphon", "from_task")


@cache
def compiled() -> tuple[Callable[..., Any], ...]:
    """step, and what looks at a state, compiled once."""
    looks = (action_mask, observe, exit_distance, siphon_quality)
    return jax.jit(hackmatrix().step), *(jax.jit(look) for look in looks)


def close(got: Any, wanted: float) -> bool:
    return abs(float(got) - wanted) <= max(1e-4, 1e-6 * abs(wanted))


def slots(table: Any, mask: Any, columns: tuple[str, ...], wanted: dict[str, Any]) -> list[str]:
    problems = []
    for slot, fields in wanted.items():
        if bool(mask[int(slot)]) != (fields is not None):
            problems.append(f"slot {slot}: {'gone' if fields else 'there'}")
        elif fields:
            row = dict(zip(columns, np.asarray(table[int(slot)]).tolist(), strict=True))
            problems += [f"slot {slot}: {k} {row[k]}, not {v}" for k, v in fields.items() if row[k] != int(v)]
    return problems


def cells(grid: Any) -> list[list[int]]:
    return np.argwhere(np.asarray(grid)).tolist()


def differences(scenario: dict[str, Any], seed: int) -> list[str]:
    """What is not as the scenario expects."""
    step, mask_of, seen_of, distance_of, quality_of = compiled()
    state, wanted, rewards = make_state(**scenario["state"]), scenario["expect"], []
    reward, ended, info = 0.0, False, {}
    for number, action in enumerate(scenario["actions"]):
        key = jax.random.fold_in(jax.random.key(seed), number)
        _, state, reward, terminated, truncated, info = step(key, state, action)
        rewards.append(float(reward))
        ended = bool(terminated | truncated)
    legal, seen = set(np.flatnonzero(mask_of(state)).tolist()), seen_of(state)
    flat = np.concatenate([np.ravel(np.asarray(part, np.float32)) for part in seen])
    problems = []

    def same(name: str, got: Any, expected: Any) -> None:
        if got != expected:
            problems.append(f"{name}: {got}, not {expected}")

    def near(name: str, got: Any, expected: float) -> None:
        if not close(got, expected):
            problems.append(f"{name}: {float(got)}, not {expected}")

    for name, value in wanted.items():
        if name in FIELDS:
            same(name, int(getattr(state, FIELDS[name])), int(value))
        elif name in ("player", "exit"):
            row, col = ("row", "col") if name == "player" else ("exit_row", "exit_col")
            same(name, [int(getattr(state, row)), int(getattr(state, col))], value)
        elif name in ("n_enemies", "n_transmissions"):
            same(name, int((state.enemy_mask if name == "n_enemies" else state.trans_mask).sum()), value)
        elif name == "enemies":
            problems += slots(state.enemies, state.enemy_mask, ENEMY, value)
        elif name == "transmissions":
            problems += slots(state.transmissions, state.trans_mask, TRANSMISSION, value)
        elif name == "cells":
            for cell in value:
                at = cell["row"], cell["col"]
                for field in cell.keys() - {"row", "col"}:
                    same(f"{field} at {at}", int(getattr(state, field)[at]), int(cell[field]))
        elif name in ("siphoned_cells", "center_cells"):
            grid = state.siphoned if name == "siphoned_cells" else state.siphon_center
            same(name, sorted(cells(grid)), sorted(value))
        elif name == "owned":
            same(name, np.flatnonzero(state.owned_programs).tolist(), sorted(value))
        elif name == "mask":
            same(name, legal, set(value))
        elif name == "mask_has":
            same(name, set(value) - legal, set())
        elif name == "mask_lacks":
            same(name, set(value) & legal, set())
        elif name == "reward":
            near(name, reward, value)
        elif name == "rewards":
            same("number of rewards", len(rewards), len(value))
            for got, expected in zip(rewards, value, strict=False):
                near(name, got, expected)
        elif name in ("components", "info"):
            for part, expected in value.items():
                near(part, info[part], float(expected))
        elif name == "done":
            same(name, ended, bool(value))
        elif name == "obs_player":
            for index, expected in value.items():
                near(f"player_state[{index}]", seen.player_state[int(index)], expected)
        elif name == "obs_programs":
            same(name, np.flatnonzero(seen.programs).tolist(), value)
        elif name == "obs_grid":
            for row, col, channel, expected in value:
                near(f"grid[{row}, {col}, {channel}]", seen.grid[row, col, channel], expected)
        elif name == "obs_flat_nonzero":
            same(name, np.flatnonzero(flat).tolist(), value)
        elif name == "distance":
            same(name, int(distance_of(state)), value)
        elif name == "siphon_quality":
            found, credits, energy = quality_of(state)
            same(name, [bool(found), int(credits), int(energy)], value)
        else:
            problems.append(f"nothing looks at {name}")
    if scenario["actions"]:
        parts = sum(float(info[part]) for part in COMPONENTS)
        near("sum of the components", parts, float(reward))
    return problems


@pytest.mark.parametrize("group", GROUPS)
def test_every_scenario(group: str) -> None:
    found = {
        (scenario["id"], seed): problems
        for scenario in SCENARIOS
        if scenario["group"] == group
        for seed in SEEDS
        if (problems := differences(scenario, seed))
    }
    assert not found


def test_they_are_all_there() -> None:
    assert len(SCENARIOS) == 198 and len({scenario["id"] for scenario in SCENARIOS}) == 198

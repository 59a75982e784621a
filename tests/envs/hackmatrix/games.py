"""The game compiled once for all tests of this folder, in batches of LANES boards whose leaves are NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
from reference import CELLS, CORNERS, FULL_HP

from mxnb.envs.hackmatrix import exit_distance, hackmatrix, make_state, observe, siphon_quality

LANES = 256
BOARDS = 4 * LANES
ENV = hackmatrix()
COMPONENTS = (
    "step_penalty", "stage_completion", "score_gain", "kills", "data_siphon", "distance_shaping", "damage_penalty",
    "hp_recovery", "victory", "death_penalty", "siphon_death_penalty", "resource_gain", "resource_holding",
    "program_waste", "siphon_quality",
)  # fmt: skip
PROGRAMS = (
    "PUSH", "PULL", "CRASH", "WARP", "POLY", "WAIT", "DEBUG", "ROW", "COL", "UNDO", "STEP", "SIPH+", "EXCH", "SHOW",
    "RESET", "CALM", "D_BOM", "DELAY", "ANTI-V", "SCORE", "REDUC", "ATK+", "HACK",
)  # fmt: skip
ACTION = {name: number for number, name in enumerate(("up", "down", "left", "right", "siphon", *PROGRAMS))}
ENDS_TURN = np.isin(np.arange(28), [0, 1, 2, 3, 4, ACTION["WAIT"]])


@cache
def compiled(name: str) -> Callable[..., Any]:
    """`step`, `reset`, `look` (mask, observation, distance) or `quality` of a batch; `one_...` of a single board."""
    single = {
        "step": ENV.step,
        "reset": ENV.reset,
        "look": lambda state: (ENV.action_mask(state), observe(state), exit_distance(state)),
        "quality": siphon_quality,
    }
    return jax.jit(single[name[4:]] if name.startswith("one_") else jax.vmap(single[name]))


def keys(seed: int, number: int = 0) -> Any:
    """LANES keys that no other seed or number has."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), number), LANES)


def plain(tree: Any) -> Any:
    """With NumPy leaves."""
    return jax.tree.map(np.asarray, tree)


def stack(states: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *states)


def take(tree: Any, lanes: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[lanes], tree)


def copies(state: Any) -> Any:
    """LANES times the same board."""
    return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], LANES, 0), state)


def choose(condition: Any, yes: Any, no: Any) -> Any:
    """Lanes of `yes` where the condition holds."""
    pick = lambda a, b: np.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    return jax.tree.map(pick, yes, no)


def reset(seed: int, number: int = 0) -> Any:
    """States of LANES new games."""
    return plain(compiled("reset")(keys(seed, number))[1])


def step(state: Any, action: Any, seed: int = 0, number: int = 0) -> Any:
    """(observation, state, reward, terminated, truncated, info) of one action, or of one for each lane."""
    actions = np.broadcast_to(np.asarray(action, np.int32), LANES)
    return plain(compiled("step")(keys(seed, number), state, actions))


def steps(state: Any, action: Any, seed: int = 0) -> Any:
    """The same for any multiple of LANES boards."""
    count = len(state.row)
    actions = np.broadcast_to(np.asarray(action, np.int32), count)
    parts = [slice(start, start + LANES) for start in range(0, count, LANES)]
    done = [step(take(state, part), actions[part], seed, number) for number, part in enumerate(parts)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *done)


def legal(rng: np.random.Generator, mask: Any) -> Any:
    """A random legal action for each lane, 0 where there is none."""
    return np.where(mask, rng.random(mask.shape), -1).argmax(1)


def random_board(rng: np.random.Generator) -> dict[str, Any]:
    """A board for make_state, most of them far denser than play reaches: pockets, crowds, feet on walls."""
    cells = [CELLS[i] for i in rng.permutation(36)]
    player, cells = cells[0], cells[1:]
    walls = [cell for cell in CELLS if rng.random() < rng.choice([0, 0.15, 0.3, 0.5]) and cell != player]
    walls += [player] if rng.random() < 0.1 else []
    enemies, transmissions = [], []
    on_walls = rng.random() < 0.3  # as after POLY
    for cell in cells[: int(rng.choice([2, 5, 9, 14, 23]))]:
        kind = int(rng.choice([0, 0, 1, 2, 2, 3, 3]))
        if rng.random() < 0.25 and cell not in walls and len(transmissions) < 20:
            timer, mark = int(rng.integers(1, 4)), int(rng.integers(2))
            transmissions.append(
                {
                    "row": cell[0],
                    "col": cell[1],
                    "timer": timer,
                    "type": kind,
                    "from_siphon": mark,
                    "from_task": 1 - mark,
                }
            )
        elif (cell not in walls or kind == 2 or on_walls) and len(enemies) < 20:
            enemies.append({
                "type": kind, "row": cell[0], "col": cell[1], "hp": int(rng.integers(1, FULL_HP[kind] + 1)),
                "stunned": int(rng.random() < 0.15), "disabled": int(rng.choice([0, 0, 0, 0, 0, 1, 2])),
                "from_siphon": int(rng.integers(2)), "from_task": int(rng.integers(2)),
            })  # fmt: skip
    return {
        "player": player, "hp": int(rng.integers(1, 4)), "attack": int(rng.integers(1, 4)), "energy": 9,
        "enemies": enemies, "transmissions": transmissions, "owned": range(23),
        "blocks": [random_block(rng, cell) for cell in walls], "exit": CORNERS[rng.integers(4)],
        "resources": [
            {"row": r, "col": c, "credits": int(rng.choice([0, 0, 1, 2])), "energy": int(rng.choice([0, 0, 1, 3]))}
            for r, c in CELLS
        ],
    }  # fmt: skip


def random_block(rng: np.random.Generator, cell: tuple[int, int]) -> dict[str, int]:
    kind = int(rng.integers(1, 4))
    points = int(rng.integers(1, 4)) if kind == 1 or (kind == 3 and rng.random() < 0.5) else 0
    program = int(rng.integers(8)) if points == 0 else 0  # few, so that crosses are often alike
    siphoned = int(rng.random() < 0.3)
    return {"row": cell[0], "col": cell[1], "kind": kind, "points": points, "program": program, "siphoned": siphoned,
            "spawn_count": int(rng.integers(6))}  # fmt: skip


@cache
def boards(turn: int = 0, calm: bool = True, seed: int = 0) -> Any:
    """1,024 random boards; in half of them free cells are siphoned too."""
    rng = np.random.default_rng([seed, turn])
    states = stack([make_state(**random_board(rng), turn=turn, calm=calm) for _ in range(BOARDS)])
    free = (states.block_type == 0) & (rng.random((BOARDS, 6, 6)) < 0.4) & (rng.random((BOARDS, 1, 1)) < 0.5)
    return states.replace(siphoned=states.siphoned | free)

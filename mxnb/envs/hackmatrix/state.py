"""What a game of HackMatrix is at a moment, and a builder of any position, for tests and for teaching."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from mxnb.envs.hackmatrix.tables import (
    CELLS,
    COMPONENTS,
    DATA,
    ENEMY_HP,
    MAX_ATTACK,
    MAX_HP,
    PROGRAM,
    PROGRAMS,
    QUESTION,
    SIZE,
    SLOTS,
    STAGES,
)

GRIDS = (
    "block_type", "block_points", "block_program", "block_spawn_count", "siphoned", "siphon_center", "res_credits",
    "res_energy", "data_siphon",
)  # fmt: skip
FLAGS = ("siphoned", "siphon_center", "data_siphon")


class Turn(struct.PyTreeNode):
    """What UNDO takes back: everything but the stage, its exit, and the steps of the episode."""

    row: Any  # int32 0..5, and so the next one
    col: Any
    hp: Any  # int32 0..3
    credits: Any  # int32 >= 0, and so the next three
    energy: Any
    data_siphons: Any
    score: Any
    attack_damage: Any  # int32 1..3
    block_type: Any  # int32[6, 6]: 0 none, 1 data, 2 program, 3 question: its content is hidden
    block_points: Any  # int32[6, 6]: of data, also of hidden data
    block_program: Any  # int32[6, 6]: index of a program, where the content is one
    block_spawn_count: Any  # int32[6, 6]: transmissions that a siphon releases
    siphoned: Any  # bool[6, 6]: was drained
    siphon_center: Any  # bool[6, 6]: the player stood here with a siphon
    res_credits: Any  # int32[6, 6]: what lies there, and so the next one
    res_energy: Any
    data_siphon: Any  # bool[6, 6]: a siphon to pick up
    enemies: Any  # int32[20, 8]: type, row, col, hp, disabled, stunned, from a siphon, from a scheduled task
    enemy_mask: Any  # bool[20]: which rows of `enemies` mean something
    transmissions: Any  # int32[20, 6]: row, col, turns until it hatches, type, from a siphon, from a scheduled task
    trans_mask: Any  # bool[20]
    owned_programs: Any  # bool[23]
    turn: Any  # int32: turns on this stage
    show_activated: Any  # bool
    scheduled_tasks_disabled: Any  # bool
    step_active: Any  # bool: enemies skip their next phase
    atk_plus_uses: Any  # int32 0..2 on this stage
    next_scheduled_task_turn: Any  # int32
    scheduled_task_interval: Any  # int32 >= 4
    pending_siphon_transmissions: Any  # int32: 0 between steps


class State(Turn):
    """A game. Field names are those of the specification's section 3; cells are (row, col), row 0 at the bottom."""

    stage: Any  # int32 1..9; 9 is won
    exit_row: Any  # int32, and so the next one
    exit_col: Any
    snapshot_valid: Any  # bool
    snapshot: Any  # Turn: before the last turn, where snapshot_valid
    undo_accumulator: Any  # float32[15]: rewards since the snapshot, which UNDO takes back
    episode_step: Any  # int32: steps since the reset, for the time limit


TURN = tuple(Turn.__dataclass_fields__)


def turn_of(state: Any) -> Turn:
    """The part of a state that UNDO takes back."""
    return Turn(**{name: getattr(state, name) for name in TURN})


def blank() -> State:
    """An empty board: the player at (0, 0), the exit at (5, 5)."""
    number, no = jnp.int32(0), jnp.zeros((), bool)
    grid = {name: jnp.zeros((SIZE, SIZE), bool if name in FLAGS else jnp.int32) for name in GRIDS}
    turn = Turn(
        row=number, col=number, hp=jnp.int32(MAX_HP), credits=number, energy=number, data_siphons=number, score=number,
        attack_damage=jnp.int32(1), **grid,
        enemies=jnp.zeros((SLOTS, 8), jnp.int32), enemy_mask=jnp.zeros(SLOTS, bool),
        transmissions=jnp.zeros((SLOTS, 6), jnp.int32), trans_mask=jnp.zeros(SLOTS, bool),
        owned_programs=jnp.zeros(len(PROGRAMS), bool), turn=number, show_activated=no, scheduled_tasks_disabled=no,
        step_active=no, atk_plus_uses=number, next_scheduled_task_turn=jnp.int32(12),
        scheduled_task_interval=jnp.int32(12), pending_siphon_transmissions=number,
    )  # fmt: skip
    nothing = Turn(**{name: jnp.zeros_like(getattr(turn, name)) for name in TURN})
    return State(
        **{name: getattr(turn, name) for name in TURN}, stage=jnp.int32(1), exit_row=jnp.int32(5),
        exit_col=jnp.int32(5), snapshot_valid=no, snapshot=nothing,
        undo_accumulator=jnp.zeros(len(COMPONENTS), jnp.float32), episode_step=number,
    )  # fmt: skip


_ENEMY = ("type", "row", "col", "hp", "disabled", "stunned", "from_siphon", "from_task")
_TRANSMISSION = ("row", "col", "timer", "type", "from_siphon", "from_task")
_BLOCK = ("row", "col", "kind", "points", "program", "spawn_count", "siphoned")
_RESOURCE = ("row", "col", "credits", "energy", "data_siphon")
_NEEDED = {"row", "col", "type", "hp", "timer", "kind"}


def make_state(
    player: tuple[int, int] = (3, 3),
    hp: int = MAX_HP,
    credits: int = 0,
    energy: int = 0,
    data_siphons: int = 0,
    attack: int = 1,
    score: int = 0,
    enemies: Iterable[Mapping[str, int]] = (),
    transmissions: Iterable[Mapping[str, int]] = (),
    blocks: Iterable[Mapping[str, int]] = (),
    resources: Iterable[Mapping[str, int]] = (),
    owned: Iterable[int] = (),
    stage: int = 1,
    turn: int = 0,
    show: bool = False,
    calm: bool = False,
    exit: tuple[int, int] = (5, 5),
) -> State:
    """The position that is described, with nothing added; entries' slots are their places in the lists.

    enemies: type (0 virus, 1 daemon, 2 glitch, 3 cryptog), row, col, hp, and stunned, disabled, from_siphon, from_task
    if not 0. transmissions: row, col, timer, type, and from_siphon, from_task. blocks: row, col, kind (1 data,
    2 program, 3 question), and points, program, spawn_count, siphoned; a question's content is data where it has
    points. resources: row, col, and credits, energy, data_siphon. owned: indices of PROGRAMS.

    Raises ValueError with every mistake: unknown or missing keys, numbers out of range, cells off the board, two
    entries of one list in a cell. Entries of different lists may share one.
    """
    problems: list[str] = []
    lists = {
        "enemies": _rows("enemies", enemies, _ENEMY, problems),
        "transmissions": _rows("transmissions", transmissions, _TRANSMISSION, problems),
        "blocks": _rows("blocks", blocks, _BLOCK, problems),
        "resources": _rows("resources", resources, _RESOURCE, problems),
    }
    if not isinstance(owned, Iterable):
        problems.append(f"owned is {owned!r}; use a list of indices, such as [0, 7]")
        owned = ()
    owned = list(owned)
    (row, col), (exit_row, exit_col) = _pair("player", player, problems), _pair("exit", exit, problems)
    numbers = {
        "hp": (hp, 0, MAX_HP), "credits": (credits, 0, None), "energy": (energy, 0, None), "turn": (turn, 0, None),
        "data_siphons": (data_siphons, 0, None), "attack": (attack, 1, MAX_ATTACK), "score": (score, 0, None),
        "stage": (stage, 1, STAGES + 1), "show": (show, 0, 1), "calm": (calm, 0, 1),
        "player's row": (row, 0, SIZE - 1), "exit's col": (exit_col, 0, SIZE - 1),
        "player's col": (col, 0, SIZE - 1), "exit's row": (exit_row, 0, SIZE - 1),
        **{f"owned {index}": (index, 0, len(PROGRAMS) - 1) for index in owned},
    }  # fmt: skip
    for name, (value, low, high) in numbers.items():
        _within(name, value, low, high, problems)
    if problems:
        raise ValueError("\n".join(problems))
    whole = lambda value: jnp.asarray(value, jnp.int32)
    foes, sent = _table(lists["enemies"], _ENEMY), _table(lists["transmissions"], _TRANSMISSION)
    return blank().replace(
        row=whole(row), col=whole(col), hp=whole(hp), credits=whole(credits), energy=whole(energy),
        data_siphons=whole(data_siphons), attack_damage=whole(attack), score=whole(score), stage=whole(stage),
        turn=whole(turn), show_activated=jnp.asarray(bool(show)), scheduled_tasks_disabled=jnp.asarray(bool(calm)),
        exit_row=whole(exit_row), exit_col=whole(exit_col), enemies=foes[0], enemy_mask=foes[1], transmissions=sent[0],
        trans_mask=sent[1], owned_programs=jnp.zeros(len(PROGRAMS), bool).at[np.array(owned, int)].set(True),
        **_grids(lists["blocks"], lists["resources"]),
    )  # fmt: skip


def _grids(blocks: list[dict[str, int]], resources: list[dict[str, int]]) -> dict[str, Any]:
    """What lies in the cells."""
    grid = {name: np.zeros((SIZE, SIZE), bool if name in FLAGS else np.int32) for name in GRIDS}
    for block in blocks:
        at = block["row"], block["col"]
        grid["block_type"][at], grid["block_points"][at] = block["kind"], block["points"]
        grid["block_program"][at], grid["block_spawn_count"][at] = block["program"], block["spawn_count"]
        grid["siphoned"][at] = block["siphoned"]
    for found in resources:
        at = found["row"], found["col"]
        for name, key in (("res_credits", "credits"), ("res_energy", "energy"), ("data_siphon", "data_siphon")):
            grid[name][at] = found[key]
    return {name: jnp.asarray(value) for name, value in grid.items()}


def _rows(
    name: str, given: Iterable[Mapping[str, int]], keys: tuple[str, ...], problems: list[str]
) -> list[dict[str, int]]:
    """Entries with their defaults; what is wrong with them goes to `problems`."""
    rows, cells = [], set()
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        problems.append(f"{name} is {given!r}; use a list of dictionaries")
        return []
    for index, entry in enumerate(given):
        called = f"{name}[{index}]"
        if not isinstance(entry, Mapping):
            problems.append(f"{called} is {entry!r}; use a dictionary with {', '.join(keys)}")
            continue
        unknown = set(entry) - set(keys)
        missing = [key for key in keys if key in _NEEDED and key not in entry]
        problems += [f"{called}: unknown {key}; there are {', '.join(keys)}" for key in sorted(unknown)]
        problems += [f"{called}: {key} is missing" for key in missing]
        if unknown or missing:
            continue
        wrong = [key for key in keys if _whole(entry.get(key, 0)) is None]
        problems += [f"{called}: {key} is {entry[key]!r}; use a whole number" for key in wrong]
        if wrong:
            continue
        row = {key: int(entry.get(key, 0)) for key in keys}
        most = {"row": SIZE - 1, "col": SIZE - 1, "type": 3, "kind": QUESTION, "program": len(PROGRAMS) - 1}
        least = {"kind": DATA, "hp": 1, "timer": 1}
        most |= {"hp": int(ENEMY_HP[row["type"] % 4])} if "hp" in row else {}
        most |= dict.fromkeys(("stunned", "from_siphon", "from_task", "siphoned", "data_siphon"), 1)
        for key, value in row.items():
            _within(f"{called}: {key}", value, least.get(key, 0), most.get(key), problems)
        if name == "blocks" and row["kind"] == PROGRAM and row["points"]:
            problems.append(f"{called}: a block with a program has no points")
        if (row["row"], row["col"]) in cells:
            problems.append(f"{called}: ({row['row']}, {row['col']}) has one already")
        cells.add((row["row"], row["col"]))
        rows.append(row)
    if name in ("enemies", "transmissions") and len(rows) > SLOTS:
        problems.append(f"{name}: {len(rows)} are too many; there are {SLOTS} slots")
    return rows


def _pair(name: str, place: Any, problems: list[str]) -> tuple[Any, Any]:
    pair = tuple(place) if isinstance(place, Iterable) else ()
    if len(pair) == 2:
        return pair
    problems.append(f"{name} is {place!r}; use a row and a column, such as (3, 3)")
    return 0, 0


def _whole(value: Any) -> int | None:
    """A whole number or a flag as an int; None for anything else, 2.7 and "a" among it."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    try:
        return operator.index(value)
    except TypeError:
        return None


def _within(name: str, value: Any, low: int, high: int | None, problems: list[str]) -> None:
    if _whole(value) is None:
        problems.append(f"{name} is {value!r}; use a whole number")
    elif value < low or (high is not None and value > high):
        problems.append(
            f"{name} is {value}; use {low} to {high}" if high is not None else f"{name} is {value}; use {low} or more"
        )


def _table(rows: list[dict[str, int]], keys: tuple[str, ...]) -> tuple[Any, Any]:
    """(int32[20, columns], bool[20])."""
    table = np.zeros((SLOTS, len(keys)), np.int32)
    for slot, row in enumerate(rows):
        table[slot] = [row[key] for key in keys]
    return jnp.asarray(table), jnp.asarray(np.arange(SLOTS) < len(rows))


def cell_of(state: Any) -> Any:
    """The player's cell, 6 * row + col."""
    return SIZE * state.row + state.col


def flat(grid: Any) -> Any:
    """[6, 6] as [36]."""
    return grid.reshape(CELLS)


def square(cells: Any) -> Any:
    """[36] as [6, 6]."""
    return cells.reshape(SIZE, SIZE)

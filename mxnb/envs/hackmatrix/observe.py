"""What the agent sees: numbers of the player, programs owned, and 42 channels of the board (section 13)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.hackmatrix.state import State, flat
from mxnb.envs.hackmatrix.tables import (
    CELLS,
    CRYPTOG,
    DATA,
    E_COL,
    E_ROW,
    FROM_SIPHON,
    HP,
    PROGRAM,
    PROGRAMS,
    QUESTION,
    SIZE,
    STUNNED,
    T_COL,
    T_ROW,
    TURNS,
    TYPE,
)

CHANNELS = 42
OBS_SIZE = 10 + len(PROGRAMS) + CELLS * CHANNELS


class Observation(NamedTuple):
    """The three parts; `flatten` makes them one vector."""

    player_state: Any  # float32[10]
    programs: Any  # int32[23]: 1 = owned
    grid: Any  # float32[6, 6, 42]


def observe(state: State) -> Observation:
    """What the state looks like to the agent: all in 0 to 1, larger numbers are cut off there.

    Cryptogs are hidden but for those in the player's row or column or under SHOW, so are a question's content and what
    lies under a block. The types of transmissions, the score and the turn are never seen.
    """
    top = lambda value, most: jnp.clip(value / most, 0.0, 1.0)
    numbers = [
        top(state.row, 5), top(state.col, 5), top(state.hp, 3), top(state.credits, 50), top(state.energy, 50),
        top(state.stage - 1, 7), top(state.data_siphons, 10), top(state.attack_damage - 1, 2),
        state.show_activated, state.scheduled_tasks_disabled,
    ]  # fmt: skip
    player_state = jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers])
    return Observation(player_state, state.owned_programs.astype(jnp.int32), _grid(state).reshape(SIZE, SIZE, CHANNELS))


def flatten(seen: Observation) -> Any:
    """float32[1545]: player, programs, then the board row by row, channel c of cell i at 33 + 42 i + c."""
    parts = seen.player_state, seen.programs.astype(jnp.float32), seen.grid.reshape(-1)
    return jnp.concatenate(parts)


def _grid(state: State) -> Any:
    """float32[36, 42]."""
    foes, sent = state.enemies, state.transmissions
    kind = foes[:, TYPE]
    aligned = (foes[:, E_ROW] == state.row) | (foes[:, E_COL] == state.col)
    seen = state.enemy_mask & ((kind != CRYPTOG) | aligned | state.show_activated)
    at = lambda row, col, mask: ((SIZE * row + col)[None] == np.arange(CELLS)[:, None]) & mask[None]  # [36, 20]
    features = [*(kind == k for k in range(4)), foes[:, HP] / 3, foes[:, STUNNED] > 0, foes[:, FROM_SIPHON] > 0]
    rows = jnp.stack([jnp.asarray(feature, jnp.float32) for feature in features], 1)
    here = at(foes[:, E_ROW], foes[:, E_COL], seen).astype(jnp.float32)
    # In full: an accelerator's short products would tell of other thirds of a health point than a CPU's.
    enemy = jnp.clip(jnp.matmul(here, rows, precision=jax.lax.Precision.HIGHEST), 0.0, 1.0)  # [36, 7]
    turns = jnp.where(at(sent[:, T_ROW], sent[:, T_COL], state.trans_mask), sent[:, TURNS], 0).max(1)

    block, siphoned = flat(state.block_type), flat(state.siphoned)
    known = (block == DATA) | (block == PROGRAM)
    bare = (block == 0) | siphoned
    of = lambda cells, grid, most: jnp.where(cells, jnp.clip(flat(grid) / most, 0.0, 1.0), 0.0)[:, None]
    index = (flat(state.block_program)[:, None] == np.arange(len(PROGRAMS))[None]) & (block == PROGRAM)[:, None]
    exit_here = (np.arange(CELLS) == SIZE * state.exit_row + state.exit_col)[:, None]
    channels = [
        enemy, (block[:, None] == np.array([[DATA, PROGRAM, QUESTION]])), of(block == DATA, state.block_points, 9),
        siphoned[:, None], index, of(known, state.block_spawn_count, 9), jnp.clip(turns / 4, 0.0, 1.0)[:, None],
        of(bare, state.res_credits, 3), of(bare, state.res_energy, 3), flat(state.data_siphon)[:, None], exit_here,
        flat(state.siphon_center)[:, None],
    ]  # fmt: skip
    return jnp.concatenate([jnp.asarray(channel, jnp.float32) for channel in channels], 1)

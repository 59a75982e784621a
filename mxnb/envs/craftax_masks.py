"""Exact action masks for Craftax.

Rule: an action is masked exactly when, in this state, it does what NOOP does for every random key. So an
agent that never picks masked actions loses nothing, and a mask never hides an effect, not even a side effect.
Derived from craftax 1.6's `game_logic.craftax_step`; tests compare it with the game itself.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from craftax.craftax_classic import constants as classic
from jaxtyping import Array, Bool

_BLOCK = classic.BlockType
_MAX_ITEMS = 9  # the inventory is capped after every step
_DESPAWN_DISTANCE = 14  # EnvParams.mob_despawn_distance


def _in_bounds(state: Any, position: Array) -> Array:
    (rows, columns), row, column = state.map.shape, position[..., 0], position[..., 1]
    return (row >= 0) & (row < rows) & (column >= 0) & (column < columns)


def _at(grid: Array, position: Array) -> Array:
    # Indexes as the game does: negative positions wrap, too large ones are clamped.
    return grid[position[..., 0], position[..., 1]]


def _solid(block: Array) -> Array:
    return jnp.isin(block, classic.SOLID_BLOCKS)


def _moves(state: Any) -> Bool[Array, "4"]:
    """LEFT RIGHT UP DOWN act when they turn the player or move it."""
    target = state.player_position[None] + classic.DIRECTIONS[1:5]
    block = _at(state.map, target)
    free = _in_bounds(state, target) & ~_solid(block) & ~_at(state.mob_map, target)
    turns = state.player_direction != jnp.arange(1, 5)
    return turns | free | (block == _BLOCK.LAVA.value)


def _hidden_mobs_change(state: Any) -> Array:
    """Whether DO changes a mob that is out of play.

    DO sets every mob's `mask` to `health > 0`, so it brings despawned mobs ("ghosts") back to life. Within
    the despawn distance that is visible at once. Farther away the ghost despawns again in the same step,
    but first it clears `mob_map` on its tile. That matters only if another mob holds the tile then: for
    good (a stale entry), because it moved in before the ghost's turn, or because a third mob can slip into
    the tile between the ghost's turn and the owner's. Mobs take turns in the order of the arrays below.
    """
    groups = (state.zombies, state.cows, state.skeletons)
    position = jnp.concatenate([g.position for g in groups])
    alive = jnp.concatenate([g.mask for g in groups])
    ghost = jnp.concatenate([g.health for g in groups]) > 0
    ghost = ghost & ~alive
    distance = jnp.abs(position - state.player_position[None]).sum(-1)
    near = distance < _DESPAWN_DISTANCE

    turn = jnp.arange(position.shape[0])
    block = _at(state.map, position)
    enterable = _in_bounds(state, position) & ~_solid(block) & (block != _BLOCK.LAVA.value)
    held = _at(state.mob_map, position)
    apart = jnp.abs(position[:, None] - position[None]).sum(-1)  # [ghost, other]
    owner = jnp.where((apart == 0) & alive[None], turn[None], len(turn)).min(-1)
    beside = (apart == 1) & enterable[:, None]
    earlier = turn[None] < turn[:, None]
    entered = beside & earlier & (alive & near)[None] & (~held[:, None] | (owner[:, None] < turn[None]))
    slips_in = beside & ~earlier & (turn[None] < owner[:, None]) & held[:, None]
    stale = held & (owner == len(turn))
    slips_in = slips_in & (owner < len(turn))[:, None]
    return (ghost & (near | stale | (entered | slips_in).any(-1))).any()


def _do(state: Any) -> Array:
    """DO acts when it hits a mob, changes the block in front, or wakes a hidden mob."""
    inventory, achievement = state.inventory, classic.Achievement
    front = state.player_position + classic.DIRECTIONS[state.player_direction]
    hits = jnp.stack(
        [
            ((mobs.position == front[None]).all(-1) & mobs.mask).any()
            for mobs in (state.zombies, state.cows, state.skeletons)
        ]
    ).any()
    block = _at(state.map, front)
    has_drunk = state.achievements[achievement.COLLECT_DRINK.value]
    has_sapling = state.achievements[achievement.COLLECT_SAPLING.value]
    quenched = has_drunk & (state.player_drink >= 9) & (state.player_thirst == 0)
    changes = (
        (block == _BLOCK.TREE.value)
        | (block == _BLOCK.RIPE_PLANT.value)
        | ((block == _BLOCK.STONE.value) & (inventory.wood_pickaxe > 0))
        | ((block == _BLOCK.COAL.value) & (inventory.wood_pickaxe > 0))
        | ((block == _BLOCK.IRON.value) & (inventory.stone_pickaxe > 0))
        | ((block == _BLOCK.DIAMOND.value) & (inventory.iron_pickaxe > 0))
        | ((block == _BLOCK.GRASS.value) & ((inventory.sapling < _MAX_ITEMS) | ~has_sapling))
        | ((block == _BLOCK.WATER.value) & ~quenched)
    )
    return hits | (_in_bounds(state, front) & changes) | _hidden_mobs_change(state)


def _placements(state: Any) -> Bool[Array, "4"]:
    """PLACE_STONE PLACE_TABLE PLACE_FURNACE PLACE_PLANT need the items and a fitting free tile."""
    inventory = state.inventory
    front = state.player_position + classic.DIRECTIONS[state.player_direction]
    block = _at(state.map, front)
    taken = _at(state.mob_map, front) | (state.player_position == front).all()
    reachable = _in_bounds(state, front) & ~taken
    open_tile = ~_solid(block)
    return reachable & jnp.stack(
        [
            ((block == _BLOCK.WATER.value) | open_tile) & (inventory.stone > 0),
            open_tile & (inventory.wood >= 2),
            open_tile & (inventory.stone > 0),
            (block == _BLOCK.GRASS.value) & (inventory.sapling > 0),
        ]
    )


def _crafts(state: Any) -> Bool[Array, "6"]:
    """Pickaxes then swords of wood, stone and iron: materials, a table near, for iron a furnace too."""
    inventory = state.inventory
    around = state.player_position[None] + classic.CLOSE_BLOCKS
    block = jnp.where(_in_bounds(state, around), _at(state.map, around), _BLOCK.INVALID.value)
    table = (block == _BLOCK.CRAFTING_TABLE.value).any()
    furnace = (block == _BLOCK.FURNACE.value).any()
    wood = table & (inventory.wood >= 1)
    stone = wood & (inventory.stone >= 1)
    iron = stone & furnace & (inventory.iron >= 1) & (inventory.coal >= 1)
    return jnp.stack([wood, stone, iron, wood, stone, iron])


def classic_mask(state: Any) -> Bool[Array, "17"]:
    """Legal actions of Craftax-Classic: True where the action differs from NOOP for some key.

    NOOP is always legal; a sleeping player can only NOOP. state: one (unbatched) Craftax-Classic state.
    """
    awake = jnp.concatenate(
        [
            _moves(state),
            _do(state)[None],
            (state.player_energy < 9)[None],
            _placements(state),
            _crafts(state),
        ]
    )
    return jnp.concatenate([jnp.ones(1, bool), awake & ~state.is_sleeping])

"""The mask of full Craftax against the game.

States come from three sources: random play; play that starts with everything (tools, gems, spells, any floor),
so that torches, potions, books, enchanting, ladders and the boss are reached; and edited states (the map's
edges, hungry or resting players, mobs and projectiles beside the player) that play reaches only rarely.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax import constants as full
from craftax.craftax.constants import BlockType, ItemType
from exact_masks import PART, check, distinct, play, prober

from mxnb.envs.craftax import craftax

ENV = craftax(classic=False)
ACTIONS = ENV.spec.action_names
SIZE, FLOORS = 48, 9


@pytest.fixture(scope="module")
def game() -> Any:
    return prober(ENV)


def act(key: Any, state: Any, mask: Any, t: Any, legally: Any) -> Any:
    """A random action, or a random legal one: one program for both."""
    return jax.random.categorical(key, jnp.where(mask | ~legally, 0.0, -jnp.inf))


def stocked(rng: np.random.Generator, inventory: Any, n: int) -> Any:
    """Random counts: often none, sometimes the cap; tools and armour by their levels."""

    def items(x: Any) -> Any:
        return rng.choice([0, 0, 1, 2, 3, 99], x.shape).astype(x.dtype)

    stock = jax.tree.map(items, inventory)
    levels = lambda top, like: rng.integers(0, top + 1, like.shape).astype(like.dtype)
    return stock.replace(
        pickaxe=levels(4, stock.pickaxe),
        sword=levels(4, stock.sword),
        bow=levels(1, stock.bow),
        armour=levels(2, stock.armour),
    )


def endowed(states: Any) -> Any:
    """Everyone on a floor of their own with a stock, spells, mana and experience, all floors cleared."""
    rng = np.random.default_rng(0)
    keys, states = states.state_rng, jax.tree.map(np.array, states.replace(state_rng=None))
    n = len(states.map)
    floor = np.arange(n) % FLOORS
    ladder = np.where(
        rng.random((n, 1)) < 0.5, states.down_ladders[np.arange(n), floor], states.up_ladders[np.arange(n), floor]
    )
    return states.replace(
        state_rng=keys,
        inventory=stocked(rng, states.inventory, n),
        player_level=floor.astype(np.int32),
        player_position=np.where(floor[:, None] > 0, ladder, states.player_position).astype(np.int32),
        monsters_killed=np.full_like(states.monsters_killed, 10),
        learned_spells=rng.random(states.learned_spells.shape) < 0.7,
        player_mana=rng.integers(0, 10, n).astype(np.int32),
        player_xp=rng.integers(0, 4, n).astype(np.int32),
    )


def edited(states: Any, seed: int) -> Any:
    """Everything that a mask reads, at random; players at the edges, mobs and projectiles close by."""
    rng = np.random.default_rng(seed)
    states = jax.tree.map(np.array, states)
    n = len(states.map)
    rows = np.arange(n)
    floor = rng.integers(0, FLOORS, n)
    floor[: n // 8] = FLOORS - 1
    position = rng.integers(0, SIZE, (n, 2))
    edge = rng.random(n) < 0.2
    position[edge, rng.integers(0, 2, edge.sum())] = rng.choice([0, SIZE - 1], edge.sum())
    direction = rng.integers(1, 5, n)
    ahead = position + np.asarray(full.DIRECTIONS)[direction]
    ahead = np.where(ahead < 0, ahead + SIZE, np.minimum(ahead, SIZE - 1))  # as the game looks things up
    world, items = states.map, states.item_map
    paved = rng.random(n) < 0.8
    world[rows[paved], floor[paved], ahead[paved, 0], ahead[paved, 1]] = rng.integers(2, 37, paved.sum())
    boss = (floor == FLOORS - 1) & (rng.random(n) < 0.5)
    world[rows[boss], floor[boss], ahead[boss, 0], ahead[boss, 1]] = BlockType.NECROMANCER.value
    for kind in (BlockType.CRAFTING_TABLE, BlockType.FURNACE):
        near = np.clip(position + rng.integers(-1, 2, (n, 2)), 0, SIZE - 1)
        put = (rng.random(n) < 0.6) & ~(near == position).all(-1)
        world[rows[put], floor[put], near[put, 0], near[put, 1]] = kind.value
    world[rows, floor, position[:, 0], position[:, 1]] = BlockType.PATH.value
    items[rows, floor, position[:, 0], position[:, 1]] = rng.choice([0, *(i.value for i in ItemType)], n)
    laid = rng.random(n) < 0.2
    items[rows[laid], floor[laid], ahead[laid, 0], ahead[laid, 1]] = ItemType.TORCH.value
    occupied = np.zeros_like(states.mob_map)
    mobs = {}
    for name in ("melee_mobs", "passive_mobs", "ranged_mobs"):
        group = getattr(states, name)
        lanes = group.mask.shape[2]
        place, mask = group.position, np.zeros_like(group.mask)
        for j in range(lanes):
            spot = np.clip(position + rng.integers(-3, 4, (n, 2)), 0, SIZE - 1)
            beside = rng.random(n) < 0.3
            spot[beside] = np.clip(position + np.asarray(full.DIRECTIONS)[rng.integers(1, 5, n)], 0, SIZE - 1)[beside]
            free = ~occupied[rows, floor, spot[:, 0], spot[:, 1]] & ~(spot == position).all(-1)
            alive = free & (rng.random(n) < 0.4) & ~boss
            occupied[rows, floor, spot[:, 0], spot[:, 1]] |= alive
            place[rows, floor, j] = spot
            mask[rows, floor, j] = alive
        mobs[name] = group.replace(
            position=place,
            mask=mask,
            health=np.where(mask, rng.choice([1.0, 5.0, 9.0], mask.shape), group.health).astype(group.health.dtype),
            attack_cooldown=rng.integers(-1, 3, mask.shape).astype(group.attack_cooldown.dtype),
        )
    shots = states.mob_projectiles
    near = position[:, None] + rng.integers(-2, 3, (n, shots.mask.shape[2], 2))
    place, flying = shots.position, np.zeros_like(shots.mask)
    place[rows, floor], flying[rows, floor] = np.clip(near, 0, SIZE - 1), rng.random(near.shape[:2]) < 0.4
    ways = np.asarray(full.DIRECTIONS)[rng.integers(1, 5, flying.shape)].astype(np.int32)
    arrows = states.player_projectiles
    own = np.zeros_like(arrows.mask)
    own[rows, floor] = rng.random((n, own.shape[2])) < 0.6
    strength = rng.integers(1, 6, n)
    dexterity = rng.integers(1, 6, n)
    most = 7 + 2 * dexterity
    pick = lambda *values: np.stack([np.broadcast_to(v, n) for v in values])[rng.integers(0, len(values), n), rows]
    return states.replace(
        map=world,
        item_map=items,
        mob_map=occupied,
        player_position=position.astype(np.int32),
        player_level=floor.astype(np.int32),
        player_direction=direction.astype(np.int32),
        player_health=pick(8 + strength, 8 + strength, 3).astype(np.float32),
        player_food=pick(most, 0, 4, 4).astype(np.int32),
        player_drink=pick(most, most, 0, 4).astype(np.int32),
        player_thirst=pick(0.0, 5.0).astype(np.float32),
        player_energy=pick(most, 4).astype(np.int32),
        player_mana=rng.choice([0, 1, 2, 9], n).astype(np.int32),
        player_xp=rng.choice([0, 0, 2], n).astype(np.int32),
        player_strength=strength.astype(np.int32),
        player_dexterity=dexterity.astype(np.int32),
        player_intelligence=rng.integers(1, 6, n).astype(np.int32),
        is_sleeping=rng.random(n) < 0.05,
        is_resting=rng.random(n) < 0.05,
        inventory=stocked(rng, states.inventory, n),
        learned_spells=rng.random(states.learned_spells.shape) < 0.5,
        monsters_killed=rng.choice([0, 7, 8, 20], states.monsters_killed.shape).astype(np.int32),
        chests_opened=rng.random(states.chests_opened.shape) < 0.5,
        achievements=rng.random(states.achievements.shape) < 0.6,
        boss_timesteps_to_spawn_this_round=rng.choice([-3, 0, 5], n).astype(np.int32),
        mob_projectiles=shots.replace(position=place, mask=flying),
        mob_projectile_directions=ways,
        player_projectiles=arrows.replace(mask=own),
        **mobs,
    )


@cache
def states_of(source: str, rounds: int) -> Any:
    if source == "random":
        return play(ENV, 63, act, lambda states: states, 40 * rounds, 10, seed=1, given=False)
    if source == "endowed":
        return play(ENV, 63, act, endowed, 84 * rounds, 6, seed=2, given=True)
    return edited(states_of("endowed", rounds), 0)


MUST_OPEN = {
    "random": ("left", "do", "sleep"),
    "endowed": ("place_torch", "drink_potion_red", "read_book", "shoot_arrow", "cast_fireball", "level_up_strength"),
    "edited": ACTIONS,
}


def exact(game: Any, source: str, rounds: int) -> None:
    states = states_of(source, rounds)
    total = distinct(states)
    assert total > 0.97 * len(states.map)
    opened = dict(zip(ACTIONS, check(game, states, seed=1).tolist(), strict=True))
    print(f"\n{source}: {total} distinct states; open: {opened}")
    assert all(opened[name] > 0 for name in MUST_OPEN[source]), "an action is never open here, so it was not tested"


@pytest.mark.parametrize("source", MUST_OPEN)
def test_mask_is_exact(game: Any, source: str) -> None:
    exact(game, source, rounds=1)  # 252 + 882 + 882 states


@pytest.mark.slow
@pytest.mark.parametrize("source", MUST_OPEN)
def test_mask_is_exact_on_ten_thousand_states(game: Any, source: str) -> None:
    exact(game, source, rounds=6)  # 1,512 + 5,292 + 5,292 states


def test_actions_are_in_the_games_order() -> None:
    assert [full.Action[name.upper()].value for name in ACTIONS] == list(range(43))


def test_a_bench_that_is_shot_away_anyway(game: Any) -> None:
    """The one case in which mining a furnace does what NOOP does; a mob beside it makes the difference visible."""
    state = jax.tree.map(lambda x: x[:1], states_of("endowed", 1))
    level = int(state.player_level[0])
    here, way = np.array([20, 20]), np.array([0, 1])
    world = state.map.copy()
    world[0, level, 20, 21] = BlockType.FURNACE.value
    shots = state.mob_projectiles
    place, flying = np.zeros_like(shots.position), np.zeros_like(shots.mask)
    place[0, level, 0], flying[0, level, 0] = here, True
    ways = np.zeros_like(state.mob_projectile_directions)
    ways[0, level, 0] = way
    mobs = {}
    for name in ("melee_mobs", "passive_mobs", "ranged_mobs"):
        group = getattr(state, name)
        mobs[name] = group.replace(position=np.full_like(group.position, 40), mask=np.zeros_like(group.mask))
    state = state.replace(
        map=world,
        mob_map=np.zeros_like(state.mob_map),
        player_position=here[None].astype(np.int32),
        player_direction=np.array([2], np.int32),
        is_sleeping=np.zeros(1, bool),
        is_resting=np.zeros(1, bool),
        mob_projectiles=shots.replace(position=place, mask=flying),
        mob_projectile_directions=ways,
        **mobs,
    )
    still = state.replace(mob_projectiles=shots.replace(position=place, mask=np.zeros_like(flying)))
    cow = mobs["passive_mobs"]
    beside = state.replace(
        passive_mobs=cow.replace(position=np.where(np.arange(3)[:, None] == 0, [21, 21], cow.position))
    )
    do = ACTIONS.index("do")
    mine = np.arange(len(ACTIONS)) == do
    for case, is_open in ((state, False), (still, True), (beside, True)):
        many = jax.tree.map(lambda x: np.repeat(x, PART, 0), case)
        assert bool(game.masks(many)[0, do]) == is_open
        tries = [jax.random.split(jax.random.key(i), PART) for i in range(4)]
        assert any(game.effects(keys, many, np.tile(mine, (PART, 1)))[:, do].any() for keys in tries) == is_open

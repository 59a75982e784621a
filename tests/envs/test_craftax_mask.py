"""The mask of Craftax-Classic against the game: masked means bit-equal to NOOP, open means not always.

States come from three sources: random play, scripted play that climbs the technology tree, and edited states
(inventories, needs, the map's edges, hidden mobs) that play reaches only rarely.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_classic import constants as classic
from craftax.craftax_classic.constants import BlockType
from exact_masks import check, distinct, play, prober

from mxnb.envs.craftax import craftax

ENV = craftax(classic=True)
NUM_ENVS = 128
ACTIONS = ENV.spec.action_names
GAME = prober(ENV)


def script(key, state, mask, t, scripted):
    """Climbs the technology tree: new tools first, a table or furnace when one is needed, then the block in front."""
    have = state.inventory
    tools = jnp.array(
        [have.wood_pickaxe, have.stone_pickaxe, have.iron_pickaxe, have.wood_sword, have.stone_sword, have.iron_sword]
    )
    craft = jnp.where(mask[11:17] & (tools == 0), jnp.arange(11, 17), 0).max()
    roll, place, walk = (jax.random.uniform(k) for k in jax.random.split(key, 3))
    no_table = ~mask[11]
    first = (have.wood_pickaxe == 0) & (have.wood >= 4)
    second = (have.stone_pickaxe == 0) & (have.stone >= 2) & (have.wood >= 4)
    table = mask[8] & no_table & (first | second)
    furnace = mask[9] & (have.stone >= 5) & (place < 0.05)
    stone = mask[7] & (have.stone >= 5) & (place > 0.97)
    plant = mask[10] & (place > 0.9)
    sleep = mask[6] & (state.player_energy < 4)
    front = state.map[tuple(state.player_position + classic.DIRECTIONS[state.player_direction])]
    mob = state.mob_map[tuple(state.player_position + classic.DIRECTIONS[state.player_direction])]
    use = mask[5] & ((front != BlockType.GRASS.value) | mob | (roll < 0.05))
    step = jnp.where(walk < 0.15, 1 + (walk * 1000).astype(int) % 4, 1 + (t // 23) % 4)
    for wanted, action in ((use, 5), (sleep, 6), (plant, 10), (stone, 7), (furnace, 9), (table, 8)):
        step = jnp.where(wanted, action, step)
    action = jnp.where(craft > 0, craft, step)
    return jnp.where(scripted, action, jax.random.randint(key, (), 0, 17))


def edited(states, seed):
    """Random inventories, needs and sleep; players moved to random tiles, edges included; mobs brought close."""
    rng = np.random.default_rng(seed)
    n = states.player_health.shape[0]

    def items(x):
        return rng.choice([0, 0, 1, 2, 9], n).astype(x.dtype)

    position = rng.integers(0, 64, (n, 2))
    edge = rng.random(n) < 0.3
    position[edge, rng.integers(0, 2, edge.sum())] = rng.choice([0, 63], edge.sum())
    direction = rng.integers(1, 5, n)
    world = np.array(states.map)
    front = np.clip(position + np.array([[0, 0], [0, -1], [0, 1], [-1, 0], [1, 0]])[direction], 0, 63)
    paved = rng.random(n) < 0.7
    world[paved, front[paved, 0], front[paved, 1]] = rng.integers(2, 17, paved.sum())
    for kind, chance in ((BlockType.CRAFTING_TABLE, 0.5), (BlockType.FURNACE, 0.5)):
        near = np.clip(position + rng.integers(-1, 2, (n, 2)), 0, 63)
        put = (rng.random(n) < chance) & ~(near == position).all(-1)
        world[put, near[put, 0], near[put, 1]] = kind.value
    world[np.arange(n), position[:, 0], position[:, 1]] = BlockType.GRASS.value
    far = np.clip(position + rng.integers(-15, 16, (n, 2)), 0, 63)
    mobs = {}
    occupied = np.zeros_like(states.mob_map)
    for name in ("zombies", "cows", "skeletons"):
        group = getattr(states, name)
        shape = group.mask.shape
        place = np.clip(far[:, None] + rng.integers(-2, 3, (*shape, 2)), 0, 63)
        beside = rng.random(shape) < 0.2
        place[beside] = np.broadcast_to(front[:, None], place.shape)[beside]
        health = rng.choice([0, 1, 3, 5], shape).astype(group.health.dtype)
        alive = (rng.random(shape) < 0.5) & (health > 0)
        for i, j in np.argwhere(alive):
            if occupied[i, place[i, j, 0], place[i, j, 1]]:
                alive[i, j] = False
            else:
                occupied[i, place[i, j, 0], place[i, j, 1]] = True
        mobs[name] = group.replace(position=place.astype(group.position.dtype), health=health, mask=alive)
    return states.replace(
        player_position=position.astype(states.player_position.dtype),
        player_direction=direction.astype(states.player_direction.dtype),
        map=world,
        mob_map=occupied,
        inventory=jax.tree.map(items, states.inventory),
        player_drink=rng.choice([3, 9], n).astype(states.player_drink.dtype),
        player_thirst=rng.choice([0.0, 5.0], n).astype(states.player_thirst.dtype),
        player_energy=rng.choice([4, 8, 9], n).astype(states.player_energy.dtype),
        is_sleeping=rng.random(n) < 0.1,
        achievements=rng.random(states.achievements.shape) < 0.5,
        **mobs,
    )


@pytest.mark.parametrize(
    ("source", "steps", "every", "must_open"),
    [
        ("random", 340, 10, ["do", "sleep", "place_table", "place_plant"]),
        ("scripted", 600, 12, ["place_stone", "make_wood_pickaxe", "make_stone_pickaxe"]),
        ("edited", 200, 20, ACTIONS),
    ],
)
def test_mask_is_exact(source, steps, every, must_open):
    states = play(ENV, NUM_ENVS, script, lambda s: s, steps, every, seed=len(source), given=source != "random")
    if source == "edited":
        states = edited(states, 0)
    total = distinct(states)
    assert total > 0.97 * len(states.map)  # 4,352 + 6,400 + 1,280 in all, so well over 10,000 distinct ones
    opened = dict(zip(ACTIONS, check(GAME, states, seed=1).tolist(), strict=True))
    print(f"\n{source}: {total} distinct states; open: {opened}")
    assert all(opened[name] > 0 for name in must_open), "an action is never open here, so its mask was not tested"

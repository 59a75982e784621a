"""The exact action mask of full Craftax (43 actions).

Rule: an action is masked exactly when, in this state, it does what NOOP does for every random key; see
`mxnb.envs.craftax_masks` for Classic. Derived from craftax 1.6's `game_logic.craftax_step`; tests compare it
with the game itself. Two effects are easy to miss: REST with full health counts when something can hit the
player in this very step, and the game looks up what is in front of the player with NumPy's negative indices,
so at the edge of the map a chest, a boss or an enchantment table on the far side answers.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from craftax.craftax import constants as full
from craftax.craftax.util.game_logic_utils import (
    get_max_drink,
    get_max_energy,
    get_max_health,
    is_boss_vulnerable,
)
from jaxtyping import Array, Bool

_BLOCK, _ITEM = full.BlockType, full.ItemType
_MAX_ITEMS = 99  # the inventory is capped after every step
_MAX_ATTRIBUTE = 5  # EnvParams.max_attribute
_SLOTS = 3  # StaticEnvParams: projectiles of a side on a level
_LEVELS = 9


def full_mask(state: Any) -> Bool[Array, "43"]:
    """Legal actions of full Craftax: True where the action differs from NOOP for some key.

    NOOP is always legal; a sleeping or resting player can only NOOP. state: one (unbatched) full-Craftax
    state with the default parameters.
    """
    front = state.player_position + full.DIRECTIONS[state.player_direction]
    block = _floor(state, state.map)[front[0], front[1]]
    legal = {
        **_moves(state),
        "DO": _do(state, front, block),
        "SLEEP": state.player_energy < get_max_energy(state),
        "REST": _rest(state),
        **_placements(state, front, block),
        **_tools(state),
        **_supplies(state),
        **_ladders(state),
        **_magic(state, block),
        **_attributes(state),
    }
    potions = ("RED", "GREEN", "BLUE", "PINK", "CYAN", "YELLOW")
    legal |= {f"DRINK_POTION_{name}": state.inventory.potions[i] > 0 for i, name in enumerate(potions)}
    awake = ~(state.is_sleeping | state.is_resting)
    noop = jnp.ones((), bool)
    return jnp.stack([noop if a is full.Action.NOOP else legal[a.name] & awake for a in full.Action])


def _floor(state: Any, levels: Array) -> Array:
    return levels[state.player_level]


def _in_bounds(state: Any, position: Array) -> Array:
    (rows, columns), row, column = state.map.shape[1:], position[..., 0], position[..., 1]
    return (row >= 0) & (row < rows) & (column >= 0) & (column < columns)


def _moves(state: Any) -> dict[str, Array]:
    """LEFT RIGHT UP DOWN act when they turn the player or move it; water and lava cannot be entered."""
    target = state.player_position[None] + full.DIRECTIONS[1:5]
    rows, columns = target[:, 0], target[:, 1]
    block = _floor(state, state.map)[rows, columns]
    closed = full.SOLID_BLOCK_MAPPING[block] | (block == _BLOCK.WATER.value) | (block == _BLOCK.LAVA.value)
    free = _in_bounds(state, target) & ~closed & ~_floor(state, state.mob_map)[rows, columns]
    acts = free | (state.player_direction != jnp.arange(1, 5))
    return {name: acts[i] for i, name in enumerate(("LEFT", "RIGHT", "UP", "DOWN"))}


def _do(state: Any, front: Array, block: Array) -> Array:
    """DO acts when it hits a mob, changes the block in front, finds a sapling, drinks or harms the boss."""
    inventory = state.inventory
    hits = jnp.stack(
        [
            ((_floor(state, mobs.position) == front[None]).all(-1) & _floor(state, mobs.mask)).any()
            for mobs in (state.melee_mobs, state.passive_mobs, state.ranged_mobs)
        ]
    ).any()
    has_drunk = state.achievements[full.Achievement.COLLECT_DRINK.value]
    quenched = has_drunk & (state.player_drink >= get_max_drink(state)) & (state.player_thirst == 0)
    at_hand = ("TREE", "FIRE_TREE", "ICE_SHRUB", "RIPE_PLANT", "CHEST")
    needs = {"STONE": 1, "STALAGMITE": 1, "COAL": 1, "IRON": 2, "DIAMOND": 3, "SAPPHIRE": 4, "RUBY": 4}
    changes = jnp.isin(block, jnp.asarray([_BLOCK[name].value for name in at_hand]))
    for name, pickaxe in needs.items():
        changes |= (block == _BLOCK[name].value) & (inventory.pickaxe >= pickaxe)
    bench = (block == _BLOCK.FURNACE.value) | (block == _BLOCK.CRAFTING_TABLE.value)
    changes |= bench & ~_shot_away(state, front)
    changes |= (block == _BLOCK.GRASS.value) & (inventory.sapling < _MAX_ITEMS)
    changes |= ((block == _BLOCK.WATER.value) | (block == _BLOCK.FOUNTAIN.value)) & ~quenched
    # These two look across the edge of the map: the game checks the bounds for everything but them.
    chest = (block == _BLOCK.CHEST.value) & ~_floor(state, state.chests_opened)
    boss = (block == _BLOCK.NECROMANCER.value) & is_boss_vulnerable(state) & _fighting_boss(state)
    return hits | (_in_bounds(state, front) & changes) | chest | boss


def _shot_away(state: Any, front: Array) -> Array:
    """Whether a furnace or table in front is gone after this step anyway, and DO makes no other difference.

    A projectile on the player's own tile hits the player and breaks the bench it flies into. Breaking it
    earlier shows only if a mob, alive or not, can step onto the tile, or another projectile flies there.
    """
    shots = state.mob_projectiles
    position, flying = _floor(state, shots.position), _floor(state, shots.mask)
    arrives = flying & (position + _floor(state, state.mob_projectile_directions) == front[None]).all(-1)
    on_player = (position == state.player_position[None]).all(-1)
    mobs = (state.melee_mobs, state.passive_mobs, state.ranged_mobs)
    beside = jnp.concatenate([jnp.abs(_floor(state, m.position) - front[None]).sum(-1) == 1 for m in mobs])
    return (arrives & on_player).any() & ~(arrives & ~on_player).any() & ~beside.any()


def _fighting_boss(state: Any) -> Array:
    return state.player_level == _LEVELS - 1


def _rest(state: Any) -> Array:
    """REST acts when the player is neither hungry nor thirsty to 0 and is hurt, or may be hit in this step."""
    hurt = state.player_health < get_max_health(state)
    return (state.player_food > 0) & (state.player_drink > 0) & (hurt | _can_be_hit(state))


def _can_be_hit(state: Any) -> Array:
    """Whether, for some key, a mob or a projectile harms a player who stays where it is."""
    here = state.player_position
    melee, ranged, shots = state.melee_mobs, state.ranged_mobs, state.mob_projectiles

    def distance(mobs: Any) -> Array:
        return jnp.abs(_floor(state, mobs.position) - here[None]).sum(-1)

    def ready(mobs: Any) -> Array:
        return _floor(state, mobs.mask) & (_floor(state, mobs.attack_cooldown) <= 0)

    struck = (ready(melee) & (distance(melee) == 1)).any()
    position = _floor(state, shots.position)
    ahead = position + _floor(state, state.mob_projectile_directions)
    flying = _floor(state, shots.mask)
    shot = (flying & ((position == here[None]).all(-1) | (ahead == here[None]).all(-1))).any()
    # A ranged mob beside the player may shoot: one of its random moves, into the player, is blocked. Mobs
    # take turns, and one four or five tiles away shoots for certain, which can use up the last free slot.
    archers, away = ready(ranged), distance(ranged)
    certain = archers & (away >= 4) & (away <= 5)
    used = flying.sum() + jnp.cumsum(certain) - certain
    fired_at = (archers & (away == 1) & (used < _SLOTS)).any()
    return struck | shot | fired_at


def _placements(state: Any, front: Array, block: Array) -> dict[str, Array]:
    """Stone, table, furnace, sapling and torch need the thing and a fitting free tile."""
    inventory = state.inventory
    item = _floor(state, state.item_map)[front[0], front[1]] != _ITEM.NONE.value
    taken = _floor(state, state.mob_map)[front[0], front[1]] | (state.player_position == front).all()
    reachable = _in_bounds(state, front) & ~taken
    free = ~full.SOLID_BLOCK_MAPPING[block] & ~item
    return {
        "PLACE_STONE": reachable & ((block == _BLOCK.WATER.value) | free) & (inventory.stone > 0),
        "PLACE_TABLE": reachable & free & (inventory.wood >= 2),
        "PLACE_FURNACE": reachable & free & (inventory.stone > 0),
        "PLACE_PLANT": reachable & (block == _BLOCK.GRASS.value) & ~item & (inventory.sapling > 0),
        "PLACE_TORCH": reachable & full.CAN_PLACE_ITEM_MAPPING[block] & ~item & (inventory.torches > 0),
    }


def _near(state: Any, block: Any) -> Array:
    around = state.player_position[None] + full.CLOSE_BLOCKS
    blocks = _floor(state, state.map)[around[:, 0], around[:, 1]]
    return ((blocks == block.value) & _in_bounds(state, around)).any()


def _tools(state: Any) -> dict[str, Array]:
    """Pickaxes and swords: materials, a table near, for iron a furnace too, and none as good yet."""
    has = state.inventory
    table = _near(state, _BLOCK.CRAFTING_TABLE) & (has.wood >= 1)
    iron = _near(state, _BLOCK.FURNACE) & (has.stone >= 1) & (has.iron >= 1) & (has.coal >= 1)
    return {
        "MAKE_WOOD_PICKAXE": table & (has.pickaxe < 1),
        "MAKE_STONE_PICKAXE": table & (has.stone >= 1) & (has.pickaxe < 2),
        "MAKE_IRON_PICKAXE": table & iron & (has.pickaxe < 3),
        "MAKE_DIAMOND_PICKAXE": table & (has.diamond >= 3) & (has.pickaxe < 4),
        "MAKE_WOOD_SWORD": table & (has.sword < 1),
        "MAKE_STONE_SWORD": table & (has.stone >= 1) & (has.sword < 2),
        "MAKE_IRON_SWORD": table & iron & (has.sword < 3),
        "MAKE_DIAMOND_SWORD": table & (has.diamond >= 2) & (has.sword < 4),
    }


def _supplies(state: Any) -> dict[str, Array]:
    """Armour, arrows and torches, made at a table (iron armour: with a furnace too)."""
    has = state.inventory
    table = _near(state, _BLOCK.CRAFTING_TABLE)
    furnace = _near(state, _BLOCK.FURNACE)
    return {
        "MAKE_IRON_ARMOUR": table & furnace & (has.iron >= 3) & (has.coal >= 3) & (has.armour < 1).any(),
        "MAKE_DIAMOND_ARMOUR": table & (has.diamond >= 3) & (has.armour < 2).any(),
        "MAKE_ARROW": table & (has.stone >= 1) & (has.wood >= 1) & (has.arrows < _MAX_ITEMS),
        "MAKE_TORCH": table & (has.coal >= 1) & (has.wood >= 1) & (has.torches < _MAX_ITEMS),
    }


def _ladders(state: Any) -> dict[str, Array]:
    """Ladders take the player standing on them; down only once enough monsters of the level are dead."""
    item = _floor(state, state.item_map)[state.player_position[0], state.player_position[1]]
    cleared = _floor(state, state.monsters_killed) >= full.MONSTERS_KILLED_TO_CLEAR_LEVEL
    return {
        "DESCEND": (item == _ITEM.LADDER_DOWN.value) & cleared & (state.player_level < _LEVELS - 1),
        "ASCEND": (item == _ITEM.LADDER_UP.value) & (state.player_level > 0),
    }


def _magic(state: Any, block: Array) -> dict[str, Array]:
    """Arrows and spells need a free slot; enchanting needs 9 mana, a gem and the table in front."""
    has = state.inventory
    slot = _floor(state, state.player_projectiles.mask).sum() < _SLOTS
    spell = slot & (state.player_mana >= 2)
    fire = (block == _BLOCK.ENCHANTMENT_TABLE_FIRE.value) & (has.ruby >= 1)
    ice = (block == _BLOCK.ENCHANTMENT_TABLE_ICE.value) & (has.sapphire >= 1)
    enchant = (state.player_mana >= 9) & (fire | ice)
    return {
        "SHOOT_ARROW": slot & (has.bow >= 1) & (has.arrows >= 1),
        "CAST_FIREBALL": spell & state.learned_spells[0],
        "CAST_ICEBALL": spell & state.learned_spells[1],
        "READ_BOOK": has.books > 0,
        "ENCHANT_SWORD": enchant & (has.sword > 0),
        "ENCHANT_ARMOUR": enchant & (has.armour.sum() > 0),
        "ENCHANT_BOW": enchant & (has.bow > 0),
    }


def _attributes(state: Any) -> dict[str, Array]:
    """An experience point raises an attribute; reaching a new floor gives one in the same step."""
    reached = state.achievements[full.LEVEL_ACHIEVEMENT_MAP[state.player_level]]
    points = state.player_xp + ((state.player_level != 0) & ~reached)
    can = points >= 1
    return {
        "LEVEL_UP_DEXTERITY": can & (state.player_dexterity < _MAX_ATTRIBUTE),
        "LEVEL_UP_STRENGTH": can & (state.player_strength < _MAX_ATTRIBUTE),
        "LEVEL_UP_INTELLIGENCE": can & (state.player_intelligence < _MAX_ATTRIBUTE),
    }

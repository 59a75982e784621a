"""HackMatrix as an environment: a masked strategy game on a 6 x 6 board, in pure JAX.

`step` is section 6 of the specification from top to bottom. Nothing resets by itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.api import CAUSES, REACHED, Env, Spec
from mxnb.envs.hackmatrix import bits
from mxnb.envs.hackmatrix.actions import act, action_mask
from mxnb.envs.hackmatrix.enemies import phase
from mxnb.envs.hackmatrix.observe import CHANNELS, OBS_SIZE, flatten, observe
from mxnb.envs.hackmatrix.rewards import components, exit_distances, siphon_quality
from mxnb.envs.hackmatrix.stage import advance, reset_state
from mxnb.envs.hackmatrix.state import TURN, State, cell_of, turn_of
from mxnb.envs.hackmatrix.tables import (
    ACTIONS,
    CELLS,
    COMPONENTS,
    MAX_STEPS,
    SIPHON,
    SIZE,
    STAGES,
    UNDO,
    WAIT,
    WARP,
)

INFO = (
    *COMPONENTS, "stage", "score", "hp", "completed", "died", "won", "invalid_action", "dropped_spawns", "new_programs",
)  # fmt: skip
ENTERED = tuple(f"{REACHED}{stage}" for stage in range(2, STAGES + 1))
_STEP, _RESOURCE = COMPONENTS.index("step_penalty"), COMPONENTS.index("resource_gain")


def select(condition: Any, yes: Any, no: Any) -> Any:
    """One of two trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def play(key: Any, state: State, action: Any) -> tuple[State, Any, dict[str, Any]]:
    """A legal action from `state`: (state, float32[15] reward parts, flags). The step counter is not touched."""
    act_key, phase_key, stage_key = jax.random.split(key, 3)
    undo = action == UNDO
    ends_turn = (action <= SIPHON) | (action == WAIT)
    start, held = state, state.undo_accumulator
    better, *missed = bits.when(
        action == SIPHON, lambda _: siphon_quality(start), (jnp.zeros((), bool), jnp.int32(0), jnp.int32(0))
    )
    done = act(act_key, state, action)
    state = done.state.replace(
        snapshot=select(ends_turn, turn_of(start), start.snapshot), snapshot_valid=start.snapshot_valid | ends_turn
    )
    exit_cell = SIZE * state.exit_row + state.exit_col
    completed = (state.stage <= STAGES) & (cell_of(state) == exit_cell) & (done.moved | (action == WARP))
    fights = ends_turn & ~completed
    after, dropped = phase(phase_key, state, fights)
    state, dropped = select(fights, (after, dropped), (state, jnp.zeros_like(dropped)))
    died = (state.hp <= 0) & ~undo
    state, lost = bits.when(completed, lambda carry: advance(stage_key, carry[0]), (state, jnp.zeros((), jnp.int32)))

    taken_back = start.replace(
        **{name: getattr(start.snapshot, name) for name in TURN},
        snapshot_valid=jnp.zeros((), bool),
    )
    taken_back = taken_back.replace(credits=jnp.maximum(taken_back.credits - 1, 0))
    state = select(undo, taken_back, state)
    distances = exit_distances(start, state)
    parts = components(start, state, action, done.kills, completed, died, distances, sum(missed) * better)
    at = np.arange(len(COMPONENTS))
    undone = jnp.where(at == _STEP, -0.01, -held - jnp.where(at == _RESOURCE, 0.05, 0.0)).astype(jnp.float32)
    parts = jnp.where(undo, undone, parts)
    held = jnp.where(ends_turn, 0.0, held) + parts
    state = state.replace(undo_accumulator=jnp.where(undo | completed, 0.0, held))
    flags = {"completed": completed, "died": died, "dropped_spawns": dropped + lost}
    flags["new_programs"] = state.owned_programs.sum() - start.owned_programs.sum()
    return state, parts, flags


def reset(key: Any) -> tuple[Any, State]:
    """A new game: (observation float32[1545], state)."""
    state = reset_state(key)
    return flatten(observe(state)), state


def step(
    key: Any, state: State, action: Any, max_episode_steps: int = MAX_STEPS
) -> tuple[Any, State, Any, Any, Any, dict[str, Any]]:
    """One action: (observation, state, reward, terminated, truncated, info), as `hackmatrix` tells."""
    start, number = state, jnp.asarray(action, jnp.int32)
    safe = jnp.clip(number, 0, len(ACTIONS) - 1)
    legal = (number == safe) & action_mask(state)[safe]
    state, parts, flags = play(key, state, safe)
    state = select(legal, state, start).replace(episode_step=start.episode_step + 1)
    parts = jnp.where(legal, parts, jnp.where(np.arange(len(COMPONENTS)) == _STEP, -0.01, 0.0)).astype(jnp.float32)
    flags = {name: value * legal for name, value in flags.items()}
    won = legal & (state.stage > STAGES)
    terminated = (flags["died"] != 0) | won
    truncated = ~terminated & (max_episode_steps > 0) & (state.episode_step >= max_episode_steps)
    told = dict(zip(COMPONENTS, parts, strict=True)) | flags
    told |= {"stage": state.stage, "score": state.score, "hp": state.hp, "won": won, "invalid_action": ~legal}
    told |= {name: state.stage >= stage for stage, name in enumerate(ENTERED, 2)}
    causes = (~(terminated | truncated), terminated & ~won, truncated, won)
    told |= dict(zip(CAUSES, causes, strict=True))
    info = {name: jnp.asarray(told[name], jnp.float32) for name in (*INFO, *CAUSES, *ENTERED)}
    return flatten(observe(state)), state, parts.sum(), terminated, truncated, info


def hackmatrix(max_episode_steps: int = MAX_STEPS) -> Env:
    """The game. max_episode_steps: after which an episode is truncated; 0 for no limit.

    Observation: float32[1545] in 0 to 1 (`observe`), 28 actions of which about five are legal at a time, info of every
    step: the 15 parts of the reward by name, stage, score, hp, completed, died, won, invalid_action, dropped_spawns,
    new_programs (below 0 where UNDO takes them back), how the episode stands (cause/alive, cause/death, cause/limit,
    cause/win), and whether each stage was reached. An illegal action changes nothing and costs the step penalty.

    Raises ValueError for a negative limit. Source: the specification's sections 1 to 18.
    """
    if max_episode_steps < 0:
        raise ValueError(f"max_episode_steps is {max_episode_steps}; use 0 for no limit, or more")

    from mxnb.envs.hackmatrix.render import render

    means = [(f"reward/{name}", name) for name in COMPONENTS]
    means += [("train/invalid_frac", "invalid_action"), ("train/dropped_spawns", "dropped_spawns")]
    means += [("train/new_programs", "new_programs")]
    spec = Spec(
        id="hackmatrix-v1", obs_shape=(OBS_SIZE,), num_actions=len(ACTIONS), action_names=ACTIONS,
        max_steps=max_episode_steps, info=("stage", "score", *CAUSES, *ENTERED), step_means=tuple(means),
        board=(OBS_SIZE - CELLS * CHANNELS, SIZE, SIZE, CHANNELS), player=(0, 1),
        step_maxima=(("stats/highest_stage", "stage"),),
        action_groups=(("move_frac", ACTIONS[:4]), ("siphon_frac", ACTIONS[4:5]), ("program_frac", ACTIONS[5:])),
    )  # fmt: skip
    return Env(spec, reset, partial(step, max_episode_steps=max_episode_steps), action_mask, render)

"""A mask against the game itself: masked means bit-equal to NOOP, open means that some key shows an effect."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.api import Env
from mxnb.envs.vector import vectorise

_PART = 250  # states compared at once


def prober(env: Env) -> SimpleNamespace:
    """The environment's compiled step and mask, for `check` and `play`."""
    actions = env.spec.num_actions

    def one(key: Any, state: Any) -> Any:
        def differs(noop: Any, action: Any) -> Any:
            # NOOP comes first and stays in the carry: one copy of the step to compile, not two.
            after = env.step(key, state, action)[1].replace(state_rng=None)
            noop = jax.tree.map(lambda a, b: jnp.where(action == 0, a, b), after, noop)
            pairs = zip(jax.tree.leaves(after), jax.tree.leaves(noop), strict=True)
            return noop, jnp.stack([(a != b).any() for a, b in pairs]).any()

        return jax.lax.scan(differs, state.replace(state_rng=None), jnp.arange(actions))[1]

    return SimpleNamespace(
        env=env,
        names=env.spec.action_names,
        # bool[B, A]: whether the action's outcome differs from NOOP's in any leaf, for the given key
        effects=jax.jit(jax.vmap(one)),
        masks=jax.jit(jax.vmap(env.action_mask)),
    )


@cache
def _programs(env: Env, num_envs: int, choose: Any) -> Any:
    venv = vectorise(env, num_envs)

    @jax.jit
    def one_step(vec: Any, key: Any, t: Any, given: Any) -> Any:
        keys = jax.random.split(key, num_envs)
        action = jax.vmap(choose, (0, 0, 0, None, None))(keys, vec.env, vec.mask, t, given)
        return venv.step(vec, action)[0]

    return jax.jit(venv.init), one_step


def play(
    env: Env, num_envs: int, choose: Any, start: Any, steps: int, every: int, seed: int, given: Any = False
) -> Any:
    """States of `num_envs` environments after every `every`-th step.

    choose(key, state, mask, t, given) -> action in one environment; start(states) changes the first states.
    """
    init, one_step = _programs(env, num_envs, choose)
    vec = init(jax.random.key(seed))
    vec = vec.replace(env=start(vec.env))
    vec = vec.replace(mask=jax.jit(jax.vmap(env.action_mask))(vec.env))
    kept = []
    for i in range(steps // every):
        for j, key in enumerate(jax.random.split(jax.random.key(1000 * seed + i), every)):
            vec = one_step(vec, key, jnp.int32(i * every + j), jnp.asarray(given))
        kept.append(jax.tree.map(np.asarray, vec.env.replace(state_rng=None)))  # no step reads state_rng
    return jax.tree.map(lambda *x: np.concatenate(x), *kept)


def distinct(states: Any) -> int:
    rows = zip(*[np.asarray(x).reshape(len(states.map), -1) for x in jax.tree.leaves(states)], strict=True)
    return len({hash(b"".join(np.ascontiguousarray(x).tobytes() for x in row)) for row in rows})


def check(game: SimpleNamespace, states: Any, seed: int) -> np.ndarray:
    """Raises with the first states whose mask is wrong; returns how often each action was open."""
    count = len(states.map)
    mask, found = [], []
    for start in range(0, count, _PART):
        part = jax.tree.map(lambda x: x[np.arange(start, start + _PART) % count], states)  # noqa: B023
        keys = jax.random.split(jax.random.key(seed + start), _PART)
        mask.append(np.asarray(game.masks(part)))
        found.append(np.asarray(game.effects(keys, part)))
    mask, found = np.concatenate(mask)[:count], np.concatenate(found)[:count]
    wrong = np.argwhere(found & ~mask)
    assert not len(wrong), f"masked, yet has an effect: {[(int(i), game.names[a]) for i, a in wrong[:5]]}"
    assert mask[:, 0].all()
    # Effects that need luck (a sapling comes in 1 of 10 tries) get more keys, for the states still in doubt.
    doubt = mask & ~found
    doubt[:, 0] = False
    for attempt in range(40):
        rows = np.flatnonzero(doubt.any(1))
        if not len(rows):
            break
        for start in range(0, len(rows), _PART):
            at = np.resize(rows[start : start + _PART], _PART)  # one shape, one compilation
            keys = jax.random.split(jax.random.key(7919 * attempt + start), _PART)
            some = np.asarray(game.effects(keys, jax.tree.map(lambda x: x[at], states)))  # noqa: B023
            np.logical_and.at(doubt, at, ~some)
    left = np.argwhere(doubt)
    assert not len(left), f"open, yet never has an effect: {[(int(i), game.names[a]) for i, a in left[:5]]}"
    return mask.sum(0)

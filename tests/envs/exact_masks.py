"""A mask against the game itself: masked means bit-equal to NOOP, open means that some key shows an effect."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.api import Env

PART = 64  # states compared at once


def prober(env: Env) -> SimpleNamespace:
    """The environment's compiled step and mask, for `check`."""
    n = env.spec.num_actions

    def one(key: Any, state: Any, actions: Any, count: Any) -> Any:
        def tell(i: Any, seen: Any) -> Any:
            # NOOP comes first and stays in the carry: one copy of the step to compile, not two.
            noop, found = seen
            after = env.step(key, state, actions[i])[1].replace(state_rng=None)
            noop = jax.tree.map(lambda a, b: jnp.where(i == 0, a, b), after, noop)
            pairs = zip(jax.tree.leaves(after), jax.tree.leaves(noop), strict=True)
            return noop, found.at[actions[i]].set(jnp.stack([(a != b).any() for a, b in pairs]).any())

        start = state.replace(state_rng=None), jnp.zeros(n, bool)
        return jax.lax.fori_loop(0, count, tell, start)[1]

    compiled = jax.jit(jax.vmap(one, (0, 0, 0, None)))

    def effects(keys: Any, states: Any, wanted: np.ndarray | None = None) -> np.ndarray:
        """bool[B, A]: whether an action's outcome differs from NOOP's in any leaf, for the given key.

        Only of the wanted ones, bool[B, A]: the others are not played, and False.
        """
        wanted = np.ones((len(keys), n), bool) if wanted is None else wanted.copy()
        wanted[:, 0] = True
        actions = np.argsort(~wanted, axis=1, kind="stable").astype(np.int32)
        actions[~np.take_along_axis(wanted, actions, 1)] = 0
        return np.asarray(compiled(keys, states, actions, wanted.sum(1).max()))

    return SimpleNamespace(
        env=env, names=env.spec.action_names, effects=effects, masks=jax.jit(jax.vmap(env.action_mask))
    )


@cache
def _programs(env: Env, num_envs: int, choose: Any) -> Any:
    """The first states and one step of all of them. What ends begins again as it first was: to generate worlds while
    playing, as `vectorise` does, would take as long to compile as the rest."""

    def init(key: Any) -> Any:
        return jax.lax.map(lambda key: env.reset(key)[1], jax.random.split(key, num_envs), batch_size=8)

    def tick(key: Any, first: Any, state: Any, t: Any, given: Any) -> Any:
        choice, luck = jax.random.split(key)
        action = choose(choice, state, env.action_mask(state), t, given)
        _, after, _, terminated, truncated, _ = env.step(luck, state, action)
        again = lambda start, on: jnp.where(terminated | truncated, start, on)
        return jax.tree.map(again, first, after.replace(state_rng=first.state_rng))

    @jax.jit
    def one_step(key: Any, first: Any, states: Any, t: Any, given: Any) -> Any:
        return jax.vmap(tick, (0, 0, 0, None, None))(jax.random.split(key, num_envs), first, states, t, given)

    return jax.jit(init), one_step


def play(
    env: Env, num_envs: int, choose: Any, start: Any, steps: int, every: int, seed: int, given: Any = False
) -> Any:
    """States of `num_envs` environments after every `every`-th step.

    choose(key, state, mask, t, given) -> action in one environment; start(states) changes the first states.
    """
    init, one_step = _programs(env, num_envs, choose)
    first = states = jax.tree.map(jnp.asarray, start(init(jax.random.key(seed))))
    kept = []
    for i in range(steps // every):
        for j, key in enumerate(jax.random.split(jax.random.key(1000 * seed + i), every)):
            states = one_step(key, first, states, jnp.int32(i * every + j), jnp.asarray(given))
        kept.append(jax.tree.map(np.asarray, states.replace(state_rng=None)))  # no step reads state_rng
    return jax.tree.map(lambda *x: np.concatenate(x), *kept)


def distinct(states: Any) -> int:
    rows = zip(*[np.asarray(x).reshape(len(states.map), -1) for x in jax.tree.leaves(states)], strict=True)
    return len({hash(b"".join(np.ascontiguousarray(x).tobytes() for x in row)) for row in rows})


def check(game: SimpleNamespace, states: Any, seed: int) -> np.ndarray:
    """Raises with the first states whose mask is wrong; returns how often each action was open."""
    count = len(states.map)
    mask, found = [], []
    for start in range(0, count, PART):
        part = jax.tree.map(lambda x: x[np.arange(start, start + PART) % count], states)  # noqa: B023
        keys = jax.random.split(jax.random.key(seed + start), PART)
        mask.append(np.asarray(game.masks(part)))
        found.append(game.effects(keys, part))
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
        for start in range(0, len(rows), PART):
            at = np.resize(rows[start : start + PART], PART)  # one shape, one compilation
            keys = jax.random.split(jax.random.key(7919 * attempt + start), PART)
            some = game.effects(keys, jax.tree.map(lambda x: x[at], states), doubt[at])  # noqa: B023
            np.logical_and.at(doubt, at, ~some)
    left = np.argwhere(doubt)
    assert not len(left), f"open, yet never has an effect: {[(int(i), game.names[a]) for i, a in left[:5]]}"
    return mask.sum(0)

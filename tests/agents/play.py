"""Training many seeds of a small agent at once, and watching what each has learned."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def train(agent: Any, seeds: int = 10) -> Any:
    """The policies after all updates, leaves [seeds, ...]."""

    def one(key: Any) -> Any:
        return jax.lax.fori_loop(0, agent.num_updates, lambda _, s: agent.step(s)[0], agent.init(key)).policy

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))


def watch(agent: Any, env: Any, policies: Any, steps: int, worlds: int = 8) -> Any:
    """One greedy episode in each of `worlds` worlds by each policy: (obs, value, action, reward) [S, W, T, ...].

    Steps after the end repeat the game, so give the episode's own length.
    """

    def episode(policy: Any, key: Any) -> Any:
        obs, state = env.reset(key)

        def tick(carry: Any, key: Any) -> Any:
            obs, state, memory = carry
            action, memory, extras = agent.act(policy, obs, env.action_mask(state), memory, None)
            after, state, reward, *_ = env.step(key, state, action)
            return (after, state, memory), (obs, extras["value"], action, reward)

        return jax.lax.scan(tick, (obs, state, agent.memory(policy)), jax.random.split(key, steps))[1]

    keys = jax.random.split(jax.random.key(1), worlds)
    seen = jax.jit(jax.vmap(jax.vmap(episode, (None, 0)), (0, None)))(policies, keys)
    return jax.tree.map(np.asarray, seen)

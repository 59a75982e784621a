"""Many environments in step, with exact and independent resets at nearly the price of none.

Resetting every environment on every step makes a world per step and throws nearly all away; sharing one
world between resets makes them dependent. Here a queue of ready worlds rides along in the state: a finished
environment takes the next world, each world is used once, and new ones are made only when the queue is
empty. The cost follows the number of episodes, not the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mxnb.envs.api import Env, Spec

# States larger than this many numbers (a 64 x 64 map, say) are slow to make in wide batches on a CPU: 0.55 ms
# a world 8 at a time, 5 ms a world 256 at a time. Small ones are cheapest all at once.
_LARGE_WORLD = 1024
_WORLDS_AT_A_TIME = 8


@struct.dataclass
class VecState:
    """All environments and what they need to go on; leaves lead with N = num_envs."""

    env: Any  # the environments' own states [N, ...]
    obs: Any  # [N, *obs_shape] what the next action is chosen from
    mask: Any  # bool[N, num_actions], or None when every action is always legal
    needs_reset: Any  # bool[N]; always False in same_step mode
    returns: Any  # float32[N] undiscounted reward of the running episode so far
    lengths: Any  # int32[N] steps of the running episode so far
    queue: Any  # (obs, state) of ready worlds [C, ...]
    head: Any  # int32: the next unused world; C when the queue is empty
    key: Any  # PRNG key of everything random in the environments


class VecStep(NamedTuple):
    """What one tick did, in all environments."""

    reward: Any  # float32[N]
    terminated: Any  # bool[N]
    truncated: Any  # bool[N]
    final_obs: Any  # [N, *obs_shape] the observation this tick led to, before any reset
    is_first: Any  # bool[N]: the observation now in VecState begins an episode
    info: dict[str, Any]  # episode_return, episode_length and Spec.info [N]; meaningful where an episode ended


@dataclass(frozen=True)
class VecEnv:
    """`num_envs` copies: init(key) -> VecState; step(VecState, action[N]) -> (VecState, VecStep)."""

    spec: Spec
    num_envs: int
    autoreset: str
    init: Callable[..., VecState]
    step: Callable[..., tuple[VecState, VecStep]]


def strong(tree: Any) -> Any:
    """Drops weak types, which a checkpoint would not keep and a scan carry would not match."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)


def _batch_size(env: Env) -> int | None:
    _, state = jax.eval_shape(env.reset, jax.random.key(0))
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state))
    return _WORLDS_AT_A_TIME if numbers > _LARGE_WORLD else None


def make_worlds(env: Env, key: Any, count: int) -> Any:
    """`count` fresh (obs, state), one key each."""
    keys = jax.random.split(key, count)
    batch = _batch_size(env)
    if batch is None or count <= batch:
        return strong(jax.vmap(env.reset)(keys))
    return strong(jax.lax.map(env.reset, keys, batch_size=batch))


def vectorise(env: Env, num_envs: int, *, autoreset: str = "same_step", queue_size: int = 0) -> VecEnv:
    """`num_envs` copies of `env` that reset themselves from a queue of ready worlds.

    autoreset "same_step" (Gymnasium's word): a tick that ends an episode returns its last observation as
    `final_obs` and already holds the first observation of the next episode in the state.
    queue_size: worlds made at once; 0 chooses 8 for large worlds and `num_envs` for small ones.
    Raises ValueError for sizes below 1 and for an unknown mode.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}; it must be at least 1")
    if queue_size < 0:
        raise ValueError(f"queue_size is {queue_size}; it must be at least 1, or 0 to choose it")
    if autoreset != "same_step":
        raise ValueError(f"autoreset is {autoreset!r}; only 'same_step' is available")
    size = queue_size or (_batch_size(env) or num_envs)

    def masks(state: Any) -> Any:
        if jax.eval_shape(env.action_mask, jax.tree.map(lambda x: x[0], state)) is None:
            return None
        return jax.vmap(env.action_mask)(state)

    def init(key: Any) -> VecState:
        key, first_key, queue_key = jax.random.split(key, 3)
        obs, state = make_worlds(env, first_key, num_envs)
        return VecState(
            env=state,
            obs=obs,
            mask=masks(state),
            needs_reset=jnp.zeros(num_envs, bool),
            returns=jnp.zeros(num_envs),
            lengths=jnp.zeros(num_envs, jnp.int32),
            queue=make_worlds(env, queue_key, size),
            head=jnp.zeros((), jnp.int32),
            key=key,
        )

    def step(vec: VecState, action: Any) -> tuple[VecState, VecStep]:
        key, step_key = jax.random.split(vec.key)
        keys = jax.random.split(step_key, num_envs)
        obs, state, reward, terminated, truncated, info = jax.vmap(env.step)(keys, vec.env, action)
        obs, state = jax.tree.map(lambda new, old: new.astype(old.dtype), (obs, state), (vec.obs, vec.env))
        reward = reward.astype(jnp.float32)
        done = terminated | truncated
        returns, lengths = vec.returns + reward, vec.lengths + 1
        info = {name: info[name] for name in env.spec.info}
        tick = VecStep(
            reward, terminated, truncated, obs, done, {"episode_return": returns, "episode_length": lengths, **info}
        )
        worlds, queue, head, key = _take_worlds(env, (obs, state), done, vec.queue, vec.head, key)
        return VecState(
            env=worlds[1],
            obs=worlds[0],
            mask=masks(worlds[1]),
            needs_reset=vec.needs_reset,
            returns=jnp.where(done, 0.0, returns),
            lengths=jnp.where(done, 0, lengths),
            queue=queue,
            head=head,
            key=key,
        ), tick

    return VecEnv(env.spec, num_envs, autoreset, init, step)


def _take_worlds(env: Env, worlds: Any, done: Any, queue: Any, head: Any, key: Any) -> tuple[Any, Any, Any, Any]:
    """Gives each `done` environment, in order, the next unused world; refills the queue only when empty."""
    num_envs, size = done.shape[0], jax.tree.leaves(queue)[0].shape[0]

    def refill(queue: Any, head: Any, key: Any) -> tuple[Any, Any, Any]:
        key, world_key = jax.random.split(key)
        return make_worlds(env, world_key, size), jnp.zeros_like(head), key

    def keep(queue: Any, head: Any, key: Any) -> tuple[Any, Any, Any]:
        return queue, head, key

    def body(carry: Any) -> Any:
        worlds, waiting, queue, head, key = carry
        queue, head, key = jax.lax.cond(head >= size, refill, keep, queue, head, key)
        ready = jnp.arange(size)
        envs = jnp.nonzero(waiting, size=size, fill_value=num_envs)[0]
        envs = jnp.where(head + ready < size, envs, num_envs)  # num_envs is dropped by the scatter
        slots = jnp.minimum(head + ready, size - 1)
        worlds = jax.tree.map(lambda old, new: old.at[envs].set(new[slots], mode="drop"), worlds, queue)
        taken = (envs < num_envs).sum(dtype=head.dtype)
        return worlds, waiting.at[envs].set(False, mode="drop"), queue, head + taken, key

    carry = jax.lax.while_loop(lambda c: c[1].any(), body, (worlds, done, queue, head, key))
    return carry[0], carry[2], carry[3], carry[4]

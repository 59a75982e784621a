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

from mxnb.envs.api import Env, Spec, strong

# States larger than this many numbers (a 64 x 64 map, say) are slow to make in wide batches on a CPU: 0.55 ms
# a world 8 at a time, 5 ms a world 256 at a time. Small ones are cheapest all at once.
# Queues of 4 to 32 worlds step alike within the machine's noise (benchmarks/results/queue_size.json).
_LARGE_WORLD = 1024
_WORLDS_AT_A_TIME = 8
AUTORESET = ("same_step", "next_step")


@struct.dataclass
class VecState:
    """All environments and what they need to go on; leaves lead with N = num_envs (queue, head, key: S = shards)."""

    env: Any  # the environments' own states [N, ...]
    obs: Any  # [N, *obs_shape] what the next action is chosen from
    mask: Any  # bool[N, (agents,) num_actions], or None when every action is always legal
    needs_reset: Any  # bool[N]: the next tick resets instead of acting; always False in same_step mode
    returns: Any  # float32[N(, agents)] undiscounted reward of the running episode so far
    lengths: Any  # int32[N] steps of the running episode so far
    queue: Any  # (obs, state) of ready worlds [S, C, ...]
    head: Any  # int32[S]: the next unused world; C when a shard's queue is empty
    key: Any  # PRNG keys [S] of everything random in the environments


class VecStep(NamedTuple):
    """What one tick did, in all environments."""

    reward: Any  # float32[N(, agents)]
    terminated: Any  # bool[N]
    truncated: Any  # bool[N]
    final_obs: Any  # [N, *obs_shape] the observation this tick led to, before any reset
    is_first: Any  # bool[N]: the observation now in VecState begins an episode
    info: dict[str, Any]  # episode_return, episode_length and Spec.info [N]; meaningful where an episode ended


@dataclass(frozen=True)
class VecEnv:
    """`num_envs` copies: init(key) -> VecState; step(VecState, action[N, ...]) -> (VecState, VecStep)."""

    spec: Spec
    num_envs: int
    autoreset: str
    shards: int
    init: Callable[..., VecState]
    step: Callable[..., tuple[VecState, VecStep]]


def _batch_size(env: Env) -> int | None:
    _, state = jax.eval_shape(env.reset, jax.random.key(0))
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state))
    return _WORLDS_AT_A_TIME if numbers > _LARGE_WORLD else None


def make_worlds(env: Env, key: Any, count: int) -> Any:
    """`count` fresh (obs, state), one key each."""
    return _worlds(env, jax.random.split(key, count))


def _worlds(env: Env, keys: Any) -> Any:
    batch = _batch_size(env)
    if batch is None or len(keys) <= batch:
        return strong(jax.vmap(env.reset)(keys))
    return strong(jax.lax.map(env.reset, keys, batch_size=batch))


def vectorise(env: Env, num_envs: int, *, autoreset: str = "same_step", queue_size: int = 0, shards: int = 1) -> VecEnv:
    """`num_envs` copies of `env` that reset themselves from a queue of ready worlds.

    autoreset, in Gymnasium's words. "same_step": a tick that ends an episode returns its last observation as
    `final_obs` and already holds the first observation of the next episode in the state. "next_step": the
    state holds the last observation; the next tick ignores that environment's action, gives reward 0 and the
    first observation (`is_first`), and is no step of any episode.
    queue_size: worlds made at once; 0 chooses 8 for large worlds and `num_envs` per shard for small ones.
    shards: parts of the env axis, each with its own queue and keys, so that they can live on different
    devices: traced within `jax.set_mesh`, a step runs on each device for itself. Results depend on `shards`.
    Raises ValueError for sizes below 1 or that do not divide, and for an unknown mode.
    """
    _check_sizes(num_envs, autoreset, queue_size, shards)
    part = num_envs // shards
    size = queue_size or (_batch_size(env) or part)
    waits = autoreset == "next_step"
    agents = (len(env.spec.agents),) if env.spec.agents else ()

    def masks(state: Any, needs_reset: Any) -> Any:
        if jax.eval_shape(env.action_mask, jax.tree.map(lambda x: x[0], state)) is None:
            return None
        mask = jax.vmap(env.action_mask)(state)
        return mask | _over(needs_reset, mask) if waits else mask

    def init(key: Any) -> VecState:
        key, first_key, queue_key = jax.random.split(key, 3)
        rested = jnp.zeros(num_envs, bool)
        queue_keys = jax.vmap(lambda k: jax.random.split(k, size))(_keys(queue_key, shards)).reshape(-1)
        # In one go: a second place that makes worlds would take as long to compile again.
        worlds = _worlds(env, jnp.concatenate([jax.random.split(first_key, num_envs), queue_keys]))
        obs, state = jax.tree.map(lambda x: x[:num_envs], worlds)
        queue = jax.tree.map(lambda x: x[num_envs:].reshape(shards, size, *x.shape[1:]), worlds)
        return VecState(
            env=state,
            obs=obs,
            mask=masks(state, rested),
            needs_reset=rested,
            returns=jnp.zeros((num_envs, *agents)),
            lengths=jnp.zeros(num_envs, jnp.int32),
            queue=queue,
            head=jnp.zeros(shards, jnp.int32),
            key=_keys(key, shards),
        )

    def step(vec: VecState, action: Any) -> tuple[VecState, VecStep]:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            return tick(vec, action)
        over_devices = jax.sharding.PartitionSpec(mesh.axis_names)
        # Without it, each device would take part in every other's loop over worlds.
        return jax.shard_map(tick, in_specs=over_devices, out_specs=over_devices, check_vma=False)(vec, action)

    def tick(vec: VecState, action: Any) -> tuple[VecState, VecStep]:
        here = vec.lengths.shape[0]  # num_envs, or this device's part of them
        key, step_key = jnp.moveaxis(jax.vmap(jax.random.split)(vec.key), 1, 0)
        keys = jax.vmap(lambda k: jax.random.split(k, part))(step_key).reshape(here)
        obs, state, reward, terminated, truncated, info = jax.vmap(env.step)(keys, vec.env, action)
        obs, state = jax.tree.map(lambda new, old: new.astype(old.dtype), (obs, state), (vec.obs, vec.env))
        resets = vec.needs_reset
        reward = reward.astype(jnp.float32)
        if waits:
            reward = jnp.where(_over(resets, reward), 0.0, reward)
            terminated, truncated = terminated & ~resets, truncated & ~resets
        done = terminated | truncated
        returns, lengths = vec.returns + reward, vec.lengths + ~resets
        info = {"episode_return": returns, "episode_length": lengths} | {name: info[name] for name in env.spec.all_info}
        starts = resets if waits else done
        worlds, queue, head, key = _take_worlds(env, (obs, state), starts, vec.queue, vec.head, key)
        seen = VecStep(reward, terminated, truncated, worlds[0] if waits else obs, starts, info)
        needs_reset = done if waits else resets
        return VecState(
            env=worlds[1],
            obs=worlds[0],
            mask=masks(worlds[1], needs_reset),
            needs_reset=needs_reset,
            returns=jnp.where(_over(done, returns), 0.0, returns),
            lengths=jnp.where(done, 0, lengths),
            queue=queue,
            head=head,
            key=key,
        ), seen

    return VecEnv(env.spec, num_envs, autoreset, shards, init, step)


def _check_sizes(num_envs: int, autoreset: str, queue_size: int, shards: int) -> None:
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}; it must be at least 1")
    if queue_size < 0:
        raise ValueError(f"queue_size is {queue_size}; it must be at least 1, or 0 to choose it")
    if autoreset not in AUTORESET:
        raise ValueError(f"autoreset is {autoreset!r}; use 'same_step' (PPO) or 'next_step' (Dreamer)")
    if shards < 1 or num_envs % shards:
        fits = max(s for s in range(1, num_envs + 1) if num_envs % s == 0 and s <= max(shards, 1))
        raise ValueError(f"shards is {shards}, which does not divide num_envs = {num_envs}; use shards = {fits}")


def _keys(key: Any, shards: int) -> Any:
    """A key a shard; a single shard goes on with the key itself."""
    return key[None] if shards == 1 else jax.random.split(key, shards)


def _over(flag: Any, x: Any) -> Any:
    """flag[N] with trailing axes of length 1, to broadcast over x[N, ...]."""
    return flag.reshape(flag.shape + (1,) * (x.ndim - flag.ndim))


def _take_worlds(env: Env, worlds: Any, starts: Any, queue: Any, head: Any, key: Any) -> tuple[Any, Any, Any, Any]:
    """Gives each environment in `starts`, in order, its shard's next unused world; refills only empty queues."""
    num_envs = starts.shape[0]
    shards, size = jax.tree.leaves(queue)[0].shape[:2]
    part = num_envs // shards
    first = jnp.arange(shards)[:, None] * part

    def refill(shard: Any) -> Any:
        def make(queue: Any, head: Any, key: Any) -> Any:
            key, world_key = jax.random.split(key)
            return make_worlds(env, world_key, size), jnp.zeros_like(head), key

        needs, *rest = shard
        return jax.lax.cond(needs, make, lambda *same: same, *rest)

    def body(carry: Any) -> Any:
        worlds, waiting, queue, head, key = carry
        waits = waiting.reshape(shards, part)
        needs = (head >= size) & waits.any(1)
        # An outer cond, since even a map that changes nothing copies the queues.
        queue, head, key = jax.lax.cond(
            needs.any(), lambda *rest: jax.lax.map(refill, (needs, *rest)), lambda *same: same, queue, head, key
        )
        envs = jax.vmap(lambda w: jnp.nonzero(w, size=size, fill_value=part)[0])(waits)
        slots = head[:, None] + jnp.arange(size)[None]
        taken = (envs < part) & (slots < size)
        envs = jnp.where(taken, envs + first, num_envs).reshape(-1)  # num_envs is dropped by the scatter
        slots = (jnp.minimum(slots, size - 1) + jnp.arange(shards)[:, None] * size).reshape(-1)
        flat = jax.tree.map(lambda x: x.reshape(shards * size, *x.shape[2:]), queue)
        worlds = jax.tree.map(lambda old, new: old.at[envs].set(new[slots], mode="drop"), worlds, flat)
        waiting = waiting.at[envs].set(False, mode="drop")
        return worlds, waiting, queue, head + taken.sum(-1, dtype=head.dtype), key

    carry = jax.lax.while_loop(lambda c: c[1].any(), body, (worlds, starts, queue, head, key))
    return carry[0], carry[2], carry[3], carry[4]

"""Any task as one endless stream: a death costs a fixed number of empty steps, then a new life begins.

Each step alive pays 1, the one that dies too; then come `r_reset` steps that pay nothing and in which actions do
nothing; then a fresh world. With independent lives of L steps the gain is E[L] / (E[L] + r_reset), so the best policy
is the one that lives longest. Neither a time limit nor a win is a death.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mxnb.envs.api import CAUSES, TICK_INFO, Env, Spec

CHAINS = ("explicit", "collapsed")
REWARDS = ("alive", "native")
PREFIX = "survival-"


@struct.dataclass
class SurvivalState:
    """A life, or what follows it."""

    env: Any  # the environment's own state; it stands still after a death
    left: Any  # int32: empty steps until the next life; 0 while alive
    life: Any  # int32: steps lived
    info: Any  # {name: float32}: the environment's info at the last step lived


def survival(env: Env, r_reset: int = 50, *, chain: str = "explicit", reward: str = "alive") -> Env:
    """`env` as a continuing task in which a death costs `r_reset` steps.

    chain: "explicit" plays those steps: the observation is 0 but for its appended last entry, left / r_reset (for
    pictures a constant channel, which is 255 left / r_reset where they are whole numbers), and `terminated` comes with
    the last of them. "collapsed" makes the death one transition that takes tau = 1 + r_reset steps, and `terminated`
    comes with it: the same gain and the same values while alive, without playing the empty steps.
    reward: "alive" pays 1 a step lived; "native" pays the environment's own reward.

    A time limit or a win is `truncated`, and the next life begins at once. Which it was is in info: cause/alive,
    cause/death, cause/limit, cause/win; so are life (steps lived), tick/alive (1 where the action counted) and
    tick/tau (steps that the transition takes). `terminated` means that the next world follows, not that the future is
    worth nothing: `mxnb.agents.average_reward` learns from it.

    Raises ValueError for r_reset below 0, an unknown chain or reward, several agents, and what is survival already.
    """
    _check(env.spec, r_reset, chain, reward)
    inner, explicit = env.spec, chain == "explicit"
    zero = jnp.zeros(inner.obs_shape, inner.obs_dtype)
    shape = inner.obs_shape or (1,)
    flat, whole = len(shape) == 1, jnp.issubdtype(inner.obs_dtype, jnp.integer)
    # Vectors of whole numbers and bits of any shape become float32: in them a share could only be 0 or 1.
    keeps = jnp.issubdtype(inner.obs_dtype, jnp.floating) or (whole and not flat)
    dtype = inner.obs_dtype if keeps else jnp.float32

    def look(obs: Any, left: Any) -> Any:
        share = left / max(r_reset, 1)
        channel = jnp.full((*shape[:-1], 1), share if flat or not whole else jnp.round(255.0 * share))
        return jnp.concatenate([obs.reshape(shape).astype(dtype), channel.astype(dtype)], -1)

    def reset(key: Any) -> tuple[Any, SurvivalState]:
        obs, state = env.reset(key)
        none = jnp.zeros((), jnp.int32)
        return look(obs, none), SurvivalState(state, none, none, {name: jnp.zeros(()) for name in names})

    def step(key: Any, state: SurvivalState, action: Any) -> tuple[Any, ...]:
        alive = state.left == 0
        obs, after, paid, terminated, truncated, info = env.step(key, state.env, action)
        told = {name: jnp.where(alive, jnp.float32(info[name]), 0.0) for name in steps}
        info = {name: jnp.float32(info[name]) for name in inner.info} | _causes(inner, info, terminated, truncated)
        died = alive & (info["cause/death"] > 0)
        cut = alive & ((info["cause/limit"] > 0) | (info["cause/win"] > 0))
        chosen = lambda new, old: jax.tree.map(lambda a, b: jnp.where(alive, a, b), new, old)
        info = chosen(info, state.info)
        if explicit:
            left = jnp.where(died, r_reset, jnp.maximum(state.left - 1, 0)).astype(jnp.int32)
            ends = (died & (r_reset == 0)) | (state.left == 1)
            tau = jnp.ones(())
        else:
            left, ends, tau = jnp.zeros((), jnp.int32), died, 1.0 + r_reset * died
        life = state.life + alive
        paid = jnp.where(alive, 1.0 if reward == "alive" else jnp.float32(paid), 0.0)
        seen = look(jnp.where(alive & ~died, obs, zero), left)
        counted = dict(zip(("life", *TICK_INFO), map(jnp.float32, (life, alive, tau)), strict=True))
        return seen, SurvivalState(chosen(after, state.env), left, life, info), paid, ends, cut, told | info | counted

    def action_mask(state: SurvivalState) -> Any:
        mask = env.action_mask(state.env)
        return None if mask is None else mask | (state.left > 0)

    def render(state: SurvivalState) -> Any:
        picture = env.render(state.env)
        return None if picture is None else jnp.where(state.left > 0, picture // 3, picture)

    names = tuple(dict.fromkeys((*inner.info, *CAUSES)))
    steps = [name for name in inner.all_info if name not in inner.info]  # what tells of a step alone: 0 in an empty one
    spec = replace(
        inner,
        id=f"{PREFIX}{inner.id}",
        obs_shape=(*shape[:-1], shape[-1] + 1),
        obs_dtype=dtype,
        num_binary=inner.num_binary if flat else 0,  # a picture's bits no longer come first
        max_steps=inner.max_steps + r_reset if inner.max_steps and explicit else inner.max_steps,
        info=(*names, "life", *TICK_INFO),
    )
    return Env(spec, reset, step, action_mask, render)


def _causes(spec: Spec, info: Any, terminated: Any, truncated: Any) -> dict[str, Any]:
    """How the life stands; where the environment does not tell, every end that is no time limit is a death."""
    if set(CAUSES) <= set(spec.info):
        return {name: jnp.float32(info[name]) for name in CAUSES}
    limit = truncated & ~terminated
    stands = (~(terminated | truncated), terminated, limit, jnp.zeros((), bool))
    return {name: cause.astype(jnp.float32) for name, cause in zip(CAUSES, stands, strict=True)}


def _check(spec: Spec, r_reset: int, chain: str, reward: str) -> None:
    problems = []
    if isinstance(r_reset, bool) or not isinstance(r_reset, int | np.integer) or r_reset < 0:
        problems.append(f"r_reset is {r_reset!r}; a death costs a whole number of steps, 0 or more (50 is usual)")
    if chain not in CHAINS:
        problems.append(f"chain is {chain!r}; use 'explicit' or 'collapsed'")
    if reward not in REWARDS:
        problems.append(f"reward is {reward!r}; use 'alive' or 'native'")
    if spec.id.startswith(PREFIX):
        problems.append(f"{spec.id} is an endless stream already; give survival the environment itself")
    if spec.agents:
        problems.append(f"{spec.id} has {len(spec.agents)} agents; survival is for one")
    if problems:
        raise ValueError("\n".join(problems))

"""Broken environments, each wrong in one way, with the words that must name the mend."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mxnb.envs.api import Env, Spec


@struct.dataclass
class WalkState:
    x: Any  # int32
    t: Any  # int32


SPEC = Spec("walk-v0", (3,), num_binary=1, num_actions=3, max_steps=20, info=("far",))


def look(state: Any) -> Any:
    return jnp.stack([state.x > 0, state.x / 10, state.t / 20]).astype(jnp.float32)


def reset(key: Any) -> Any:
    state = WalkState(jax.random.randint(key, (), -2, 3), jnp.zeros((), jnp.int32))
    return look(state), state


def step(key: Any, state: Any, action: Any) -> Any:
    state = state.replace(x=state.x + action - 1, t=state.t + 1)
    terminated = jnp.abs(state.x) > 5
    truncated = (state.t >= 20) & ~terminated
    info = {"far": jnp.abs(state.x).astype(jnp.float32)}
    return look(state), state, state.x.astype(jnp.float32), terminated, truncated, info


def mask(state: Any) -> Any:
    return jnp.stack([state.x > -5, jnp.ones((), bool), state.x < 5])


WALK = Env(SPEC, reset, step, mask, lambda state: jnp.zeros((8, 8, 3), jnp.uint8))
"""The same without a mistake."""


def _with(**changes: Any) -> Env:
    return Env(**{**{f: getattr(WALK, f) for f in ("spec", "reset", "step", "action_mask", "render")}, **changes})


def _step(change: Callable[..., Any]) -> Env:
    """Steps whose results pass through change(key, state before, results)."""
    return _with(step=lambda key, state, action: change(key, state, step(key, state, action)))


def _self_reset(key: Any, state: Any, out: Any) -> Any:
    done = out[3] | out[4]
    fresh = reset(jax.random.split(key)[1])
    obs, state = jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, out[:2])
    return obs, state, *out[2:]


ZOO: dict[str, tuple[Env, str, str]] = {
    "another observation shape": (
        _step(lambda key, state, out: (out[0][:2], *out[1:])),
        "observations",
        "step's observation is float32[2], expected float32[3]",
    ),
    "an observation of integers": (
        _with(reset=lambda key: (reset(key)[0].astype(jnp.int32), reset(key)[1])),
        "observations",
        "reset's observation is int32[3], expected float32[3]",
    ),
    "five results, as gymnax once gave": (
        _step(lambda key, state, out: (*out[:4], out[5])),
        "observations",
        "step returns 5 results; return obs, state, reward, terminated, truncated, info",
    ),
    "a state that changes type": (
        _step(lambda key, state, out: (out[0], out[1].replace(x=out[1].x * 1.0), *out[2:])),
        "state",
        "state.x is int32[] after reset and float32[] after a step, so a scan cannot carry it; cast it in step",
    ),
    "a state with other fields": (
        _step(lambda key, state, out: (out[0], (out[1].x, out[1].t), *out[2:])),
        "state",
        "return the same fields from both",
    ),
    "flags that are numbers": (
        _step(lambda key, state, out: (*out[:3], out[3].astype(jnp.float32), *out[4:])),
        "results",
        "terminated is float32[], expected bool[]",
    ),
    "a reward of shape 1": (
        _step(lambda key, state, out: (*out[:2], out[2][None], *out[3:])),
        "results",
        "reward is float32[1], expected float32[]; return one float32 number",
    ),
    "info without its names": (
        _step(lambda key, state, out: (*out[:5], {})),
        "results",
        "info lacks far, which Spec.info names",
    ),
    "a reward that is NaN": (
        _step(lambda key, state, out: (*out[:2], jnp.log(out[2]), *out[3:])),
        "numbers",
        "a reward is NaN or infinite",
    ),
    "bits that are no bits": (
        _step(lambda key, state, out: (out[0].at[0].mul(0.5), *out[1:])),
        "numbers",
        "entry 0 of a step's observation is not 0 or 1, but num_binary is 1; lower it",
    ),
    "a mask of numbers": (
        _with(action_mask=lambda state: mask(state).astype(jnp.float32)),
        "mask",
        "the mask is float32[3], expected bool[3]; return one boolean an action",
    ),
    "a state without legal actions": (
        _with(action_mask=lambda state: mask(state) & (state.t < 4)),
        "legal",
        "a reachable state has no legal action; keep one action (NOOP, say) legal everywhere",
    ),
    "an episode beyond its limit": (
        _step(lambda key, state, out: (*out[:3], jnp.zeros((), bool), jnp.zeros((), bool), out[5])),
        "ends",
        "but Spec.max_steps is 20; truncate there",
    ),
    "an environment that resets itself": (
        _step(_self_reset),
        "final obs",
        "step resets the environment itself, so the episode's last observation is lost",
    ),
    "randomness from outside the key": (
        _step(lambda key, state, out: (out[0].at[1].add(random.random()), *out[1:])),
        "key",
        "the same key gives different results",
    ),
    "a value from the host": (
        _step(lambda key, state, out: (out[0].at[1].set(float(isinstance(state.x, jax.core.Tracer))), *out[1:])),
        "no jit",
        "a step without jit gives another result",
    ),
    "a picture of floats": (
        _with(render=lambda state: jnp.zeros((8, 8, 3))),
        "picture",
        "render returns float32[8, 8, 3]; return uint8[H, W, 3]",
    ),
    "a picture that fails": (
        _with(render=lambda state: [][0]),
        "picture",
        "IndexError at zoo.py",
    ),
    "a name for half of the actions": (
        _with(spec=Spec("walk-v0", (3,), num_actions=3, action_names=("left", "stay"))),
        "spec",
        "2 action_names for 3 actions; name each, or none",
    ),
}
"""what is wrong -> (environment, the rule that must catch it, words of its message)"""

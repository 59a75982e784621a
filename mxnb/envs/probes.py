"""Environments so small that the right answer is known, each of which is failed by one kind of mistake.

Run them in order on a change to an agent: the first that fails says where to look. `ANSWERS` holds what must
be learned, derived in closed form in each docstring; docs in CONTRIBUTING.md ("Probes").

    value        a constant must be learned                      -> value loss, optimiser
    observation  the value depends on the observation            -> observations reach the critic, no mix-up
    discount     the reward comes one step later                 -> bootstrapping, discount
    action       the reward depends on the action                -> policy loss, sign of the advantage
    policy       the reward depends on action and observation    -> observations and actions stay paired
    mask         the best action is illegal                      -> masks in sampling and in the loss
    truncation   an endless task cut every few steps             -> time limits are not deaths
    memory       the cue is gone when it is needed               -> recurrence and its resets

Source: the first five after A. Jones, "Debugging reinforcement learning systems" (2021).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mxnb.envs.api import Env, Spec

DISCOUNT = 0.9
"""The discount that ANSWERS assume."""

ANSWERS: dict[str, dict[str, Any]] = {
    "value": {"values": {(0.0,): 1.0}},
    "observation": {"values": {(-1.0,): -1.0, (1.0,): 1.0}},
    "discount": {"values": {(0.0,): DISCOUNT, (1.0,): 1.0}},
    "action": {"values": {(0.0,): 1.0}, "actions": {(0.0,): 1}},
    "policy": {"values": {(-1.0,): 1.0, (1.0,): 1.0}, "actions": {(-1.0,): 0, (1.0,): 1}},
    "mask": {"values": {(-1.0,): 0.5, (1.0,): 1.0}, "actions": {(-1.0,): 1, (1.0,): 2}},
    "truncation": {"values": {(0.0,): 1 / (1 - DISCOUNT)}},
    "memory": {"return": 1.0, "chance": 0.0},
}
"""Per probe: the value of each observation under the best policy at DISCOUNT, and the best action there."""


@struct.dataclass
class ProbeState:
    """What a probe knows: the episode's hidden draw and the time."""

    sign: Any  # float32: the episode's hidden draw, -1 or 1
    t: Any  # int32: steps since the reset


def _probe(name: str, num_actions: int, length: int, look: Any, reward: Any, mask: Any = None, **kwargs: Any) -> Env:
    """An environment from look(sign, t) -> obs and reward(sign, t, action) -> number; it ends after `length`."""
    truncates = kwargs.pop("truncates", False)

    def reset(key: Any) -> tuple[Any, Any]:
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        state = ProbeState(sign, jnp.zeros((), jnp.int32))
        return look(state.sign, state.t), state

    def step(key: Any, state: Any, action: Any) -> tuple[Any, ...]:
        gained = jnp.asarray(reward(state.sign, state.t, action), jnp.float32)
        state = state.replace(t=state.t + 1)
        over, never = state.t >= length, jnp.zeros((), bool)
        flags = (never, over) if truncates else (over, never)
        return look(state.sign, state.t), state, gained, *flags, {}

    shape = jax.eval_shape(look, jnp.zeros(()), jnp.zeros((), jnp.int32)).shape
    spec = Spec(f"probe-{name}-v0", shape, num_actions=num_actions, max_steps=length if truncates else 0)

    def render(state: Any) -> Any:
        from mxnb.envs.gymnax_pictures import written

        return written([spec.id, f"hidden draw: {float(state.sign):+.0f}", f"step: {int(state.t)}"])

    legal = (lambda state: None) if mask is None else (lambda state: mask(state.sign))
    return Env(spec, reset, step, legal, render)


def _constant(sign: Any, t: Any) -> Any:
    return jnp.zeros(1)


def _shown(sign: Any, t: Any) -> Any:
    return sign[None]


def value() -> Env:
    """One step, observation 0, reward 1: V(0) = 1."""
    return _probe("value", 2, 1, _constant, lambda sign, t, action: 1.0)


def observation() -> Env:
    """One step, observation -1 or 1, and the reward equals it: V(o) = o."""
    return _probe("observation", 2, 1, _shown, lambda sign, t, action: sign)


def discount() -> Env:
    """Two steps, observations 0 then 1, rewards 0 then 1: V(1) = 1 and V(0) = discount."""
    return _probe("discount", 2, 2, lambda sign, t: t[None].astype(jnp.float32), lambda sign, t, action: t)


def action() -> Env:
    """One step, observation 0, action 1 pays 1 and action 0 pays -1: V(0) = 1 with action 1."""
    return _probe("action", 2, 1, _constant, lambda sign, t, action: 2 * action - 1)


def policy() -> Env:
    """One step, observation -1 or 1; action 1 is right at 1 and action 0 at -1, right pays 1, wrong -1: V = 1."""
    return _probe("policy", 2, 1, _shown, lambda sign, t, action: sign * (2 * action - 1))


def mask() -> Env:
    """One step, three actions that pay 0, 0.5 and 1; at observation -1 the best one is illegal.

    V(-1) = 0.5 with action 1, V(1) = 1 with action 2. An agent that samples masked actions, or whose loss
    scores them, sees pay that it cannot have.
    """
    pay = jnp.array([0.0, 0.5, 1.0])

    def legal(sign: Any) -> Any:
        return jnp.stack([jnp.ones((), bool), jnp.ones((), bool), sign > 0])

    return _probe("mask", 3, 1, _shown, lambda sign, t, action: pay[action], legal)


def truncation(length: int = 5) -> Env:
    """Reward 1 for ever, observation 0, cut off every `length` steps: V(0) = 1 / (1 - discount).

    An agent that takes the cut for a death learns far less than these 10: at discount 0.9 and length 5
    1 / (1 - discount * 4 / 5) = 3.57 with lambda_ 0, and with lambda_ 1 the mean of
    (1 - discount^k) / (1 - discount) over k = 1..5, which is 2.63.
    """
    return _probe("truncation", 2, length, _constant, lambda sign, t, action: 1.0, truncates=True)


def memory() -> Env:
    """Two steps: the first shows -1 or 1, the second 0; the second action must repeat the first sign.

    Right pays 1, wrong -1, the first action nothing: return 1 for an agent that remembers, 0 in the mean for
    one that cannot (control: a feed-forward agent stays there).
    """

    def look(sign: Any, t: Any) -> Any:
        return jnp.stack([jnp.where(t == 0, sign, 0.0), (t == 1).astype(jnp.float32)])

    return _probe("memory", 2, 2, look, lambda sign, t, action: jnp.where(t == 1, sign * (2 * action - 1), 0.0))

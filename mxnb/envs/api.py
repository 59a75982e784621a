"""The contract an environment author writes: unbatched, pure, without auto-reset.

An environment is two frozen records: `Spec` says what it looks like, `Env` holds its functions. Nothing
here knows about batches, episodes' statistics or resets; `mxnb.envs.vector.vectorise` adds those.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Spec:
    """What an environment looks like from outside.

    id: canonical lower-case id, e.g. "craftax-classic-symbolic-v1".
    obs_shape, obs_dtype: shape and dtype of one observation.
    num_binary: the first `num_binary` entries of a flat observation are exactly 0 or 1 (they may be bit-packed).
    num_actions: > 0 for discrete actions; 0 for continuous ones with `action_low` and `action_high`.
    action_names: one word per discrete action for tables and pictures; () shows indices.
    agents: names, when there are several; then obs, action, reward and mask lead with the agent axis.
    max_steps: the time limit in steps; 0 when there is none.
    info: names of the scalars in `info` (float32 each) that are meaningful on an episode's last step.
    step_means, step_maxima: (metric, name in `info`) of scalars that tell of every step; agents report their mean, or
        the largest one, under the metric's name, such as ("reward/kills", "kills").
    board, player: (offset, rows, columns, channels) of a board of cells within a flat observation, and the indices of
        the two entries that hold the player's row and column on it as shares of the last; None without one.
    action_groups: (name, action names): shares of actions that are told together, beside those of single ones.
    """

    id: str
    obs_shape: tuple[int, ...]
    obs_dtype: Any = jnp.float32
    num_binary: int = 0
    num_actions: int = 0
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None
    action_names: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    max_steps: int = 0
    info: tuple[str, ...] = ()
    step_means: tuple[tuple[str, str], ...] = ()
    step_maxima: tuple[tuple[str, str], ...] = ()
    action_groups: tuple[tuple[str, tuple[str, ...]], ...] = ()
    board: tuple[int, int, int, int] | None = None
    player: tuple[int, int] = (0, 1)

    @property
    def all_info(self) -> tuple[str, ...]:
        """Every name of `info` that is read, once."""
        steps = (name for _, name in (*self.step_means, *self.step_maxima))
        return tuple(dict.fromkeys((*self.info, *steps)))


CAUSES = ("cause/alive", "cause/death", "cause/limit", "cause/win")
"""Names of info of which one is 1 on every step: how the episode stands after it."""

NUMBERS = ("stage", "highest_stage", "score", "life")
"""Names of info that are no achievements, though such a number may be 0 or 1 by chance."""

REACHED = "reached_"
"""How names of info begin that are 1 once that stage of a game was entered."""

TICK_INFO = ("tick/alive", "tick/tau")
"""Names of info that tell of one step and not of an episode: whether its action counted, and the steps it took."""


def strong(tree: Any) -> Any:
    """Arrays without weak types, which a checkpoint would not keep and a scan carry would not match."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)


def finite_bounds(spec: Spec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(low, high) of continuous actions; ValueError where there are none or one is infinite."""
    low, high = spec.action_low or (), spec.action_high or ()
    if not low or not all(map(math.isfinite, (*low, *high))):
        raise ValueError(f"{spec.id} has actions from {low} to {high}; give finite bounds in its Spec")
    return low, high


def _no_mask(state: Any) -> None:
    return None


def _no_picture(state: Any) -> None:
    return None


@dataclass(frozen=True)
class Env:
    """An environment as a record of pure functions (gymnax 1.0's order of results).

    reset(key) -> (obs, state)
    step(key, state, action) -> (obs, state, reward, terminated, truncated, info)
    action_mask(state) -> bool[num_actions] (True = legal), or None when every action is always legal
    render(state) -> uint8[H, W, 3], or None when there is no picture

    `obs` is always the observation of the state returned with it; `terminated` means that the future is
    worth nothing, `truncated` that the episode was cut off and its value goes on. Both may be True; then
    `terminated` counts.
    """

    spec: Spec
    reset: Callable[..., Any]
    step: Callable[..., Any]
    action_mask: Callable[..., Any] = field(default=_no_mask)
    render: Callable[..., Any] = field(default=_no_picture)

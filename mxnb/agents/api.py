"""What the runner and the viewers know of an algorithm: a frozen record of functions, and metric sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from mxnb.envs.api import Spec


class Mean(NamedTuple):
    """A metric that is averaged: `total / count`, or absent in a row whose `count` is 0.

    Sums and counts, not averages, leave the device, so that rows can be pooled without bias.
    """

    total: Any  # float32 scalar
    count: Any  # float32 scalar


class Max(NamedTuple):
    """A metric of which the largest value counts."""

    value: Any  # float32 scalar


@dataclass(frozen=True)
class Health:
    """A rule over one metric: outside [low, high] `words` says what is wrong and `cure` what to do."""

    metric: str
    low: float
    high: float
    words: str
    cure: str


def _as_it_is(state: Any) -> Any:
    return state


@dataclass(frozen=True)
class Agent:
    """An algorithm bound to an environment and a configuration.

    init(key) -> State: everything needed to go on; has `.policy` (what `act` needs), `.envs` (leaves lead
        with the env axis where they have one), `.update` (int32 count of updates done).
    step(State) -> (State, dict[str, Mean | Max]): one rollout and its update; jittable, traced once.
    memory(params) -> the memory at the start of an episode; () when there is none.
    act(params, obs, mask | None, memory, key | None) -> (action, memory, extras) for one environment;
        without a key the action is greedy; extras has value, log_prob, entropy, probs.
    steps_before: environment steps that init takes (a replay's first rows); they count in a run's timesteps.
    kept(State) -> what of it a checkpoint keeps, `.policy` among it; regrown(that) -> State to go on with. By default
        everything is kept, and a resumed run ends with the same bits.
    begun(State) -> the State of a warm start, whose `.policy` was put in place of init's.
    """

    name: str
    config: Any
    spec: Spec
    num_updates: int
    steps_per_update: int
    init: Callable[..., Any]
    step: Callable[..., Any]
    memory: Callable[..., Any]
    act: Callable[..., Any]
    health: tuple[Health, ...] = ()
    steps_before: int = 0
    kept: Callable[..., Any] = _as_it_is
    regrown: Callable[..., Any] = _as_it_is
    begun: Callable[..., Any] = _as_it_is

    def timesteps(self, update: int) -> int:
        """Environment steps taken when `update` updates are done."""
        return self.steps_before + update * self.steps_per_update

    def kept_shapes(self) -> Any:
        """What a checkpoint keeps, as shapes; nothing is computed."""
        return jax.eval_shape(self.kept, jax.eval_shape(self.init, jax.random.key(0)))

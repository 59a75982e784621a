"""Continuing problems small enough to solve exactly: tables for the solver, environments for the agents.

Each maker gives an `MDP` of `mxnb.kernels.tabular`; `from_table` makes an environment of it, whose observation is the
state's number as a one-hot vector and which never ends. `MAKERS` lists them by name.
"""

from __future__ import annotations

from math import comb
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mxnb.envs.api import Env, Spec
from mxnb.kernels.tabular import MDP

SERVERS = 10
PRIORITIES = (1.0, 2.0, 4.0, 8.0)


def _empty(states: int, actions: int) -> MDP:
    return MDP(np.zeros((states, actions, states)), np.zeros((states, actions)))


def two_states(leave: float = 0.3, back: float = 0.1) -> MDP:
    """State 0 pays 1 and is left with probability `leave`, state 1 pays 0 and is left with `back`; no choice.

    gain = back / (leave + back), h(0) - h(1) = 1 / (leave + back).
    """
    mdp = _empty(2, 1)
    mdp.transition[:, 0] = [[1 - leave, leave], [back, 1 - back]]
    mdp.reward[0, 0] = 1.0
    return mdp


def cycle(length: int = 3) -> MDP:
    """0, 1, ..., and back; the last state pays 1. Periodic, so plain value iteration swings for ever."""
    mdp = _empty(length, 1)
    for state in range(length):
        mdp.transition[state, 0, (state + 1) % length] = 1.0
    mdp.reward[-1, 0] = 1.0
    return mdp


def control() -> MDP:
    """Two states, two actions; the best is to move on from 0 (reward 0) and back from 1 (reward 1): gain 9/19."""
    mdp = _empty(2, 2)
    mdp.transition[0] = [[1.0, 0.0], [0.1, 0.9]]
    mdp.transition[1] = [[1.0, 0.0], [0.2, 0.8]]
    mdp.reward[:] = [[0.2, 0.0], [1.0, 0.4]]
    return mdp


def hazard(hazards: tuple[float, ...] = (0.1, 0.02), reset: int = 50) -> MDP:
    """Alive (reward 1) or dead for `reset` steps of reward 0; action a dies with probability hazards[a].

    gain = 1 / (1 + hazard reset); a death costs gain * reset. State 0 is alive, state 1 the first dead one.
    """
    mdp = _empty(1 + reset, len(hazards))
    mdp.reward[0] = 1.0
    for action, probability in enumerate(hazards):
        mdp.transition[0, action, 0] += 1 - probability
        mdp.transition[0, action, 1 % (1 + reset)] += probability
    _fall(mdp)
    return mdp


def risk(chance: float = 0.02, steps: int = 60) -> MDP:
    """Safe pays 0.3 and stays; risky pays 0.5 and falls, with probability `chance`, into `steps` steps of nothing.

    Safe is better, 0.3 against 0.5 / chance / (1 / chance + steps) = 0.227; an agent that forgets what the fall costs
    (by a clipped delta, or by a future cut off there) takes the risk.
    """
    mdp = _empty(1 + steps, 2)
    mdp.reward[0] = [0.3, 0.5]
    mdp.transition[0, 0, 0] = 1.0
    mdp.transition[0, 1, :2] = [1 - chance, chance]
    _fall(mdp)
    return mdp


def _fall(mdp: MDP) -> None:
    """States 1, 2, ... lead on, and the last back to 0, whatever is done."""
    states = len(mdp.reward)
    for state in range(1, states):
        mdp.transition[state, :, (state + 1) % states] = 1.0


def access_control(free: float = 0.06, leaves_at_once: bool = True) -> MDP:
    """Ten servers, and at each step a customer who pays 1, 2, 4 or 8: action 1 takes them if a server is free.

    Then every busy server, with `leaves_at_once` the new one's too, is free again with probability `free`. State = 4 *
    (servers free) + priority. Source: Sutton & Barto 2018, example 10.2, which leaves the order of events open: optimal
    gain 2.747642, or 2.673192 where the new customer stays for a step at least.
    """
    mdp = _empty(4 * (SERVERS + 1), 2)
    for idle in range(SERVERS + 1):
        for priority, pay in enumerate(PRIORITIES):
            state = 4 * idle + priority
            for action in (0, 1):
                accepts = int(action and idle > 0)
                mdp.reward[state, action] = pay * accepts
                busy = SERVERS - idle + accepts
                may_leave = busy if leaves_at_once else SERVERS - idle
                for done in range(may_leave + 1):
                    chance = comb(may_leave, done) * free**done * (1 - free) ** (may_leave - done)
                    after = 4 * (SERVERS - busy + done)
                    mdp.transition[state, action, after : after + 4] += chance / 4
    return mdp


def river_swim(states: int = 6, ends: tuple[float, float] = (0.65, 0.95)) -> MDP:
    """Left (0) goes with the river and pays 0.005 at its end; right (1) swims up and pays 1 at the source.

    Right: 0.35 forward, 0.6 stay, 0.05 back; the first state stays with ends[0], the last with ends[1]. Optimal gain
    0.85715; with the ends 0.4 and 0.6 of other authors 0.428622. Source: Strehl & Littman 2008.
    """
    mdp = _empty(states, 2)
    mdp.reward[0, 0], mdp.reward[-1, 1] = 0.005, 1.0
    for state in range(states):
        mdp.transition[state, 0, max(state - 1, 0)] = 1.0
        mdp.transition[state, 1, min(state + 1, states - 1)] += 0.35
        mdp.transition[state, 1, state] += 0.6
        mdp.transition[state, 1, max(state - 1, 0)] += 0.05
    mdp.transition[0, 1, :2] = [ends[0], 1 - ends[0]]
    mdp.transition[-1, 1, -2:] = [1 - ends[1], ends[1]]
    return mdp


MAKERS: dict[str, Any] = {
    "two-states": two_states,
    "cycle": cycle,
    "control": control,
    "hazard": hazard,
    "risk": risk,
    "access-control": access_control,
    "river-swim": river_swim,
}
"""Name -> maker of its table."""


def _probable(numbers: Any) -> bool:
    return bool((np.asarray(numbers) >= 0).all() and (np.asarray(numbers) <= 1).all())


@struct.dataclass
class ChainState:
    """Where a table stands."""

    state: Any  # int32


def from_table(name: str, mdp: MDP, death: Any = None) -> Env:
    """An environment that walks through `mdp` from state 0 on; observation: one-hot float32[S].

    death: probabilities [S, A] that a step is the last one (`terminated`); None: it never ends.
    ValueError where a row of the table is no probability distribution, or `death` no table of probabilities.
    """
    if not np.allclose(mdp.transition.sum(-1), 1.0) or (mdp.transition < 0).any():
        raise ValueError(f"{name}: transition[s, a] must be probabilities that sum to 1")
    states, actions = mdp.reward.shape
    if death is not None and (np.shape(death) != (states, actions) or not _probable(death)):
        raise ValueError(f"{name}: death must be {states} x {actions} probabilities, one for each state and action")
    # The last entry is forced to 1, or rounding would let a draw fall behind it.
    edges = np.cumsum(mdp.transition, -1)
    edges[..., -1] = 1.0
    rewards = np.asarray(mdp.reward, np.float32)
    deaths = np.zeros((states, actions), np.float32) if death is None else np.asarray(death, np.float32)

    def look(state: Any) -> Any:
        return (jnp.arange(states) == state).astype(jnp.float32)

    def reset(key: Any) -> tuple[Any, ChainState]:
        return look(0), ChainState(jnp.zeros((), jnp.int32))

    def step(key: Any, state: ChainState, action: Any) -> tuple[Any, ...]:
        draw, fate = jax.random.uniform(key, (2,))
        row = jnp.asarray(edges, jnp.float32)[state.state, action]
        after = (draw >= row).sum(dtype=jnp.int32)
        dies = fate < jnp.asarray(deaths)[state.state, action]
        paid = jnp.asarray(rewards)[state.state, action]
        return look(after), ChainState(after), paid, dies, jnp.zeros((), bool), {}

    spec = Spec(id=f"chain-{name}-v0", obs_shape=(states,), num_binary=states, num_actions=actions)
    return Env(spec, reset, step)


@struct.dataclass
class LoopState:
    """Where `memory_loop` stands."""

    cue: Any  # int32: 0 or 1, what the choice must be
    t: Any  # int32: steps since the cue


def memory_loop(blanks: int = 5) -> Env:
    """A cue, `blanks` steps that show nothing, and a choice: the cue's action goes on to a new cue, the other dies.

    With deaths of 50 steps (`survival`) an agent that remembers never dies, gain 1; one that does not dies at every
    second choice, E[L] = 2 (blanks + 2) = 14, gain 14/64 = 0.219. Observation: [1 - 2 cue at the cue, else 0; 1 at
    the choice, else 0].
    """
    length = blanks + 2

    def look(state: LoopState) -> Any:
        sign = jnp.where(state.t == 0, 1.0 - 2.0 * state.cue, 0.0)
        return jnp.stack([sign, (state.t == length - 1).astype(jnp.float32)])

    def new(key: Any) -> LoopState:
        return LoopState(jax.random.bernoulli(key).astype(jnp.int32), jnp.zeros((), jnp.int32))

    def reset(key: Any) -> tuple[Any, LoopState]:
        state = new(key)
        return look(state), state

    def step(key: Any, state: LoopState, action: Any) -> tuple[Any, ...]:
        chooses, right = state.t == length - 1, action == state.cue
        on = LoopState(state.cue, state.t + 1)
        after = jax.tree.map(lambda a, b: jnp.where(chooses & right, a, b), new(key), on)
        return look(after), after, jnp.ones(()), chooses & ~right, jnp.zeros((), bool), {}

    return Env(Spec("chain-memory-v0", (2,), num_actions=2, action_names=("cue +1", "cue -1")), reset, step)


def chain(name: str) -> Env:
    """The environment of one of `MAKERS`, or `memory_loop` for "memory"; ValueError lists them."""
    if name == "memory":
        return memory_loop()
    if name not in MAKERS:
        raise ValueError(f"there is no chain {name!r}; choose from {', '.join(MAKERS)}, memory")
    return from_table(name, MAKERS[name]())

r"""Average reward by tables, in NumPy float64: exact answers, and the learners of the textbooks to read beside them.

A decision problem is `MDP(transition [S, A, S], reward [S, A])`, a policy a table [S, A] of probabilities. Everything
here assumes one recurrent class (unichain), which holds where every state can be reached from every other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class MDP(NamedTuple):
    """A finite decision problem: transition[s, a, s'] is P(s' | s, a), reward[s, a] the mean reward."""

    transition: Float[np.ndarray, "S A S"]
    reward: Float[np.ndarray, "S A"]


class Evaluation(NamedTuple):
    """A policy's exact long run."""

    gain: float
    bias: Float[np.ndarray, "S"]  # with stationary . bias = 0
    stationary: Float[np.ndarray, "S"]


def under(mdp: MDP, policy: Float[np.ndarray, "S A"]) -> tuple[Float[np.ndarray, "S S"], Float[np.ndarray, "S"]]:
    """(P, r) of the chain that a policy makes of a problem."""
    return np.einsum("sa,sat->st", policy, mdp.transition), (policy * mdp.reward).sum(1)


def evaluate_policy(mdp: MDP, policy: Float[np.ndarray, "S A"]) -> Evaluation:
    r"""Gain, bias and stationary law: mu = mu P, gain = mu . r, and h = r - gain + P h with mu . h = 0.

    Two linear systems. Source: Puterman 1994, section 8.2.
    """
    transition, reward = under(mdp, policy)
    size = len(reward)
    equations = np.vstack([(np.eye(size) - transition).T, np.ones(size)])
    stationary = np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]
    equations = np.block([[np.eye(size) - transition, np.ones((size, 1))], [stationary, np.zeros(1)]])
    *bias, gain = np.linalg.solve(equations, np.append(reward, 0.0))
    return Evaluation(float(gain), np.array(bias), stationary)


def advantages(mdp: MDP, found: Evaluation) -> Float[np.ndarray, "S A"]:
    """A(s, a) = r - gain + P h - h(s); no constant is free in it."""
    return mdp.reward - found.gain + mdp.transition @ found.bias - found.bias[:, None]


def relative_value_iteration(
    mdp: MDP, *, step: float = 0.5, tolerance: float = 1e-12, sweeps: int = 100_000
) -> tuple[float, Float[np.ndarray, "S"], Float[np.ndarray, "S A"]]:
    r"""(optimal gain, h with h[0] = 0, q[s, a]) by h <- (1 - step) h + step max_a(r + P h), shifted to h[0] = 0.

    A step below 1 makes every chain aperiodic (it stays where it is with probability 1 - step), without which a
    periodic one swings for ever. Ends when the increment is the same in all states; ValueError where it never is.
    Source: Puterman 1994, sections 8.5.4 (the transform) and 8.5.5.
    """
    bias = np.zeros(len(mdp.reward))
    for _ in range(sweeps):
        increment = step * ((mdp.reward + mdp.transition @ bias).max(1) - bias)
        bias = bias + increment
        bias -= bias[0]
        if np.ptp(increment) < tolerance:
            gain = float(increment.mean() / step)
            return gain, bias, mdp.reward - gain + mdp.transition @ bias
    raise ValueError(f"no gain after {sweeps} sweeps: does more than one class of states recur, or is step too near 1?")


def greedy(q: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
    """The policy that takes the best action of each state, the first of equal ones."""
    return np.eye(q.shape[1])[q.argmax(1)]


def softmax(logits: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
    """Probabilities in proportion to exp(logits), state by state."""
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def policy_gradient(mdp: MDP, logits: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
    r"""The gain's exact gradient by a softmax policy's logits: mu(s) pi(a|s) A(s, a).

    Source: Sutton et al. 2000, the policy gradient theorem for average reward.
    """
    policy = softmax(logits)
    found = evaluate_policy(mdp, policy)
    return found.stationary[:, None] * policy * advantages(mdp, found)


def draw(probabilities: Float[np.ndarray, "N"], rng: np.random.Generator) -> int:
    """An index in proportion to its probability."""
    return min(int(np.searchsorted(np.cumsum(probabilities), rng.random(), side="right")), len(probabilities) - 1)


def differential_td(
    mdp: MDP, policy: Float[np.ndarray, "S A"], rng: np.random.Generator, *, steps: int, lr: float, eta: float
) -> tuple[float, Float[np.ndarray, "S"]]:
    r"""(rho, V) of a policy: delta = r - rho + V(s') - V(s); V(s) += lr delta; rho += eta lr delta.

    Since both move by the same delta, rho = eta sum_s V(s) at every step, which fixes V's constant. Source: Wan,
    Naik & Sutton 2021, arXiv:2006.16318, algorithm Differential TD.
    """
    rho, values, state = 0.0, np.zeros(len(mdp.reward)), 0
    for _ in range(steps):
        action = draw(policy[state], rng)
        after = draw(mdp.transition[state, action], rng)
        delta = mdp.reward[state, action] - rho + values[after] - values[state]
        values[state] += lr * delta
        rho += eta * lr * delta
        state = after
    return rho, values


def differential_q(
    mdp: MDP, rng: np.random.Generator, *, steps: int, lr: float, eta: float, epsilon: float
) -> tuple[float, Float[np.ndarray, "S A"]]:
    r"""(rho, Q) of the best policy: delta = r - rho + max_b Q(s', b) - Q(s, a), learned while acting epsilon-greedily.

    Off-policy: rho is the gain of the greedy policy, not of the one that explores. Source: as `differential_td`,
    algorithm Differential Q-learning.
    """
    rho, q, state = 0.0, np.zeros_like(mdp.reward), 0
    actions = q.shape[1]
    for _ in range(steps):
        best = int(q[state].argmax())
        action = int(rng.integers(actions)) if rng.random() < epsilon else best
        after = draw(mdp.transition[state, action], rng)
        delta = mdp.reward[state, action] - rho + q[after].max() - q[state, action]
        q[state, action] += lr * delta
        rho += eta * lr * delta
        state = after
    return rho, q


def differential_actor_critic(
    mdp: MDP, rng: np.random.Generator, *, steps: int, lr: float, policy_lr: float, eta: float
) -> tuple[float, Float[np.ndarray, "S"], Float[np.ndarray, "S A"]]:
    r"""(rho, V, logits): differential TD for the critic; logits(s, .) += policy_lr delta (1[a] - pi(. | s)).

    Source: Sutton & Barto 2018, section 13.6.
    """
    rho, values, logits, state = 0.0, np.zeros(len(mdp.reward)), np.zeros_like(mdp.reward), 0
    for _ in range(steps):
        policy = softmax(logits[state : state + 1])[0]
        action = draw(policy, rng)
        after = draw(mdp.transition[state, action], rng)
        delta = mdp.reward[state, action] - rho + values[after] - values[state]
        values[state] += lr * delta
        rho += eta * lr * delta
        logits[state] += policy_lr * delta * ((np.arange(len(policy)) == action) - policy)
        state = after
    return rho, values, logits

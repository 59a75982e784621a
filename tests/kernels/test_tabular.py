"""The exact solver against closed forms, and the table learners against the solver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mxnb.envs import chains
from mxnb.kernels import tabular
from mxnb.kernels.tabular import MDP, evaluate_policy, greedy, policy_gradient, relative_value_iteration, softmax


def only(mdp: MDP, *actions: int) -> Any:
    """The policy that takes one action in each state; the last one given in all others."""
    chosen = np.array([*actions, *[actions[-1]] * (len(mdp.reward) - len(actions))])
    return np.eye(mdp.reward.shape[1])[chosen]


def uniform(mdp: MDP) -> Any:
    return np.full_like(mdp.reward, 1 / mdp.reward.shape[1])


def test_two_states_by_hand() -> None:
    found = evaluate_policy(chains.two_states(), only(chains.two_states(), 0))
    assert found.gain == pytest.approx(0.25, abs=1e-12)
    np.testing.assert_allclose(found.stationary, [0.25, 0.75], atol=1e-12)
    np.testing.assert_allclose(found.bias, [1.875, -0.625], atol=1e-12)


def test_a_periodic_cycle() -> None:
    found = evaluate_policy(chains.cycle(), only(chains.cycle(), 0))
    assert found.gain == pytest.approx(1 / 3, abs=1e-12)
    np.testing.assert_allclose(found.bias, [-1 / 3, 0, 1 / 3], atol=1e-12)
    gain, bias, _ = relative_value_iteration(chains.cycle())
    assert gain == pytest.approx(1 / 3, abs=1e-11)
    np.testing.assert_allclose(bias - bias.mean(), found.bias, atol=1e-10)
    with pytest.raises(ValueError, match="no gain after 2000 sweeps"):  # without the transform
        relative_value_iteration(chains.cycle(), step=1.0, sweeps=2000)


def test_control_by_its_three_policies() -> None:
    mdp = chains.control()
    for actions, gain in (((0, 0), 0.2), ((1, 0), 9 / 19), ((1, 1), 0.327273)):
        assert evaluate_policy(mdp, only(mdp, *actions)).gain == pytest.approx(gain, abs=1e-6)
    gain, _, q = relative_value_iteration(mdp)
    assert gain == pytest.approx(9 / 19, abs=1e-10) and greedy(q).argmax(1).tolist() == [1, 0]


LOGITS = np.array([[0.3, -0.2], [0.1, 0.4]])


def test_the_policy_gradient_is_that_of_finite_differences() -> None:
    mdp = chains.control()
    found = evaluate_policy(mdp, softmax(LOGITS))
    assert found.gain == pytest.approx(0.329407, abs=1e-6)
    np.testing.assert_allclose(found.stationary, [0.613981, 0.386019], atol=1e-6)
    np.testing.assert_allclose(found.bias, [-0.232797, 0.370274], atol=1e-6)
    gradient = policy_gradient(mdp, LOGITS)
    np.testing.assert_allclose(gradient, [[-0.049457, 0.049457], [0.011092, -0.011092]], atol=1e-6)
    for at in np.ndindex(2, 2):
        step = np.zeros((2, 2))
        step[at] = 1e-6
        ends = [evaluate_policy(mdp, softmax(LOGITS + sign * step)).gain for sign in (1, -1)]
        assert gradient[at] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-8)


def test_performance_difference() -> None:
    """rho' - rho = sum mu'(s) pi'(a|s) A_pi(s, a), exactly and for any two policies."""
    rng = np.random.default_rng(0)
    for mdp in (chains.control(), chains.access_control(), chains.river_swim()):
        old, new = (softmax(rng.normal(size=mdp.reward.shape)) for _ in range(2))
        here, there = evaluate_policy(mdp, old), evaluate_policy(mdp, new)
        gained = (there.stationary[:, None] * new * tabular.advantages(mdp, here)).sum()
        assert there.gain - here.gain == pytest.approx(gained, abs=1e-12)


@pytest.mark.parametrize(
    ("hazard", "reset", "gain", "price"),
    [(0.02, 50, 0.5, 25.0), (0.1, 50, 1 / 6, 50 / 6), (0.02, 10, 5 / 6, 50 / 6)],
)
def test_survival_under_a_constant_hazard(hazard: float, reset: int, gain: float, price: float) -> None:
    mdp = chains.hazard((hazard,), reset)
    found = evaluate_policy(mdp, only(mdp, 0))
    assert found.gain == pytest.approx(gain, abs=1e-12)
    chain = found.bias[0] - gain * np.arange(reset, 0, -1)  # h(D_k) = h(respawn) - gain k, k steps left
    np.testing.assert_allclose(found.bias[1:], chain, atol=1e-10)
    assert found.bias[0] - found.bias[1] == pytest.approx(price, abs=1e-10)


def test_a_fresh_start_flatters() -> None:
    """The mean reward of T steps exceeds the gain by (h(s_0) - E h(s_T)) / T."""
    mdp = chains.hazard((0.02,), 50)
    transition, reward = tabular.under(mdp, only(mdp, 0))
    found = evaluate_policy(mdp, only(mdp, 0))
    assert found.bias[0] == pytest.approx(6.375, abs=1e-10)
    law, total = np.eye(51)[0], 0.0
    for _ in range(1024):
        total += law @ reward
        law = law @ transition
    assert total / 1024 == pytest.approx(0.506226, abs=1e-6)
    assert total / 1024 - 0.5 == pytest.approx((found.bias[0] - law @ found.bias) / 1024, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "optimal", "uniformly"),
    [
        ("hazard", 0.5, 1 / (1 + 0.06 * 50)),
        ("risk", 0.3, None),
        ("access-control", 2.747641950572, 1.698242),
        ("river-swim", 0.8571501428, 0.0030426),
    ],
)
def test_known_gains(name: str, optimal: float, uniformly: float | None) -> None:
    mdp = chains.MAKERS[name]()
    np.testing.assert_allclose(mdp.transition.sum(-1), 1.0, atol=1e-12)
    gain, bias, q = relative_value_iteration(mdp)
    assert gain == pytest.approx(optimal, abs=1e-9)
    found = evaluate_policy(mdp, greedy(q))
    assert found.gain == pytest.approx(gain, abs=1e-9)
    np.testing.assert_allclose(found.bias - found.bias[0], bias, atol=1e-7)
    if uniformly is not None:
        assert evaluate_policy(mdp, uniform(mdp)).gain == pytest.approx(uniformly, rel=1e-4)


def test_their_variants() -> None:
    later = chains.access_control(leaves_at_once=False)
    gain, _, q = relative_value_iteration(later)
    assert gain == pytest.approx(2.673192205068, abs=1e-9)
    taken = q.argmax(1).reshape(11, 4)[1:, 2]
    assert taken.tolist() == [0, *[1] * 9]  # who pays 4 needs two free servers
    river = chains.river_swim(ends=(0.4, 0.6))
    gain, bias, _ = relative_value_iteration(river)
    assert gain == pytest.approx(0.4286224338, abs=1e-9) and np.ptp(bias) == pytest.approx(6.31, abs=0.01)
    assert evaluate_policy(river, uniform(river)).gain == pytest.approx(0.0027786, rel=1e-4)


def test_the_sampled_policy_gradient_is_the_exact_one() -> None:
    """The mean of score times advantage over 2e6 sampled (state, action), within 3 standard errors."""
    mdp, rng, draws = chains.control(), np.random.default_rng(0), 2_000_000
    policy = softmax(LOGITS)
    found = evaluate_policy(mdp, policy)
    pairs = (found.stationary[:, None] * policy).reshape(-1)
    seen = rng.choice(4, size=draws, p=pairs / pairs.sum())
    state, action = np.divmod(seen, 2)
    # Sampled next states, so that the advantage is a sampled delta.
    after = (rng.random(draws) < mdp.transition[state, action, 1]).astype(int)
    delta = mdp.reward[state, action] - found.gain + found.bias[after] - found.bias[state]
    exact = policy_gradient(mdp, LOGITS)
    for at in np.ndindex(2, 2):
        score = (state == at[0]) * ((action == at[1]) - policy[at])
        sample = score * delta
        assert abs(sample.mean() - exact[at]) <= 3 * sample.std() / np.sqrt(draws)


def test_what_the_problems_are_about() -> None:
    risk = chains.risk()
    assert evaluate_policy(risk, only(risk, 1)).gain == pytest.approx(0.5 * 50 / 110, abs=1e-12)
    np.testing.assert_allclose(  # at the safe policy's gain, the fall costs 0.3 * 60 = 18
        np.diff(tabular.advantages(risk, evaluate_policy(risk, only(risk, 0)))[0]), 0.5 - 0.3 - 0.02 * 18, atol=1e-9
    )
    queue = chains.access_control()
    assert evaluate_policy(queue, only(queue, 1)).gain == pytest.approx(2.181413, abs=1e-6)
    taken = relative_value_iteration(queue)[2].argmax(1).reshape(11, 4)[1:]  # somebody is free
    assert not taken[:, 0].any() and taken[:, 2:].all() and taken[:, 1].tolist() == [0, 0, 0, *[1] * 7]
    river = chains.river_swim()
    assert relative_value_iteration(river)[2].argmax(1).tolist() == [1] * 6
    assert np.ptp(relative_value_iteration(river)[1]) == pytest.approx(13.81, abs=0.01)
    assert evaluate_policy(river, only(river, 0)).gain == pytest.approx(0.005, abs=1e-12)


def test_differential_td_keeps_its_invariant_and_finds_the_gain() -> None:
    """rho = eta sum V at every step, so V settles where sum V = gain / eta: (1.5, -1.0) here."""
    mdp = chains.two_states()
    for steps in (1, 10, 1000):
        rho, values = tabular.differential_td(mdp, only(mdp, 0), np.random.default_rng(1), steps=steps, lr=0.1, eta=0.5)
        assert rho == pytest.approx(0.5 * values.sum(), abs=1e-10)
    rho, values = tabular.differential_td(mdp, only(mdp, 0), np.random.default_rng(0), steps=100_000, lr=0.003, eta=0.5)
    assert rho == pytest.approx(0.5 * values.sum(), abs=1e-10)
    np.testing.assert_allclose([rho, *values], [0.25, 1.5, -1.0], atol=0.05)


def test_differential_q_finds_the_best_gain_while_it_explores() -> None:
    mdp = chains.control()
    rho, q = tabular.differential_q(mdp, np.random.default_rng(0), steps=50_000, lr=0.02, eta=0.5, epsilon=0.3)
    assert rho == pytest.approx(9 / 19, abs=0.02) and q.argmax(1).tolist() == [1, 0]
    best = relative_value_iteration(mdp)[2]
    np.testing.assert_allclose(q - q.max(), best - best.max(), atol=0.1)


def test_the_actor_critic_of_the_book_learns() -> None:
    mdp = chains.control()
    rho, _, logits = tabular.differential_actor_critic(
        mdp, np.random.default_rng(0), steps=50_000, lr=0.05, policy_lr=0.02, eta=0.2
    )
    assert evaluate_policy(mdp, softmax(logits)).gain > 0.45
    assert rho == pytest.approx(9 / 19, abs=0.05)

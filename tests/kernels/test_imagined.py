"""Returns, weights and the scale of imagined futures, against plain loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.kernels.imagined import (
    alive_weights,
    lambda_returns,
    learn_spread,
    no_spread,
    replay_returns,
    spread_scale,
)


def future(seed: int, states: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=states), rng.uniform(size=states), rng.normal(size=states)


def by_loops(r: np.ndarray, c: np.ndarray, v: np.ndarray, lambda_: float) -> np.ndarray:
    """R_k as the mean over n of n-step returns, weighted (1 - lambda) lambda^(n-1): the definition itself."""
    horizon = len(r) - 1
    out = np.zeros(horizon)
    for k in range(horizon):
        for n in range(1, horizon - k + 1):
            total, going = 0.0, 1.0
            for j in range(k + 1, k + n + 1):
                total += going * r[j]
                going *= c[j]
            total += going * v[k + n]
            last = n == horizon - k
            out[k] += total * (lambda_ ** (n - 1) if last else (1 - lambda_) * lambda_ ** (n - 1))
    return out


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("states", [2, 3, 16])
def test_lambda_returns_are_the_mean_of_n_step_returns(states: int, lambda_: float) -> None:
    r, c, v = future(states, states)
    found = lambda_returns(jnp.float32(r), jnp.float32(c), jnp.float32(v), lambda_=lambda_)
    np.testing.assert_allclose(found, by_loops(r, c, v, lambda_), rtol=1e-5, atol=1e-5)


def test_nothing_beyond_an_end_counts() -> None:
    r, c, v = (jnp.float32(x) for x in future(1, 8))
    c = c.at[4].set(0.0)
    other = lambda x: x.at[5:].add(100.0)
    first = lambda_returns(r, c, v, lambda_=0.95)
    second = lambda_returns(other(r), c, other(v).at[4].add(7.0), lambda_=0.95)
    np.testing.assert_array_equal(first[:4], second[:4])
    assert (np.asarray(first[4:]) != np.asarray(second[4:])).all()


def test_the_state_that_imagination_starts_from_pays_nothing() -> None:
    r, c, v = (jnp.float32(x) for x in future(2, 8))
    moved = lambda_returns(r.at[0].add(9.0), c.at[0].set(0.0), v.at[0].add(9.0), lambda_=0.95)
    np.testing.assert_array_equal(moved, lambda_returns(r, c, v, lambda_=0.95))


def test_weights_count_the_state_of_the_action_and_not_its_outcome() -> None:
    cont = jnp.array([0.9, 0.8, 0.5, 0.1])
    np.testing.assert_allclose(alive_weights(cont), [0.9, 0.72, 0.36], rtol=1e-6)
    np.testing.assert_array_equal(alive_weights(cont.at[-1].set(0.7)), alive_weights(cont))
    assert (np.asarray(alive_weights(cont.at[0].set(0.0))) == 0).all(), "nothing is learned after a terminal start"


def test_replayed_returns_by_hand() -> None:
    """Rows 1 ends by a limit, row 4 by death; lambda 0.5, discount 0.9."""
    r = np.array([5.0, 1.0, 2.0, 3.0, 4.0, 6.0])
    terminal = np.array([0, 0, 0, 0, 1, 0], bool)
    last = np.array([0, 1, 0, 0, 1, 0], bool)
    boot = np.array([9.0, 10.0, 20.0, 30.0, 40.0, 50.0])
    r4 = 6.0 + 0.9 * 50.0  # the last row's return is its bootstrap, so lambda does not matter
    r3 = 4.0  # death at row 4
    r2 = 3.0 + 0.9 * (0.5 * 30.0 + 0.5 * r3)
    r1 = 2.0 + 0.9 * (0.5 * 20.0 + 0.5 * r2)
    r0 = 1.0 + 0.9 * 10.0  # row 1 is last: only its bootstrap
    found = replay_returns(
        jnp.float32(r), jnp.asarray(terminal), jnp.asarray(last), jnp.float32(boot), discount=0.9, lambda_=0.5
    )
    np.testing.assert_allclose(found, [r0, r1, r2, r3, r4], rtol=1e-6)


def test_the_spread_is_an_average_of_percentiles() -> None:
    spread, low, high = no_spread(), 0.0, 0.0
    rng = np.random.default_rng(0)
    for _ in range(5):
        returns = rng.normal(3.0, 40.0, (15, 64))
        spread = learn_spread(spread, jnp.float32(returns))
        five, ninety_five = np.percentile(returns, [5, 95])
        low, high = low + 0.01 * (five - low), high + 0.01 * (ninety_five - high)
    np.testing.assert_allclose([spread.low, spread.high], [low, high], rtol=1e-4)
    np.testing.assert_allclose(spread_scale(spread), high - low, rtol=1e-4)


def test_small_returns_are_never_scaled_up() -> None:
    assert float(spread_scale(learn_spread(no_spread(), jnp.linspace(0.0, 1e-3, 50)))) == 1.0
    assert float(spread_scale(no_spread())) == 1.0


def test_many_streams_by_vmap() -> None:
    r, c, v = (jnp.stack([jnp.float32(x)] * 3, 1) for x in future(3, 6))
    many = jax.vmap(lambda *x: lambda_returns(*x, lambda_=0.9), 1, 1)(r, c, v)
    one = lambda_returns(r[:, 0], c[:, 0], v[:, 0], lambda_=0.9)
    np.testing.assert_allclose(many[:, 2], one, rtol=1e-6)

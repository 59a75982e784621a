"""Numbers as classes: exact there and back, symmetric to the last bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.kernels.symlog import expected, make_bins, symexp, symlog, two_hot, two_hot_loss

COUNTS = (3, 63, 255)


def test_symlog_is_the_identity_near_0_and_symexp_undoes_it() -> None:
    x = jnp.concatenate([jnp.linspace(-300.0, 300.0, 601), jnp.array([1e-4, -1e-4, 1e6])])
    np.testing.assert_allclose(symexp(symlog(x)), x, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(symlog(jnp.array([1e-4])), 1e-4, rtol=1e-4)
    np.testing.assert_allclose(symlog(jnp.array([-9.0])), -np.log(10.0), rtol=1e-6)


@pytest.mark.parametrize("count", COUNTS)
def test_bins_are_exactly_symmetric_and_rise(count: int) -> None:
    bins = np.asarray(make_bins(count))
    assert bins.shape == (count,) and bins[count // 2] == 0
    assert (bins == -bins[::-1]).all() and (np.diff(bins) > 0).all()
    np.testing.assert_allclose(bins[-1], np.expm1(20.0), rtol=1e-6)
    np.testing.assert_allclose(np.diff(np.sign(bins) * np.log1p(np.abs(bins))), 40 / (count - 1), rtol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2, 62])
def test_bins_need_a_middle(count: int) -> None:
    with pytest.raises(ValueError, match="use an odd number of at least 3"):
        make_bins(count)


@pytest.mark.parametrize("count", [63, 255])
def test_a_number_comes_back_from_its_code(count: int) -> None:
    bins = make_bins(count)
    x = jnp.concatenate([jnp.linspace(-300.0, 300.0, 2001), bins[10:-10], jnp.array([0.0, 1e-3, -0.9])])
    code = two_hot(x, bins)
    assert ((np.asarray(code) > 0).sum(-1) <= 2).all() and (np.asarray(code) >= 0).all()
    np.testing.assert_allclose(code.sum(-1), 1.0, atol=1e-6)
    back = np.asarray(code, np.float64) @ np.asarray(bins, np.float64)
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-5)
    logits = jnp.log(jnp.maximum(code, 1e-30))
    np.testing.assert_allclose(expected(logits, bins), x, rtol=1e-4, atol=1e-4)


def test_numbers_beyond_the_bins_are_taken_as_the_outer_ones() -> None:
    bins = make_bins(63)
    code = np.asarray(two_hot(jnp.array([1e12, -1e12]), bins))
    assert code[0, -1] == 1 and code[1, 0] == 1 and code.sum() == 2


@pytest.mark.parametrize("count", COUNTS)
def test_equal_logits_mean_exactly_0(count: int) -> None:
    bins = make_bins(count)
    for value in (0.0, 3.7):
        assert float(expected(jnp.full((count,), value), bins)) == 0.0


def test_the_loss_is_least_at_the_target() -> None:
    """Descent on the logits ends at the code itself: there the gradient is 0, and the mean is the target."""
    bins = make_bins(63)
    target = jnp.array([0.0, 2.5, -40.0])
    code = two_hot(target, bins)
    best = jnp.log(jnp.maximum(code, 1e-12))
    loss = lambda logits: two_hot_loss(logits, target, bins).sum()
    np.testing.assert_allclose(jax.grad(loss)(best), 0.0, atol=1e-6)
    entropy = -(code * jnp.log(jnp.maximum(code, 1e-30))).sum()
    np.testing.assert_allclose(loss(best), entropy, atol=1e-5)
    for other in (best + 3.0 * code, best - 3.0 * code, jnp.zeros_like(best)):
        assert loss(other) > loss(best)


def test_no_gradient_reaches_the_target() -> None:
    bins = make_bins(63)
    slope = jax.grad(lambda target: two_hot_loss(jnp.zeros((1, 63)), target, bins).sum())(jnp.array([1.5]))
    assert float(slope[0]) == 0

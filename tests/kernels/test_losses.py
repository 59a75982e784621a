"""PPO's losses against hand-made numbers, NumPy in float64 and rlax."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mxnb.kernels.losses import (
    clipped_value_loss,
    explained_variance,
    normalise,
    ppo_policy_loss,
    value_loss,
    weighted_mean,
)

policy_loss = jax.jit(partial(ppo_policy_loss, clip_eps=0.2))
small = st.floats(-3, 3, width=32)


def batch(seed: int, size: int = 64) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    old = rng.normal(-1.5, 0.5, size)
    return tuple(jnp.asarray(x, jnp.float32) for x in (old + rng.normal(0, 0.4, size), old, rng.normal(size=size)))


def test_policy_loss_by_hand() -> None:
    # eps = 0.2     ratio  A    min(ratio A, clip(ratio) A)            k3 = ratio - 1 - ln(ratio)   clipped
    #               1      1    1                                     0                            no
    #               1.5    2    min(3, 1.2 * 2)           =  2.4      0.5 - ln 1.5                 yes
    #               0.5    2    min(1, 0.8 * 2)           =  1.0      -0.5 - ln 0.5                yes
    #               0.5   -1    min(-0.5, 0.8 * -1)       = -0.8      -0.5 - ln 0.5                yes
    #               1.5   -1    min(-1.5, 1.2 * -1)       = -1.5      0.5 - ln 1.5                 yes
    #               1.1    3    3.3                                   0.1 - ln 1.1                 no
    ratio = jnp.array([1.0, 1.5, 0.5, 0.5, 1.5, 1.1])
    advantage = jnp.array([1.0, 2.0, 2.0, -1.0, -1.0, 3.0])
    old = jnp.array([-1.0, -2.0, -0.5, -3.0, -1.0, -0.1])
    result = ppo_policy_loss(old + jnp.log(ratio), old, advantage, clip_eps=0.2)
    assert float(result.loss) == pytest.approx(-(1 + 2.4 + 1 - 0.8 - 1.5 + 3.3) / 6, rel=1e-6)
    kl = (2 * (0.5 - math.log(1.5)) + 2 * (-0.5 - math.log(0.5)) + 0.1 - math.log(1.1)) / 6
    assert float(result.approx_kl) == pytest.approx(kl, rel=1e-5)
    assert float(result.clip_frac) == pytest.approx(4 / 6)


@pytest.mark.parametrize("seed", range(4))
def test_policy_loss_against_numpy(seed: int) -> None:
    log_prob, old, advantage = batch(seed)
    total = kl = clipped = 0.0
    for new, before, a in zip(*(np.asarray(x, np.float64) for x in (log_prob, old, advantage)), strict=True):
        ratio = math.exp(new - before)
        total -= min(ratio * a, max(0.8, min(1.2, ratio)) * a) / 64
        kl += (ratio - 1 - math.log(ratio)) / 64
        clipped += (abs(ratio - 1) > 0.2) / 64
    result = policy_loss(log_prob, old, advantage)
    np.testing.assert_allclose([float(x) for x in result], [total, kl, clipped], rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_policy_loss_and_its_gradient_against_rlax(seed: int) -> None:
    log_prob, old, advantage = batch(seed)

    def theirs(log_prob: jax.Array) -> jax.Array:
        return rlax.clipped_surrogate_pg_loss(jnp.exp(log_prob - old), advantage, 0.2)

    ours, slope = jax.value_and_grad(lambda x: ppo_policy_loss(x, old, advantage, clip_eps=0.2).loss)(log_prob)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected, expected_slope = jax.value_and_grad(theirs)(log_prob)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, expected_slope, atol=1e-7)


def test_clipped_samples_earn_no_gradient_and_others_do() -> None:
    ratio = jnp.array([1.5, 0.5, 1.5, 0.5])  # past the clip: only where the advantage agrees with the way gone
    advantage = jnp.array([1.0, -1.0, -1.0, 1.0])
    slope = jax.grad(lambda x: ppo_policy_loss(x, jnp.zeros(4), advantage, clip_eps=0.2).loss)(jnp.log(ratio))
    np.testing.assert_allclose(slope, [0.0, 0.0, 1.5 / 4, -0.5 / 4], rtol=1e-6)


def test_with_unchanged_parameters_the_loss_is_minus_the_mean_advantage() -> None:
    log_prob, _, advantage = batch(9)
    result = policy_loss(log_prob, log_prob, advantage)
    np.testing.assert_allclose(result.loss, -advantage.mean(), rtol=1e-5)
    assert float(result.approx_kl) == 0.0 and float(result.clip_frac) == 0.0
    slope = jax.grad(lambda x: policy_loss(x, log_prob, advantage).loss)(log_prob)
    np.testing.assert_allclose(slope, -advantage / 64, rtol=1e-5)  # the plain policy gradient


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, 8, elements=small), arrays(np.float32, 8, elements=small), arrays(np.float32, 8, elements=small)
)
def test_kl_is_never_negative_and_the_loss_no_better_than_unclipped(
    new: np.ndarray, old: np.ndarray, a: np.ndarray
) -> None:
    result = policy_loss(jnp.asarray(new), jnp.asarray(old), jnp.asarray(a))
    assert float(result.approx_kl) >= -1e-6
    assert 0.0 <= float(result.clip_frac) <= 1.0
    unclipped = -(np.exp(new.astype(np.float64) - old) * a).mean()
    assert float(result.loss) >= unclipped - 1e-4 * (1 + abs(unclipped))


def test_value_loss_by_hand() -> None:
    # errors 1, -2, 0, 3: (1 + 4 + 0 + 9) / 4 / 2 = 1.75
    value, target = jnp.array([2.0, 0.0, 5.0, 1.0]), jnp.array([1.0, 2.0, 5.0, -2.0])
    assert float(value_loss(value, target)) == 1.75
    np.testing.assert_allclose(jax.grad(value_loss)(value, target), np.array([1.0, -2.0, 0.0, 3.0]) / 4)


def test_normalise_by_hand() -> None:
    # 1, 3: mean 2, standard deviation 1 (over N, not N - 1)
    np.testing.assert_allclose(normalise(jnp.array([1.0, 3.0])), [-1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (5.0, 0.01), (-100.0, 30.0)])
def test_normalise_against_numpy(shift: float, scale: float) -> None:
    x = np.random.default_rng(0).normal(shift, scale, 256).astype(np.float32)
    expected = (x.astype(np.float64) - x.mean(dtype=np.float64)) / x.std(dtype=np.float64)
    np.testing.assert_allclose(normalise(jnp.asarray(x)), expected, atol=2e-3)


@pytest.mark.parametrize("x", [[2.0], [0.0] * 8, [-4.0] * 64])
def test_normalise_of_equal_advantages_is_0(x: list[float]) -> None:
    np.testing.assert_array_equal(normalise(jnp.array(x)), np.zeros(len(x)))


def test_explained_variance_by_hand() -> None:
    target = jnp.array([1.0, 2.0, 3.0, 6.0])  # mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    ev = lambda *value: float(explained_variance(jnp.array(value), target))
    assert ev(1.0, 2.0, 3.0, 6.0) == 1.0  # a perfect critic
    assert ev(3.0, 3.0, 3.0, 3.0) == pytest.approx(0.0, abs=1e-6)  # one that says the mean
    assert ev(11.0, 12.0, 13.0, 16.0) == pytest.approx(1.0, abs=1e-6)  # a constant shift is not seen
    # errors 0, 0, 0, 4: mean 1, variance (1 + 1 + 1 + 9) / 4 = 3; 1 - 3 / 3.5
    assert ev(1.0, 2.0, 3.0, 2.0) == pytest.approx(1 - 3 / 3.5, rel=1e-5)
    # the target turned round, 6 - target: errors 2 target - 6, variance 4 * 3.5; 1 - 4
    assert ev(5.0, 4.0, 3.0, 0.0) == pytest.approx(-3.0, rel=1e-5)


@pytest.mark.parametrize("target", [0.0, 0.1, 3.3, -7.7, 1000.1])
@pytest.mark.parametrize("size", [3, 1024, 4096])
def test_explained_variance_of_targets_that_do_not_vary_is_0(target: float, size: int) -> None:
    value = jax.random.normal(jax.random.key(1), (size,))
    assert float(explained_variance(value, jnp.full(size, target))) == 0.0
    assert float(explained_variance(jnp.full(size, target), jnp.full(size, target))) == 0.0


def test_explained_variance_sees_small_targets_and_small_variation() -> None:
    noise = np.random.default_rng(0).normal(size=512)
    for target in (1e-6 * noise, 100 + 0.1 * noise):
        target = jnp.asarray(target, jnp.float32)
        assert float(explained_variance(target, target)) == 1.0
        assert float(explained_variance(jnp.full(512, target.mean()), target)) == pytest.approx(0.0, abs=1e-3)


def test_shapes_are_checked() -> None:
    log_prob, old, advantage = batch(0)
    with pytest.raises(Exception, match="Type-check"):
        ppo_policy_loss(log_prob, old, advantage[:, None], clip_eps=0.2)
    with pytest.raises(Exception, match="Type-check"):
        value_loss(old, advantage[:3])


def test_clipped_value_loss_by_hand() -> None:
    """Old values 0, targets 1, clip 0.2: a value past the clip is judged where the clip leaves it, never better."""
    value = jnp.array([0.1, 0.9, 3.0, -1.0])
    loss = clipped_value_loss(value, jnp.zeros(4), jnp.ones(4), clip_eps=0.2)
    # errors: 0.9; kept at 0.2: 0.8; the value's own 2; its own 2 (kept at -0.2: 1.2)
    assert float(loss) == pytest.approx((0.9**2 + 0.8**2 + 2.0**2 + 2.0**2) / 8, rel=1e-6)
    gradient = jax.grad(lambda v: clipped_value_loss(v, jnp.zeros(4), jnp.ones(4), clip_eps=0.2))(value)
    np.testing.assert_allclose(gradient, [-0.9 / 4, 0.0, 2.0 / 4, -2.0 / 4], rtol=1e-6)
    wide = clipped_value_loss(value, jnp.zeros(4), jnp.ones(4), clip_eps=100.0)
    assert float(wide) == pytest.approx(float(value_loss(value, jnp.ones(4))), rel=1e-6)


def test_weights_leave_samples_out() -> None:
    """A weight of 0 is as if the sample were not there, in the loss, its gradient, the metrics and the scales."""
    rng = np.random.default_rng(0)
    new, old, advantage = (jnp.asarray(rng.normal(size=9), jnp.float32) for _ in range(3))
    weight = jnp.array([1, 0, 1, 1, 0, 0, 1, 1, 0], jnp.float32)
    kept = weight > 0
    loss = partial(ppo_policy_loss, clip_eps=0.2)
    for ours, plain in zip(loss(new, old, advantage, weight), loss(new[kept], old[kept], advantage[kept]), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5)
    gradient = jax.grad(lambda x: loss(x, old, advantage, weight).loss)(new)
    np.testing.assert_allclose(
        gradient[kept], jax.grad(lambda x: loss(x, old[kept], advantage[kept]).loss)(new[kept]), rtol=1e-5
    )
    np.testing.assert_array_equal(gradient[~kept], 0.0)
    np.testing.assert_allclose(normalise(advantage, weight)[kept], normalise(advantage[kept]), rtol=1e-4)
    np.testing.assert_allclose(weighted_mean(advantage, weight), advantage[kept].mean(), rtol=1e-5)
    np.testing.assert_array_equal(weighted_mean(advantage, jnp.zeros(9)), 0.0)

"""The masked categorical: what is illegal has probability exactly 0, and everything stays finite."""

from __future__ import annotations

import math
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chisquare

from mxnb.kernels.masked import mask_logits, masked_categorical, sample_masked

A = 17


@jax.jit
def everything(logits: Any, mask: Any) -> dict[str, Any]:
    """All that an agent asks of the distribution, and the gradients."""
    dist = masked_categorical(logits, mask)
    actions = jnp.arange(A)
    log_prob = jax.vmap(lambda a: masked_categorical(logits, mask).log_prob(a))
    return {
        "p": dist.probs,
        "entropy": dist.entropy(),
        "log_prob": log_prob(actions),
        "log_prob_slope": jax.jacobian(lambda x: jax.vmap(masked_categorical(x, mask).log_prob)(actions))(logits),
        "entropy_slope": jax.grad(lambda x: masked_categorical(x, mask).entropy())(logits),
    }


@st.composite
def cases(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    scale = draw(st.sampled_from([1.0, 30.0, 1e4]))
    logits = draw(arrays(np.float32, A, elements=st.floats(-1, 1, width=32))) * np.float32(scale)
    legal = draw(st.lists(st.integers(0, A - 1), min_size=1, max_size=A, unique=True))
    return logits, np.isin(np.arange(A), legal)


BEST_IS_ILLEGAL = (np.array([-1e4] + [1e4] * (A - 1), np.float32), np.arange(A) == 0)
FAR_APART = (np.linspace(-1e4, 1e4, A).astype(np.float32), np.arange(A) < 2)


@settings(deadline=None, max_examples=300)
@given(cases())
@example(BEST_IS_ILLEGAL)
@example(FAR_APART)
@example((np.zeros(A, np.float32), np.ones(A, bool)))
def test_finite_and_exactly_0_where_illegal(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, mask = case
    seen = jax.device_get(everything(jnp.asarray(logits), jnp.asarray(mask)))
    assert all(np.isfinite(x).all() for x in seen.values())
    assert (seen["p"] >= 0).all() and float(seen["p"].sum()) == pytest.approx(1.0, abs=1e-5)
    assert (seen["p"][~mask] == 0).all()
    assert -1e-6 <= float(seen["entropy"]) <= math.log(mask.sum()) + 1e-5
    assert (seen["log_prob"][mask] <= 0).all()
    assert (seen["log_prob_slope"][mask][:, ~mask] == 0).all()
    assert (seen["entropy_slope"][~mask] == 0).all()
    if mask.sum() == 1:
        assert float(seen["entropy"]) == 0.0 and float(seen["log_prob"][mask][0]) == 0.0
        assert (seen["log_prob_slope"][mask] == 0).all() and (seen["entropy_slope"] == 0).all()

    # float64, over the legal actions alone
    shifted = logits[mask].astype(np.float64) - logits[mask].max()
    p = np.exp(shifted) / np.exp(shifted).sum()
    np.testing.assert_allclose(seen["p"][mask], p, atol=1e-5)
    log_p = shifted - np.log(np.exp(shifted).sum())
    np.testing.assert_allclose(seen["log_prob"][mask], log_p, rtol=1e-5, atol=1e-5)
    assert float(seen["entropy"]) == pytest.approx(-(p * log_p).sum(), abs=1e-4)
    np.testing.assert_allclose(seen["log_prob_slope"][np.ix_(mask, mask)], np.eye(mask.sum()) - p[None], atol=1e-4)


def test_by_hand() -> None:
    # logits ln 1, ln 2, ln 5 and an illegal ln 100: p = 1/8, 2/8, 5/8, 0
    dist = masked_categorical(jnp.log(jnp.array([1.0, 2.0, 100.0, 5.0])), jnp.array([True, True, False, True]))
    np.testing.assert_allclose(dist.probs, [1 / 8, 2 / 8, 0.0, 5 / 8], rtol=1e-6)
    expected = math.log(8) / 8 + math.log(4) / 4 + 5 / 8 * math.log(8 / 5)
    assert float(dist.entropy()) == pytest.approx(expected, rel=1e-6)
    assert float(dist.log_prob(jnp.array(3))) == pytest.approx(math.log(5 / 8), rel=1e-6)


@pytest.mark.parametrize("legal", [[0], [3, 4], [0, 5, 9, 16], list(range(A))])
def test_distrax_over_the_legal_actions_alone(legal: list[int], key: Any) -> None:
    logits = 5.0 * jax.random.normal(key, (6, A))
    mask = jnp.zeros(A, bool).at[jnp.array(legal)].set(True)
    ours = masked_categorical(logits, jnp.tile(mask, (6, 1)))
    theirs = distrax.Categorical(logits=logits[:, jnp.array(legal)])
    np.testing.assert_allclose(ours.probs[:, jnp.array(legal)], theirs.probs, rtol=1e-5)
    np.testing.assert_allclose(ours.entropy(), theirs.entropy(), rtol=1e-4, atol=1e-6)
    for index, action in enumerate(legal):
        np.testing.assert_allclose(
            ours.log_prob(jnp.full(6, action)), theirs.log_prob(jnp.full(6, index)), rtol=1e-5, atol=1e-6
        )


def test_no_mask_is_a_mask_of_all(key: Any) -> None:
    logits = 10.0 * jax.random.normal(key, (4, A))
    without, full = (masked_categorical(logits, mask) for mask in (None, jnp.ones((4, A), bool)))
    np.testing.assert_array_equal(without.probs, full.probs)
    np.testing.assert_array_equal(without.entropy(), full.entropy())
    np.testing.assert_array_equal(sample_masked(key, logits, None), sample_masked(key, logits, jnp.ones((4, A), bool)))
    action = jnp.zeros(4, jnp.int32)
    slopes = [
        jax.grad(lambda x, mask=mask: masked_categorical(x, mask).log_prob(action).sum())(logits)
        for mask in (None, jnp.ones((4, A), bool))
    ]
    np.testing.assert_allclose(*slopes, atol=1e-6)


def test_an_illegal_action_is_never_drawn_in_a_million(key: Any) -> None:
    count, mask_key, logit_key, draw_key = 1_000_000, *jax.random.split(key, 3)
    mask = jax.random.bernoulli(mask_key, 0.3, (count, 8)).at[:, 2].set(True)
    logits = 30.0 * jax.random.normal(logit_key, (count, 8)) + jnp.where(mask, 0.0, 1e4)  # the illegal ones tempt
    action = np.asarray(jax.jit(sample_masked)(draw_key, logits, mask))
    assert np.asarray(mask)[np.arange(count), action].all()
    assert len(np.unique(action)) == 8


def test_frequencies_are_the_probabilities(key: Any) -> None:
    logits = jnp.array([0.5, -1.0, 9.0, 0.0, 2.0, 1.0])
    mask = jnp.array([True, True, False, True, False, True])
    count = 400_000
    rows = jnp.tile(logits, (count, 1)), jnp.tile(mask, (count, 1))
    seen = np.bincount(np.asarray(jax.jit(sample_masked)(key, *rows)), minlength=6)
    p = np.exp(np.asarray(logits, np.float64)) * np.asarray(mask)
    legal = np.asarray(mask)
    assert seen[~legal].sum() == 0
    assert chisquare(seen[legal], count * (p / p.sum())[legal]).pvalue > 1e-3
    flat = np.full(legal.sum(), count / legal.sum())  # the test would see a sampler that ignores the logits
    assert chisquare(seen[legal], flat).pvalue < 1e-9


def test_a_mask_without_a_legal_action_names_the_mend() -> None:
    words = r"the action mask has a state without any legal action; keep one action \(NOOP, say\) always legal"
    mask = jnp.ones((3, A), bool).at[1].set(False)
    for call in (mask_logits, masked_categorical):
        with pytest.raises(ValueError, match=words):
            call(jnp.zeros((3, A)), mask)
    with pytest.raises(ValueError, match=words):
        sample_masked(jax.random.key(0), jnp.zeros(A), jnp.zeros(A, bool))


def test_inside_a_program_a_mask_without_a_legal_action_stays_finite() -> None:
    # There no error can be raised; the metric train/no_legal_action tells of it.
    seen = jax.device_get(everything(jnp.linspace(-5.0, 5.0, A), jnp.zeros(A, bool)))
    assert all(np.isfinite(x).all() for x in seen.values())
    np.testing.assert_allclose(seen["p"], np.full(A, 1 / A), rtol=1e-6)


def test_rows_do_not_leak_into_each_other(key: Any) -> None:
    logits = jax.random.normal(key, (4, A))
    mask = jax.random.bernoulli(key, 0.5, (4, A)).at[:, 0].set(True)
    other = logits.at[2].set(jnp.nan)
    here = jnp.array([0, 1, 3])

    @jax.jit
    def of(logits: Any) -> Any:
        dist = masked_categorical(logits, mask)
        return dist.probs[here], dist.entropy()[here], sample_masked(key, logits, mask)[here]

    for before, after in zip(of(logits), of(other), strict=True):
        np.testing.assert_array_equal(before, after)


def test_same_with_and_without_jit_and_under_vmap(key: Any) -> None:
    logits = 3.0 * jax.random.normal(key, (5, A))
    mask = jax.random.bernoulli(key, 0.5, (5, A)).at[:, 0].set(True)

    def of(logits: Any, mask: Any) -> Any:
        dist = masked_categorical(logits, mask)
        return dist.probs, dist.entropy()

    plain = of(logits, mask)
    for other in (jax.jit(of), jax.vmap(of), jax.jit(jax.vmap(of))):
        for ours, theirs in zip(plain, other(logits, mask), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_shapes_are_checked() -> None:
    with pytest.raises(Exception, match="Type-check"):
        mask_logits(jnp.zeros((2, A)), jnp.ones((2, A - 1), bool))
    with pytest.raises(Exception, match="Type-check"):
        mask_logits(jnp.zeros((2, A)), jnp.ones((2, A)))

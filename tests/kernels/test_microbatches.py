"""In parts or whole: the same values and gradients, and less memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxnb.kernels.microbatches import in_parts


def layer(w: Any, x: Any) -> Any:
    return jnp.tanh(x @ w)


@settings(deadline=None, max_examples=12)  # each shape is compiled
@given(st.sampled_from([1, 2, 3, 6]), st.integers(0, 2))
def test_values_and_gradients_are_those_of_the_whole(count: int, axis: int) -> None:
    shape = [4, 5, 3]
    shape[axis] = 6
    x, w = (jax.random.normal(jax.random.key(i), s) for i, s in ((0, (*shape, 7)), (1, (7, 2))))

    def whole(w: Any) -> Any:
        return layer(w, x)

    def parts(w: Any) -> Any:
        return in_parts(lambda x: layer(w, x), count, x, axis=axis)

    np.testing.assert_allclose(parts(w), whole(w), atol=1e-6)
    weights = jax.random.normal(jax.random.key(2), (*shape, 2))
    slopes = [jax.grad(lambda w, f=f: (f(w) * weights).sum())(w) for f in (whole, parts)]
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-5, atol=1e-4)


def test_trees_go_in_and_come_out() -> None:
    x = {"a": jnp.arange(8.0), "b": (jnp.arange(16).reshape(8, 2), None)}
    out = in_parts(lambda x, y: {"sum": x["a"] + y, "b": x["b"]}, 4, x, jnp.ones(8))
    assert out["b"][1] is None
    np.testing.assert_array_equal(out["sum"], np.arange(8) + 1)
    np.testing.assert_array_equal(out["b"][0], x["b"][0])


def test_each_part_sees_its_entries_in_order() -> None:
    seen = in_parts(lambda x: x[::-1], 2, jnp.arange(6))
    np.testing.assert_array_equal(seen, [2, 1, 0, 5, 4, 3])


@pytest.mark.parametrize("count", [4, 16])
def test_gradients_of_parts_take_less_memory(count: int) -> None:
    x, w = jnp.ones((4096, 64)), jnp.ones((64, 64))

    def cost(w: Any, count: int) -> Any:
        return in_parts(lambda x: layer(w, layer(w, layer(w, x))).sum(-1), count, x).sum()

    def need(count: int) -> int:
        compiled = jax.jit(jax.grad(lambda w: cost(w, count))).lower(w).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert need(count) < 1.5 * need(1) / count + 200_000

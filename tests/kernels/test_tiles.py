"""The lookup layer is the dense layer, in value and gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.kernels.tiles import CRAFTAX, CRAFTAX_CLASSIC, Layout, lookup_dense, tile_ids


def observations(layout: Layout, count: int, rest: int) -> Any:
    """Random tiles, a fifth of them dark, random flags, and `rest` numbers."""
    rng = np.random.default_rng(0)
    blocks = np.eye(layout.blocks + 1)[rng.integers(0, layout.blocks, (count, layout.tiles))][..., : layout.blocks]
    blocks[rng.random((count, layout.tiles)) < 0.2] = 0
    flags = rng.random((count, layout.tiles, layout.flags)) < 0.1
    tiles = np.concatenate([blocks, flags], -1).reshape(count, -1)
    return jnp.asarray(np.concatenate([tiles, rng.normal(size=(count, rest))], 1), jnp.float32)


@pytest.mark.parametrize("layout", [Layout(3, 2, 1), CRAFTAX_CLASSIC, CRAFTAX])
def test_values_and_gradients_equal_the_dense_layer(layout: Layout) -> None:
    obs = observations(layout, 16, 5)
    kernel = jax.random.normal(jax.random.key(0), (obs.shape[-1], 8))
    weight = jax.random.normal(jax.random.key(1), (16, 8))

    def by_lookup(kernel: Any) -> Any:
        return lookup_dense(*tile_ids(obs, layout), kernel, layout)

    np.testing.assert_allclose(by_lookup(kernel), obs @ kernel, rtol=1e-4, atol=1e-4)
    ours = jax.grad(lambda k: (by_lookup(k) * weight).sum())(kernel)
    dense = jax.grad(lambda k: ((obs @ k) * weight).sum())(kernel)
    np.testing.assert_allclose(ours, dense, rtol=1e-4, atol=1e-5)


def test_tiles_hold_what_the_observation_held() -> None:
    layout = Layout(2, 3, 1)
    obs = jnp.array([[0.0, 1, 0, 1, 0, 0, 0, 0, 0.5], [0.0, 0, 1, 0, 1, 0, 0, 1, 2]])
    tiled = tile_ids(obs, layout)
    assert tiled.ids.dtype == jnp.uint8 and tiled.ids.tolist() == [[1, 3], [2, 0]]
    assert tiled.flags.tolist() == [[1, 0], [0, 1]] and tiled.rest.tolist() == [[0.5], [2.0]]


def test_layouts_are_craftaxs() -> None:
    assert CRAFTAX_CLASSIC.width == 1323 and CRAFTAX.width == 8217

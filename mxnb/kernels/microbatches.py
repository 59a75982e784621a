"""A large batch through a function in parts, so that only one part's intermediate values are in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def in_parts(function: Callable[..., Any], count: int, *inputs: Any, axis: int = 0) -> Any:
    """function(*inputs), computed in `count` equal parts of `axis` one after the other; gradients add up over them.

    inputs, outputs: pytrees whose leaves have that axis in common, length B; function treats its entries apart. On the
    way back each part is computed again (`jax.checkpoint`), so the memory is that of B / count entries, at the price of
    one more pass forward. With count 1 this is function(*inputs).
    """
    if count == 1:
        return function(*inputs)
    split = lambda x: jnp.moveaxis(x.reshape(*x.shape[:axis], count, -1, *x.shape[axis + 1 :]), axis, 0)
    parts = jax.lax.map(jax.checkpoint(lambda part: function(*part)), jax.tree.map(split, inputs))

    def join(x: Any) -> Any:
        x = jnp.moveaxis(x, 0, axis)
        return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])

    return jax.tree.map(join, parts)

"""Sets of cells as bits: a set operation is one instruction for a whole board, a wave of a search about ten.

A board has 36 bits in two words of 18, since jax has no 64-bit numbers by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.envs.hackmatrix.tables import CELLS

_HALF = CELLS // 2
_ALL = (1 << _HALF) - 1
_LEFTMOST = sum(1 << (6 * row) for row in range(3))
_RIGHTMOST = _LEFTMOST << 5


class Bits(NamedTuple):
    """A set of cells: rows 0 to 2 in `low`, 3 to 5 in `high`; uint32, any shape."""

    low: Any
    high: Any

    def __and__(self, other: Any) -> Bits:
        return Bits(self.low & other.low, self.high & other.high)

    def __or__(self, other: Any) -> Bits:
        return Bits(self.low | other.low, self.high | other.high)

    def __invert__(self) -> Bits:
        return Bits(self.low ^ np.uint32(_ALL), self.high ^ np.uint32(_ALL))


def some(bits: Bits) -> Any:
    """Whether there is a cell in the set."""
    return (bits.low | bits.high) != 0


def where(condition: Any, yes: Bits, no: Bits) -> Bits:
    """One of two sets."""
    return Bits(jnp.where(condition, yes.low, no.low), jnp.where(condition, yes.high, no.high))


def only(condition: Any, bits: Bits) -> Bits:
    """The set where the condition holds, else the empty one."""
    zero = np.uint32(0)
    return Bits(jnp.where(condition, bits.low, zero), jnp.where(condition, bits.high, zero))


def one(cell: Any) -> Bits:
    """The set of a single cell; the empty one for a number that is none."""
    cell = jnp.asarray(cell)
    bit = lambda at: jnp.where((at >= 0) & (at < _HALF), np.uint32(1) << jnp.clip(at, 0, 31).astype(jnp.uint32), 0)
    return Bits(bit(cell).astype(jnp.uint32), bit(cell - _HALF).astype(jnp.uint32))


def has(bits: Bits, cell: Any) -> Any:
    """Whether the set has the cell; of one set, many cells may be asked for at once."""
    return some(bits & one(cell))


def pack(cells: Any) -> Bits:
    """The set of a bool[..., 36]."""
    weights = np.uint32(1) << np.arange(_HALF, dtype=np.uint32)
    add = lambda half: jnp.sum(jnp.where(half, weights, np.uint32(0)), -1, dtype=jnp.uint32)
    return Bits(add(cells[..., :_HALF]), add(cells[..., _HALF:]))


def unpack(bits: Bits) -> Any:
    """bool[36] of one set."""
    at = np.arange(_HALF, dtype=np.uint32)
    return jnp.concatenate([(bits.low >> at) & 1, (bits.high >> at) & 1]) != 0


def union(cells: Any, mask: Any) -> Bits:
    """The set of cells[i] where mask[i]."""
    every = only(mask, one(cells))
    over = lambda words: jax.lax.reduce(words, np.uint32(0), jax.lax.bitwise_or, (words.ndim - 1,))
    return Bits(over(every.low), over(every.high))


def constant(table: np.ndarray) -> Callable[[Any], Bits]:
    """index -> the set of that row of a bool[n, 36]."""
    weights = 1 << np.arange(_HALF, dtype=np.uint32)
    low, high = (np.where(half, weights, 0).sum(-1).astype(np.uint32) for half in np.split(table, 2, -1))
    return lambda index: Bits(jnp.asarray(low)[index], jnp.asarray(high)[index])


def spread(bits: Bits) -> Bits:
    """The cells beside the set's cells."""
    low, high = bits
    left, right = np.uint32(_ALL ^ _LEFTMOST), np.uint32(_ALL ^ _RIGHTMOST)
    sides = lambda x: ((x & left) >> 1) | ((x & right) << 1) | ((x << 6) & np.uint32(_ALL)) | (x >> 6)
    return Bits(sides(low) | ((high & np.uint32(63)) << 12), sides(high) | (low >> 12))


def search(start: Bits, passable: Bits, target: Bits) -> tuple[Bits, Any]:
    """Breadth first from `start` over passable cells until a wave touches `target`: (that wave, its number).

    The wave is empty where the target cannot be reached, or is empty. The start need not be passable. Any shape.
    """

    def goes_on(wave: Bits) -> Any:
        return some(wave) & ~some(wave & target) & some(target)

    def body(carry: tuple[Bits, Bits, Any]) -> tuple[Bits, Bits, Any]:
        wave, left, waves = carry
        on = goes_on(wave)
        new = where(on, spread(wave) & left, wave)
        return new, left & ~new, waves + on.astype(jnp.int32)

    wave = only(some(target), start)
    wave, _, waves = jax.lax.while_loop(
        lambda carry: goes_on(carry[0]).any(), body, (wave, passable & ~start, jnp.zeros(wave.low.shape, jnp.int32))
    )
    return wave, waves


def distance(start: Bits, target: Bits, obstacles: Bits) -> Any:
    """Cardinal moves from one cell to another, the target always enterable; -1 where there is no way."""
    wave, waves = search(start, ~obstacles | target, target)
    return jnp.where(some(wave), waves, -1)


def when(condition: Any, change: Callable[[Any], Any], value: Any) -> Any:
    """change(value) where the condition holds, else value.

    Unlike `lax.cond`, in a batch it costs nothing where the condition holds nowhere: the loop has no round then.
    """
    once = lambda carry: (jnp.zeros_like(carry[0]), change(carry[1]))
    return jax.lax.while_loop(lambda carry: carry[0], once, (jnp.asarray(condition), value))[1]

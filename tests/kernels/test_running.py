"""Running statistics against NumPy's over all rows at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mxnb.kernels.running import deviation, empty, merge


def test_batches_give_what_all_rows_together_give() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(3.0, 5.0, (n, 4)).astype(np.float32) for n in (7, 1, 128, 30)]
    seen, add = empty((4,)), jax.jit(merge)
    for part in parts:
        seen = add(seen, part)
    rows = np.concatenate(parts).astype(np.float64)
    assert seen.count == len(rows)
    np.testing.assert_allclose(seen.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(seen.variance, rows.var(0), rtol=1e-5)
    np.testing.assert_allclose(deviation(seen), rows.std(0), rtol=1e-5)


def test_nothing_seen_changes_nothing_and_constants_do_not_divide_by_zero() -> None:
    start = empty((2,))
    assert (start.mean == 0).all() and (deviation(start) == 1).all()
    still = merge(start, jnp.full((9, 2), 4.0))
    assert (still.mean == 4).all() and (deviation(still) == np.float32(1e-4)).all()


def test_a_horizon_forgets() -> None:
    seen = empty(())
    for level in (0.0, 10.0):
        for _ in range(200):
            seen = merge(seen, jnp.full(10, level), horizon=100.0)
    assert abs(float(seen.mean) - 10) < 1e-3 and float(seen.variance) < 1e-2
    assert seen.count == 110  # the horizon and the newest rows
    far = empty(())
    for level in (0.0, 10.0):
        for _ in range(200):
            far = merge(far, jnp.full(10, level))
    assert abs(float(far.mean) - 5) < 1e-3 and abs(float(far.variance) - 25) < 1e-2

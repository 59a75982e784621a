"""Replay: rows come back as they were, windows never cross the head, and each is drawn alike."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import masked

from mxnb.agents.replay import Replay, Row, empty_replay, load, row_bytes, sample, store, write
from mxnb.envs.api import Spec

pytestmark = pytest.mark.brief

COUNTER = Spec("counter-v0", (2,), num_actions=4)


def rows(t: int, num_envs: int) -> Row:
    """Row t of each environment: obs = (environment, t), everything else follows from t."""
    n = jnp.arange(num_envs)
    every = lambda k: jnp.full(num_envs, t % k == 0)
    obs = jnp.stack([n.astype(jnp.float32), jnp.full(num_envs, float(t))], -1)
    return Row(obs, jnp.full(num_envs, t % 4), jnp.full(num_envs, t / 8), every(5), every(7), every(14))


def filled(steps: int, num_envs: int, capacity: int) -> Replay:
    replay = empty_replay(num_envs, capacity, row_bytes(COUNTER))
    t = 0
    for count in cycle((1, 3, 2)):  # one row at a time, and several
        count = min(count, steps - t)
        if not count:
            return replay
        made = [store(COUNTER, rows(t + i, num_envs)) for i in range(count)]
        replay = write(replay, jnp.stack(made))
        t += count
    raise AssertionError


@pytest.mark.parametrize("steps", [6, 11, 12, 25, 40])
def test_windows_are_the_newest_rows_in_order(steps: int) -> None:
    """Against a list of what was written, through three wraps of a ring of 11."""
    num_envs, capacity, length = 3, 11, 5
    replay = filled(steps, num_envs, capacity)
    seen = load(COUNTER, sample(replay, jax.random.key(steps), 400, length))
    env, t = np.asarray(seen.obs[..., 0]), np.asarray(seen.obs[..., 1]).astype(int)
    assert (env == env[:1]).all(), "a window is of one environment"
    assert (np.diff(t, axis=0) == 1).all(), "rows follow each other"
    oldest = max(0, steps - capacity)
    assert t.min() >= oldest and t.max() <= steps - 1
    assert (t[-1, -1] == steps - 1).all(), "the last window is the newest"
    assert set(t[0]) == set(range(oldest, steps - length + 1)) and set(env[0]) == set(range(num_envs))
    np.testing.assert_array_equal(seen.action, t % 4)
    np.testing.assert_array_equal(seen.reward, t / 8)
    flags = zip((seen.is_first, seen.is_last, seen.is_terminal), (5, 7, 14), strict=True)
    for flag, k in flags:
        np.testing.assert_array_equal(flag, t % k == 0)


def test_each_window_is_drawn_alike() -> None:
    """Chi-squared over (environment, start) of 6,399 draws; 27 cells, so 26 degrees: 54.05 is passed once in 1,000."""
    replay = filled(29, 3, 13)
    seen = load(COUNTER, sample(replay, jax.random.key(0), 6400, 5))
    env = np.asarray(seen.obs[0, :-1, 0]).astype(int)
    start = np.asarray(seen.obs[0, :-1, 1]).astype(int) - 16
    counts = np.zeros((3, 9))
    np.add.at(counts, (env, start), 1)
    expected = 6399 / 27
    assert ((counts - expected) ** 2 / expected).sum() < 54.05


def observed(env: Any, steps: int) -> Row:
    """Random play, one environment a row."""
    obs, state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), steps))
    n = jnp.zeros(steps, bool)
    mask = jax.vmap(env.action_mask)(state)
    return Row(obs, jnp.arange(steps) % 4, jnp.linspace(-1.0, 8.0, steps), n, ~n, n, mask)


def test_bits_are_kept_exactly_and_numbers_within_half_precision() -> None:
    env = masked()
    row = observed(env, 64)
    stored = store(env.spec, row)
    assert stored.shape == (64, row_bytes(env.spec, has_mask=True)) and stored.dtype == jnp.uint8
    back = load(env.spec, stored, has_mask=True)
    bits = env.spec.num_binary
    np.testing.assert_array_equal(back.obs[:, :bits], row.obs[:, :bits])
    np.testing.assert_allclose(back.obs[:, bits:], row.obs[:, bits:], rtol=1e-3)
    for name in ("action", "reward", "is_first", "is_last", "is_terminal", "mask"):
        np.testing.assert_array_equal(getattr(back, name), getattr(row, name))
    assert back.obs.dtype == jnp.float32 and back.action.dtype == jnp.int32


@pytest.mark.parametrize(("entries", "bits", "size"), [(1345, 1323, 216), (8268, 8217, 1136)])
def test_bytes_of_a_craftax_row(entries: int, bits: int, size: int) -> None:
    spec = Spec("craftax", (entries,), num_binary=bits, num_actions=17)
    n = jnp.zeros(3, bool)
    row = Row(jnp.zeros((3, entries)), jnp.zeros(3, jnp.int32), jnp.zeros(3), n, n, n)
    assert row_bytes(spec) == store(spec, row).shape[-1] == size


def test_pictures_are_kept_as_they_are() -> None:
    spec = Spec("picture", (9, 9, 3), jnp.uint8, num_actions=300)
    n = jnp.zeros(2, bool)
    picture = jnp.arange(2 * 243, dtype=jnp.uint8).reshape(2, 9, 9, 3)
    stored = store(spec, Row(picture, jnp.array([299, 0]), jnp.zeros(2), n, n, n))
    assert stored.shape == (2, 243 + 4 + 4 + 1)
    np.testing.assert_array_equal(load(spec, stored).obs, picture)
    assert int(load(spec, stored).action[0]) == 299


def test_continuous_actions_and_plain_numbers_come_back_as_they_were() -> None:
    spec = Spec("numbers", (3,), action_low=(-1.0, -1.0), action_high=(1.0, 1.0))
    n = jnp.zeros(5, bool)
    obs, action = jax.random.normal(jax.random.key(0), (5, 3)), jax.random.normal(jax.random.key(1), (5, 2))
    back = load(spec, store(spec, Row(obs, action, jnp.arange(5.0), n, n, ~n)))
    np.testing.assert_array_equal(back.obs, obs)
    np.testing.assert_array_equal(back.action, action)
    np.testing.assert_array_equal(back.reward, jnp.arange(5.0))
    assert back.is_terminal.all() and not back.is_last.any()

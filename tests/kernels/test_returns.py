"""GAE against hand-made numbers, a plain loop, rlax, and what its terms must mean."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from mxnb.kernels.returns import gae

NAMES = ("reward", "value", "next_value", "terminated", "truncated")


def stream(seed: int, length: int = 24, ends: float = 0.15, deaths: bool = True, limits: bool = True) -> dict[str, Any]:
    """A random stream whose next_value is the next step's value, and that of a final observation where it ends."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=length + 1).astype(np.float32)
    terminated, truncated = rng.random((2, length)) < ends
    terminated, truncated = terminated & deaths, truncated & limits
    final = rng.normal(size=length).astype(np.float32)
    next_value = np.where(terminated | truncated, final, value[1:])
    arrays = (rng.normal(size=length).astype(np.float32), value[:-1], next_value, terminated, truncated)
    return dict(zip(NAMES, map(jnp.asarray, arrays), strict=True))


@cache
def compiled(discount: float, lambda_: float) -> Any:
    return jax.jit(partial(gae, discount=discount, lambda_=lambda_))


def run(s: dict[str, Any], discount: float = 0.97, lambda_: float = 0.9) -> tuple[Any, Any]:
    return compiled(discount, lambda_)(*(s[name] for name in NAMES))


def reference(s: dict[str, Any], discount: float, lambda_: float) -> np.ndarray:
    """A_t = sum over k >= t of (discount lambda)^(k - t) delta_k, up to the first end of an episode; float64."""
    reward, value, next_value = (np.asarray(s[name], np.float64) for name in NAMES[:3])
    terminated, truncated = (np.asarray(s[name]) for name in NAMES[3:])
    advantage = np.zeros(len(reward))
    for t in range(len(reward)):
        weight = 1.0
        for k in range(t, len(reward)):
            future = 0.0 if terminated[k] else discount * next_value[k]
            advantage[t] += weight * (reward[k] + future - value[k])
            weight *= discount * lambda_
            if terminated[k] or truncated[k]:
                break
    return advantage


def test_by_hand() -> None:
    # discount = lambda = 1/2, so the trace fades by 1/4 a step; every number is exact in binary.
    #   t  r  V  V'  ends        delta = r + 1/2 V' (not when terminated) - V       A
    #   0  1  1   2              1 + 1 - 1 = 1                                     1 + 1/4 * 5 = 2.25
    #   1  2  2  10  truncated   2 + 5 - 2 = 5                                     5
    #   2  7  3   4  terminated  7 - 3     = 4                                     4
    #   3  4  4   6              4 + 3 - 4 = 3                                     3 + 1/4 * 8 = 5
    #   4  6  0   4              6 + 2 - 0 = 8                                     8
    advantage, target = gae(
        jnp.array([1.0, 2.0, 7.0, 4.0, 6.0]),
        jnp.array([1.0, 2.0, 3.0, 4.0, 0.0]),
        jnp.array([2.0, 10.0, 4.0, 6.0, 4.0]),
        jnp.array([False, False, True, False, False]),
        jnp.array([False, True, False, False, False]),
        discount=0.5,
        lambda_=0.5,
    )
    np.testing.assert_array_equal(advantage, [2.25, 5.0, 4.0, 5.0, 8.0])
    np.testing.assert_array_equal(target, [3.25, 7.0, 7.0, 9.0, 8.0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("discount", "lambda_"), [(0.97, 0.9), (0.99, 1.0), (1.0, 0.5), (0.9, 0.0), (0.0, 0.7)])
def test_plain_loop(seed: int, discount: float, lambda_: float) -> None:
    s = stream(seed, ends=[0.0, 0.05, 0.15, 0.3, 0.6, 1.0][seed])
    advantage, target = run(s, discount, lambda_)
    expected = reference(s, discount, lambda_)
    np.testing.assert_allclose(advantage, expected, atol=2e-5)
    np.testing.assert_allclose(target, expected + np.asarray(s["value"], np.float64), atol=2e-5)


@pytest.mark.parametrize("seed", range(4))
def test_rlax_with_deaths(seed: int) -> None:
    s = stream(seed, limits=False)
    values = jnp.concatenate([s["value"], s["next_value"][-1:]])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        discounts = 0.97 * (1.0 - s["terminated"].astype(jnp.float32))
        expected = rlax.truncated_generalized_advantage_estimation(s["reward"], discounts, 0.9, values)
    np.testing.assert_allclose(run(s)[0], expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_rlax_episode_by_episode_with_time_limits(seed: int) -> None:
    # rlax knows no final observations: each piece up to a time limit is a stream of its own that ends in V(final).
    s = stream(seed, deaths=False)
    pieces, start = [], 0
    ends = [*np.flatnonzero(s["truncated"]), 23]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for end in dict.fromkeys(ends):
            part = slice(start, end + 1)
            values = jnp.concatenate([s["value"][part], s["next_value"][end : end + 1]])
            discounts = jnp.full(end + 1 - start, 0.97)
            pieces.append(rlax.truncated_generalized_advantage_estimation(s["reward"][part], discounts, 0.9, values))
            start = end + 1
    assert len(pieces) > 1
    np.testing.assert_allclose(run(s)[0], np.concatenate(pieces), atol=1e-5)


def test_lambda_0_is_the_td_error() -> None:
    s = stream(1)
    alive = 1.0 - np.asarray(s["terminated"], np.float32)
    np.testing.assert_allclose(
        run(s, lambda_=0.0)[0], s["reward"] + 0.97 * alive * s["next_value"] - s["value"], atol=1e-6
    )


def test_lambda_1_is_the_discounted_return_less_the_value() -> None:
    s = stream(2)
    expected, later = np.zeros(24), float(s["next_value"][-1])
    for t in reversed(range(24)):  # the return from t on: nothing follows a death, V(final) a time limit
        later = 0.0 if s["terminated"][t] else float(s["next_value"][t]) if s["truncated"][t] else later
        later = float(s["reward"][t]) + 0.97 * later
        expected[t] = later
    advantage, target = run(s, lambda_=1.0)
    np.testing.assert_allclose(target, expected, atol=1e-5)
    np.testing.assert_allclose(advantage, expected - np.asarray(s["value"]), atol=1e-5)


def test_a_time_limit_at_the_last_step_is_a_bootstrapped_tail() -> None:
    s = stream(3, deaths=False)
    cut, tail = (run(s | {"truncated": s["truncated"].at[-1].set(flag)}) for flag in (True, False))
    np.testing.assert_array_equal(cut[0], tail[0])


def test_terminated_wins_over_truncated() -> None:
    s = stream(4, ends=0.3)
    both = s | {"truncated": s["truncated"] | s["terminated"]}
    only = s | {"truncated": s["truncated"] & ~s["terminated"]}
    assert s["terminated"].any()
    np.testing.assert_array_equal(run(both)[0], run(only)[0])
    other = both | {"next_value": jnp.where(s["terminated"], 1e6, s["next_value"])}
    np.testing.assert_array_equal(run(other)[0], run(both)[0])


@pytest.mark.parametrize("flag", ["terminated", "truncated"])
def test_splitting_a_rollout_where_an_episode_ends_changes_nothing(flag: str) -> None:
    s = stream(5)
    s[flag] = s[flag].at[9].set(True)
    halves = [run({name: x[part] for name, x in s.items()})[0] for part in (slice(0, 10), slice(10, 24))]
    np.testing.assert_allclose(np.concatenate(halves), run(s)[0], rtol=1e-6)


def test_splitting_anywhere_changes_nothing_once_the_tail_is_put_back() -> None:
    # The first part alone takes A = 0 after its end; what it misses is (discount lambda)^n A_first-of-second.
    s = stream(6, ends=0.0)
    first, second = (run({name: x[part] for name, x in s.items()})[0] for part in (slice(0, 10), slice(10, 24)))
    missing = (0.97 * 0.9) ** np.arange(10, 0, -1) * float(second[0])
    np.testing.assert_allclose(np.asarray(first) + missing, run(s)[0][:10], atol=1e-5)
    np.testing.assert_allclose(second, run(s)[0][10:], rtol=1e-6)


def test_an_endless_task_cut_by_time_limits_has_no_advantage() -> None:
    # Reward 1 for ever is worth 1 / (1 - discount) = 100 everywhere, so a critic that says 100 is never surprised.
    length, discount = 200, 0.99
    limit = (jnp.arange(length) % 10) == 9
    never = jnp.zeros(length, bool)
    worth = jnp.full(length, 100.0)
    one = partial(compiled(discount, 0.95), jnp.ones(length), worth, worth)
    np.testing.assert_allclose(one(never, limit)[0], np.zeros(length), atol=1e-3)
    # Taken for deaths, the limits make the same critic look 99 too hopeful: 1 - 100.
    np.testing.assert_allclose(one(limit, never)[0][9::10], np.full(20, -99.0), rtol=1e-6)


def test_same_with_and_without_jit_and_under_vmap() -> None:
    streams = [stream(seed) for seed in range(5)]
    alone = [run(s) for s in streams]
    batch = {name: jnp.stack([s[name] for s in streams], axis=1) for name in NAMES}  # [T, N] as in a rollout
    together = jax.vmap(partial(gae, discount=0.97, lambda_=0.9), in_axes=1, out_axes=1)
    for function in (together, jax.jit(together)):
        advantage, target = function(*(batch[name] for name in NAMES))
        for n in range(5):
            np.testing.assert_allclose(advantage[:, n], alone[n][0], atol=1e-6)
            np.testing.assert_allclose(target[:, n], alone[n][1], atol=1e-6)
    with jax.disable_jit():
        np.testing.assert_allclose(together(*(batch[name] for name in NAMES))[0][:, 0], alone[0][0], atol=1e-6)


def test_environments_do_not_leak_into_each_other() -> None:
    streams = [stream(seed) for seed in range(3)]
    batch = [jnp.stack([s[name] for s in streams], axis=1) for name in NAMES]
    together = jax.jit(jax.vmap(lambda *x: run(dict(zip(NAMES, x, strict=True))), in_axes=1, out_axes=1))
    before = together(*batch)
    poisoned = [x.at[:, 1].set(jnp.nan) if x.dtype == jnp.float32 else x for x in batch]
    after = together(*poisoned)
    assert np.isnan(after[0][:, 1]).all()
    for n in (0, 2):
        np.testing.assert_array_equal(after[0][:, n], before[0][:, n])
        np.testing.assert_array_equal(after[1][:, n], before[1][:, n])


def test_nothing_flows_from_the_past_or_over_the_end_of_an_episode() -> None:
    s = stream(7, length=8, ends=0.0)
    s["terminated"] = s["terminated"].at[2].set(True)
    s["truncated"] = s["truncated"].at[5].set(True)
    flow = np.asarray(jax.jacobian(lambda reward: run(s | {"reward": reward})[0])(s["reward"]))
    episode = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    allowed = (episode[:, None] == episode[None]) & (np.arange(8)[:, None] <= np.arange(8)[None])
    assert ((flow != 0) == allowed).all()


def test_shapes_are_checked() -> None:
    s = stream(8)
    with pytest.raises(Exception, match="Type-check"):
        run(s | {"value": s["value"][:-1]})
    with pytest.raises(Exception, match="Type-check"):
        run(s | {"terminated": s["terminated"].astype(jnp.float32)})

"""The gain's interval holds what it promises, and curves count the lives that were cut off."""

from __future__ import annotations

import numpy as np
import pytest

from mxnb.kernels.lives import mean_life, median_life, renewal_gain, survival_curve


def test_by_hand() -> None:
    steps, died = np.array([2, 4, 4, 6]), np.array([True, True, False, True])
    assert renewal_gain(steps, died, 8).mean == pytest.approx(16 / (16 + 8 * 3))
    assert mean_life(steps, died).mean == pytest.approx(16 / 3)
    times, share, low, high = survival_curve(steps, died)
    # 4 alive at 2, one dies; 3 at 4, one dies and one is cut off; 1 at 6, and it dies
    np.testing.assert_allclose(times, [2, 4, 6])
    np.testing.assert_allclose(share, [3 / 4, 3 / 4 * 2 / 3, 0.0])
    # at 2: V = 1 / (4 * 3), and 1.96 sqrt(V) / -ln(3/4) = 1.967
    np.testing.assert_allclose([low[0], high[0]], 0.75 ** np.exp([1.96669, -1.96669]), rtol=1e-3)
    assert low[2] == high[2] == 0.0
    assert median_life(steps, died) == 4 and median_life(steps[:1], ~died[:1]) == np.inf


def test_without_a_death() -> None:
    found = renewal_gain(np.array([100, 200]), np.zeros(2, bool), 50)
    assert found == (1.0, pytest.approx(1 / (1 + 50 * 3 / 300)), 1.0)
    assert mean_life(np.array([100, 200]), np.zeros(2, bool)) == (np.inf, 100.0, np.inf)


@pytest.mark.parametrize("cut", [np.inf, 80])
def test_the_intervals_hold_what_they_promise(cut: float) -> None:
    """Hazard 0.02, 50 empty steps: gain 1/2, mean life 50. 200 lives a time, 1000 times; 95 % +- 2.5 %."""
    rng = np.random.default_rng(0)
    gains, lives, errors = 0, 0, []
    for _ in range(1000):
        whole = rng.geometric(0.02, 200)
        steps, died = np.minimum(whole, cut).astype(int), whole <= cut
        gain, life = renewal_gain(steps, died, 50), mean_life(steps, died)
        gains += gain.low <= 0.5 <= gain.high
        lives += life.low <= 50 <= life.high
        errors.append((gain.high - gain.low) / 2 / 1.96)
    assert 925 <= gains <= 975 and 925 <= lives <= 975
    if cut == np.inf:
        assert np.mean(errors) == pytest.approx(0.0175, abs=0.0005)


def test_finished_lives_alone_would_be_too_short() -> None:
    """Why lives that are cut off must count."""
    whole = np.random.default_rng(0).geometric(0.02, 20_000)
    steps, died = np.minimum(whole, 40), whole <= 40
    assert steps[died].mean() < 25 and mean_life(steps, died).mean == pytest.approx(50, rel=0.05)

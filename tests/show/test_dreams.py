"""Pictures of foresight: what is drawn is what was given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import AxesImage

from mxnb import show


def frames(count: int, shade: int) -> np.ndarray:
    return np.stack([np.full((7, 9, 3), shade + k, np.uint8) for k in range(count)])


@pytest.mark.parametrize("count", [1, 4, 6])
def test_each_frame_stands_above_its_own(count: int) -> None:
    fig = show.open_loop(frames(count, 10), frames(count, 100), labels=("real", "dreamt"))
    shown = [next(c for c in ax.get_children() if isinstance(c, AxesImage)).get_array() for ax in fig.axes]
    assert [int(x[0, 0, 0]) for x in shown] == [v for k in range(count) for v in (10 + k, 100 + k)]
    lows = [ax.get_position().y0 for ax in fig.axes]
    assert all(lower < upper for upper, lower in zip(lows[::2], lows[1::2], strict=True))
    words = [ax.get_xlabel() for ax in fig.axes if ax.get_xlabel()]
    assert words == [f"step {k + 1}" for k in range(count)]
    assert fig.texts[0].get_text() == "above: real, below: dreamt"
    assert all(ax.get_position().y0 >= 0 and ax.get_position().y1 <= 1 for ax in fig.axes)


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[2, 7, 9, 3\], \[3, 7, 9, 3\] and 0 captions"):
        show.open_loop(frames(2, 0), frames(3, 0))
    with pytest.raises(ValueError, match="1 captions"):
        show.open_loop(frames(2, 0), frames(2, 0), ["one"])


def test_calibration_draws_means_of_tenths() -> None:
    expected = np.repeat(np.arange(10.0), 20)
    came = np.concatenate([expected * 2, [np.nan]])
    fig = show.calibration(np.concatenate([expected, [3.0]]), came, title="Reward")
    (ax,) = fig.axes
    line = ax.containers[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), np.arange(10.0))
    np.testing.assert_allclose(line.get_ydata(), 2 * np.arange(10.0))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title("left")) == ("expected", "came", "Reward")


def test_calibration_of_one_value_is_one_part() -> None:
    fig = show.calibration(np.zeros(50), np.arange(50.0))
    assert len(fig.axes[0].containers[0].lines[0].get_xdata()) == 1


def test_calibration_refuses_what_does_not_pair() -> None:
    with pytest.raises(ValueError, match="got 3 and 2"):
        show.calibration(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="2 pairs are too few for 10 parts"):
        show.calibration(np.zeros(2), np.zeros(2))

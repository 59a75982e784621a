"""Lines, grids and survival curves: what is drawn is what was given, and bad input is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mxnb.evaluate import Episodes
from mxnb.show import counts, grid, lines, survival
from mxnb.show._figures import INK


def lives(steps: Any, died: Any) -> Episodes:
    steps, died = np.array(steps), np.array(died)
    return Episodes(steps.astype(np.float32), steps, died, ~died)


def test_lines_and_levels() -> None:
    fig = lines({"a": ([0, 1], [2.0, 3.0]), "b": ([0, 5], [np.nan, 1.0])}, title="t", xlabel="x", levels={"exact": 2.5})
    (ax,) = fig.axes
    assert [list(line.get_ydata()) for line in ax.lines[:1]] == [[2.0, 3.0]]
    assert list(ax.lines[2].get_ydata()) == [2.5, 2.5] and [t.get_text() for t in ax.texts] == ["exact"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["a", "b"]
    for wrong in ({}, {"a": ([0, 1], [2.0])}):
        with pytest.raises(ValueError, match=r"give each line x and y of one length; wrong: (none given|a)"):
            lines(wrong)


def test_a_grid_says_its_shares() -> None:
    fig = grid([[0.0, 0.254], [1.0, 0.5]], ["r", "s"], ["c", "d"])
    assert [text.get_text() for text in fig.axes[0].texts] == ["0", "25", "100", "50"]
    dark = grid([[0.3, 0.66], [0.7, 1.0]], ["r", "s"], ["c", "d"])
    assert [text.get_color() for text in dark.axes[0].texts] == [INK, INK, "white", "white"]
    for wrong in ([[0.0, 1.0]], [[0.0, 1.0], [2.0, 0.0]], [[0.0, np.nan], [1.0, 0.0]]):
        with pytest.raises(ValueError, match="give 2 x 2 shares from 0 to 1"):
            grid(wrong, ["r", "s"], ["c", "d"])


def test_survival_curves_begin_alive_and_count_who_was_cut_off() -> None:
    fig = survival({"some": lives([2, 4, 4, 6], [True, True, False, True]), "none died": lives([5, 9], [False, False])})
    first, second = fig.axes[0].lines
    np.testing.assert_allclose(first.get_xdata(), [0, 2, 4, 6, 6])
    np.testing.assert_allclose(first.get_ydata(), [100, 75, 50, 0, 0], atol=1e-9)
    np.testing.assert_allclose(second.get_xdata(), [0, 9])
    np.testing.assert_allclose(second.get_ydata(), [100, 100])
    with pytest.raises(ValueError, match="give at least one group"):
        survival({})


def test_counts_are_shares_of_each_group() -> None:
    fig = counts({"few": [1, 1, 3, 3], "many": [2.0] * 8}, title="t", xlabel="stage")
    (ax,) = fig.axes
    heights = [round(bar.get_height()) for bar in ax.patches]
    assert heights == [50, 0, 50, 0, 100, 0] and list(ax.get_xticks()) == [1, 2, 3]
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["few: mean 2.00", "many: mean 2.00"]
    for wrong in ({}, {"a": []}, {"a": [1.5]}):
        with pytest.raises(ValueError, match="give each group whole numbers, at least one"):
            counts(wrong)

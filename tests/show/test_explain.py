"""The picture of one update."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mxnb import show
from mxnb.show._figures import ORANGE


def an_update(n: int = 200) -> SimpleNamespace:
    draw = np.random.default_rng(0)
    advantage, ratio = draw.normal(size=n), 1 + 0.15 * draw.normal(size=n)
    target = draw.normal(size=n)
    return SimpleNamespace(
        ratio=ratio, advantage=advantage, clipped=np.where(advantage > 0, ratio > 1.2, ratio < 0.8),
        value=target + 2.0, value_after=target + 0.5, value_target=target,
    )  # fmt: skip


def test_clipped_samples_stand_out_and_errors_are_told(texts: Any, cut_off: Any) -> None:
    update = an_update()
    fig = show.explained(update)
    words = texts(fig)
    assert any(text.startswith("orange: clipped,") and "of 200 samples" in text for text in words)
    assert "typical error 2.00" in words and "typical error 0.50" in words
    orange = [line for line in fig.axes[1].lines if line.get_color() == ORANGE]
    assert len(orange) == 1 and len(orange[0].get_xdata()) == update.clipped.sum()
    assert sum(len(c.get_xdata()) for c in fig.axes[1].lines[1:]) == 200
    counted = sum(bar.get_height() for bar in fig.axes[0].patches)
    assert counted == 200 and not cut_off(fig)


def test_lengths_that_do_not_match_say_so() -> None:
    update = an_update()
    update.value = update.value[:3]
    with pytest.raises(ValueError, match=r"give as many of each, and at least one; got .*'value': 3"):
        show.explained(update)

"""What a world model foresaw beside what came: frames above frames, and whether its numbers can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mxnb.show._figures import BLUE, INK, SMALL, WIDTH, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 4  # frames beside each other that a phone shows legibly


def open_loop(
    real: Any,
    imagined: Any,
    captions: Sequence[str] = (),
    *,
    labels: tuple[str, str] = ("what came", "what was imagined"),
) -> Figure:
    """Draw frames that came, and below each the one that was imagined at the same step.

    Args:
        real, imagined: uint8[K, H, W, 3], in order.
        captions: a word below each pair; () numbers them from 1.
        labels: what the upper and the lower frames are.

    Raises:
        ValueError: no frames, or shapes or counts that do not match.
    """
    real, imagined = np.asarray(real), np.asarray(imagined)
    if real.shape != imagined.shape or real.ndim != 4 or not len(real) or len(captions) not in (0, len(real)):
        raise ValueError(
            f"give two rows of K frames [H, W, 3] and K captions or none; got {list(real.shape)}, "
            f"{list(imagined.shape)} and {len(captions)} captions."
        )
    words = list(captions) or [f"step {k + 1}" for k in range(len(real))]
    wide, gap, head, foot = min(_COLUMNS, len(real)), 0.05, 0.24, 0.24
    cell = WIDTH / _COLUMNS
    height = (cell - gap) * real.shape[1] / real.shape[2]
    pitch = 2 * height + gap + foot
    rows = math.ceil(len(real) / wide)
    across, down = wide * cell, head + rows * pitch
    fig = new_figure(height=down, width=across)
    fig.set_layout_engine("none")
    fig.text(gap / 2 / across, 1 - 0.05 / down, f"above: {labels[0]}, below: {labels[1]}", fontsize=SMALL, va="top")
    for k, (upper, lower, word) in enumerate(zip(real, imagined, words, strict=True)):
        row, column = divmod(k, wide)
        left, top = column * cell + gap / 2, down - head - row * pitch
        for i, frame in enumerate((upper, lower)):
            bottom = top - height - i * (height + gap)
            ax = fig.add_axes((left / across, bottom / down, (cell - gap) / across, height / down))
            ax.imshow(frame, interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
        ax.set_xlabel(word, fontsize=SMALL, color=INK, labelpad=3)
    return fig


def calibration(
    expected: Any, came: Any, *, title: str = "", xlabel: str = "expected", ylabel: str = "came", bins: int = 10
) -> Figure:
    """Draw what came in the mean for each tenth of what was expected, with 95 % intervals; the diagonal is perfect.

    Args:
        expected, came: numbers of the same shape; pairs that are not finite are left out. Equal expectations stay in
            one part.
        bins: parts of about equal count.

    Raises:
        ValueError: different shapes, or fewer pairs than parts.
    """
    expected, came = np.asarray(expected, float).reshape(-1), np.asarray(came, float).reshape(-1)
    if expected.shape != came.shape:
        raise ValueError(f"give as many numbers that came as were expected; got {len(came)} and {len(expected)}.")
    fine = np.isfinite(expected) & np.isfinite(came)
    expected, came = expected[fine], came[fine]
    if len(expected) < bins:
        raise ValueError(f"{len(expected)} pairs are too few for {bins} parts; give more, or fewer parts.")
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, bins + 1)[1:-1]))
    part = np.searchsorted(edges, expected, side="right")
    rows = []
    for i in np.unique(part):
        here = came[part == i]
        error = 1.96 * here.std(ddof=1) / math.sqrt(len(here)) if len(here) > 1 else 0.0
        rows.append((expected[part == i].mean(), here.mean(), error))
    x, y, error = np.array(rows).T
    fig = new_figure(height=2.9)
    ax = fig.subplots()
    style(ax, title, xlabel, ylabel)
    ax.grid(True, color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    low, high = min(x.min(), (y - error).min()), max(x.max(), (y + error).max())
    ax.plot([low, high], [low, high], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label="perfect")
    ax.errorbar(x, y, yerr=error, color=BLUE, marker="o", markersize=4, linewidth=1.4, capsize=2, label="this model")
    ax.legend(fontsize=SMALL, frameon=False)
    return fig

"""One update of PPO in pictures: which samples it moved, which it left alone, and what it taught the critic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mxnb.show._bars import percent
from mxnb.show._figures import BLUE, GREY, INK, ORANGE, SMALL, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 41


def explained(update: Any, *, clip_eps: float = 0.2) -> Figure:
    """Draw a minibatch before and after an update: ratios, advantages, and the critic's error.

    Args:
        update: what `mxnb.agents.explain.explain_update` returns: ratio, clipped, advantage, value, value_after and
            value_target, each [B].
        clip_eps: of the configuration; ratios outside 1 +- clip_eps are clipped.

    Raises:
        ValueError: lengths that do not match, or no samples.
    """
    names = ("ratio", "clipped", "advantage", "value", "value_after", "value_target")
    told = {name: np.asarray(getattr(update, name)) for name in names}
    if len({len(x) for x in told.values()}) != 1 or not len(told["ratio"]):
        raise ValueError(f"give as many of each, and at least one; got { ({k: len(v) for k, v in told.items()}) }")
    ratio, clipped, advantage = told["ratio"], told["clipped"].astype(bool), told["advantage"]
    fig = new_figure(height=4.9)
    ((left, right), (low_left, low_right)) = fig.subplots(2, 2)
    _ratios(left, ratio, clipped, clip_eps)
    style(right, "Advantages", "advantage (normalised)", "ratio")
    right.axhspan(1 - clip_eps, 1 + clip_eps, color="#EEF3F7", linewidth=0)
    right.axhline(1, color=GREY, linewidth=0.7)
    for some, colour in ((~clipped, BLUE), (clipped, ORANGE)):
        right.plot(advantage[some], ratio[some], ".", color=colour, markersize=2.2, alpha=0.5)
    _values(low_left, "Values before", told["value"], told["value_target"])
    _values(low_right, "Values after", told["value_after"], told["value_target"])
    words = f"orange: clipped, {percent(float(clipped.mean()))} of {len(ratio):,} samples: they push no further"
    fig.legend([], [], loc="outside lower center", title=words, title_fontsize=SMALL, frameon=False)
    return fig


def _ratios(ax: Any, ratio: np.ndarray, clipped: np.ndarray, clip_eps: float) -> None:
    far = max(1.5 * clip_eps, float(np.quantile(np.abs(ratio - 1), 0.995)))
    beyond = "\n(last bars: and beyond)" if np.abs(ratio - 1).max() > far else ""
    style(ax, "Ratios after the update", f"new / old probability{beyond}", "samples")
    edges = np.linspace(max(0.0, 1 - far), 1 + far, _BINS)
    inside = [np.clip(ratio[some], edges[0], edges[-1]) for some in (~clipped, clipped)]
    ax.hist(inside, edges, stacked=True, color=[BLUE, ORANGE])
    for bound in (1 - clip_eps, 1 + clip_eps):
        ax.axvline(bound, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.locator_params(axis="both", nbins=5)


def _values(ax: Any, title: str, value: np.ndarray, target: np.ndarray) -> None:
    """Values over what they should have been; the line is where they agree."""
    error = float(np.sqrt(np.mean((value - target) ** 2)))
    style(ax, title, "return to be expected", "value")
    ends = [float(min(value.min(), target.min())), float(max(value.max(), target.max()))]
    ax.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.plot(target, value, ".", color=BLUE, markersize=2.2, alpha=0.5)
    ax.annotate(f"typical error {error:.2f}", (0, 1), (4, -4), xycoords="axes fraction", textcoords="offset points",
                va="top", fontsize=SMALL, color=INK)  # fmt: skip
    ax.locator_params(axis="both", nbins=5)

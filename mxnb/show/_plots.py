"""Plain pictures of numbers that a notebook made: lines with levels to reach, a grid of shares, and survival curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mxnb.show._figures import COLOURS, DASHES, FONT, INK, SMALL, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lines(
    series: Mapping[str, tuple[Any, Any]],
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Draw lines, and dashed levels that they should reach.

    Args:
        series: words for each line -> (x, y), of the same length; what is not finite leaves a gap.
        levels: words for each level -> y.

    Raises:
        ValueError: nothing given, or an x and y of different lengths.
    """
    wrong = [name for name, (x, y) in series.items() if np.shape(x) != np.shape(y) or np.ndim(x) != 1]
    if wrong or not series:
        raise ValueError(f"give each line x and y of one length; wrong: {', '.join(wrong) or 'none given'}.")
    fig = new_figure(height=2.9)
    ax = fig.subplots()
    style(ax, title, xlabel, ylabel)
    ax.grid(True, color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    for i, (name, (x, y)) in enumerate(series.items()):
        look: Any = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}
        ax.plot(np.asarray(x, float), np.asarray(y, float), linewidth=1.6, label=name, **look)
    for name, level in (levels or {}).items():
        ax.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.annotate(
            name, (1, level), (-3, 2), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            va="bottom", fontsize=SMALL, color=INK,
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5},
        )  # fmt: skip
    _legend(fig, ax, len(series))
    return fig


def grid(
    shares: Any, rows: Sequence[str], columns: Sequence[str], *, title: str = "", xlabel: str = "", ylabel: str = ""
) -> Figure:
    """Draw a table of shares, each in percent on a colour from white (0) to blue (1).

    Args:
        shares: [len(rows), len(columns)], each in [0, 1].

    Raises:
        ValueError: a shape that does not fit the names, or a number that is not a share.
    """
    shares = np.asarray(shares, float)
    if shares.shape != (len(rows), len(columns)) or not ((shares >= 0) & (shares <= 1)).all():
        got = f"shape {shares.shape}" if shares.shape != (len(rows), len(columns)) else "numbers outside of them"
        raise ValueError(f"give {len(rows)} x {len(columns)} shares from 0 to 1; got {got}.")
    fig = new_figure(height=0.9 + 0.34 * len(rows))
    ax = fig.subplots()
    style(ax, title, xlabel, ylabel)
    ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    for at in np.ndindex(*shares.shape):
        words, ink = f"{100 * shares[at]:.0f}", ink_on(shares[at])
        ax.text(at[1], at[0], words, ha="center", va="center", fontsize=SMALL, color=ink)
    return fig


def counts(groups: Mapping[str, Any], *, title: str = "", xlabel: str = "", ylabel: str = "") -> Figure:
    """Draw how often each whole number came, in percent, with a bar of every group side by side and the groups' means.

    Args:
        groups: words for each group -> whole numbers, one an episode, such as `episodes.info["stage"]`.

    Raises:
        ValueError: nothing given, an empty group, or numbers that are not whole.
    """
    given = {name: np.asarray(values, float) for name, values in groups.items()}
    wrong = [name for name, values in given.items() if not values.size or (values != np.round(values)).any()]
    if wrong or not given:
        raise ValueError(f"give each group whole numbers, at least one; wrong: {', '.join(wrong) or 'none given'}.")
    low, high = (int(f([f(values) for values in given.values()])) for f in (np.min, np.max))
    places, width = np.arange(low, high + 1), 0.84 / len(given)
    fig = new_figure(height=2.6)
    ax = fig.subplots()
    style(ax, title, xlabel, ylabel or "share (%)")
    ax.grid(True, axis="y", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    for i, (name, values) in enumerate(given.items()):
        share = [100 * float((values == place).mean()) for place in places]
        at = places + (i - (len(given) - 1) / 2) * width
        ax.bar(at, share, width * 0.94, color=COLOURS[i % len(COLOURS)], label=f"{name}: mean {values.mean():.2f}")
    ax.set_xticks(places)
    _legend(fig, ax, len(given))
    return fig


def ink_on(share: float) -> str:
    """The colour of print on a share's blue: white only where that reads better than ink."""
    return "white" if share > 0.68 else INK


def survival(groups: Mapping[str, Any]) -> Figure:
    """Draw the share of lives that still go on after each number of steps, with its 95 % band.

    Args:
        groups: words for each line -> `mxnb.evaluate.Episodes`. Lives cut off by a limit or a win count until then.

    Raises:
        ValueError: nothing given.
    """
    if not groups:
        raise ValueError("give at least one group of episodes.")
    fig = new_figure(height=3.1)
    ax = fig.subplots()
    style(ax, "Survival", "steps lived", "lives that still go on (%)")
    ax.grid(True, color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    for i, (name, episodes) in enumerate(groups.items()):
        times, share, low, high = episodes.survival_curve()
        last = float(np.max(episodes.info.get("life", episodes.lengths)))
        x = np.concatenate([[0.0], times, [last]])
        close = lambda y: 100 * np.concatenate([[1.0], y, y[-1:] if len(y) else [1.0]])
        colour = COLOURS[i % len(COLOURS)]
        ax.step(x, close(share), where="post", linewidth=1.6, color=colour, label=name)
        if len(times):  # where nobody died there is no spread to tell of
            ax.fill_between(x, close(low), close(high), step="post", color=colour, alpha=0.2, linewidth=0)
    ax.set_ylim(0, 103)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    _legend(fig, ax, len(groups))
    return fig


def _legend(fig: Any, ax: Any, count: int) -> None:
    """`count` entries below the picture, as many side by side as fit, and the picture made higher by as much."""
    handles, names = ax.get_legend_handles_labels()
    columns = max(1, min(count, 54 // (max(map(len, names)) + 8)))
    fig.legend(handles, names, loc="outside lower center", fontsize=FONT, frameon=False, ncols=columns)
    fig.set_figheight(fig.get_figheight() + 0.18 * -(-count // columns))

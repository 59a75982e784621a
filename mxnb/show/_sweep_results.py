"""A sweep at its end: each set of values with its interval, and how likely it beats the best one or a baseline."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mxnb.show._figures import BLUE, INK, LIGHT, ORANGE, SMALL, new_figure, style, to_base64
from mxnb.show._sweep import SweepRun, SweepSet, cut, in_digits, label, sets_of, sweep_runs, which_metric
from mxnb.show._sweep_figures import height_of, named, note_below_title, only_words
from mxnb.show._sweep_maths import LEAST, improvement, middle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 15  # more rows do not fit a page
_WIDE = 23  # characters beside the picture


@dataclass(frozen=True)
class SetResult:
    """A set of values at its end.

    finals: the metric of each seed that is done [n]. value: their middle half's mean with its 95 % interval; of fewer
    than 4 their mean, and NaN. better: (P(better than the reference), low, high), None for the reference itself.
    """

    label: str
    values: Mapping[str, Any]
    finals: np.ndarray
    value: float
    low: float
    high: float
    better: tuple[float, float, float] | None
    runs: tuple[SweepRun, ...]


@dataclass(frozen=True, repr=False)
class SweepResults:
    """The sets of a sweep, the best first, as a picture and a table; the others are held against the reference."""

    title: str
    metric: str
    rows: tuple[SetResult, ...]
    reference: str
    words: str
    figure: Any

    @property
    def best_run(self) -> Path | None:
        """The folder of the best seed of the best set, None where nothing is done."""
        if not self.rows:
            return None
        runs = [(run.final(self.metric), run.folder) for run in self.rows[0].runs]
        return max(((value, place) for value, place in runs if value is not None))[1]

    def table(self) -> list[tuple[str, ...]]:
        """The rows in words, under a line of heads."""
        head = ("values", "seeds", "value", "95 %", f"P(better than {'the best' if self._best else 'the baseline'})")
        return [head, *(_row(row) for row in self.rows)]

    @property
    def _best(self) -> bool:
        return bool(self.rows) and self.rows[0].label == self.reference

    def __str__(self) -> str:
        lines = self.table() if self.rows else []
        widths = [max(len(row[i]) for row in lines) for i in range(5)] if lines else []
        told = ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in lines]
        return "\n".join([self.title, *told, textwrap.indent(textwrap.fill(self.words, 110), "  ")])

    __repr__ = __str__

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        e = html.escape
        look = "text-align:left;padding:2px 12px 2px 0"
        cells = lambda tag, row: "".join(f'<{tag} style="{look}">{e(word)}</{tag}>' for word in row)
        lines = self.table() if self.rows else []
        body = "".join(f"<tr>{cells('th' if i == 0 else 'td', row)}</tr>" for i, row in enumerate(lines))
        picture = f'<img alt="{e(self.title)}" style="max-width:100%" src="data:image/png;base64,'
        table = f'<div style="overflow-x:auto"><table>{body}</table></div>' if lines else ""
        words = f"<p>{e(self.words)}</p>{table}"
        return {"text/plain": str(self), "text/html": f'{picture}{to_base64(self.figure)}">{words}'}


def _row(row: SetResult) -> tuple[str, ...]:
    interval = f"{row.low:.3g} to {row.high:.3g}" if math.isfinite(row.low) else "-"
    if row.better is None:
        chance = "(reference)"
    else:
        share, low, high = row.better
        chance = f"{share:.2f}" + (f" ({low:.2f} to {high:.2f})" if math.isfinite(low) else "")
    return label(row.values, 200), str(len(row.finals)), f"{row.value:.4g}", interval, chance


def sweep_results(folder: Any, metric: str = "", baseline: Mapping[str, Any] | None = None) -> SweepResults:
    """Each set of values at its end, the best first, and how likely a seed of it beats one of the best, or a baseline.

    A point is the mean of the seeds' middle half with its 95 % bootstrap interval; of fewer than 4 seeds the seeds
    themselves and their mean. Only runs that are done count; higher is better.

    Args:
        folder: papermill_runs/NAME of a sweep, also while it runs.
        metric: a name in result.json; "": the episode return, or where no episode ends the reward of a step.
        baseline: values that one set has, such as {"ent_coef": 0.01}: what the others are held against.

    Raises:
        FileNotFoundError, ValueError: as `sweep_runs`; a metric that no run has, a baseline that is no set or several.
    """
    runs = sweep_runs(folder)
    metric = which_metric(runs, metric)
    sets = [one for one in sets_of(runs) if len(one.finals(metric))]
    sets.sort(key=lambda one: -height_of(one, metric))
    name = named(metric)
    lacking = sum(run.status == "done" and run.final(metric) is None for run in runs)
    told = sum(len(one.finals(metric)) for one in sets)
    title = f"Final {name} of {told} of {len(runs)} runs"
    if not sets:
        words = "No run is done yet." if not lacking else f"{lacking} runs are done, and none of them has a {metric}."
        return SweepResults(title, metric, (), "", words, only_words(f"Final {name}", words.lower().rstrip(".")))
    reference = sets[0] if baseline is None else _baseline(sets, baseline)
    rows = tuple(
        SetResult(
            one.label, one.values, one.finals(metric), *middle(one.finals(metric)),
            None if one is reference else improvement(one.finals(metric), reference.finals(metric)), one.runs,
        ) for one in sets
    )  # fmt: skip
    words = _said(rows, len(runs) - told, lacking, baseline is None)
    against = "best" if baseline is None else "baseline"
    return SweepResults(title, metric, rows, reference.label, words, _points(rows, name, against))


def _baseline(sets: Sequence[SweepSet], baseline: Mapping[str, Any]) -> SweepSet:
    found = [one for one in sets if all(one.values.get(name) == value for name, value in baseline.items())]
    if len(found) != 1:
        there = "; ".join(one.label for one in (found or sets)[:8])
        fits = f"baseline {dict(baseline)} fits {len(found)} of the sets that have a result"
        raise ValueError(f"{fits}; name one of: {there}")
    return found[0]


def _said(rows: Sequence[SetResult], left: int, lacking: int, best: bool) -> str:
    counts = sorted({len(row.finals) for row in rows})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    words = f"{len(rows)} set{'s' * (len(rows) > 1)} of values, {seeds} seed{'s' * (counts[-1] > 1)} each. "
    if counts[-1] >= LEAST:
        words += "Points: mean of the middle half of the seeds, with its 95 % interval"
        words += ", where there are 4 seeds; else their mean. " if counts[0] < LEAST else ". "
    else:
        words += "Fewer than 4 seeds carry no interval: dots are the seeds, bars their mean. "
    if left:
        why = f"not done, or ({lacking}) without a number" if lacking else "not done"
        words += f"{left} run{'s are' if left > 1 else ' is'} left out: {why}. "
    if best and len(rows) > 2:
        words += f"The best of {len(rows)} is in part the luckiest: judge it by new seeds."
    return words.strip()


def _points(rows: Sequence[SetResult], name: str, against: str) -> Figure:
    """A line for each set: its value, and beside it how likely it beats the reference."""
    shown = list(rows[:_ROWS])
    if all(row.better is not None for row in shown):
        shown[-1] = next(row for row in rows if row.better is None)
    told = [_lines(row.values) for row in shown]
    deep = max(map(len, told))
    chances = len(rows) > 1 and max(len(row.finals) for row in rows if row.better) > 1
    fig = new_figure(height=0.95 + (0.14 + 0.13 * deep) * max(2, len(shown)))
    axes = fig.subplots(1, 1 + chances, sharey=True, squeeze=False, width_ratios=(3, 2)[: 1 + chances])[0]
    style(axes[0], f"Final {name}", name)
    if len(rows) > len(shown):
        note_below_title(fig, [f"best {len(shown)} of {len(rows)} sets"])
    for i, row in enumerate(shown):
        axes[0].plot(row.finals, np.full(len(row.finals), i), "o", color=LIGHT, markersize=3.5, zorder=2)
        if math.isfinite(row.low):
            axes[0].plot([row.low, row.high], [i, i], color=BLUE, linewidth=1.6, zorder=3)
            axes[0].plot(row.value, i, "o", color=BLUE, markersize=5, zorder=4)
        else:
            axes[0].plot(row.value, i, "|", color=BLUE, markersize=11, markeredgewidth=1.6, zorder=4)
    if chances:
        _chances(axes[1], shown, against)
    axes[0].set_yticks(range(len(shown)), ["\n".join(lines) for lines in told])
    axes[0].set_ylim(len(shown) - 0.4, -0.6)
    axes[0].locator_params(axis="x", nbins=4)
    for ax in axes:
        ax.grid(True, axis="x", color="#E6E6E6", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    return fig


def _lines(values: Mapping[str, Any]) -> list[str]:
    """A set's values in up to three lines that leave room for the picture; a name keeps its value beside it."""
    lines = [""]
    for name, value in values.items():
        said = in_digits(value, 12)
        words = f"{cut(name, _WIDE - 1 - len(said))} {said}"
        joined = f"{lines[-1]}, {words}".removeprefix(", ")
        lines[-1:] = [joined] if len(joined) <= _WIDE else [lines[-1], words]
    lines = [line for line in lines if line] or [label({})]
    return lines if len(lines) <= 3 else [*lines[:2], f"{lines[2][: _WIDE - 2]} …"]


def _chances(ax: Any, shown: Sequence[SetResult], against: str) -> None:
    style(ax, "", f"P(better than\nthe {against})")
    ax.axvline(0.5, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    for i, row in enumerate(shown):
        if row.better is None:
            ax.text(0.5, i, against, ha="center", va="center", fontsize=SMALL, color=INK,
                    bbox={"facecolor": "white", "linewidth": 0, "pad": 1.0})  # fmt: skip
            continue
        share, low, high = row.better
        if math.isfinite(low):
            ax.plot([low, high], [i, i], color=ORANGE, linewidth=1.6)
        ax.plot(share, i, "o", color=ORANGE, markersize=5, markerfacecolor=ORANGE if math.isfinite(low) else "white")
    ax.set_xlim(-0.05, 1.05)
    ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])

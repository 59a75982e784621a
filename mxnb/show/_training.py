"""What changed while a run learned: achievements over time, rules with their healthy ranges, and two runs compared."""

from __future__ import annotations

import html
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mxnb.show._bars import percent
from mxnb.show._curves import PANELS, axis, curves
from mxnb.show._figures import (
    BLUE,
    COLOURS,
    FONT,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    SMALL,
    new_figure,
    style,
    to_base64,
    unit_of,
)
from mxnb.show._health import Judgement, judge
from mxnb.show._plots import ink_on
from mxnb.show._runs import number, pooled_mean, read_json, run_path, some_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 6  # parts of a run in the heat map; a phone holds their numbers


def achievements_over_time(run: Any, *, columns: int = _COLUMNS, x: str = "steps") -> Figure:
    """Draw how often each achievement was reached in each part of a run, in percent of the episodes that ended there.

    Args:
        run: a run folder, or the `Result` of `fit`.
        columns: equal parts of its environment steps, or of its minutes.
        x: "steps" or "minutes", as in `curves`.

    Raises:
        FileNotFoundError: the folder has no `metrics.jsonl`.
        ValueError: columns below 1, an unknown x, or no achievements in its rows.
    """
    metric, size = axis(x)
    if columns < 1:
        raise ValueError(f"columns is {columns}; use at least 1")
    rows = [row for row in some_rows(run) if number(row, "train/num_episodes")]
    steps = np.array([number(row, metric) or 0.0 for row in rows]) / size
    names, shown = _rates(rows, steps, columns)
    if not names:
        raise ValueError(f"{run_path(run)} reports no achievements, or no episode has ended yet: train longer")
    fig = new_figure(height=1.05 + 0.2 * len(names))
    ax = fig.subplots()
    scale, word = unit_of(x, steps[-1])
    style(ax, "Achievements while it learned", f"{word}\nnumbers: % of the episodes that ended in that part")
    ax.imshow(np.ma.masked_invalid(shown), cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    ax.set_yticks(range(len(names)), names)
    edges = np.arange(columns + 1) * steps[-1] / columns / scale
    ax.set_xticks(np.arange(columns + 1)[::2] - 0.5, [_brief(edge) for edge in edges[::2]])
    ax.tick_params(length=0)
    for i, j in np.ndindex(*shown.shape):
        if not np.isnan(shown[i, j]):
            words, ink = percent(float(shown[i, j])).removesuffix(" %"), ink_on(float(shown[i, j]))
            ax.text(j, i, words, ha="center", va="center", fontsize=SMALL, color=ink)
    return fig


def _rates(rows: Sequence[dict[str, Any]], along: np.ndarray, columns: int) -> tuple[list[str], np.ndarray]:
    """Words for each achievement, the one most often reached last first, and its rate in each part of a run."""
    from mxnb.evaluate import NUMBERS

    of = lambda key: key.removeprefix("stats/")
    names = {k for row in rows for k in row if k.startswith("stats/") and "/" not in of(k) and of(k) not in NUMBERS}
    names = sorted(names)
    if not names:
        return [], np.zeros((0, columns))
    part = np.clip(np.ceil(along / along[-1] * columns).astype(int) - 1, 0, columns - 1)  # a row's steps lie before it
    parts = [[row for row, p in zip(rows, part, strict=True) if p == i] for i in range(columns)]
    rates = np.array([[pooled_mean(some, name) if some else None for some in parts] for name in names], float)
    known = np.nan_to_num(rates)
    shares = (known.min(1) >= -1e-6) & (known.max(1) <= 1 + 1e-6)  # others count or measure: a life's length
    order = [i for i in np.lexsort((np.array(names), -known.sum(1), -known[:, -1])) if shares[i]]
    return [of(names[i]).replace("_", " ") for i in order], rates[order]


def _brief(edge: float) -> str:
    """Two digits, and all of those before the point: 0.999 is 1, 10.92 is 11, 122.6 is 123."""
    return f"{round(edge, max(0, 1 - math.floor(math.log10(edge)))) if edge else 0:,g}"


def reward_parts(run: Any, *, x: str = "steps", most: int = 7) -> Figure:
    """Draw what an episode's reward was made of while a run learned: gains stacked upwards, losses downwards.

    Each part is its mean a step (`reward/...` of the rows) times the steps an episode took at that time, and the line
    is their sum. The `most` largest parts have a colour each, the rest share one.

    Raises:
        FileNotFoundError: the folder has no `metrics.jsonl`.
        ValueError: an unknown x, most outside 1 to 7, or no parts in its rows (an environment tells of them by
            `Spec.step_means`), or no episode that ended.
    """
    metric, size = axis(x)
    if not 1 <= most <= 7:
        raise ValueError(f"most is {most}; use 1 to 7: there are no more colours to tell apart")
    rows = some_rows(run)
    names = sorted({name for row in rows for name in row if name.startswith("reward/")})
    if not names or not any(number(row, "train/num_episodes") for row in rows):
        raise ValueError(f"{run_path(run)} reports no parts of the reward, or no episode has ended yet")
    along, parts = _per_episode(rows, names, metric)
    largest = sorted(names, key=lambda name: -np.abs(parts[name]).max())
    areas = [
        (name.removeprefix("reward/").replace("_", " "), colour, [parts[name]])
        for name, colour in zip(largest[:most], (*COLOURS[:6], LIGHT), strict=False)
    ]
    if largest[most:]:
        areas.append(("others", GREY, [parts[name] for name in largest[most:]]))
    fig = new_figure(height=3.1)
    ax = fig.subplots()
    scale, word = unit_of(x, along[-1])
    along = along / size / scale
    style(ax, "What an episode's reward was made of", word, "reward an episode")
    up, down = np.zeros(len(along)), np.zeros(len(along))
    for name, colour, several in areas:
        gain, loss = np.maximum(several, 0).sum(0), np.minimum(several, 0).sum(0)
        ax.fill_between(along, up, up + gain, color=colour, linewidth=0, alpha=0.85, label=name)
        ax.fill_between(along, down, down + loss, color=colour, linewidth=0, alpha=0.85)
        up, down = up + gain, down + loss
    ax.plot(along, sum(parts.values()), color=INK, linewidth=1.6, label="sum")
    ax.axhline(0, color=INK, linewidth=0.6)
    fig.legend(loc="outside lower center", fontsize=SMALL, frameon=False, ncols=2)
    fig.set_figheight(fig.get_figheight() + 0.18 * math.ceil((len(areas) + 1) / 2))
    return fig


def _per_episode(rows: Sequence[dict[str, Any]], names: Sequence[str], metric: str) -> tuple[Any, dict[str, Any]]:
    """(places along `metric`, each part's reward an episode there), in at most 40 parts of the run with an episode."""
    along, parts = [], []
    step = rows[0]["timesteps"] / rows[0]["update"]
    for some in np.array_split(np.arange(len(rows)), min(40, len(rows))):
        episodes = sum(number(rows[i], "train/num_episodes") or 0.0 for i in some)
        if episodes:
            along.append(number(rows[some[-1]], metric) or 0.0)
            means = [np.mean([number(rows[i], name) or 0.0 for i in some]) for name in names]
            parts.append(np.array(means) * step * len(some) / episodes)
    return np.array(along), dict(zip(names, np.array(parts).T, strict=True))


def healthy_range(rule: Judgement) -> str:
    """`rule.range`; of a share only its low end, where the high one is 1 and some room for rounding."""
    named = 0 < rule.low < math.inf and 1 < rule.high <= 1.05
    return f"at least {rule.low:g}" if named else rule.range


def health_curves(run: Any, *, x: str = "steps") -> Figure:
    """Draw each metric that a run's health rules watch, with the healthy range shaded, over "steps" or "minutes".

    Raises:
        FileNotFoundError: the folder has no `metrics.jsonl`.
        ValueError: its config.json names no rules, no row has one of their metrics, or an unknown x.
    """
    metric, size = axis(x)
    rows = some_rows(run)
    rules = judge(read_json(run, "config.json").get("health") or (), rows)
    told = [(rule, [(number(row, metric), number(row, rule.metric)) for row in rows]) for rule in rules]
    told = [(rule, [(x, y) for x, y in points if x is not None and y is not None]) for rule, points in told]
    told = [(rule, points) for rule, points in told if points]
    if not told:
        raise ValueError(f"{run_path(run)} has no rows with the metrics that its health rules watch")
    fig = new_figure(height=0.35 + 1.4 * len(told))
    axes = np.atleast_1d(fig.subplots(len(told), sharex=True))
    scale, word = unit_of(x, max(points[-1][0] for _, points in told))
    for ax, (rule, points) in zip(axes, told, strict=True):
        along, y = np.array(points, float).T / np.array([[size * scale], [1.0]])
        _health_panel(ax, rule, along, y)
    fig.align_ylabels(axes)
    axes[-1].set_xlabel(f"{word}; green: healthy, orange: outside", fontsize=SMALL, color=INK)
    return fig


def _health_panel(ax: Any, rule: Judgement, along: np.ndarray, y: np.ndarray) -> None:
    """One metric's line, its healthy range shaded, and a dashed line at each bound that the range names."""
    panel = PANELS.get(rule.metric)
    style(ax, "", "", textwrap.fill(panel.unit, 14) if panel else "")
    look: Any = {"fontsize": FONT + 0.5, "color": INK, "fontweight": "bold"}
    ax.set_title(panel.title if panel else rule.metric, loc="left", pad=15, **look)
    words = healthy_range(rule)
    told = f"{rule.metric}, healthy: {words}" if panel else f"healthy: {words}"
    ax.annotate(told, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=SMALL, color=GREY)
    low = -math.inf if words.startswith("at most") else rule.low
    high = math.inf if words.startswith("at least") else rule.high
    bottom, top = _limits(low, high, y[np.isfinite(y)])
    ax.set_ylim(bottom, top)
    ax.axhspan(max(low, bottom), min(high, top), color="#DDEFE6", linewidth=0)
    ax.plot(along, y, color=BLUE, linewidth=1.1, clip_on=False, in_layout=False, zorder=3)  # at 0 it lies on the axis
    sick = ~((y >= rule.low) & (y <= rule.high))
    ax.plot(along[sick], y[sick], ".", color=ORANGE, markersize=3, zorder=3)
    for bound in (low, high):
        if bottom <= bound <= top:
            ax.axhline(bound, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.locator_params(axis="y", nbins=4)


def _limits(low: float, high: float, y: np.ndarray) -> tuple[float, float]:
    """An axis from 0, or from the lowest value, that holds all values, the low bound, and a high one not far off."""
    least, most = (min(0.0, y.min()), max(0.0, y.max())) if len(y) else (0.0, 0.0)
    if high <= 4 * most or (most == 0 < high < math.inf):
        most = max(most, high)
    if math.isfinite(low):
        most = max(most, 1.2 * low)
    top = 1.1 * most or 1.0
    # Where only 0 is healthy, nothing above it may be shaded: the shade lies below.
    return min(1.1 * least, -0.08 * top if high <= 0 else 0.0), top


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two runs: where their parameters differ, and their curves. A cell shows both."""

    labels: tuple[str, str]
    differences: dict[str, tuple[Any, Any]]
    figure: Any

    def __repr__(self) -> str:
        lines = [f"  {name}: {a} / {b}" for name, (a, b) in self.differences.items()]
        return "\n".join([f"{self.labels[0]} / {self.labels[1]}", *(lines or ["  the same parameters"])])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        cell = lambda tag, text: (
            f'<{tag} style="text-align:left;padding:2px 12px 2px 0">{html.escape(str(text))}</{tag}>'
        )
        line = lambda tag, words: f"<tr>{''.join(cell(tag, word) for word in words)}</tr>"
        body = "".join(line("td", (name, *pair)) for name, pair in self.differences.items())
        table = f"<table><thead>{line('th', ('parameter', *self.labels))}</thead><tbody>{body}</tbody></table>"
        picture = f'<img alt="curves" style="max-width:100%" src="data:image/png;base64,{to_base64(self.figure)}">'
        words = table if self.differences else "<p>The same parameters.</p>"
        return {"text/plain": repr(self), "text/html": f'<div style="overflow-x:auto">{words}</div>{picture}'}


def compare(first: Any, second: Any, *, labels: Sequence[str] = ("", ""), x: str = "steps") -> Comparison:
    """Two runs side by side: the parameters (agent, environment, seed, versions too) that differ, and their curves.

    Raises FileNotFoundError and ValueError as `curves`, and where a folder has no readable config.json.
    """
    told = [_told(run) for run in (first, second)]
    names = tuple(label or run_path(run).name for label, run in zip(labels, (first, second), strict=True))
    keys = [*told[0], *(key for key in told[1] if key not in told[0])]
    pairs = {key: tuple(some.get(key, "-") for some in told) for key in keys}
    different = {key: pair for key, pair in pairs.items() if json.dumps(pair[0]) != json.dumps(pair[1])}
    if names[0] == names[1]:
        names = (f"{names[0]} (first)", f"{names[1]} (second)")
    return Comparison(names, different, curves([first, second], labels=names, x=x))  # type: ignore[arg-type]


def _told(run: Any) -> dict[str, Any]:
    found = read_json(run, "config.json")
    if not found:
        raise FileNotFoundError(f"no readable {run_path(run) / 'config.json'}: give the folder that fit wrote to")
    versions = {f"version of {name}": version for name, version in found.get("versions", {}).items()}
    return {name: found.get(name) for name in ("agent", "env", "preset", "seed")} | found.get("config", {}) | versions

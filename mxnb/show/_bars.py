"""Horizontal bars: how often each achievement is reached, and how often each action is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mxnb.show._figures import BLUE, FONT, GREY, INK, LIGHT, SMALL, new_figure, style
from mxnb.show._runs import number, pooled_mean, run_path, some_rows, tail

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def achievements(run: Any, baseline: Any = None, *, labels: Sequence[str] = ("this run", "baseline")) -> Figure:
    """Draw how often each achievement was reached, in percent of the episodes, highest first.

    Args:
        run: a run folder (or the `Result` of `fit`): the `stats/` metrics that are shares, over the last 10 %
            of the rows in which an episode ended, weighted by episodes; or a dict name -> rate in [0, 1].
        baseline: the same of something to compare with, such as the random policy: a second, lighter bar.
        labels: words for the two in the legend.

    Raises:
        FileNotFoundError: the folder has no `metrics.jsonl`.
        ValueError: no rates there, or a rate that is not a share (given in percent, perhaps).
    """
    rates = _rates(run, "stats/", "the environment reports no achievements, or no episode has ended yet: train longer")
    others = None if baseline is None else _rates(baseline, "stats/", "the baseline has no achievements")
    return _bars(rates, others, "Achievements", "episodes in which it was reached (%)", labels, limit=100.0)


def actions(run: Any, baseline: Any = None, *, labels: Sequence[str] = ("this run", "baseline")) -> Figure:
    """Draw how often each action was taken, in percent of the steps, highest first.

    Args:
        run: a run folder (or the `Result` of `fit`): the `actions/` metrics over the last 10 % of the rows; or a
            dict name -> share in [0, 1].
        baseline: the same of something to compare with: a second, lighter bar.
        labels: words for the two in the legend.

    Raises:
        FileNotFoundError: the folder has no `metrics.jsonl`.
        ValueError: no shares there, or a number that is not a share.
    """
    shares = _rates(run, "actions/", "this agent does not report how often it takes each action")
    others = None if baseline is None else _rates(baseline, "actions/", "the baseline has no actions")
    return _bars(shares, others, "Actions", "steps on which it was taken (%)", labels, limit=None)


def speed(rates: Mapping[str, float], title: str = "Speed", unit: str = "environment steps per second") -> Figure:
    """Draw one bar per way of doing the same work, in the given order, with its number and its share of the fastest.

    Args:
        rates: words for each way -> how many of `unit`; larger is better.

    Raises:
        ValueError: nothing given, or a rate that is not a positive number.
    """
    wrong = [name for name, rate in rates.items() if not 0 < rate < float("inf")]
    if wrong or not rates:
        raise ValueError(f"give positive rates to compare; wrong: {', '.join(wrong) or 'none given'}.")
    rows, top = len(rates), max(rates.values())
    fig = new_figure(height=0.85 + 0.34 * rows)
    ax = fig.subplots()
    style(ax, title, unit)
    ax.barh(range(rows), list(rates.values()), 0.7, color=BLUE)
    for i, rate in enumerate(rates.values()):
        words = f"{rate:,.0f} ({percent(rate / top)})"
        ax.annotate(words, (rate, i), (3, 0), textcoords="offset points", va="center", fontsize=SMALL, color=INK)
    ax.set_yticks(range(rows), list(rates))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(rows - 0.4, -0.6)
    ax.set_xlim(0, 1.45 * top)
    ax.xaxis.set_major_locator(_few_ticks())
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.spines["left"].set_visible(False)
    ax.grid(True, axis="x", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    return fig


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _rates(source: Any, prefix: str, mend: str) -> dict[str, float]:
    from mxnb.evaluate import NUMBERS

    if isinstance(source, Mapping):
        named = {str(name).removeprefix(prefix): float(rate) for name, rate in source.items()}
        rates = {name: rate for name, rate in named.items() if "/" not in name}
        wrong = [f"{name} = {rate:g}" for name, rate in rates.items() if not 0 <= rate <= 1]
        if wrong:
            raise ValueError(f"rates are shares between 0 and 1, not percent: {', '.join(wrong[:3])}.")
        where = "the dict"
    else:
        rows = [row for row in some_rows(source) if any(key.startswith(prefix) for key in row)]
        rows = tail(rows)
        names = sorted({key for row in rows for key in row if key.startswith(prefix) and number(row, key) is not None})
        means = {name.removeprefix(prefix): pooled_mean(rows, name) for name in names}
        # Other environments put scores and counts into stats/; only shares belong in this picture, and names
        # with a / are of another kind (cause/death).
        shares = {name: mean for name, mean in means.items() if mean is not None and -1e-6 <= mean <= 1 + 1e-6}
        rates = {name: mean for name, mean in shares.items() if "/" not in name and name not in NUMBERS}
        where = str(run_path(source) / "metrics.jsonl")
    if not rates:
        raise ValueError(f"nothing to draw from {where}, where `{prefix}...` should be: {mend}.")
    return rates


def percent(share: float) -> str:
    """A share in words: "42 %", and a digit more where it is small ("0.3 %")."""
    value = 100 * share
    if 0 < value < 0.05:
        return "<0.1 %"  # 0 % would say never
    return f"{value:.1f} %" if 0 < value < 9.95 else f"{value:.0f} %"


def _bars(
    rates: dict[str, float], others: dict[str, float] | None, title: str, xlabel: str, labels: Sequence[str],
    limit: float | None,
) -> Figure:  # fmt: skip
    less = others or {}
    names = sorted({*rates, *less}, key=lambda name: (-rates.get(name, 0.0), -less.get(name, 0.0), name))
    rows = len(names)
    fig = new_figure(height=0.85 + (0.3 if others else 0.0) + (0.31 if others else 0.22) * rows)
    ax = fig.subplots()
    style(ax, title, xlabel)
    thick = 0.42 if others else 0.74
    here = [i - (thick / 2 if others else 0) for i in range(rows)]
    ax.barh(here, [100 * rates.get(name, 0.0) for name in names], thick, color=BLUE, label=labels[0])
    top = max(rates.values())
    if others:
        there = [i + thick / 2 for i in range(rows)]
        widths = [100 * others.get(name, 0.0) for name in names]
        ax.barh(there, widths, thick, color=LIGHT, label=labels[1])
        top = max(top, *others.values())
        fig.legend(loc="outside lower center", ncols=2, fontsize=FONT, frameon=False)
        _numbers(ax, names, others, there, SMALL - 0.5, GREY)
    _numbers(ax, names, rates, here, SMALL - 0.5 if others else SMALL, INK)
    ax.set_yticks(range(rows), [name.replace("_", " ") for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(rows - 0.4, -0.6)
    # Room for the number after the longest bar; the ticks still end at 100.
    end = limit if limit is not None else max(1.0, 100 * top)
    ax.set_xlim(0, max(end, 100 * top * 1.18) if 100 * top > 0.85 * end else end)
    if limit is not None:
        ax.set_xticks([0, 25, 50, 75, 100])
    ax.spines["left"].set_visible(False)
    ax.grid(True, axis="x", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    return fig


def _numbers(ax: Any, names: list[str], rates: dict[str, float], where: list[float], size: float, ink: str) -> None:
    for name, y in zip(names, where, strict=True):
        words = percent(rates[name]) if name in rates else "no data"
        place = (100 * rates.get(name, 0.0), y)
        ax.annotate(words, place, (3, 0), textcoords="offset points", va="center", fontsize=size, color=ink)

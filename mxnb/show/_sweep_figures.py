"""Pictures of a sweep: its learning curves, and how much each parameter decides."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mxnb.show._curves import curves, panel_of
from mxnb.show._figures import BLUE, FONT, GREY, INK, LIGHT, SMALL, new_figure, style
from mxnb.show._sweep import SweepRun, SweepSet, cut, sets_by, sets_of, sweep_runs, unique, varied, which_metric
from mxnb.show._sweep_maths import LEAST, Effect, effects, explained, middle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES = 8  # more lines cannot be told apart
_ROWS = 20  # more rows do not fit a page


def sweep_curves(folder: Any, by: str = "", metric: str = "", *, smooth: float = 0.05, x: str = "steps") -> Figure:
    """Draw a sweep's learning curves: a line for each set of values, its seeds as a band.

    With 4 seeds or more everywhere, the mean of their middle half and its 95 % interval, else mean and range. Of more
    than 8 sets the best 8, unless `by` pools them. A set's seeds that are not done are left out, as long as one is.

    Args:
        folder: papermill_runs/NAME of a sweep, also while it runs.
        by: a parameter; all runs that share its value are then one line. A range of numbers is cut into four parts.
        metric: a name in metrics.jsonl; "": the episode return, or where no episode ends the reward of a step.
        smooth, x: as in `curves`.

    Raises:
        FileNotFoundError, ValueError: as `sweep_runs`; a `by` that is not varied, a metric that no run has.
    """
    runs = sweep_runs(folder)
    metric = which_metric(runs, metric)
    sets = sets_by(runs, by) if by else sets_of(runs)
    chosen = {one.label: _to_draw(one) for one in sets}
    chosen = {words: some for words, some in chosen.items() if some}
    if not chosen:
        return only_words(panel_of(metric).title, "no update of any run has ended yet")
    notes = [f"by {by}: runs of all other values pooled"] if by and len(varied(runs)) > 1 else []
    if len(chosen) > _LINES:
        height = {one.label: height_of(one, metric) for one in sets}
        best = sorted(chosen, key=lambda words: -height[words])[:_LINES]
        notes.append(f"the best {_LINES} of {len(sets)} sets by their end, so they look better than they are")
        chosen = {words: chosen[words] for words in best}
    drawn = [run for some in chosen.values() for run in some]
    on_the_way = sum(run.status != "done" for run in drawn)
    left = sum(run.status != "done" for run in runs) - on_the_way
    notes += [f"{on_the_way} of {len(drawn)} runs drawn: not done, as far as they are"] if on_the_way else []
    notes += [f"left out: {left} of {len(runs)} runs that are not done"] if left else []
    band = "iqm" if min(map(len, chosen.values())) >= LEAST else "range"
    folders = {words: [run.folder for run in some] for words, some in chosen.items()}
    fig = curves(folders, smooth=smooth, band=band, x=x, metric=metric, of="run" if by else "seed")
    note_below_title(fig, notes)
    return fig


def _to_draw(one: SweepSet) -> list[SweepRun]:
    """The runs that are done; where none is, those that have begun, though the last of them cuts the line short."""
    done = [run for run in one.runs if run.status == "done" and run.began]
    return done or [run for run in one.runs if run.began]


def named(metric: str) -> str:
    """A metric in a few words."""
    usual = {"train/mean_episode_return": "episode return", "train/mean_reward": "reward per step"}
    return usual.get(metric) or cut(metric.split("/")[-1].replace("_", " "), 26)


def height_of(one: SweepSet, metric: str) -> float:
    """A set's value at its end, as it is ranked by; without a run that is done it comes last."""
    finals = one.finals(metric)
    return middle(finals)[0] if len(finals) else -math.inf


def sweep_importance(folder: Any, metric: str = "") -> Figure:
    """Draw how much of the final metric's variance each parameter explains by itself, beside what chance would.

    Epsilon squared: the correlation ratio without its bias, in a grid after the other parameters' effects have been
    taken out; ranges of numbers are cut into parts. The grey band holds 95 % of the shares that shuffled runs give:
    inside of it nothing is shown. Only main effects: what two parameters do together is in nobody's bar.

    Args:
        folder: papermill_runs/NAME of a sweep, also while it runs.
        metric: a name in result.json; "": the episode return, or where no episode ends the reward of a step.

    Raises:
        FileNotFoundError, ValueError: as `sweep_runs`; a metric that no run has.
    """
    runs = sweep_runs(folder)
    metric = which_metric(runs, metric)
    told = [(run, value) for run in runs if (value := run.final(metric)) is not None]
    title = f"What decides the final {named(metric)}"
    names = varied([run for run, _ in told])
    if not names:
        why = f"the {len(told)} runs that are done do not differ in any parameter" if told else "no run is done yet"
        return only_words(title, why)
    sets = sets_of([run for run, _ in told])
    place = {run.id: i for i, one in enumerate(sets) for run in one.runs}
    luck = 1 - float(explained([place[run.id] for run, _ in told], [value for _, value in told]))
    found = effects({name: [run.values.get(name) for run, _ in told] for name in names}, [value for _, value in told])
    notes = [f"{len(told)} runs", "grey: what chance stays under, 95 times of 100"]
    if math.isfinite(luck):  # NaN with one seed each
        notes.insert(1, f"{100 * min(1.0, luck):.0f} % of the variance is between seeds of the same values")
    return _effects(found, title, notes)


def _effects(found: Sequence[Effect], title: str, notes: Sequence[str]) -> Figure:
    shown = found[:_ROWS]
    fig = new_figure(height=1.5 + 0.32 * max(2, len(shown)))
    ax = fig.subplots()
    style(ax, title, "% of the variance that it explains by itself")
    note_below_title(fig, notes, 44)
    for i, effect in enumerate(shown):
        if math.isfinite(effect.band):
            ax.barh(i, 100 * max(0.0, effect.band), 0.8, color="#D9D9D9")
        share = 100 * max(0.0, effect.share) if math.isfinite(effect.share) else 0.0
        ax.barh(i, share, 0.42, color=BLUE if effect.real else LIGHT)
        words = effect.told or _percent(share, effect.real)
        at = max(share, 100 * effect.band if math.isfinite(effect.band) else 0.0)
        far = at > 55  # the words then stand on the bar
        ax.annotate(
            words, (at, i), (-4 if far else 4, 0), textcoords="offset points", va="center",
            ha="right" if far else "left", fontsize=SMALL, color="white" if far and effect.real else INK,
        )  # fmt: skip
    ax.set_yticks(range(len(shown)), unique([cut(effect.name, 24) for effect in shown]))
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlim(0, 100)
    ax.tick_params(axis="y", length=0)
    return fig


def _percent(share: float, real: bool) -> str:
    if not real:
        return f"{share:.0f} %, as chance would"
    return f"{share:.0f} %" if share > 0.5 else "under 1 %"  # "0 %" would deny what is there


def only_words(title: str, words: str) -> Figure:
    """A picture that says why there is none."""
    fig = new_figure(height=1.2)
    ax = fig.subplots()
    style(ax, title)
    ax.set_axis_off()
    ax.text(0, 0.5, textwrap.fill(words[:1].upper() + words[1:] + ".", 60), transform=ax.transAxes, va="center",
            fontsize=FONT, color=INK)  # fmt: skip
    return fig


def note_below_title(fig: Figure, notes: Sequence[str], wide: int = 66) -> None:
    """Words below a figure's title."""
    if not notes:
        return
    ax, lines = fig.axes[0], textwrap.wrap("; ".join(notes), wide)
    look: Any = {"fontsize": FONT + 0.5, "color": INK, "fontweight": "bold"}
    ax.set_title(ax.get_title(loc="left"), loc="left", pad=5 + 11 * len(lines), **look)
    ax.annotate(
        "\n".join(lines),
        (0, 1),
        (0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=SMALL,
        color=GREY,
    )
    fig.set_figheight(fig.get_figheight() + 0.15 * len(lines))

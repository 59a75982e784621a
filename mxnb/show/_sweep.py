"""Reading a sweep's folder: its runs, what they vary, what became of each, and a table of that."""

from __future__ import annotations

import difflib
import html
import json
import math
import statistics
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mxnb.show._figures import GREY, INK, SMALL, new_figure, style, to_base64
from mxnb.show._runs import read_json, read_metrics
from mxnb.show._sweep_maths import is_range, parts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("train/mean_episode_return", "train/mean_reward")  # the first that any run reports, where none is named
_SILENT = 60.0  # seconds; a run that goes on writes job.json every 10
_FAILURES = 12  # more are counted
_COLOURS = {  # in the order of the bar; told in words as well
    "done": "#009E73",
    "started": "#0072B2",
    "queued": "#D9D9D9",
    "failed": "#D55E00",
    "oom": "#CC79A7",
    "timeout": "#E69F00",
    "dead_kernel": "#000000",
    "killed": "#757575",
    "preempted": "#56B4E9",
}
_WAITING = ("done", "started", "queued")


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep: values are what it varies, without the seed; metrics are result.json's."""

    id: str
    folder: Path
    values: Mapping[str, Any]
    seed: Any
    status: str
    minutes: float | None
    error: str
    metrics: Mapping[str, Any]

    def final(self, metric: str) -> float | None:
        """The metric at the end of a run that is done, None where it has no such number."""
        value = self.metrics.get(metric) if self.status == "done" else None
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if number else None  # type: ignore[arg-type]

    @property
    def began(self) -> bool:
        """Whether an update of it has ended."""
        try:
            with open(self.folder / "metrics.jsonl", "rb") as file:
                return file.readline().endswith(b"\n")
        except OSError:
            return False


@dataclass(frozen=True)
class SweepSet:
    """The runs of one set of values (of what the sweep varies): its seeds. Or all that share one parameter's value."""

    label: str
    values: Mapping[str, Any]
    runs: tuple[SweepRun, ...]

    def finals(self, metric: str) -> np.ndarray:
        """The metric of each run that has it [n]."""
        return np.array([value for run in self.runs if (value := run.final(metric)) is not None], float)


def sweep_runs(folder: Any) -> list[SweepRun]:
    """Every run that a sweep asked for, also those that have not begun.

    Args:
        folder: papermill_runs/NAME, where `python -m mxnb sweep run` put sweep.json.

    Raises:
        FileNotFoundError: the folder is no sweep's.
        ValueError: its sweep.json cannot be read.
    """
    folder = Path(folder)
    if not (folder / "sweep.json").exists():
        raise FileNotFoundError(
            f"{folder} is no sweep's folder, for it has no sweep.json. `python -m mxnb sweep run FILE.yaml` starts a "
            "sweep; its folder is papermill_runs/FILE."
        )
    try:
        asked = json.loads((folder / "sweep.json").read_text())["runs"]
        return [_run(folder / str(run["id"]), dict(run["values"])) for run in asked]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'sweep.json'} is damaged ({error}): start the sweep again as before") from None


def _run(folder: Path, values: dict[str, Any]) -> SweepRun:
    job = read_json(folder, "job.json")
    status, seconds = str(job.get("status", "queued")), job.get("seconds")
    error = str(job.get("error", ""))
    if status == "started":
        now, begun = time.time(), job.get("begun", 0.0)
        seconds, beat = max(0.0, now - begun), max(job.get("time", 0.0), begun)
        if now - beat > _SILENT:  # what it held the folder's lock with cannot be asked from another machine
            status, seconds = "killed", None
            error = f"no sign of life for {in_minutes((now - beat) / 60)}: killed with its machine or its kernel"
    told = read_json(folder, "result.json").get("metrics")
    return SweepRun(
        folder.name,
        folder,
        {name: value for name, value in values.items() if name != "seed"},
        values.get("seed", ""),
        status,
        None if seconds is None else float(seconds) / 60,
        error,
        told if isinstance(told, dict) else {},
    )


def which_metric(runs: Sequence[SweepRun], metric: str) -> str:
    """The metric to look at: the one that is named, else the first of METRICS that a run has.

    Raises ValueError where runs are done and none of them has the one that is named.
    """
    has = lambda name: any(run.final(name) is not None for run in runs)
    if not metric:
        return next((name for name in METRICS if has(name)), None) or _reported(runs)
    if not has(metric) and (names := sorted({name for run in runs if run.status == "done" for name in run.metrics})):
        near = nearest(metric, names) or f"; they have {', '.join(names[:20])}"
        raise ValueError(f"no run that is done has a {metric!r}{near}")
    return metric


def _reported(runs: Sequence[SweepRun]) -> str:
    """The first of METRICS that the first run that has begun reports, before any is done."""
    rows = next((read_metrics(run.folder) for run in runs if run.began), [])
    return next((name for name in METRICS if any(name in row for row in rows)), METRICS[0])


def nearest(name: str, names: Iterable[str]) -> str:
    """Words that name the nearest ones, "" where none is near."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def varied(runs: Sequence[SweepRun]) -> list[str]:
    """What takes more than one value, in the order of the sweep file."""
    names = dict.fromkeys(name for run in runs for name in run.values)
    return [name for name in names if len({repr(run.values.get(name)) for run in runs}) > 1]


def sets_of(runs: Sequence[SweepRun]) -> list[SweepSet]:
    """The runs by their values, in the order of the sweep file: each set's runs differ in the seed alone."""
    found: dict[str, list[SweepRun]] = {}
    for run in runs:
        found.setdefault(repr(sorted(run.values.items())), []).append(run)
    names = varied(runs)
    values = [{name: some[0].values[name] for name in names if name in some[0].values} for some in found.values()]
    labels = unique([label(own) for own in values])
    return [SweepSet(*one) for one in zip(labels, values, map(tuple, found.values()), strict=True)]


def sets_by(runs: Sequence[SweepRun], name: str) -> list[SweepSet]:
    """The runs by the value of one parameter, a range of numbers in four parts. ValueError where it is not varied."""
    if name not in varied(runs):
        told = f"; it varies {', '.join(varied(runs))}" if varied(runs) else "; it varies nothing but the seed"
        raise ValueError(f"the sweep does not vary {name!r}{nearest(name, varied(runs)) or told}")
    having = [run for run in runs if name in run.values]
    column = [run.values[name] for run in having]
    if is_range(column):
        place = parts(column, 4)
        words = {int(p): f"{name} {in_digits(min(c for c, q in zip(column, place) if q == p))} to "
                 f"{in_digits(max(c for c, q in zip(column, place) if q == p))}" for p in place}  # fmt: skip
    else:
        rank = {repr(value): i for i, value in enumerate(_ordered(column))}
        place = [rank[repr(value)] for value in column]
        words = {rank[repr(value)]: label({name: value}) for value in column}
    order = sorted(words)
    members = [tuple(run for run, p in zip(having, place, strict=True) if p == one) for one in order]
    labels = unique([words[one] for one in order])
    return [SweepSet(own, {}, some) for own, some in zip(labels, members, strict=True)]


def _ordered(column: Sequence[Any]) -> list[Any]:
    different = list({repr(value): value for value in column}.values())
    try:
        return sorted(different)
    except TypeError:  # lists, or words and numbers
        return different


def label(values: Mapping[str, Any], most: int = 42) -> str:
    """Values in words, short enough for a phone: long names and values lose their middle."""
    if not values:
        return "the same values"
    told = ""
    for room in (99, 24, 16, 12, 10, 8, 6):
        told = ", ".join(f"{cut(name, room)} {in_digits(value, room)}" for name, value in values.items())
        if len(told) <= most:
            return told
    return told[: most - 1] + "…"


def cut(text: str, most: int) -> str:
    """The text, without its middle where it is longer."""
    return text if len(text) <= most else f"{text[: (most + 1) // 2 - 1]}…{text[len(text) - most // 2 :]}"


def in_digits(value: Any, most: int = 99) -> str:
    """A value as it stands in a label: a number with three digits, others without their middle where they are long."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return cut(value if isinstance(value, str) else json.dumps(value, default=str), most)


def unique(labels: Sequence[str]) -> list[str]:
    """The labels, with a number behind those that were there before: no two are the same."""
    found: dict[str, None] = {}
    for words in labels:
        told, count = words, 1
        while told in found:  # also where a value itself ends in "(2)"
            count += 1
            told = f"{words} ({count})"
        found[told] = None
    return list(found)


def in_minutes(minutes: float | None) -> str:
    """Minutes as one reads them: seconds under two minutes, hours from two hours on."""
    if minutes is None:
        return ""
    if minutes < 2:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


@dataclass(frozen=True, repr=False)
class SweepProgress:
    """How far a sweep is, and what went wrong; a cell shows a bar and a table."""

    title: str
    counts: Mapping[str, int]
    failures: tuple[SweepRun, ...]
    words: str
    figure: Any

    def __str__(self) -> str:
        lines = [self.title, textwrap.indent(textwrap.fill(self.words, 110), "  ")]
        for run in self.failures[:_FAILURES]:
            took = f" after {in_minutes(run.minutes)}" if run.minutes is not None else ""
            lines.append(f"  {run.status}{took}: {_told(run)}  [{run.id}]")
            lines.append(textwrap.indent(textwrap.fill(run.error or "no word of why", 106), "      "))
        return "\n".join([*lines, *self._more()])

    __repr__ = __str__

    def _more(self) -> list[str]:
        more = len(self.failures) - _FAILURES
        return [f"  and {more} more; `python -m mxnb sweep table FILE` lists all"] if more > 0 else []

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        e = html.escape
        cell = '<td style="text-align:left;vertical-align:top;padding:4px 10px 4px 0;'
        rows = []
        for run in self.failures[:_FAILURES]:  # two columns, so that a phone shows the words too
            when = f"<br>after {in_minutes(run.minutes)}" if run.minutes is not None else ""
            told = f'{cell}overflow-wrap:anywhere">{e(_told(run))}<br>{e(run.error or "no word of why")}</td>'
            rows.append(f'<tr>{cell}white-space:nowrap"><b>{e(run.status)}</b>{when}</td>{told}</tr>')
        table = f"<table><tbody>{''.join(rows)}</tbody></table>" if rows else ""
        more = "".join(f"<p>{e(words)}</p>" for words in self._more())
        picture = f'<img alt="{e(self.title)}" style="max-width:100%" src="data:image/png;base64,'
        picture += f'{to_base64(self.figure)}">'
        told = f"<b>{e(self.title)}</b><p>{e(self.words)}</p>{picture}"
        return {"text/plain": str(self), "text/html": f'{told}<div style="overflow-x:auto">{table}</div>{more}'}


def _told(run: SweepRun) -> str:
    return ", ".join(f"{name} {in_digits(value)}" for name, value in {**run.values, "seed": run.seed}.items())


def sweep_progress(folder: Any) -> SweepProgress:
    """Tell how many runs of a sweep are done, running, waiting or ended otherwise, and what went wrong with which.

    A run that says "started" and has been silent for a minute is called killed, as are those of a machine that is gone.

    Args:
        folder: papermill_runs/NAME of a sweep, also while it runs.

    Raises:
        FileNotFoundError, ValueError: as `sweep_runs`.
    """
    runs = sweep_runs(folder)
    order = [*_COLOURS, *sorted({run.status for run in runs} - set(_COLOURS))]
    counts = {name: count for name in order if (count := sum(run.status == name for run in runs))}
    failures = tuple(run for run in runs if run.status not in _WAITING and (run.error or run.status in _COLOURS))
    took = [run.minutes for run in runs if run.status == "done" and run.minutes is not None]
    said = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items()]
    words = ", ".join(said) + "."
    if took:
        words += f" A run takes {in_minutes(statistics.median(took))} (median of {len(took)})"
        left = len(runs) - counts.get("done", 0)
        if left:
            words += f"; the other {left} about {in_minutes(left * statistics.median(took))}, one after the other"
        words += "."
    if failures:
        words += " `python -m mxnb sweep resume FILE` does again what is not done."
    title = f"Sweep {Path(folder).name}: {counts.get('done', 0)} of {len(runs)} runs are done"
    return SweepProgress(title, counts, failures, words, _bar(counts, runs))


def _bar(counts: Mapping[str, int], runs: Sequence[SweepRun]) -> Figure:
    """Counts as one bar, and below it the minutes of each run that is done."""
    took = [run.minutes for run in runs if run.status == "done" and run.minutes is not None]
    fig = new_figure(height=1.5 + 0.85 * bool(took) + 0.18 * -(-len(counts) // 3))
    axes = np.atleast_1d(fig.subplots(1 + bool(took), 1, height_ratios=(1, 0.8)[: 1 + bool(took)]))
    style(axes[0], "Runs", "number of runs")
    left = 0
    for name, count in counts.items():
        colour = _COLOURS.get(name, GREY)
        axes[0].barh(0, count, 0.8, left=left, color=colour, edgecolor="white", linewidth=0.5,
                     label=f"{count} {name.replace('_', ' ')}")  # fmt: skip
        left += count
    axes[0].set_xlim(0, max(left, 1))
    axes[0].xaxis.get_major_locator().set_params(integer=True, nbins=6)
    if took:
        style(axes[1], "", "minutes a run that is done took" if max(took) >= 2 else "seconds a run that is done took")
        unit = 1 if max(took) >= 2 else 60
        axes[1].plot([unit * t for t in took], np.zeros(len(took)), "|", color=_COLOURS["done"], markersize=16)
        axes[1].set_xlim(0, 1.1 * unit * max(took) or 1)
    for ax in axes:
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    if counts:
        fig.legend(loc="outside lower center", ncols=min(3, len(counts)), fontsize=SMALL, frameon=False, labelcolor=INK)
    return fig

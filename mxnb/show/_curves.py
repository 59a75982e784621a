"""Learning curves: return, entropy, KL and clip fraction of one run, several runs, or several seeds a side."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mxnb.show._figures import COLOURS, DASHES, FONT, GREY, INK, SMALL, in_notebook, new_figure, save, style, unit_of
from mxnb.show._runs import number, read_json, read_metrics, run_path, some_rows, weight

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[dict[str, Any]]
Groups = Sequence[tuple[str, Sequence[Rows]]]  # a label and its runs (seeds)


class _Panel(NamedTuple):
    key: str
    title: str
    unit: str
    warn: float = math.inf  # a line is drawn here
    above: bool = True  # the warning is for values above the line
    top: float | None = None


_PANELS = (
    _Panel("train/mean_episode_return", "Episode return", "mean per ended episode"),
    _Panel("train/entropy_frac", "Policy entropy", "share of ln(available actions)", 0.1, False, 1.0),
    _Panel("train/approx_kl", "KL to the old policy", "approximate KL (nats)", 0.06),
    _Panel("train/clip_frac", "Clip fraction", "share of samples", 0.3),
)
_MODEL_PANELS = (  # of runs that learn a world model and have no policy of a moment before
    _PANELS[0],
    _Panel("train/entropy_frac", "Policy entropy", "share of ln(available actions)", 0.05, False, 1.0),
    _Panel("train/obs_loss", "Loss of observations", "nats and squares a row"),
    _Panel("train/kl", "Surprise", "KL to what was expected (nats)"),
)
PANELS = {panel.key: panel for panel in (*_PANELS, *_MODEL_PANELS)}
_BANDS = {
    "range": "mean; band: lowest to highest seed",
    "se": "mean; band: 1 standard error over seeds",
    "iqm": "mean of the middle half of the seeds; band: 95 % interval",
}
_AXES = {"steps": ("timesteps", 1.0), "minutes": ("time/wall_seconds", 60.0)}  # metric, and how much of it is one
_POINTS = 600  # more cannot be seen, and make drawing slow


def curves(
    runs: Any, *, smooth: float = 0.05, labels: Sequence[str] | None = None, band: str = "range", x: str = "steps",
    metric: str = "", of: str = "seed",
) -> Figure:  # fmt: skip
    """Draw episode return, entropy, KL and clip fraction over environment steps or minutes, in four panels.

    Where only world models were trained: return, entropy, the loss of observations, and the KL to what was expected.

    Args:
        runs: a run folder (or the `Result` of `fit`); a list of them, a line each; or a dict from a label to
            a folder or to a list of folders (seeds), then drawn as one line with a band, over the steps
            that all of its seeds reached.
        smooth: each point is the mean of the rows around it: below 1 a share of the run's rows, from 1 on a
            number of rows; 0 draws the rows as they are. Rows without a value are left out, and returns are
            weighted by the episodes that ended in a row.
        labels: words for the lines of a list, instead of the folders' names.
        band: over seeds, "range" for the mean and lowest to highest, "se" for plus and minus one standard error,
            "iqm" for the mean of the middle half of the seeds and its 95 % interval, by drawing seeds anew 1,000
            times (Agarwal et al. 2021, arXiv:2108.13264).
        x: "steps" for environment steps, "minutes" for the time trained, pauses left out.
        metric: one of the rows' names, drawn alone instead of the four.
        of: what the members of a dict's list are called.

    Returns:
        A matplotlib figure that pyplot does not hold.

    Raises:
        FileNotFoundError: a folder has no `metrics.jsonl`.
        ValueError: no runs, a run without a complete row, labels that do not match, an unknown band or x, or "iqm"
            of fewer than 4 seeds.
    """
    if band not in _BANDS:
        raise ValueError(f"band is {band!r}; choose 'range' (lowest to highest), 'se' (one standard error) or 'iqm'.")
    axis(x)
    if smooth < 0:
        raise ValueError(f"smooth is {smooth}; give 0 or more (0.05 pools 5 % of the rows around each point).")
    groups = _groups(runs, labels)
    if band == "iqm" and (fewest := min(len(members) for _, members in groups)) < 4:
        # The middle half of 3 is all of 3: a plain mean under another name.
        raise ValueError(f"band is 'iqm' with {fewest} seed{'s' * (fewest > 1)}: give at least 4, or band='range'.")
    return _draw(groups, smooth, band, x, (panel_of(metric),) if metric else (), of)


def panel_of(metric: str) -> _Panel:
    """How a metric is drawn: as one of the four, else under its own name."""
    words = metric.split("/")[-1].replace("_", " ")
    return PANELS.get(metric) or _Panel(metric, words[:1].upper() + words[1:], "mean of an update")


def axis(x: str) -> tuple[str, float]:
    """(metric, how much of it is one) of "steps" or "minutes"; ValueError for another word."""
    if x not in _AXES:
        raise ValueError(f"x is {x!r}; choose 'steps' or 'minutes'.")
    return _AXES[x]


def live_curves(every_seconds: float = 5.0) -> Callable[[Any, Rows], None]:
    """A hook for `fit` that draws the curves while training: one picture, replaced in place.

    `hook(run_dir, rows)` takes the rows of the newest chunk, or all of them; earlier ones it reads from the
    folder. It redraws at most every `every_seconds`, and so seldom that drawing takes under 5 % of the time.
    With the last update it also writes `figures/curves.png`; after a run that was cut short,
    `hook.finish(run_dir)` does. Outside a notebook's kernel, or with MXNB_WIDGETS=off, it does nothing.
    A picture that cannot be drawn is a warning: it never stops a training.
    """
    seen: dict[Any, dict[str, Any]] = {}
    view: dict[str, Any] = {"folder": None, "handle": None, "next": -math.inf, "broken": False}

    def hook(run_dir: Any, rows: Rows, last: bool = False) -> None:
        if view["broken"] or not in_notebook():
            return
        folder = run_path(run_dir)
        if folder != view["folder"]:  # a new run: a new picture below the old one
            seen.clear()
            seen.update((row.get("update"), row) for row in _rows_so_far(folder))
            view.update(folder=folder, handle=None, next=-math.inf)
        seen.update((row.get("update"), row) for row in rows)
        last = last or _is_over(folder, seen)
        start = time.monotonic()
        if not seen or (start < view["next"] and not last):
            return
        try:
            view["handle"] = _show(_draw([("", [list(seen.values())])], 0.05, "range"), view["handle"], folder, last)
        except Exception as error:  # a picture must not cost a training
            view["broken"] = True
            warnings.warn(f"the live curve stopped ({type(error).__name__}: {error}); training goes on.", stacklevel=2)
        end = time.monotonic()
        view["next"] = end + max(every_seconds, 20 * (end - start))
        if last:
            view["folder"] = None  # trained on in another cell, the run gets a picture there

    hook.finish = lambda run_dir: hook(run_dir, (), last=True)  # type: ignore[attr-defined]
    return hook


def _show(fig: Figure, handle: Any, folder: Path, last: bool) -> Any:
    from IPython.display import display

    if handle is None:
        handle = display(fig, display_id=True)
    else:
        handle.update(fig)
    if last:
        save(fig, folder / "figures" / "curves.png")
    fig.clear()  # figures hold reference cycles; free the artists now
    return handle


def _rows_so_far(folder: Path) -> Rows:
    try:
        return read_metrics(folder)
    except FileNotFoundError:
        return []


def _is_over(folder: Path, seen: dict[Any, dict[str, Any]]) -> bool:
    """Whether no further update fits into the budget, or `fit` already said that the run ended."""
    if read_json(folder, "status.json").get("status", "running") != "running":
        return True
    total = read_json(folder, "config.json").get("config", {}).get("total_timesteps")
    row = seen[next(reversed(seen))] if seen else {}
    done, update = number(row, "timesteps"), number(row, "update")
    return bool(total and done and update and done + done / update > float(total))


def _groups(runs: Any, labels: Sequence[str] | None) -> Groups:
    if isinstance(runs, Mapping):
        if labels is not None:
            raise ValueError("labels go with a list of runs; in a dict the keys are the labels.")
        groups = [(str(key), list(v) if isinstance(v, list | tuple) else [v]) for key, v in runs.items()]
    elif isinstance(runs, list | tuple) and not hasattr(runs, "run_dir"):  # Result may be a named tuple
        names = [run_path(run).name for run in runs] if labels is None else [str(label) for label in labels]
        if len(names) != len(runs):
            raise ValueError(f"{len(names)} labels for {len(runs)} runs; give one label per run.")
        groups = [(name, [run]) for name, run in zip(names, runs, strict=True)]
    else:
        groups = [(str(labels[0]) if labels else "", [runs])]
    if not groups or not all(members for _, members in groups):
        raise ValueError("no runs to draw: give a run folder, a list of folders, or a dict label -> folders.")
    return [(label, [some_rows(run) for run in members]) for label, members in groups]


def _series(rows: Rows, key: str, smooth: float, along: str = "steps") -> tuple[np.ndarray, np.ndarray]:
    """Steps (or minutes) and smoothed values, float64 [n] each; only rows near which there is a value."""
    values = [number(row, key) for row in rows]
    y = np.array([math.nan if v is None else v for v in values], float)
    w = np.array([weight(row, key) for row in rows], float)
    metric, size = _AXES[along]
    x = np.array([number(row, metric) or math.nan for row in rows], float) / size
    w, y = np.where(np.isfinite(y), w, 0.0), np.where(np.isfinite(y), y, 0.0)
    half = int(smooth * len(rows) if smooth < 1 else smooth) // 2
    # Not differences of running sums: one exploded KL would leave its rounding error in all that follows.
    mass, total = (np.convolve(a, np.ones(2 * half + 1))[half : half + len(rows)] for a in (w, w * y))
    keep = (mass > 0) & np.isfinite(x)
    return x[keep], total[keep] / mass[keep]


def _thin(x: np.ndarray) -> slice:
    return slice(None, None, max(1, len(x) // _POINTS))


def _over_seeds(seeds: Sequence[tuple[np.ndarray, np.ndarray]], band: str) -> tuple[np.ndarray, ...] | None:
    """Grid, mean, low and high over the steps all seeds reached; None when they share none."""
    start, end = max(x[0] for x, _ in seeds), min(x[-1] for x, _ in seeds)
    grid = np.unique(np.concatenate([x for x, _ in seeds]))
    grid = grid[(grid >= start) & (grid <= end)]
    if not len(grid):
        return None
    grid = grid[_thin(grid)]
    y = np.stack([np.interp(grid, x, y) for x, y in seeds])
    if band == "iqm":
        return grid, *middle_half(y)
    mean = y.mean(0)
    if band == "range":
        return grid, mean, y.min(0), y.max(0)
    error = y.std(0, ddof=1) / math.sqrt(len(y))
    return grid, mean, mean - error, mean + error


def middle_half(y: np.ndarray, draws: int = 1000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean of the middle half, low, high) of seeds [S, n]; 95 % by drawing S seeds with replacement, always alike."""
    from scipy.stats import trim_mean

    chosen = np.random.default_rng(0).integers(len(y), size=(draws, len(y)))
    low, high = np.percentile([trim_mean(y[rows], 0.25) for rows in chosen], (2.5, 97.5), axis=0)
    return trim_mean(y, 0.25), low, high


def _draw(
    groups: Groups, smooth: float, band: str, along: str = "steps", panels: Sequence[_Panel] = (), of: str = "seed"
) -> Figure:
    fig = new_figure(height=2.9 if panels else 4.7)
    longest = max(number(rows[-1], "timesteps") or 0.0 for _, runs in groups for rows in runs)
    scale, xlabel = unit_of(along, longest)
    handles: dict[str, Any] = {}
    told = {key for _, runs in groups for rows in runs for row in rows[-1:] for key in row}
    models = "train/obs_loss" in told and "train/approx_kl" not in told
    panels = panels or (_MODEL_PANELS if models else _PANELS)
    axes = fig.subplots(-(-len(panels) // 2), min(2, len(panels)), sharex=True, squeeze=False).ravel()
    for panel, ax in zip(panels, axes, strict=True):
        style(ax, panel.title, "", panel.unit)
        ax.grid(True, color="#E6E6E6", linewidth=0.6)
        ax.set_axisbelow(True)
        peak = 0.0
        for i, (label, runs) in enumerate(groups):
            look = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}
            series = lambda rows, smooth=smooth, key=panel.key: _series(rows, key, smooth, along)
            top, line = _lines(ax, series, runs, band, scale, look, len(groups))
            peak = max(peak, top)
            if line is not None:
                handles.setdefault(f"{label} ({len(runs)} {of}s)" if len(runs) > 1 else label, line)
        _frame(ax, panel, peak)
    for ax in axes[-2:]:
        ax.set_xlabel(xlabel, fontsize=SMALL, color=INK)
    axes[0].set_xlim(left=0)
    fig.align_ylabels(axes)
    several = any(len(runs) > 1 for _, runs in groups)
    if any(handles):
        columns = max(1, min(len(handles), 54 // (max(map(len, handles)) + 8)))
        legend = fig.legend(
            handles.values(), handles.keys(), loc="outside lower center", fontsize=FONT, frameon=False,
            ncols=columns, title=_BANDS[band].replace("seed", of) if several else None,
        )  # fmt: skip
        legend.get_title().set_fontsize(SMALL)
        fig.set_figheight(fig.get_figheight() + 0.18 * (math.ceil(len(handles) / columns) + several))
    return fig


def _lines(
    ax: Any, series: Any, runs: Sequence[Rows], band: str, scale: float, look: dict[str, Any], groups: int
) -> tuple[float, Any]:
    """Draw one label's runs into a panel; returns the highest value drawn and a line for the legend.

    series(rows): steps and smoothed values of one run; series(rows, 0): as they are.
    """
    seeds = [found for rows in runs if len((found := series(rows))[0])]
    if not seeds:
        return 0.0, None
    pooled = _over_seeds(seeds, band) if len(seeds) > 1 else None
    if pooled is not None:
        x, mean, low, high = pooled
        ax.fill_between(x / scale, low, high, color=look["color"], alpha=0.22 if groups < 5 else 0.12, linewidth=0)
        seeds, peak = [(x, mean)], float(high.max())
    else:
        peak = max(float(y.max()) for _, y in seeds)
    line = None
    for x, y in seeds:
        raw_x, raw_y = series(runs[0], 0) if groups <= 2 and len(runs) == 1 else (x, y)
        if len(raw_x) > 1 and raw_y is not y:
            cut = _thin(raw_x)
            ax.plot(raw_x[cut] / scale, raw_y[cut], color=look["color"], alpha=0.25, linewidth=0.7)
        cut = _thin(x)
        marker = "o" if len(x) == 1 else None  # a line through one point is invisible
        (line,) = ax.plot(x[cut] / scale, y[cut], linewidth=1.6, marker=marker, markersize=4, **look)
    return peak, line


def _frame(ax: Any, panel: _Panel, peak: float) -> None:
    """Limits, ticks, and the line from which on a value is worrying."""
    from matplotlib.ticker import MaxNLocator

    if not ax.lines:
        ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center", va="center", fontsize=FONT, color=GREY)
    if panel.top is not None or math.isfinite(panel.warn):
        ax.set_ylim(0, panel.top if panel.top is not None else max(1.4 * panel.warn, 1.08 * peak))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    if math.isfinite(panel.warn):
        # The words stand left: a run starts with much entropy and little KL, so its line is not there.
        ax.axhline(panel.warn, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.annotate(
            f"warns {'above' if panel.above else 'below'} {panel.warn:g}", (0, panel.warn), (3, 2),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="left", va="bottom",
            fontsize=SMALL - 0.5, color=INK, zorder=1.5,
        )  # fmt: skip

"""Where a run's memory goes, and how much of the device it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mxnb.show._figures import BLUE, GREY, INK, ORANGE, SMALL, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {  # colour-blind safe: Okabe and Ito's
    "parameters": "#0072B2",
    "optimiser": "#56B4E9",
    "environments": "#009E73",
    "replay": "#CC79A7",
    "the rest": "#999999",
    "work": "#E69F00",
}
_GIB, _MIB, _KIB = 2**30, 2**20, 2**10


def budget(plan: Any) -> Figure:
    """Draw how much of a device's memory a run is going to take, and what for.

    plan: what `mxnb.plan` returns, or its budget: device, limit and usable bytes, parts by name, work. "Work" is what
    the compiled programs need besides the state: rollouts, activations, gradients.
    """
    found = getattr(plan, "budget", plan)
    parts = {name: size for name, size in {**found.parts, "work": found.work}.items() if size >= min(_KIB, found.peak)}
    fig = new_figure(height=2.45)
    share, kinds = fig.subplots(2, 1, height_ratios=(1, 1))
    style(share, f"{in_words(found.peak)} of {in_words(found.limit)} usable on {found.device}")
    share.barh(0, found.limit, 0.8, color="#E4E4E4")
    share.barh(0, found.peak, 0.8, color=BLUE if found.fits else ORANGE)
    words = f"planned for: {in_words(found.usable)}{'' if found.fits else ', so it does not fit'}"
    share.axvline(found.usable, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    share.set_xlim(0, max(found.limit, found.peak))
    share.set_xticks([found.usable], [words])
    style(kinds, "What for", "% of it")
    left = 0.0
    for name, size in parts.items():
        wide = 100 * size / found.peak
        kinds.barh(0, wide, 0.8, left=left, color=COLOURS.get(name, GREY), label=f"{name} {in_words(size)}")
        left += wide
    kinds.set_xlim(0, 100)
    for ax in (share, kinds):
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    share.tick_params(axis="x", length=0, labelsize=SMALL)
    share.spines["bottom"].set_visible(False)
    columns = 3 if max(map(len, parts)) < 12 and len(parts) < 4 else 2
    fig.legend(loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False)
    fig.set_figheight(2.0 + 0.18 * -(-len(parts) // columns))
    return fig


def budgets(
    found: Mapping[str, Any], title: str = "Where the bytes go", limits: Mapping[str, float] | None = None
) -> Figure:
    """Draw what each of several runs is going to take, one stacked bar each, in the given order.

    Args:
        found: words for each -> its budget (of `mxnb.run.memory.measure`), or its plan.
        limits: a device's name -> bytes that may be planned for: a dashed line, or words where it is far off.

    Raises ValueError where nothing is given.
    """
    if not found:
        raise ValueError("give budgets to compare, one at least.")
    rows = {name: getattr(plan, "budget", plan) for name, plan in found.items()}
    longest = max(budget.peak for budget in rows.values())
    unit, name = _unit(longest)
    kinds = [kind for kind in COLOURS if any(_parts(b).get(kind, 0) > longest / 1000 for b in rows.values())]
    columns = 3
    fig = new_figure(height=1.1 + 0.3 * len(rows) + 0.18 * -(-len(kinds) // columns))
    ax = fig.subplots()
    left = [0.0] * len(rows)
    for kind in kinds:
        wide = [_parts(budget).get(kind, 0) / unit for budget in rows.values()]
        ax.barh(range(len(rows)), wide, 0.7, left=left, color=COLOURS[kind], label=kind)
        left = [a + b for a, b in zip(left, wide, strict=True)]
    for i, budget in enumerate(rows.values()):
        words = in_words(budget.peak)
        ax.annotate(words, (left[i], i), (3, 0), textcoords="offset points", va="center", fontsize=SMALL, color=INK)
    ax.set_xlim(0, 1.25 * longest / unit)
    far = []
    for device, limit in (limits or {}).items():
        if limit <= 1.2 * longest:
            ax.axvline(limit / unit, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"planned for: {device}")
        else:
            far.append(f"{device}: {in_words(limit)} planned for, {limit / longest:,.0f} times the longest bar")
    style(ax, title, "\n".join([f"peak, {name}", *far]))
    ax.set_yticks(range(len(rows)), list(rows))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    fig.legend(loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False)
    return fig


def sizes(rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float] | None = None) -> Figure:
    """Draw what the memory and the speed of a run do when one size changes: a line of panels for each field.

    Args:
        rows: of each try: "field", "value", "peak" in bytes, "steps_per_second" (None: not run). A value that was tried
            stands in the rows of each field it belongs to.
        limits: a device's name -> bytes that may be planned for: a dashed line.

    Raises ValueError where nothing is given.
    """
    if not rows:
        raise ValueError("give the rows of some tries, one at least.")
    fields = list(dict.fromkeys(row["field"] for row in rows))
    fig = new_figure(height=0.5 + 1.35 * len(fields))
    axes = fig.subplots(len(fields), 2, squeeze=False)
    peaks = [row["peak"] for row in rows]
    unit, name = _unit(max(peaks))
    lines = list((limits or {}).items())
    fastest = max((row["steps_per_second"] or 0.0 for row in rows), default=0.0) or 1.0
    for i, field in enumerate(fields):
        tries = sorted((row for row in rows if row["field"] == field), key=lambda row: row["value"])
        values = [row["value"] for row in tries]
        memory, speed = axes[i]
        style(memory, f"Peak, {name}" if i == 0 else "", field)
        memory.plot(values, [row["peak"] / unit for row in tries], "o-", color=BLUE, markersize=3.5)
        for k, (device, limit) in enumerate(lines):
            memory.axhline(limit / unit, color=(INK, GREY)[k % 2], linewidth=0.9, linestyle=(0, (4, 3)))
            if i == 0:
                memory.annotate(
                    device, (0.02, limit / unit), (0, -9), xycoords=("axes fraction", "data"), fontsize=SMALL,
                    color=INK, textcoords="offset points",
                )  # fmt: skip
        memory.set_yscale("log")
        memory.set_ylim(min(peaks) / unit / 2, 2 * max([*peaks, *(limit for _, limit in lines)]) / unit)
        style(speed, "Steps per second" if i == 0 else "", field)
        ran = [row for row in tries if row["steps_per_second"]]
        speed.plot([r["value"] for r in ran], [r["steps_per_second"] for r in ran], "o-", color=ORANGE, markersize=3.5)
        for row in tries:
            if not row["steps_per_second"]:
                speed.annotate("not\nrun", (row["value"], 0), ha="center", va="bottom", fontsize=SMALL, color=INK)
        speed.set_ylim(0, 1.15 * fastest)
        for ax in (memory, speed):
            ax.set_xscale("log", base=2)
            ax.set_xticks(values, [f"{value // 1024}k" if value % 1024 == 0 else f"{value}" for value in values])
            ax.minorticks_off()
            ax.set_xlim(values[0] / 1.3, values[-1] * 1.3)
            ax.grid(True, color="#E6E6E6", linewidth=0.6)
            ax.set_axisbelow(True)
        speed.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
        memory.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}" if y >= 1 else f"{y:g}")
    return fig


def _parts(budget: Any) -> dict[str, int]:
    return {**budget.parts, "work": budget.work}


def _unit(size: float) -> tuple[int, str]:
    return next(((u, n) for u, n in ((_GIB, "GiB"), (_MIB, "MiB")) if size >= u), (_KIB, "KiB"))


def in_words(size: float) -> str:
    """Bytes as GiB, MiB or KiB with three digits."""
    unit, name = _unit(size)
    return f"{size / unit:.3g} {name}"

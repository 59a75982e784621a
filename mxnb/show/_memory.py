"""Where a run's memory goes, and how much of the device it takes."""

from __future__ import annotations

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


def in_words(size: float) -> str:
    """Bytes as GiB, MiB or KiB with three digits."""
    unit, name = next(((u, n) for u, n in ((_GIB, "GiB"), (_MIB, "MiB")) if size >= u), (_KIB, "KiB"))
    return f"{size / unit:.3g} {name}"

"""The environments' contract as a table: a row an environment, a column a rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mxnb.show._figures import FONT, INK, SMALL, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Signs besides colours, for the colour-blind and for print.
_SIGNS = {True: ("ok", "#BFE3D5"), False: ("no", "#F2B8A2"), None: ("-", "#EFEFEF")}


def checks(reports: Sequence[Any]) -> Figure:
    """Draw what `mxnb.check` found: green where a rule holds, red where it is broken, grey where nobody looked.

    Args:
        reports: the reports of one or more environments; each has `env_id` and `rules` of `name` and `ok`.

    Raises:
        ValueError: no reports.
    """
    if not reports:
        raise ValueError("give at least one report of mxnb.check.")
    names = [rule.name for rule in reports[0].rules]
    rows, side = len(reports), 0.27
    fig = new_figure(height=1.05 + 0.2 * rows, width=2.1 + side * len(names))
    ax = fig.subplots()
    for i, report in enumerate(reports):
        for j, rule in enumerate(report.rules):
            sign, colour = _SIGNS[rule.ok]
            ax.add_patch(_square(j, i, colour))
            ax.text(j, i, sign, ha="center", va="center", fontsize=SMALL - 1.5, color=INK)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.set_xticks(range(len(names)), names, rotation=55, ha="left", rotation_mode="anchor")
    ax.set_yticks(range(rows), [report.env_id for report in reports])
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=SMALL - 0.5, colors=INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
    broken = sum(not report.ok for report in reports)
    words = "every rule holds" if not broken else f"{broken} broken"
    ax.set_xlabel(f"{rows} environment{'s' * (rows > 1)}: {words}", fontsize=FONT, color=INK)
    return fig


def _square(x: int, y: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, facecolor=colour, linewidth=0)

"""What all pictures share: a size that is legible on a phone, colours, saving, and the notebook's display."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mxnb.config import injected_cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.8  # inches; 400 pixels of a phone are then 83 per inch, and a font of 9 points is 10 pixels high
DPI = 140
LARGE = 240  # pixels; a wider frame is never enlarged, a narrower one at whole multiples where that can be
FONT, SMALL = 9.0, 8.0
# Okabe and Ito's colours, which the colour-blind can tell apart; darkest first so that few lines differ most.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
BLUE, ORANGE = COLOURS[0], COLOURS[1]
LIGHT, GREY, INK = "#A9C8DD", "#757575", "#222222"


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure (inches) that pyplot does not know: nothing to close, nothing is shown twice."""
    from matplotlib.figure import Figure

    _teach_notebook()
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def to_png(fig: Figure) -> bytes:
    """The figure as the bytes of a PNG."""
    data = io.BytesIO()
    fig.savefig(data, format="png", dpi=fig.dpi)
    return data.getvalue()


def to_base64(fig: Figure) -> str:
    """The figure's PNG as it stands in HTML and in a notebook's output."""
    return base64.b64encode(to_png(fig)).decode()


def save(fig: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure so that readers see the old file or the whole new one, never a part.

    Args:
        fig: a matplotlib figure.
        path: where to; the suffix names the format (png when there is none). Folders are made.

    Returns:
        The path written.
    """
    path = Path(path)
    data = io.BytesIO()
    fig.savefig(data, format=path.suffix[1:].lower() or "png", dpi=fig.dpi)
    return replace_file(path, data.getvalue())


def replace_file(path: Path, data: bytes) -> Path:
    """Writes a file beside its place and moves it there, so that nobody ever reads a part. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def shell() -> Any | None:
    """The IPython shell this code runs in, or None; does not import IPython."""
    import sys

    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def in_notebook() -> bool:
    """Whether someone may watch: a kernel that papermill does not run; `MXNB_WIDGETS` "off" says no, "on" yes."""
    wanted = os.environ.get("MXNB_WIDGETS", "auto").lower()
    return wanted != "off" and hasattr(shell(), "kernel") and (wanted == "on" or not injected_cell())


def _teach_notebook() -> None:
    """A kernel draws figures only once pyplot was imported; say how, unless someone already did."""
    from matplotlib.figure import Figure

    formatter = getattr(shell(), "display_formatter", None)
    if formatter is None:
        return
    for kind in ("image/png", "image/svg+xml", "image/jpeg"):
        try:
            formatter.formatters[kind].lookup_by_type(Figure)
            return
        except KeyError:
            pass
    formatter.formatters["image/png"].for_type(Figure, to_png)


def style(ax: Any, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Titles and ticks of one panel; sizes are set here so that a reader's own style sheet cannot shrink them."""
    ax.set_title(title, fontsize=FONT + 0.5, color=INK, fontweight="bold", loc="left")
    ax.set_xlabel(xlabel, fontsize=SMALL, color=INK)
    ax.set_ylabel(ylabel, fontsize=SMALL, color=INK)
    ax.tick_params(labelsize=SMALL, colors=INK, length=2.5, pad=2)
    ax.set_facecolor("white")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GREY)


def unit_of(x: str, longest: float) -> tuple[float, str]:
    """(what to divide by, the axis' words) for x "steps" or "minutes", where the longest run has so many steps."""
    if x == "minutes":
        return 1.0, "minutes trained"
    for size, word in ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands")):
        if longest >= 0.9 * size:  # 0.98 of a million reads better in millions
            return size, f"environment steps ({word})"
    return 1.0, "environment steps"

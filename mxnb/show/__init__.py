"""Pictures and tables of a run folder: they read what `fit` wrote and never train.

Every name is imported on first use, and matplotlib and IPython only inside the functions, so that
`import mxnb.show` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mxnb.show._bars import achievements, actions, speed
    from mxnb.show._checks import checks
    from mxnb.show._curves import curves, live_curves
    from mxnb.show._dreams import calibration, open_loop
    from mxnb.show._episodes import filmstrip, mask_picture, write_png
    from mxnb.show._figures import save
    from mxnb.show._health import health
    from mxnb.show._plots import grid, lines, survival
    from mxnb.show._runs import read_metrics
    from mxnb.show._source import source

# The modules carry an underscore: importing a submodule sets it as an attribute of the package, and
# `mxnb.show.health` must stay the function.
_HOME = {
    "achievements": "_bars",
    "actions": "_bars",
    "calibration": "_dreams",
    "checks": "_checks",
    "curves": "_curves",
    "filmstrip": "_episodes",
    "grid": "_plots",
    "health": "_health",
    "lines": "_plots",
    "live_curves": "_curves",
    "mask_picture": "_episodes",
    "open_loop": "_dreams",
    "read_metrics": "_runs",
    "save": "_figures",
    "source": "_source",
    "speed": "_bars",
    "survival": "_plots",
    "write_png": "_episodes",
}

__all__ = [
    "achievements",
    "actions",
    "calibration",
    "checks",
    "curves",
    "filmstrip",
    "grid",
    "health",
    "lines",
    "live_curves",
    "mask_picture",
    "open_loop",
    "read_metrics",
    "save",
    "source",
    "speed",
    "survival",
    "write_png",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

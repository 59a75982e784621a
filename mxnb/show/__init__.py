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
    from mxnb.show._episodes import filmstrip, mask_picture, pictures, write_png
    from mxnb.show._explain import explained
    from mxnb.show._figures import in_notebook, save
    from mxnb.show._health import health
    from mxnb.show._memory import budget, budgets, sizes
    from mxnb.show._page import page
    from mxnb.show._playback import Playback, episodes
    from mxnb.show._plots import counts, grid, lines, survival
    from mxnb.show._runs import read_metrics
    from mxnb.show._source import source
    from mxnb.show._sweep import sweep_progress
    from mxnb.show._sweep_figures import sweep_curves, sweep_importance
    from mxnb.show._sweep_results import sweep_results
    from mxnb.show._trace import trace
    from mxnb.show._training import achievements_over_time, compare, health_curves, reward_parts
    from mxnb.show._widgets import player, take_over

# The modules carry an underscore: importing a submodule sets it as an attribute of the package, and
# `mxnb.show.health` must stay the function.
_HOME = {
    "Playback": "_playback",
    "achievements": "_bars",
    "achievements_over_time": "_training",
    "actions": "_bars",
    "budget": "_memory",
    "budgets": "_memory",
    "calibration": "_dreams",
    "checks": "_checks",
    "compare": "_training",
    "counts": "_plots",
    "curves": "_curves",
    "episodes": "_playback",
    "explained": "_explain",
    "filmstrip": "_episodes",
    "grid": "_plots",
    "health": "_health",
    "health_curves": "_training",
    "in_notebook": "_figures",
    "lines": "_plots",
    "live_curves": "_curves",
    "mask_picture": "_episodes",
    "open_loop": "_dreams",
    "page": "_page",
    "pictures": "_episodes",
    "player": "_widgets",
    "read_metrics": "_runs",
    "reward_parts": "_training",
    "save": "_figures",
    "sizes": "_memory",
    "source": "_source",
    "speed": "_bars",
    "survival": "_plots",
    "sweep_curves": "_sweep_figures",
    "sweep_importance": "_sweep_figures",
    "sweep_progress": "_sweep",
    "sweep_results": "_sweep_results",
    "take_over": "_widgets",
    "trace": "_trace",
    "write_png": "_episodes",
}

__all__ = [
    "Playback",
    "achievements",
    "achievements_over_time",
    "actions",
    "budget",
    "budgets",
    "calibration",
    "checks",
    "compare",
    "counts",
    "curves",
    "episodes",
    "explained",
    "filmstrip",
    "grid",
    "health",
    "health_curves",
    "in_notebook",
    "lines",
    "live_curves",
    "mask_picture",
    "open_loop",
    "page",
    "pictures",
    "player",
    "read_metrics",
    "reward_parts",
    "save",
    "sizes",
    "source",
    "speed",
    "survival",
    "sweep_curves",
    "sweep_importance",
    "sweep_progress",
    "sweep_results",
    "take_over",
    "trace",
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

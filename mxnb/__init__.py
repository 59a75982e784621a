"""mxnb: a notebook-first reinforcement-learning workbook in JAX.

Import is lazy: nothing heavy is loaded before it is used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mxnb import show
    from mxnb.build import build, load_policy, make, plan
    from mxnb.config import parameters
    from mxnb.doctor import doctor
    from mxnb.envs.check import check
    from mxnb.evaluate import evaluate
    from mxnb.run.fit import fit

__version__ = "0.1.0"
_HOMES = {
    "make": "mxnb.build",
    "build": "mxnb.build",
    "check": "mxnb.envs.check",
    "doctor": "mxnb.doctor",
    "load_policy": "mxnb.build",
    "parameters": "mxnb.config",
    "plan": "mxnb.build",
    "fit": "mxnb.run.fit",
    "evaluate": "mxnb.evaluate",
    "show": "mxnb.show",
}
__all__ = [
    "__version__",
    "build",
    "check",
    "doctor",
    "evaluate",
    "fit",
    "load_policy",
    "make",
    "parameters",
    "plan",
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mxnb' has no attribute {name!r}; it exports {', '.join(sorted(_HOMES))}")
    module = import_module(_HOMES[name])
    return module if name == "show" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Keeps `build`, `evaluate` and `doctor` functions although modules of the same names hold them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == value.__name__ and hasattr(value, name):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

"""A function's source, highlighted: the notebooks show the library's own code instead of a copy."""

from __future__ import annotations

import functools
import html
import inspect
import textwrap
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, repr=False)
class Source:
    """The text of a function with its home ("mxnb.kernels.returns.gae, line 12")."""

    text: str
    home: str

    def __str__(self) -> str:
        return f"# {self.home}\n{self.text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # Its own background and ink, so that the colours hold in dark themes too.
        box = "background:#f8f8f8;color:#222;padding:6px 10px;overflow-x:auto;font-size:13px;line-height:1.35"
        try:
            from pygments import highlight
            from pygments.formatters import HtmlFormatter
            from pygments.lexers import PythonLexer
        except ImportError:
            code = f'<div style="{box}"><pre style="color:#222;background:#f8f8f8">{html.escape(self.text)}</pre></div>'
        else:
            ink = "color:#222;background:#f8f8f8"
            style = HtmlFormatter(noclasses=True, style="default", cssstyles=box, prestyles=ink)
            code = highlight(self.text, PythonLexer(), style)
        return f'<div style="font-size:90%"><code>{html.escape(self.home)}</code></div>{code}'


def source(fn: Any) -> Source:
    """The source of a function, class or module, for a notebook to show.

    Unwraps `jax.jit`, `jax.vmap`, `functools.partial`, `functools.wraps` and the like, and methods; an object
    that is none of these shows its class.

    Raises:
        TypeError: it has no Python source (a builtin or a compiled function).
    """
    inner = _unwrap(fn)
    if not (inspect.isroutine(inner) or inspect.isclass(inner) or inspect.ismodule(inner)):
        inner = type(inner)
    try:
        lines, line = inspect.getsourcelines(inner)
    except (OSError, TypeError) as error:
        raise TypeError(
            f"{fn!r} has no Python source to show (a builtin, compiled code, or typed at a prompt); "
            "give a function, a class or a module from a .py file or a notebook cell."
        ) from error
    name = getattr(inner, "__qualname__", getattr(inner, "__name__", "")).replace(".<locals>", "")
    module = getattr(inner, "__module__", None)
    home = ".".join(part for part in (module, name) if part)
    return Source(textwrap.dedent("".join(lines)).rstrip() + "\n", f"{home}, line {max(1, line)}")


def _unwrap(fn: Any) -> Any:
    seen = set()
    while id(fn) not in seen:  # a wrapper may point to itself
        seen.add(id(fn))
        if isinstance(fn, functools.partial | functools.partialmethod):
            fn = fn.func
        elif inspect.isclass(fn):
            return fn
        elif inspect.ismethod(fn):
            fn = fn.__func__
        elif isinstance(fn, property) and fn.fget is not None:
            fn = fn.fget
        else:
            fn = getattr(fn, "__wrapped__", fn)
    return fn

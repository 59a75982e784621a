"""source(fn), and the package's lazy names."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

from mxnb import show


def plain(x):
    """A <function> to look at."""
    return x + 1


def logged(fn):
    @functools.wraps(fn)
    def inner(*args):
        return fn(*args)

    return inner


@functools.lru_cache
@logged
def wrapped(x):
    return x * 3


def make():
    def step(state):
        return state

    return step


class Thing:
    def method(self):
        return "method"

    @property
    def size(self):
        return "size"


@pytest.mark.parametrize(
    ("fn", "first"),
    [
        (plain, "def plain(x):"),
        (functools.partial(functools.partial(plain), 1), "def plain(x):"),
        (wrapped, "@functools.lru_cache"),
        (make(), "def step(state):"),
        (Thing().method, "def method(self):"),
        (Thing.size, "@property"),
        (Thing, "class Thing:"),
        (Thing(), "class Thing:"),
    ],
)
def test_source_is_found_and_dedented(fn, first):
    assert show.source(fn).text.splitlines()[0] == first


def test_jitted_functions():
    jax = pytest.importorskip("jax")
    for fn in (jax.jit(plain), jax.vmap(plain), jax.jit(functools.partial(plain, 1)), jax.jit(jax.vmap(logged(plain)))):
        assert show.source(fn).text.startswith("def plain(x):")


def test_home_is_a_module_not_a_path_on_this_machine():
    found = show.source(make())
    assert found.home.startswith(f"{__name__}.make.step, line ")
    assert str(found).splitlines()[0] == f"# {found.home}"
    assert "/" not in found._repr_html_().split("</code>")[0].replace("</", "")


def test_html_is_highlighted_and_falls_back_to_plain_text(monkeypatch):
    pytest.importorskip("pygments")
    page = show.source(plain)._repr_html_()
    assert "<span" in page and "&lt;function&gt;" in page
    monkeypatch.setitem(sys.modules, "pygments", None)
    page = show.source(plain)._repr_html_()
    assert "<span" not in page and "&lt;function&gt;" in page and "def plain(x):" in page


def test_a_builtin_says_what_to_give():
    with pytest.raises(TypeError, match="give a function, a class or a module"):
        show.source(len)


def test_import_is_light_and_names_are_functions_even_after_submodules():
    code = """
import sys, mxnb.show
heavy = {"matplotlib", "IPython", "numpy", "jax", "pygments"} & set(sys.modules)
import mxnb.show._health, mxnb.show._source, mxnb.show._curves
assert all(callable(getattr(mxnb.show, name)) for name in mxnb.show.__all__)
assert set(mxnb.show.__all__) == set(mxnb.show._HOME) <= set(dir(mxnb.show))
print(sorted(heavy), "matplotlib" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"
    with pytest.raises(AttributeError, match="it has Playback, achievements"):
        show.nothing  # noqa: B018

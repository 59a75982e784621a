"""What holds in every test: shapes and types are checked, and arrays never gain dimensions unasked.

This file is loaded before any test imports mxnb, so the import hook sees the modules first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
import pytest
from jaxtyping import install_import_hook

CHECKED = ("mxnb.kernels", "mxnb.networks", "mxnb.agents")

_early = [name for name in sys.modules if name.startswith(CHECKED)]
if _early:
    raise RuntimeError(f"imported before the type checks were in place: {', '.join(_early)}")
install_import_hook(CHECKED, "beartype.beartype")
jax.config.update("jax_numpy_rank_promotion", "raise")
os.environ["MXNB_ARCHIVE_CACHE_MB"] = "0"  # tests with an archive do not copy all the tests' programs into it


@pytest.fixture
def key() -> Any:
    """A PRNG key, the same in every test."""
    return jax.random.key(0)


@pytest.fixture(autouse=True)
def _compiled_quickly(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiles what tests marked "brief" run in two thirds of the time, here and in processes that they start;
    tests that learn want fast programs."""
    quickly = "brief" in request.keywords and "learn" not in request.keywords
    if quickly:
        jax.config.update("jax_disable_most_optimizations", True)
        request.getfixturevalue("monkeypatch").setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    yield
    if quickly:
        jax.config.update("jax_disable_most_optimizations", False)

"""Fixtures of the runner's tests."""

from __future__ import annotations

from typing import Any

import pytest

from mxnb.run import fit as runner


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fixes how many updates a call does at most; the first call of a sitting does one."""
    return lambda most: monkeypatch.setattr(runner, "_MAX_CHUNK", most)

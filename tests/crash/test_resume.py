"""Stopped at any checkpoint and gone on with in a new process, a run ends with the same bits and the same rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from runs import finish, timeless
from tiny import TRAINED

from mxnb.run.checkpoint import kept_updates, steps_folder

pytestmark = pytest.mark.brief

FIVE = (20, 40, 60, 80, 100)
STOPS = dict.fromkeys(TRAINED, FIVE) | {"craftax": (2,), "hackmatrix": (60,)}
"""Agent -> updates to go on from; one where compiling takes long."""


@pytest.mark.parametrize(
    ("agent", "stops"),
    [
        *(pytest.param(agent, stops, id=agent) for agent, stops in STOPS.items()),
        pytest.param("hackmatrix", FIVE, marks=pytest.mark.slow, id="hackmatrix-five"),
    ],
)
def test_resumed_in_a_new_process(agent: str, stops: tuple[int, ...], tmp_path: Path) -> None:
    whole = finish(agent, tmp_path / "whole", save_updates=stops[0], keep=99)
    assert set(stops) < set(kept_updates(tmp_path / "whole"))
    folders = [tmp_path / f"from{stop}" for stop in stops]
    for stop, folder in zip(stops, folders, strict=True):
        shutil.copytree(tmp_path / "whole", folder)
        for later in kept_updates(folder):
            if later > stop:
                shutil.rmtree(steps_folder(folder) / str(later))
    assert finish(agent, *folders, save_updates=1000) == [(stop, whole[0][1]) for stop in stops]
    for folder in folders:
        assert timeless(folder) == timeless(tmp_path / "whole")

"""The board's picture: whatever a player must know changes it, and nothing that is hidden does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mxnb.envs.hackmatrix import make_state, render

CELL, EDGE = 48, 8
DATA, PROGRAM, QUESTION = 1, 2, 3
VIRUS, DAEMON, GLITCH, CRYPTOG = range(4)
PUSH, WAIT = 0, 5


def board(**changes: Any) -> Any:
    """A player in the middle of an empty board."""
    return make_state(**{"player": (3, 2), **changes})


def block(**changes: Any) -> dict[str, Any]:
    return {"row": 1, "col": 4, "kind": DATA, "points": 3, "spawn_count": 3, **changes}


def foe(**changes: Any) -> dict[str, Any]:
    return {"type": VIRUS, "row": 1, "col": 4, "hp": 2, **changes}


def cell(picture: Any, row: int, col: int) -> Any:
    """The pixels of a cell without its lines."""
    y, x = EDGE + CELL * (5 - row), EDGE + CELL * col
    return picture[y + 2 : y + CELL - 2, x + 2 : x + CELL - 2].astype(int)


def differ(pictures: dict[str, Any], above: int, pixels: int) -> None:
    """Every two of them differ by more than `above` of 255 in so many pixels."""
    names = list(pictures)
    for i, name in enumerate(names):
        for other in names[:i]:
            changed = (np.abs(pictures[name] - pictures[other]).max(-1) > above).sum()
            assert changed >= pixels, f"{name} looks like {other}: {changed} pixels differ"


ON_THE_CELL = {
    "nothing": {},
    "data": {"blocks": [block()]},
    "other points": {"blocks": [block(points=4)]},
    "another price": {"blocks": [block(spawn_count=2)]},
    "a program": {"blocks": [block(kind=PROGRAM, points=0, program=18)]},
    "another program": {"blocks": [block(kind=PROGRAM, points=0, program=7)]},
    "a question": {"blocks": [block(kind=QUESTION)]},
    "siphoned data": {"blocks": [block(siphoned=1)]},
    "a glitch on data": {"blocks": [block()], "enemies": [foe(type=GLITCH)]},
    "a glitch on other points": {"blocks": [block(points=4)], "enemies": [foe(type=GLITCH)]},
    "a glitch on another price": {"blocks": [block(spawn_count=2)], "enemies": [foe(type=GLITCH)]},
    "a glitch on a program": {"blocks": [block(kind=PROGRAM, points=0, program=18)], "enemies": [foe(type=GLITCH)]},
    "credits laid bare": {
        "blocks": [block(siphoned=1)], "resources": [{"row": 1, "col": 4, "credits": 2}],
    },
    "credits": {"resources": [{"row": 1, "col": 4, "credits": 2}]},
    "more credits": {"resources": [{"row": 1, "col": 4, "credits": 3}]},
    "energy": {"resources": [{"row": 1, "col": 4, "energy": 2}]},
    "a data siphon": {"resources": [{"row": 1, "col": 4, "data_siphon": 1}]},
    "the exit": {"exit": (1, 4)},
    "a virus": {"enemies": [foe()]},
    "a hurt virus": {"enemies": [foe(hp=1)]},
    **{f"a stunned {kind}": {"enemies": [foe(type=kind, stunned=1)]} for kind in range(4)},
    "a stunned cryptog that is shown": {"enemies": [foe(type=CRYPTOG, stunned=1)], "show": True},
    **{f"a siphon's {kind}": {"enemies": [foe(type=kind, from_siphon=1)]} for kind in range(4)},
    "a daemon": {"enemies": [foe(type=DAEMON)]},
    "a glitch": {"enemies": [foe(type=GLITCH)]},
    "a hidden cryptog": {"enemies": [foe(type=CRYPTOG)]},
    "a shown cryptog": {"enemies": [foe(type=CRYPTOG)], "show": True},
    "a transmission": {"transmissions": [{"row": 1, "col": 4, "timer": 1, "type": VIRUS}]},
    "a later one": {"transmissions": [{"row": 1, "col": 4, "timer": 4, "type": VIRUS}]},
    "the player": {"player": (1, 4)},
    **{
        f"the player on {amount} {what}": {"player": (1, 4), "resources": [{"row": 1, "col": 4, what: amount}]}
        for what, amount in (("credits", 2), ("credits", 3), ("energy", 2))
    },
    **{
        f"{name} on {amount} {what}": {
            "enemies": [foe(type=kind)], "resources": [{"row": 1, "col": 4, what: amount}],
        }
        for name, kind in (("a virus", VIRUS), ("a daemon", DAEMON))
        for what, amount in (("credits", 2), ("credits", 3), ("energy", 2), ("data_siphon", 1))
    },
    "a transmission on energy": {
        "transmissions": [{"row": 1, "col": 4, "timer": 1, "type": VIRUS}],
        "resources": [{"row": 1, "col": 4, "energy": 2}],
    },
}  # fmt: skip


def test_every_thing_on_a_cell_has_its_own_picture() -> None:
    states = {name: board(**changes) for name, changes in ON_THE_CELL.items()}
    here = np.zeros((6, 6), bool)
    here[1, 4] = True
    states["drained"] = board().replace(siphoned=here)
    states["drained from here"] = board().replace(siphoned=here, siphon_center=here)
    differ({name: cell(render(state), 1, 4) for name, state in states.items()}, above=40, pixels=6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"blocks": [block()]}, {"blocks": [block()], "resources": [{"row": 1, "col": 4, "credits": 3}]}),
        ({"blocks": [block(kind=QUESTION)]}, {"blocks": [block(kind=QUESTION, points=9, spawn_count=9)]}),
        ({"blocks": [block(kind=QUESTION)]}, {"blocks": [block(kind=QUESTION, points=0, program=5)]}),
        (
            {"transmissions": [{"row": 1, "col": 4, "timer": 1, "type": 0}]},
            {"transmissions": [{"row": 1, "col": 4, "timer": 1, "type": 1}]},
        ),
    ],
    ids=("what lies under a block", "a question's points", "a question's kind", "a transmission's type"),
)
def test_what_is_hidden_is_not_drawn(one: dict[str, Any], other: dict[str, Any]) -> None:
    np.testing.assert_array_equal(render(board(**one)), render(board(**other)))


PANEL = {
    "a new game": {},
    "hp": {"hp": 2},
    "credits": {"credits": 4},
    "energy": {"energy": 4},
    "siphons": {"data_siphons": 2},
    "attack": {"attack": 2},
    "score": {"score": 7},
    "stage": {"stage": 4},
    "turn": {"turn": 3},
    "calm": {"calm": True},
    "a program": {"owned": [PUSH]},
    "another": {"owned": [WAIT]},
    "energy for a program": {"owned": [PUSH], "energy": 2},
    "and somebody to push": {"owned": [PUSH], "energy": 2, "enemies": [foe()]},
}


def test_every_number_of_the_player_has_its_own_panel() -> None:
    """The last two have the same numbers: only what can be cast now tells them apart."""
    pictures = {name: render(board(**changes)) for name, changes in PANEL.items()}
    pictures["enemies miss a turn"] = render(board().replace(step_active=np.True_))
    panels = {name: picture[6 * CELL + 2 * EDGE :].astype(int) for name, picture in pictures.items()}
    differ(panels, above=40, pixels=4)


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("show", [False, True])
def test_a_stun_is_as_plain_on_each_enemy(kind: int, show: bool) -> None:
    """A z changes at least 25 pixels; when it lay dark on a cryptog's dark pupil it changed one."""
    awake, asleep = (render(board(enemies=[foe(type=kind, stunned=s)], show=show)) for s in (0, 1))
    assert (np.abs(cell(awake, 1, 4) - cell(asleep, 1, 4)).max(-1) > 80).sum() > 15


def test_the_picture_is_as_large_as_is_promised_and_has_row_0_at_the_bottom() -> None:
    picture = render(board())
    assert (picture.shape, picture.dtype) == ((536, 304, 3), np.uint8)
    moved = render(board(player=(0, 0)))
    rows, cols = np.nonzero((picture != moved).any(-1))
    assert EDGE + 5 * CELL < rows.max() < EDGE + 6 * CELL and cols.min() < EDGE + CELL

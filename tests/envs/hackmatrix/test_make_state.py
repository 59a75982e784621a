"""Positions by hand: what is refused, in which words, and what is odd but right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mxnb.envs.hackmatrix import action_mask, hackmatrix, make_state

VIRUS = {"type": 0, "row": 1, "col": 1, "hp": 2}
SENT = {"row": 1, "col": 1, "timer": 2, "type": 3}
BLOCK = {"row": 2, "col": 2, "kind": 1}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hp": 4}, "hp is 4; use 0 to 3"),
        ({"hp": 2.7}, "hp is 2.7; use a whole number"),
        ({"credits": "a"}, "credits is 'a'; use a whole number"),
        ({"credits": -1}, "credits is -1; use 0 or more"),
        ({"attack": 0}, "attack is 0; use 1 to 3"),
        ({"stage": 10}, "stage is 10; use 1 to 9"),
        ({"player": (6, 0)}, "player's row is 6; use 0 to 5"),
        ({"player": (3,)}, r"player is \(3,\); use a row and a column"),
        ({"player": 3}, "player is 3; use a row and a column"),
        ({"exit": (0, -1)}, "exit's col is -1; use 0 to 5"),
        ({"exit": (0, None)}, "exit's col is None; use a whole number"),
        ({"owned": [23]}, "owned 23 is 23; use 0 to 22"),
        ({"owned": [1.5]}, "owned 1.5 is 1.5; use a whole number"),
        ({"owned": 5}, r"owned is 5; use a list of indices, such as \[0, 7\]"),
        ({"show": "no"}, "show is 'no'; use a whole number"),
        ({"calm": 2}, "calm is 2; use 0 to 1"),
        ({"enemies": 5}, "enemies is 5; use a list of dictionaries"),
        ({"blocks": BLOCK}, r"blocks is \{'row': 2.*; use a list of dictionaries"),
        ({"enemies": [(0, 1, 1)]}, r"enemies\[0\] is \(0, 1, 1\); use a dictionary with type, row"),
        ({"enemies": [VIRUS | {"type": 4}]}, r"enemies\[0\]: type is 4; use 0 to 3"),
        ({"enemies": [VIRUS | {"type": "virus"}]}, r"enemies\[0\]: type is 'virus'; use a whole number"),
        ({"enemies": [VIRUS | {"hp": 3}]}, r"enemies\[0\]: hp is 3; use 1 to 2"),
        ({"enemies": [VIRUS | {"row": 1.9}]}, r"enemies\[0\]: row is 1.9; use a whole number"),
        ({"enemies": [VIRUS | {"colour": 1}]}, r"enemies\[0\]: unknown colour; there are type, row"),
        ({"enemies": [{"type": 0, "row": 1, "col": 1}]}, r"enemies\[0\]: hp is missing"),
        ({"enemies": [VIRUS, VIRUS]}, r"enemies\[1\]: \(1, 1\) has one already"),
        (
            {"enemies": [VIRUS | {"row": i % 6, "col": i // 6} for i in range(21)]},
            "21 are too many; there are 20 slots",
        ),
        ({"transmissions": [SENT | {"timer": 0}]}, r"transmissions\[0\]: timer is 0; use 1 or more"),
        ({"blocks": [BLOCK | {"kind": 0}]}, r"blocks\[0\]: kind is 0; use 1 to 3"),
        ({"blocks": [BLOCK | {"col": 6}]}, r"blocks\[0\]: col is 6; use 0 to 5"),
        ({"blocks": [BLOCK | {"kind": 2, "points": 3}]}, r"blocks\[0\]: a block with a program has no points"),
        ({"resources": [{"row": 0, "col": 0, "data_siphon": 2}]}, r"resources\[0\]: data_siphon is 2; use 0 to 1"),
    ],
)
def test_what_is_impossible_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_state(**given)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="hp") as told:
        make_state(hp=9, player=(3,), owned=["x"], enemies=[VIRUS | {"type": 9}, VIRUS | {"hp": "a"}])
    assert len(str(told.value).splitlines()) == 5


def test_entries_of_different_lists_may_share_a_cell() -> None:
    state = make_state(enemies=[VIRUS], transmissions=[SENT], resources=[{"row": 1, "col": 1, "credits": np.int64(2)}])
    assert state.enemy_mask.sum() == 1 and state.trans_mask.sum() == 1 and state.res_credits[1, 1] == 2


def test_a_board_without_a_legal_action() -> None:
    """Walls on all sides, nothing to siphon with, no program."""
    walls = [BLOCK | {"row": 3 + a, "col": 3 + b} for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    assert not action_mask(make_state(player=(3, 3), blocks=walls)).any()


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_episode_steps is -1; use 0 for no limit"):
        hackmatrix(-1)

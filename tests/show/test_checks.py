"""The table of checks and the bars of speed say what they were given."""

from __future__ import annotations

import pytest

from mxnb import show
from mxnb.envs.check import Report, Rule

GOOD = Report("good-v0", (Rule("spec", True), Rule("mask", True), Rule("no jit", None, "skipped")))
BAD = Report("bad-v0", (Rule("spec", True), Rule("mask", False, "mend it"), Rule("no jit", None)))


def test_a_row_an_environment_and_a_column_a_rule() -> None:
    (ax,) = show.checks([GOOD, BAD]).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["good-v0", "bad-v0"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["spec", "mask", "no jit"]
    assert [t.get_text() for t in ax.texts] == ["ok", "ok", "-", "ok", "no", "-"]
    colours = [patch.get_facecolor()[:3] for patch in ax.patches]
    assert len(set(colours)) == 3 and colours[1] != colours[4]
    assert ax.get_xlabel() == "2 environments: 1 broken"
    assert show.checks([GOOD]).axes[0].get_xlabel() == "1 environment: every rule holds"


def test_speeds_are_bars_with_their_share_of_the_fastest() -> None:
    (ax,) = show.speed({"none": 200.0, "queue": 150.0}, "Resets").axes
    assert [patch.get_width() for patch in ax.patches] == [200.0, 150.0]
    assert [t.get_text() for t in ax.texts] == ["200 (100 %)", "150 (75 %)"]
    assert ax.get_xlabel() == "environment steps per second"


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one report"):
        show.checks([])
    with pytest.raises(ValueError, match="positive rates to compare; wrong: queue"):
        show.speed({"none": 1.0, "queue": 0.0})

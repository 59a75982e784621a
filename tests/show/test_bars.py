"""Bars of achievements and actions."""

from __future__ import annotations

import pytest

from mxnb import show
from mxnb.show._bars import percent

CLASSIC = [
    *("collect_coal", "collect_diamond", "collect_drink", "collect_iron", "collect_sapling", "collect_stone"),
    *("collect_wood", "defeat_skeleton", "defeat_zombie", "eat_cow", "eat_plant", "make_iron_pickaxe"),
    *("make_iron_sword", "make_stone_pickaxe", "make_stone_sword", "make_wood_pickaxe", "make_wood_sword"),
    *("place_furnace", "place_plant", "place_stone", "place_table", "wake_up"),
]


def names(fig):
    return [label.get_text() for label in fig.axes[0].get_yticklabels()]


def widths(fig, which=0):
    return [bar.get_width() for bar in fig.axes[0].containers[which]]


def test_achievements_of_a_run_sorted_in_percent(make_run, texts):
    fig = show.achievements(make_run())
    assert names(fig) == ["place table", "collect wood"]
    assert widths(fig) == pytest.approx([90, 40])
    assert "episodes in which it was reached (%)" in texts(fig)


def test_rates_pool_over_episodes_of_the_last_tenth(make_run):
    rows = [{"timesteps": t, "train/num_episodes": 1, "stats/a": 0.0} for t in range(18)]
    rows += [{"timesteps": 18, "train/num_episodes": 3, "stats/a": 1.0}]
    rows += [{"timesteps": 19, "train/num_episodes": 1, "stats/a": 0.0}]
    rows += [{"timesteps": 20 + t} for t in range(30)]  # no episode ended lately: the last ones that did count
    assert widths(show.achievements(make_run(rows=rows))) == pytest.approx([75])


def test_baseline_is_a_second_lighter_bar(make_run, texts):
    fig = show.achievements(make_run(), {"collect_wood": 0.6, "stats/eat_cow": 0.1}, labels=("trained", "random"))
    assert names(fig) == ["place table", "collect wood", "eat cow"]
    assert widths(fig, 1) == pytest.approx([0, 60, 10])
    assert {"trained", "random", "no data"} <= set(texts(fig))
    first, second = (group[0].get_facecolor() for group in fig.axes[0].containers)
    assert sum(second[:3]) > sum(first[:3])


@pytest.mark.parametrize("baseline", [None, dict.fromkeys(CLASSIC, 0.3)])
def test_22_achievements_fit(baseline, cut_off):
    fig = show.achievements({name: i / 21 for i, name in enumerate(CLASSIC)}, baseline)
    assert len(names(fig)) == 22
    assert not cut_off(fig)


def test_scores_among_the_stats_are_left_out(make_run):
    rows = [{"timesteps": 1, "stats/score": 7.0, "stats/wood": 0.5}]
    assert names(show.achievements(make_run(rows=rows))) == ["wood"]


def test_actions(make_run, cut_off):
    fig = show.actions(make_run())
    assert names(fig) == ["do", "noop"]
    assert widths(fig) == pytest.approx([75, 25])
    assert not cut_off(fig)


def test_bad_input_is_named(make_run):
    with pytest.raises(ValueError, match="train longer"):
        show.achievements(make_run(rows=[{"timesteps": 1}]))
    with pytest.raises(ValueError, match="not percent: a = 40"):
        show.achievements({"a": 40})
    with pytest.raises(ValueError, match="no complete row yet"):
        show.actions(make_run("empty", rows=0))


def test_percent_never_rounds_something_to_never():
    assert [percent(x) for x in (0, 0.0001, 0.003, 0.4, 1)] == ["0 %", "<0.1 %", "0.3 %", "40 %", "100 %"]

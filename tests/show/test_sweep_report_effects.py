"""What a sweep's parameters explain where that is easily said wrongly: few sets drawn at random, strong neighbours."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from mxnb.show._sweep_figures import _effects
from mxnb.show._sweep_maths import Effect, effects, explained, ways


def by_name(values: dict[str, Any], y: Any) -> dict[str, Effect]:
    return {effect.name: effect for effect in effects({name: list(column) for name, column in values.items()}, y)}


def search(dice: np.random.Generator, sets: int, seeds: int) -> dict[str, Any]:
    """A small random search: a number that is another in each set, and a choice that half of the sets make."""
    choice = dice.permutation(np.arange(sets) % 2)
    return {"lr": np.repeat(dice.uniform(size=sets), seeds), "deep": np.repeat(choice, seeds)}


def grid(seeds: int) -> dict[str, Any]:
    rows = np.array([(a, b) for a in (0, 1) for b in (0, 1) for _ in range(seeds)])
    return {"a": rows[:, 0], "b": rows[:, 1]}


# ------------------------------------------------------------------------------------------------ few sets, at random


def test_a_choice_is_judged_in_a_small_random_search() -> None:
    """Eight sets can be halved in 35 ways; the number beside the choice names each set, so it cannot be judged."""
    dice = np.random.default_rng(0)
    values = search(dice, 8, 3)
    found = by_name(values, values["deep"] + dice.normal(0, 0.01, 24))
    assert found["deep"].real and found["deep"].share > 0.99 and not found["deep"].told
    assert found["lr"].told == "one set a value: too few" and not found["lr"].real
    assert math.isnan(found["lr"].share) and math.isnan(found["lr"].band)


def test_a_grid_over_a_small_random_search_is_judged_by_both() -> None:
    """Each set of the search is run with a mask and without: no value names one set, and yet nothing was crossed."""
    dice = np.random.default_rng(1)
    drawn = search(dice, 8, 6)
    values = {**drawn, "use_mask": np.tile([0, 0, 0, 1, 1, 1], 8)}
    found = by_name(values, values["deep"] + 0.4 * values["use_mask"] + dice.normal(0, 0.1, 48))
    assert found["deep"].real and found["use_mask"].real and found["lr"].told == "one set a value: too few"


def test_a_small_random_search_of_noise_raises_no_alarms() -> None:
    """Not by more than chance, although the seeds of one set go together."""
    dice, alarms = np.random.default_rng(2), 0
    for _ in range(100):
        values = search(dice, 8, 3)
        alarms += by_name(values, np.repeat(dice.normal(size=8), 3) + dice.normal(0, 0.1, 24))["deep"].real
    assert alarms <= 10


def test_ways_are_counted_without_the_names_of_the_groups() -> None:
    """Three and three of six are 10 ways, so the best of them comes up once in ten: too often for a claim."""
    assert ways(np.array([0, 0, 0, 1, 1, 1]), np.zeros(6)) == pytest.approx(10)
    assert ways(np.array([0, 0, 1, 1, 1, 1]), np.zeros(6)) == pytest.approx(15)
    assert ways(np.arange(5), np.zeros(5)) == pytest.approx(1)
    labels, strata = np.array([0, 0, 1, 1, 0, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1])
    different = {
        tuple(sorted([one, tuple(i for i in range(7) if i not in one)]))
        for one in itertools.combinations(range(7), 3)
        if sum(i < 4 for i in one) == 2
    }
    assert ways(labels, strata) == pytest.approx(len(different)) == pytest.approx(18)
    (six,) = effects({"lr": [1, 1, 1, 2, 2, 2]}, [0.0, 0.1, 0.2, 9.0, 9.1, 9.2])
    assert six.told == "too few runs to tell from chance" and not six.real


def test_where_no_run_is_left_for_noise_it_says_so() -> None:
    """Four runs of a grid of one seed: of six sets, the two that differ in `a` alone would be its whole evidence."""
    found = by_name({"a": [0, 0, 0, 1], "b": [0, 1, 2, 0]}, [1.0, 2.0, 4.0, 3.0])
    assert not any(effect.real for effect in found.values())
    assert {effect.told for effect in found.values()} == {"too few runs to tell from chance"}


# ------------------------------------------------------------------------------------------------ strong neighbours


def test_a_small_effect_beside_a_strong_one_has_its_share() -> None:
    """Its share is what it adds, not less than nothing because another parameter scatters the runs."""
    dice, shares = np.random.default_rng(0), []
    values = grid(5)
    for _ in range(200):
        y = 10.0 * values["b"] + 0.5 * values["a"] + dice.normal(0, 0.2, 20)
        weak = by_name(values, y)["a"]
        assert not weak.real or 0 < weak.share > weak.band
        shares.append(weak.share)
    assert by_name(values, y)["a"].real
    assert np.mean(shares) == pytest.approx(0.25**2 / (5**2 + 0.25**2 + 0.2**2), rel=0.1)
    assert explained(values["a"], y) < -0.04  # what it would be if the other one's effect were noise


def test_the_share_beside_others_has_no_bias() -> None:
    dice, values = np.random.default_rng(1), grid(3)
    y = 3.0 * values["b"] + dice.normal(size=(3000, 12))
    shares = [float(explained(values["a"], row, values["b"])) for row in y]
    assert abs(np.mean(shares)) < 0.005 and np.min(shares) < 0
    alarms = [by_name(values, row)["a"].real for row in y[:200]]
    assert np.mean(alarms) <= 0.09


def test_in_a_half_finished_grid_another_ones_effect_is_not_counted_twice() -> None:
    """Most runs of one value of a were made with the better b: a itself does nothing."""
    a = np.array([0] * 8 + [1] * 2 + [0] * 2 + [1] * 8)
    b = np.repeat([0, 1], 10)
    y = 10.0 * b + np.random.default_rng(0).normal(0, 0.1, 20)
    found = by_name({"a": a, "b": b}, y)
    assert explained(a, y) > 0.3 and abs(found["a"].share) < 0.01 and not found["a"].real
    assert found["b"].real


def test_what_another_parameter_explains_entirely_leaves_nothing() -> None:
    values = grid(4)
    assert by_name(values, 10.1 * values["b"])["a"] == Effect("a", 0.0, 0.0, 2)
    assert by_name(values, np.ones(16))["b"].share == 0


def test_nothing_below_zero_is_real() -> None:
    assert not Effect("a", -0.02, -0.04, 2).real and not Effect("a", 0.0, -0.04, 2).real
    assert not Effect("a", 0.02, 0.04, 2).real and Effect("a", 0.02, -0.04, 2).real and Effect("a", 0.02, 0.01, 2).real


def test_the_words_beside_a_bar_say_what_its_colour_says(texts: Any, cut_off: Any) -> None:
    found = [Effect("a", 0.9, 0.1, 2), Effect("b", 0.002, 0.001, 2), Effect("c", -0.045, -0.05, 2)]
    found += [Effect("d", 0.002, 0.003, 2), Effect("e", math.nan, math.nan, 8, "one set a value: too few")]
    fig = _effects(found, "What decides", ["24 runs"])
    words = ["90 %", "under 1 %", "0 %, as chance would", "0 %, as chance would", "one set a value: too few"]
    assert [w for w in texts(fig) if " %" in w or "too few" in w] == words and not cut_off(fig)

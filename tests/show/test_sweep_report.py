"""A sweep's report: the statistics against brute force, and pictures of made-up sweeps in every state."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from mxnb import show
from mxnb.show import _sweep, _sweep_maths
from mxnb.show._figures import WIDTH, to_png
from mxnb.show._sweep_maths import effects, explained, improvement, iqm, middle, parts, shuffled, ways

RETURN = "train/mean_episode_return"
LONG = "x" * 200
Make = Callable[..., Path]


@pytest.fixture
def make_sweep(tmp_path: Path) -> Make:
    """make_sweep(sets, seeds, value(values, seed), status(number)) -> its folder."""

    def make(sets: Any, seeds: Any, value: Any = None, status: Any = None, metric: str = RETURN) -> Path:
        folder = tmp_path / "mine"
        runs = []
        for i, (values, seed) in enumerate(itertools.product(sets, seeds)):
            runs.append({"id": f"{i:010x}", "values": {**values, "seed": seed}, "params": {}})
            end = float(value(values, seed)) if value else float(i)
            write_run(folder / runs[-1]["id"], end, status(i) if status else "done", metric)
        (folder / "sweep.json").write_text(json.dumps({"notebook": "n.ipynb", "tags": [], "runs": runs}))
        return folder

    return make


def write_run(out: Path, end: float, status: str, metric: str) -> None:
    """What a run leaves behind that ended so, or is on its way."""
    out.mkdir(parents=True)
    now = time.time()
    job: dict[str, Any] = {"status": status, "time": now, "begun": now - 240}
    if status == "killed":
        job |= {"status": "started", "time": now - 1200, "begun": now - 1440}
    elif status not in ("started", "queued"):
        job["seconds"] = 240.0
    if status not in ("done", "started", "queued", "killed"):
        job["error"] = f"<b>{LONG}</b> it {status}"
    (out / "job.json").write_text(json.dumps(job))
    count = {"done": 12, "started": 5, "killed": 3, "failed": 2}.get(status, 0)
    rows = [
        {"update": u, "timesteps": 100 * u, "train/num_episodes": 2.0, metric: end * u / 12}
        for u in range(1, count + 1)
    ]
    if rows:
        (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if status in ("done", "preempted"):  # fit writes one also when it is interrupted
        metrics = {metric: end} if math.isfinite(end) else {"train/entropy": 0.1}
        (out / "result.json").write_text(json.dumps({"status": "done", "metrics": metrics}))


STATES = ["done", "done", "started", "queued", "failed", "oom", "timeout", "dead_kernel", "killed", "preempted"]


# ------------------------------------------------------------------------------------------------ the statistics


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 20])
def test_the_middle_half_is_the_trimmed_mean(n: int) -> None:
    y = np.random.default_rng(n).normal(size=(3, n))
    np.testing.assert_allclose(iqm(y), trim_mean(y, 0.25, axis=1))
    assert iqm([0.0, 1.0, 2.0, 1000.0]) == 1.5


def test_an_interval_only_of_four_seeds_or_more() -> None:
    value, low, high = middle([1.0, 2.0, 6.0])
    assert value == 3.0 and math.isnan(low) and math.isnan(high)
    y = np.random.default_rng(3).normal(5, 2, 40)
    value, low, high = middle(y)
    dice = np.random.default_rng(1)
    brute = [trim_mean([y[dice.integers(40)] for _ in range(40)], 0.25) for _ in range(3000)]
    assert value == pytest.approx(trim_mean(y, 0.25))
    np.testing.assert_allclose([low, high], np.percentile(brute, (2.5, 97.5)), atol=0.08)
    assert middle(y) == (value, low, high)  # always alike


def test_probability_of_improvement_of_known_cases() -> None:
    low, high = np.arange(5.0), np.arange(5.0) + 10
    assert improvement(high, low) == (1.0, 1.0, 1.0) and improvement(low, high) == (0.0, 0.0, 0.0)
    assert improvement(low, low)[0] == 0.5 and improvement([1.0, 1.0], [1.0])[0] == 0.5
    assert improvement([3.0, 1.0], [2.0, 1.0])[0] == (2 + 0.5) / 4
    assert math.isnan(improvement([1.0] * 3, [0.0] * 9)[1]) and math.isnan(improvement([1.0] * 9, [0.0] * 3)[1])


def test_probability_of_improvement_against_brute_force() -> None:
    dice = np.random.default_rng(0)
    x, y = dice.integers(0, 6, 9).astype(float), dice.integers(0, 5, 14).astype(float)
    share = lambda a, b: np.mean([1.0 if i > j else 0.5 if i == j else 0.0 for i in a for j in b])
    value, low, high = improvement(x, y)
    assert value == pytest.approx(share(x, y)) == pytest.approx(mannwhitneyu(x, y).statistic / (9 * 14))
    brute = [share(dice.choice(x, 9), dice.choice(y, 14)) for _ in range(3000)]
    np.testing.assert_allclose([low, high], np.percentile(brute, (2.5, 97.5)), atol=0.02)
    assert value + improvement(y, x)[0] == pytest.approx(1.0)


def test_epsilon_squared_of_known_cases() -> None:
    labels = np.repeat([0, 1, 2], 4)
    assert explained(labels, labels * 3.0) == pytest.approx(1.0)
    y = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 9.0])  # means 2 and 6: B = 24, W = 2 + 14
    assert explained(np.array([0, 0, 0, 1, 1, 1]), y) == pytest.approx((24 - 16 / 4) / 40)
    assert explained(labels, np.ones(12)) == 0 and explained(np.zeros(12, int), np.arange(12.0)) == 0
    assert math.isnan(
        explained(np.arange(12), np.arange(12.0))
    )  # a run for each value: nothing is left to compare with
    both = np.stack([labels, np.arange(12) % 3])
    z = np.random.default_rng(0).normal(size=12)
    np.testing.assert_allclose(explained(both, z), [explained(row, z) for row in both])


def test_epsilon_squared_has_no_bias_where_the_correlation_ratio_has() -> None:
    dice, labels = np.random.default_rng(0), np.repeat(np.arange(6), 4)
    y = dice.normal(size=(2000, 24))
    mean = np.mean([explained(labels, row) for row in y])
    groups = y.reshape(2000, 6, 4).mean(-1)
    ratio = (4 * ((groups - y.mean(-1, keepdims=True)) ** 2).sum(-1) / (24 * y.var(-1))).mean()
    assert abs(mean) < 0.015 and ratio > 0.2


def test_shuffles_stay_within_their_strata() -> None:
    labels, strata = np.array([0, 1, 2, 0, 1, 1]), np.array([5, 3, 5, 3, 5, 3])
    found = shuffled(labels, strata, 500)
    for stratum in (3, 5):
        inside = strata == stratum
        assert (np.sort(found[:, inside]) == np.sort(labels[inside])).all()
    assert {tuple(row) for row in found[:, strata == 5]} == set(itertools.permutations([0, 2, 1]))
    assert ways(np.array([0, 0, 1, 1]), np.zeros(4)) == pytest.approx(6 / 2)  # whichever of the two is called 0
    assert ways(labels, strata) == pytest.approx(6 * 3)


def test_parts_hold_alike_many_different_numbers() -> None:
    column = [0.001, 0.5, 0.002, 7.0, 0.001, 0.003, 100.0]
    assert parts(column, 3).tolist() == [0, 1, 0, 2, 0, 1, 2]


def crossed(levels: int, seeds: int) -> dict[str, list[Any]]:
    rows = [(a, b) for a in range(levels) for b in range(2) for _ in range(seeds)]
    return {"a": [a for a, _ in rows], "b": [b for _, b in rows]}


def test_a_real_effect_stands_out_and_another_ones_is_not_taken_for_noise() -> None:
    """In a grid, a small effect is seen beside one a hundred times as strong."""
    values = crossed(2, 6)
    y = 10.0 * np.array(values["b"]) + np.array(values["a"]) + np.random.default_rng(0).normal(0, 0.3, 24)
    strong, weak = effects(values, y)
    assert (strong.name, weak.name) == ("b", "a") and strong.share > 0.95
    assert strong.real and weak.real and not weak.told
    free = explained(shuffled(np.array(values["a"]), np.zeros(24, int)), y)
    assert weak.share < np.percentile(free, 95)  # runs shuffled across b would hide it


def test_noise_is_not_taken_for_an_effect() -> None:
    """In 20 sweeps of 100, as promised, also where sets of values differ and their seeds go together."""
    dice, alarms, naive, grid = np.random.default_rng(0), 0, 0, 0
    for _ in range(100):
        rates = np.repeat(dice.uniform(size=12), 4)
        choice = np.repeat(dice.integers(0, 2, 12), 4)
        y = np.repeat(dice.normal(size=12), 4) + dice.normal(0, 0.2, 48)
        found = {effect.name: effect for effect in effects({"lr": rates.tolist(), "deep": choice.tolist()}, y)}
        alarms += "deep" in found and found["deep"].real
        chance = np.percentile(explained(shuffled(choice, np.zeros(48, int), 400), y), 95) if "deep" in found else 1.0
        naive += bool(explained(choice, y) > chance)
        grid += any(effect.real for effect in effects({"a": [0, 1, 2] * 5}, dice.normal(size=15)))
    assert alarms <= 12 and grid <= 12
    assert naive > 30  # what would be claimed if seeds of one set counted as independent


def test_what_cannot_be_told_is_not_told() -> None:
    (one,) = effects({"lr": [1, 2, 3]}, [1.0, 2.0, 3.0])
    assert not one.real and math.isnan(one.share) and "one run a value" in one.told
    (few,) = effects({"lr": [1, 1, 2, 2]}, [0.0, 0.1, 9.0, 9.1])
    assert few.share > 0.9 and not few.real and "too few" in few.told
    (enough,) = effects({"lr": [1] * 4 + [2] * 4}, [0.0, 0.1, 0.2, 0.3, 9.0, 9.1, 9.2, 9.3])
    assert enough.real
    assert effects({"lr": [1, 1]}, [0.0, 1.0]) == []


def test_what_always_changes_together_is_one() -> None:
    (both,) = effects(
        {"n": [64] * 5 + [128] * 5, "lr": [0.1] * 5 + [0.2] * 5}, np.r_[np.arange(5.0), 9 + np.arange(5.0)]
    )
    assert both.name == "n + lr" and both.real


def test_ranges_are_cut_and_told_apart() -> None:
    """Two numbers drawn at random, each different in every set: one decides, and they are not one parameter."""
    dice = np.random.default_rng(1)
    lr, coef = np.repeat(dice.uniform(size=(2, 30)), 2, axis=1)
    found = effects({"lr": lr.tolist(), "coef": coef.tolist()}, 5 * lr + dice.normal(0, 0.3, 60))
    assert [effect.name for effect in found] == ["lr", "coef"] and [effect.values for effect in found] == [5, 5]
    assert found[0].real and found[0].share > 0.7 and not found[1].real


def test_a_choice_beside_a_range_is_judged_by_whole_sets() -> None:
    """Among 24 numbers drawn at random, each with one of two choices, the choice is what decides."""
    dice = np.random.default_rng(0)
    lr, deep = np.repeat(dice.uniform(size=24), 2), np.repeat(np.arange(24) % 2, 2)
    found = effects({"lr": lr.tolist(), "deep": deep.tolist()}, deep + dice.normal(0, 0.3, 48))
    assert found[0].name == "deep" and found[0].real and not found[1].real


# ------------------------------------------------------------------------------------------------ what is read


def test_another_folder_says_how_to_start_a_sweep(tmp_path: Path) -> None:
    for draw in (show.sweep_progress, show.sweep_curves, show.sweep_results, show.sweep_importance):
        with pytest.raises(FileNotFoundError, match=r"no sweep\.json.*python -m mxnb sweep run"):
            draw(tmp_path)
    (tmp_path / "sweep.json").write_text('{"runs": [{"id"')
    with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
        show.sweep_progress(tmp_path)


def test_labels_stay_short_and_different() -> None:
    names = {"a_long_name_of_a_parameter": 3e-4, "another_long_name": "some/long/path", "third": True}
    assert len(_sweep.label(names)) <= 42 and "0.0003" in _sweep.label(names) and "true" in _sweep.label(names)
    assert (
        _sweep.label({"lr": 0.00031415, "n": 1024}) == "lr 0.000314, n 1024" and _sweep.label({}) == "the same values"
    )
    assert len(_sweep.label({f"parameter_{i}": i for i in range(20)})) <= 42
    assert _sweep.unique(["a", "b", "a"]) == ["a", "b", "a (2)"]
    assert len(set(_sweep.unique(["a", "a (2)", "a", "a (2)"]))) == 4


def test_only_done_runs_count_and_the_metric_is_chosen(make_sweep: Make) -> None:
    folder = make_sweep([{"lr": 0.1}], range(10), status=lambda i: STATES[i], metric="train/mean_reward")
    runs = _sweep.sweep_runs(folder)
    assert [run.status for run in runs] == STATES
    assert [run.final("train/mean_reward") for run in runs] == [0.0, 1.0] + [None] * 8
    assert _sweep.which_metric(runs, "") == "train/mean_reward"
    with pytest.raises(
        ValueError, match=r"no run that is done has a 'train/mean_rewad'; did you mean train/mean_reward"
    ):
        show.sweep_results(folder, "train/mean_rewad")


# ------------------------------------------------------------------------------------------------ what is shown


def sound(fig: Any, cut_off: Any, texts: Any) -> list[str]:
    """The words of a figure that is as wide as a phone likes, small as a file, and whole."""
    assert not cut_off(fig) and fig.get_figwidth() == WIDTH
    assert len(to_png(fig)) < 250_000
    return texts(fig)


def test_progress_tells_every_end(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    folder = make_sweep([{"lr": 0.1}, {"lr": 0.2}], range(5), status=lambda i: STATES[i])
    told = show.sweep_progress(folder)
    assert told.counts == {name: STATES.count(name) for name in STATES}
    assert [run.status for run in told.failures] == STATES[4:]
    text, page = str(told), told._repr_mimebundle_()["text/html"]
    assert text.startswith("Sweep mine: 2 of 10 runs are done") and repr(told) == text
    assert "failed after 4 min: lr 0.1, seed 4" in text and "no sign of life for 20 min" in text
    assert "the other 8 about 32 min" in text
    assert "&lt;b&gt;" in page and "<b>x" not in page and "data:image/png;base64" in page
    words = sound(told.figure, cut_off, texts)
    assert {"2 done", "1 dead kernel", "1 killed"} <= set(words)


def test_progress_of_other_sweeps(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    many = show.sweep_progress(make_sweep([{"lr": 0.1}], range(40), status=lambda i: "failed"))
    assert "and 28 more" in str(many) and "28 more" in many._repr_mimebundle_()["text/html"]
    assert "0 of 40 runs are done" in many.title and not cut_off(many.figure)


def test_states_of_other_schedulers_are_shown_as_they_are(make_sweep: Make) -> None:
    told = show.sweep_progress(make_sweep([{"lr": 0.1}], range(3), status=lambda i: ["done", "submitted", "queued"][i]))
    assert told.counts == {"done": 1, "queued": 1, "submitted": 1}


def test_curves_of_seeds_have_a_band(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    sets = [{"lr": 0.1}, {"lr": 0.2}]
    words = sound(show.sweep_curves(make_sweep(sets, range(4))), cut_off, texts)
    assert {"lr 0.1 (4 seeds)", "lr 0.2 (4 seeds)", "Episode return"} <= set(words)
    assert "mean of the middle half of the seeds; band: 95 % interval" in words and "Policy entropy" not in words


def test_curves_of_few_seeds_promise_nothing(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    sets = [{"lr": 0.1}, {"lr": 0.2}]
    status = lambda i: ["done", "started", "killed", "queued", "started", "queued"][i]
    words = sound(show.sweep_curves(make_sweep(sets, range(3), status=status)), cut_off, texts)
    assert {"lr 0.1", "lr 0.2"} <= set(words)  # the seed that is done; the one that has begun
    note = next(w for w in words if "not done" in w).replace("\n", " ")
    assert note == "1 of 2 runs drawn: not done, as far as they are; left out: 4 of 6 runs that are not done"


def test_curves_of_many_sets(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    dice = np.random.default_rng(0)
    sets = [{"lr": float(dice.uniform()), "wide": i % 3, "a_rather_long_name": LONG} for i in range(25)]
    folder = make_sweep(sets, range(4), lambda values, seed: values["lr"] + 0.01 * seed)
    words = sound(show.sweep_curves(folder), cut_off, texts)
    best = sorted((one["lr"] for one in sets), reverse=True)[:8]
    drawn = [w for w in words if w.endswith("(4 seeds)")]
    assert [float(w.split()[1].rstrip(",")) for w in drawn] == pytest.approx(best, rel=0.01)
    assert any(w.startswith("the best 8 of 25 sets") for w in words)
    words = sound(show.sweep_curves(folder, by="wide"), cut_off, texts)
    assert {"wide 0 (36 runs)", "wide 1 (32 runs)", "wide 2 (32 runs)"} <= set(words)
    assert any("middle half of the runs" in w for w in words) and "by wide: runs of all other values pooled" in words
    words = sound(show.sweep_curves(folder, by="lr"), cut_off, texts)
    assert sum(w.startswith("lr ") and " to " in w for w in words) == 4
    with pytest.raises(ValueError, match=r"does not vary 'wid'; did you mean wide"):
        show.sweep_curves(folder, by="wid")


def test_values_that_read_alike_keep_their_lines(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    """Two rates that agree in three digits, two paths that differ in the middle, four parts of a narrow range."""
    near = [0.00012341, 0.00012344, 0.5]
    paths = [f"{'x' * 60}{i}{'x' * 60}" for i in range(3)]
    narrow = [0.1 + 1e-6 * i for i in range(12)]
    for name, values, lines in (("lr", near, 3), ("path", paths, 3), ("coef", narrow, 4)):
        folder = make_sweep([{name: value} for value in values], range(4))
        sets = _sweep.sets_by(_sweep.sweep_runs(folder), name)
        assert len({one.label for one in sets}) == len(sets) == lines
        assert sorted(run.id for one in sets for run in one.runs) == sorted(p.name for p in folder.glob("0*"))
        words = sound(show.sweep_curves(folder, by=name), cut_off, texts)
        drawn = [int(w.split("(")[-1].split()[0]) for w in words if w.endswith(" runs)")]
        assert len(drawn) == lines and sum(drawn) == 4 * len(values)
        shutil.rmtree(folder)


def test_before_anything_has_begun_there_are_words(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    folder = make_sweep([{"lr": 0.1}, {"lr": 0.2}], range(2), status=lambda i: "queued")
    assert "No update of any run has ended yet." in sound(show.sweep_curves(folder), cut_off, texts)
    assert "No run is done yet." in sound(show.sweep_importance(folder), cut_off, texts)
    results = show.sweep_results(folder)
    assert "No run is done yet." in sound(results.figure, cut_off, texts)
    assert results.rows == () and results.best_run is None and "No run is done yet." in str(results)
    assert "No run is done yet." in results._repr_mimebundle_()["text/html"]
    assert "0 of 4 runs are done" in str(show.sweep_progress(folder))


def test_results_are_sorted_and_held_against_the_best(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    sets = [{"lr": 0.1}, {"lr": 0.3}, {"lr": 0.2}]
    folder = make_sweep(sets, range(6), lambda values, seed: 10 * values["lr"] + 0.3 * seed)
    found = show.sweep_results(folder)
    assert [row.values["lr"] for row in found.rows] == [0.3, 0.2, 0.1] and found.reference == "lr 0.3"
    assert found.rows[0].better is None and found.best_run == folder / f"{11:010x}"
    for row in found.rows:
        y = 10 * row.values["lr"] + 0.3 * np.arange(6)
        assert (row.value, row.low, row.high) == pytest.approx(middle(y))
        if row.better:
            assert row.better == improvement(row.finals, found.rows[0].finals)
    assert found.rows[1].better[0] == pytest.approx((1 + 2) / 36)  # a seed of 0.2 leads where it is 4 or 5 ahead
    words = sound(found.figure, cut_off, texts)
    assert {"lr 0.3", "best", "Final episode return"} <= set(words) and "P(better than\nthe best)" in words
    text, page = str(found), found._repr_mimebundle_()["text/html"]
    assert "(reference)" in text and "3 sets of values, 6 seeds each" in text and "luckiest" in text
    assert "(reference)" in page and "data:image/png;base64" in page
    held = show.sweep_results(folder, baseline={"lr": 0.1})
    assert held.rows[2].better is None and held.rows[0].better[0] > 0.9
    assert "luckiest" not in str(held) and "P(better than\nthe baseline)" in texts(held.figure)
    with pytest.raises(ValueError, match=r"fits 0 of the sets.*name one of: lr 0\.3; lr 0\.2; lr 0\.1"):
        show.sweep_results(folder, baseline={"lr": 5})


def test_another_metric(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    metric = "stats/a_metric_with_a_name_that_is_too_long_for_any_title"
    folder = make_sweep([{"n": n} for n in (1, 2)], range(4), metric=metric)
    for fig in (show.sweep_results(folder, metric).figure, show.sweep_importance(folder, metric)):
        sound(fig, cut_off, texts)
    held = show.sweep_results(folder, metric, baseline={"n": 1.0})
    assert held.rows[1].better is None and held.metric == metric


def test_few_seeds_are_dots_without_an_interval(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    found = show.sweep_results(make_sweep([{"lr": 0.1}, {"lr": 0.2}], range(3)))
    assert all(math.isnan(row.low) for row in found.rows) and "carry no interval" in found.words
    widths = [len(line.get_xdata()) for line in found.figure.axes[0].lines]
    assert widths == [3, 1, 3, 1]  # the seeds and their mean, no interval


def test_one_seed_each(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    folder = make_sweep([{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.4}], [7])
    found = show.sweep_results(folder)
    sound(found.figure, cut_off, texts)
    assert len(found.figure.axes) == 1  # who beats whom, of one seed each, says nothing
    assert "1 seed each" in found.words
    assert "one run a value: too few" in sound(show.sweep_importance(folder), cut_off, texts)
    sound(show.sweep_curves(folder), cut_off, texts)


def test_seeds_alone_are_a_sweep(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    folder = make_sweep([{}], range(4))
    assert "the same values" in sound(show.sweep_results(folder).figure, cut_off, texts)
    assert any("do not differ in any parameter" in w for w in sound(show.sweep_importance(folder), cut_off, texts))
    sound(show.sweep_curves(folder), cut_off, texts)


def test_runs_without_a_number_are_left_out_and_counted(make_sweep: Make) -> None:
    folder = make_sweep([{"lr": 0.1}, {"lr": 0.2}], range(4), lambda values, seed: math.nan if seed == 3 else seed)
    found = show.sweep_results(folder)
    assert [len(row.finals) for row in found.rows] == [3, 3] and "2 runs are left out" in found.words
    assert "(2) without a number" in found.words


def test_a_hundred_runs(make_sweep: Make, cut_off: Any, texts: Any) -> None:
    dice = np.random.default_rng(0)
    draw = lambda: {
        "lr": float(f"{10 ** dice.uniform(-4, -2):.4g}"),
        "a_parameter_with_a_long_name": float(dice.uniform()),
        "hidden_dim": int(dice.choice([128, 256])),
        "path": LONG,
    }
    folder = make_sweep([draw() for _ in range(25)], range(4), lambda v, s: np.log10(v["lr"]) + dice.normal(0, 0.1))
    began = time.monotonic()
    found = show.sweep_results(folder)
    words = sound(found.figure, cut_off, texts)
    assert "best 15 of 25 sets" in words and len(found.rows) == 25
    words = sound(show.sweep_importance(folder), cut_off, texts)
    shares = [w for w in words if w.endswith(" %") or "as chance would" in w]
    assert "as chance would" not in shares[0] and all("as chance would" in w for w in shares[1:])
    assert any("% of the variance is between seeds" in w.replace("\n", " ") for w in words)
    held = show.sweep_results(folder, baseline=found.rows[-1].values)  # not among the best: shown all the same
    assert "baseline" in sound(held.figure, cut_off, texts)
    assert time.monotonic() - began < 60
    assert _sweep_maths.DRAWS >= 1000

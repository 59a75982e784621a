"""From sums to rows, from rows to a summary, and from rows to words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mxnb.agents.api import Max, Mean
from mxnb.agents.ppo import HEALTH
from mxnb.run.metrics import cut_back, final_metrics, judge, read_rows, to_rows, write_rows


def test_rows_by_hand() -> None:
    metrics = {
        "b/mean": Mean(np.array([6.0, 1.0, 9.0]), np.array([3.0, 4.0, 1.0])),
        "a/max": Max(np.array([5.0, -2.0, 7.0])),
    }
    assert to_rows(metrics, 2) == [{"a/max": 5.0, "b/mean": 2.0}, {"a/max": -2.0, "b/mean": 0.25}]
    assert list(to_rows(metrics, 1)[0]) == ["a/max", "b/mean"]
    assert to_rows(metrics, 0) == [] and to_rows({}, 2) == [{}, {}]
    assert all(type(v) is float for row in to_rows(metrics, 3) for v in row.values())


def test_a_mean_without_samples_is_left_out() -> None:
    metrics = {"x": Mean(np.array([0.0, 3.0], np.float32), np.array([0.0, 2.0], np.float32))}
    assert to_rows(metrics, 2) == [{}, {"x": 1.5}]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_becomes_none(bad: float) -> None:
    metrics = {"mean": Mean(np.array([bad]), np.array([1.0])), "max": Max(np.array([bad]))}
    assert to_rows(metrics, 1) == [{"mean": None, "max": None}]
    assert json.dumps(to_rows(metrics, 1)[0], allow_nan=False)


def test_rows_survive_the_file_and_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_rows(path) == []
    end = write_rows(path, [{"a": 0.1}, {"a": None}], 0)
    assert write_rows(path, [], end) == end == path.stat().st_size
    end = write_rows(path, [{"a": 1e-30}], end)
    assert read_rows(path) == [{"a": 0.1}, {"a": None}, {"a": 1e-30}]
    with open(path, "a") as file:
        file.write('{"a": 2.0')
    assert len(read_rows(path)) == 3
    write_rows(path, [{"a": 2.0}], end)  # in place of the torn line
    assert [row["a"] for row in read_rows(path)] == [0.1, None, 1e-30, 2.0]
    with pytest.raises(ValueError):
        write_rows(path, [{"a": math.nan}], 0)


def test_rows_are_cut_back_to_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = write_rows(path, [{"update": 1}], 0)
    second = write_rows(path, [{"update": 2}], first)
    assert cut_back(path, first, 2) == first and read_rows(path) == [{"update": 1}]
    path.write_text(path.read_text() + '{"update"')  # shorter than the checkpoint says, and torn: no zeros are put in
    assert cut_back(path, second, 2) == first and path.read_text() == '{"update": 1}\n'
    write_rows(path, [{"update": 2}, {"update": 3}], first)
    assert cut_back(path, 999, 2) == second and len(read_rows(path)) == 2  # the offset is of a longer file
    path.unlink()
    assert cut_back(path, second, 2) == 0 and read_rows(path) == []


def test_final_metrics_are_means_over_the_last_tenth() -> None:
    rows = [{"update": i, "train/entropy": float(i), "time/fps": 9.0} for i in range(30)]
    assert final_metrics(rows) == {"train/entropy": 28.0}  # 27, 28, 29; the clock is no result, nor are counters
    assert final_metrics(rows, 1.0) == {"train/entropy": 14.5}
    assert final_metrics(rows[:3]) == {"train/entropy": 2.0}  # at least one row
    assert final_metrics([]) == {}


def test_final_metrics_weigh_episode_statistics_by_episodes() -> None:
    # 1 episode of 10 and 3 of 2: (10 + 3 * 2) / 4 = 4, not 6; entropy is per update: 0.5
    rows = [
        {"train/num_episodes": 1.0, "train/mean_episode_return": 10.0, "stats/wood": 1.0, "train/entropy": 0.0},
        {"train/num_episodes": 3.0, "train/mean_episode_return": 2.0, "stats/wood": 0.0, "train/entropy": 1.0},
        {"train/num_episodes": 0.0},
    ]
    final = final_metrics(rows, 1.0)
    assert final["train/mean_episode_return"] == 4.0 and final["stats/wood"] == 0.25
    assert final["train/entropy"] == 0.5 and final["train/num_episodes"] == pytest.approx(4 / 3)


def test_final_metrics_leave_out_what_was_never_measured() -> None:
    rows = [{"train/x": None, "train/y": 1.0, "train/num_episodes": 0.0}, {"train/y": None}]
    assert final_metrics(rows, 1.0) == {"train/y": 1.0, "train/num_episodes": 0.0}


WELL = {
    "train/entropy_frac": 0.8,
    "train/approx_kl": 0.01,
    "train/clip_frac": 0.1,
    "train/no_legal_action": 0.0,
    "train/num_episodes": 2.0,
}


def rows(count: int = 10, **changed: Any) -> list[dict[str, Any]]:
    """A healthy run whose return grows, with some metrics changed in every row (a function gets the row's number)."""
    return [
        WELL
        | {"train/mean_episode_return": float(i)}
        | {f"train/{k}": v(i) if callable(v) else v for k, v in changed.items()}
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 49, 50, 200])
def test_a_healthy_run_is_silent(count: int) -> None:
    assert judge(HEALTH, rows(count)) == []


@pytest.mark.parametrize(
    ("metric", "sick", "at_the_edge", "words"),
    [
        ("entropy_frac", 0.05, 0.1, "train/entropy_frac is 0.05: the policy has collapsed"),
        ("approx_kl", 0.07, 0.06, "train/approx_kl is 0.07: each update moves the policy far"),
        ("clip_frac", 0.4, 0.3, "train/clip_frac is 0.4: a large share of the samples is clipped"),
        ("no_legal_action", 1.0, 0.0, "train/no_legal_action is 1: a state had no legal action"),
    ],
)
def test_each_rule_of_ppo_speaks_beyond_its_edge_and_names_the_cure(
    metric: str, sick: float, at_the_edge: float, words: str
) -> None:
    (said,) = judge(HEALTH, rows(**{metric: sick}))
    assert said.startswith(words)
    cure = next(rule.cure for rule in HEALTH if rule.metric == f"train/{metric}")
    assert said.endswith(f". Cure: {cure}") and cure
    # ten times the same number need not have exactly that number as their mean
    assert (
        judge(
            HEALTH,
            rows(**{metric: lambda i: at_the_edge if i % 2 else 0.999 * at_the_edge + 0.001 * WELL[f"train/{metric}"]}),
        )
        == []
    )


def test_rules_look_at_the_last_ten_rows_only() -> None:
    assert judge(HEALTH, rows(20, entropy_frac=lambda i: 0.0 if i < 10 else 0.8)) == []
    assert judge(HEALTH, rows(20, entropy_frac=lambda i: 0.8 if i < 10 else 0.0)) != []
    assert judge(HEALTH, rows(clip_frac=lambda i: 1.0 if i == 3 else 0.1)) == []  # one outlier is not an illness


def test_rules_are_silent_about_what_was_not_measured() -> None:
    assert judge(HEALTH, [{"train/x": 1.0}] * 10) == []


def test_kl_and_clip_fraction_both_0_mean_that_nothing_is_learned() -> None:
    (said,) = judge(HEALTH, rows(approx_kl=0.0, clip_frac=0.0))
    assert said == "KL and clip fraction are both 0: nothing is learned. Cure: raise lr; check that rewards vary"
    assert judge(HEALTH, rows(clip_frac=0.0)) == []  # small steps do learn
    assert judge(HEALTH, rows(approx_kl=0.0)) == []
    assert judge(HEALTH, rows(approx_kl=0.0, clip_frac=lambda i: 0.01 * (i == 4))) == []
    assert judge(HEALTH, rows(9, approx_kl=0.0, clip_frac=0.0)) == []  # too early to tell


def test_what_is_not_a_number_is_said_first_and_by_name() -> None:
    (said,) = judge(HEALTH, rows(vf_loss=lambda i: None if i == 9 else 1.0))
    assert said == "train/vf_loss is not a number. Cure: lower lr or max_grad_norm, and check rewards"
    names = dict.fromkeys(("d", "c", "b", "a"))
    found = judge(HEALTH, rows(entropy_frac=0.0, **names))
    assert found[0].startswith("train/a, train/b, train/c is not a number") and len(found) == 2
    assert judge(HEALTH, rows(20, vf_loss=lambda i: None if i < 10 else 1.0)) == []


def test_a_flat_return_is_said() -> None:
    wobble = lambda i: 2.0 + (-1) ** i
    (said,) = judge(HEALTH, rows(100, mean_episode_return=wobble))
    assert said.startswith("the return is flat: 2 at first, 2 now. Cure: train longer, raise lr or ent_coef")
    (said,) = judge(HEALTH, rows(100, mean_episode_return=lambda i: -float(i)))
    assert said.startswith("the return is flat: -4.5 at first, -94.5 now.")
    (said,) = judge(HEALTH, rows(100, mean_episode_return=3.0))
    assert "flat: 3 at first, 3 now" in said
    assert judge(HEALTH, rows(49, mean_episode_return=3.0)) == []  # too early to tell
    assert judge(HEALTH, rows(100, mean_episode_return=lambda i: wobble(i) + 0.05 * i)) == []


def test_a_flat_return_needs_a_rise_beyond_the_noise() -> None:
    # rows -1 and +1 in turn: spread 1, standard error over ten rows 0.316
    wobble = lambda i: float((-1) ** i)
    assert judge(HEALTH, rows(100, mean_episode_return=lambda i: wobble(i) + 0.30 * (i >= 90))) != []
    assert judge(HEALTH, rows(100, mean_episode_return=lambda i: wobble(i) + 0.33 * (i >= 90))) == []


def test_a_run_without_ended_episodes_is_not_called_flat() -> None:
    assert judge(HEALTH, [WELL] * 100) == []
    late = [row if i % 3 else WELL | {"train/num_episodes": 0.0} for i, row in enumerate(rows(100))]
    assert judge(HEALTH, late) == []

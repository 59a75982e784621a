"""The health table: verdicts in words, with the cure."""

from __future__ import annotations

import json
import math

import pytest

from mxnb import show
from mxnb.agents.api import Health
from mxnb.run.metrics import judge


def rows(n, **values):
    return [{"update": u, "timesteps": u} | {f"train/{k}": v for k, v in values.items()} for u in range(1, n + 1)]


def test_healthy_run(make_run):
    table = show.health(make_run())
    assert table.ok and [j.state for j in table.judgements] == ["ok"] * 3
    assert "Cure" not in str(table)
    assert "ppo on craftax-classic-symbolic-v1: mean of the last 1 of 12 updates" in str(table)


def test_warning_has_words_and_cure(make_run):
    table = show.health(make_run(rows=rows(10, entropy_frac=0.03, approx_kl=0.01, clip_frac=0.5)))
    assert not table.ok
    assert [(j.metric, j.state) for j in table.judgements] == [
        ("train/entropy_frac", "warning"),
        ("train/approx_kl", "ok"),
        ("train/clip_frac", "warning"),
    ]
    text, page = str(table), table._repr_html_()
    assert "It stopped exploring." in text and "Cure: Raise <ent_coef>." in text and "0.03 (healthy: 0.1 to 1)" in text
    assert "Raise &lt;ent_coef&gt;." in page and "<ent_coef>" not in page
    assert repr(table) == text
    assert table.judgements[1].range == "at most 0.06"


def test_only_the_last_tenth_counts(make_run):
    early = rows(90, entropy_frac=0.01, approx_kl=0.5, clip_frac=0.9)
    assert show.health(make_run(rows=early + rows(10, entropy_frac=0.5, approx_kl=0.01, clip_frac=0.1))).ok


def test_missing_metric_is_no_data_yet_and_nan_warns(make_run):
    states = [j.state for j in show.health(make_run(rows=rows(3, approx_kl=math.nan, clip_frac=0.1))).judgements]
    assert states == ["no data yet", "warning", "ok"]


def test_a_run_that_learns_nothing_is_not_healthy(make_run):
    """What `fit` warns about, the table does too."""
    still = rows(100, entropy_frac=0.5, approx_kl=0.0, clip_frac=0.0, mean_episode_return=3.0)
    table = show.health(make_run(rows=still))
    assert not table.ok
    assert [(j.metric, j.range) for j in table.warnings] == [
        ("policy moves", "a KL above 0"),
        ("return rises", "at least 3"),
    ]
    assert "nothing is learned" in str(table) and "the return is flat: 3 at first, 3 now" in str(table)
    assert len(judge([Health("train/approx_kl", -1e-3, 0.06, "", "")], still)) == 2


def test_a_run_that_learns_is_healthy(make_run):
    rising = rows(100, entropy_frac=0.5, approx_kl=0.01, clip_frac=0.0)
    rising = [row | {"train/mean_episode_return": 3 + 0.01 * i} for i, row in enumerate(rising)]
    assert show.health(make_run(rows=rising)).ok
    assert judge([Health("train/approx_kl", -1e-3, 0.06, "", "")], rising) == []


def test_before_the_first_update(make_run):
    run = make_run(rows=0)
    for _ in range(2):  # an empty file, then none
        table = show.health(run)
        assert table.ok and {j.state for j in table.judgements} == {"no data yet"}
        assert "no update has ended yet" in str(table)
        (run / "metrics.jsonl").unlink(missing_ok=True)


def test_infinite_bounds_in_any_spelling(make_run):
    rules = [
        {"metric": "train/x", "low": "-inf", "high": None, "words": "", "cure": ""},
        {"metric": "train/x", "low": 2, "high": math.inf, "words": "low", "cure": "more"},
    ]
    table = show.health(make_run(rows=rows(3, x=1.0), rules=rules))
    assert [(j.state, j.range) for j in table.judgements] == [("ok", "any number"), ("warning", "at least 2")]


def test_no_rules_and_no_config(make_run, tmp_path):
    table = show.health(make_run(rules=[]))
    assert "names no health rules" in str(table) and "names no health rules" in table._repr_html_()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text(json.dumps({"agent": "ppo"})[:-3])
    with pytest.raises(FileNotFoundError, match=r"fit\(agent, run_dir\)"):
        show.health(tmp_path / "half")

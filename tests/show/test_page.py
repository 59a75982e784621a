"""A run's page: what it holds, and what it says where something is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mxnb import show
from mxnb.show._playback import Playback


def without_pictures(path: Path) -> str:
    """The page's words: no style, script or data."""
    text = re.sub(r"<(style|script).*?</\1>", "", path.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def test_everything_is_on_one_page(make_run: Any, recording: Any) -> None:
    run = make_run(rows=60)
    told = json.loads((run / "config.json").read_text())
    told |= {"origins": {"total_timesteps": "preset smoke"}, "versions": {"jax": "0.10.2"}, "device": "TPU <v5e>"}
    (run / "config.json").write_text(json.dumps(told))
    path = show.page(run, Playback((recording,)))
    assert path == run / "page.html"
    words = without_pictures(path)
    for part in (
        "ppo on craftax-classic-symbolic-v1, seed 0",
        "Status: running, after 60 updates and 6,000 environment steps.",
        "total_timesteps 6,000 preset smoke",
        "jax 0.10.2",
        "TPU &lt;v5e&gt;",
        "train/approx_kl 0.01 at most 0.06 \u2713 ok",
    ):
        assert part in words
    text = path.read_text()
    assert text.count("<img") == 5 and "mxnb-player" in text  # filmstrip, curves, health, achievements, over time
    assert "Not here" not in text and "http" not in text


def test_what_is_missing_is_said_and_hides_nothing(make_run: Any) -> None:
    run = make_run(rows=[], end='{"update": 1, "timest')  # the first row is being written
    words = without_pictures(show.page(run))
    assert "Status: running; no update has ended yet. 1 line of metrics.jsonl that is not whole: skipped." in words
    assert "has no policy yet; wait for its first save, or train it to the end" in words
    assert str(run.parent) not in words and "total_timesteps 0 given" in words
    assert "holds no complete row yet" in words and "total_timesteps 0" in words
    with pytest.raises(FileNotFoundError, match="give the folder that fit wrote to, or train first"):
        show.page(run.parent)


def test_a_finished_run_without_a_mask_says_so(make_run: Any, recording: Any) -> None:
    rules = [{"metric": name, "low": 0.0, "high": 0.0} for name in ("train/no_legal_action", "train/other")]
    run = make_run(rules=rules)
    assert "train/no_legal_action - at most 0 · no data yet" in without_pictures(show.page(run, Playback((recording,))))
    (run / "status.json").write_text(json.dumps({"status": "done"}))
    words = without_pictures(show.page(run, Playback((recording,))))
    assert "train/no_legal_action - at most 0 · no mask here" in words and "at most 0 · no data yet" in words


def test_a_broken_rule_comes_with_its_cure(make_run: Any, recording: Any) -> None:
    rows = [{"update": u, "timesteps": u, "train/entropy_frac": 0.01} for u in range(1, 9)]
    words = without_pictures(show.page(make_run(rows=rows), Playback((recording,))))
    assert "train/entropy_frac : It stopped exploring. Cure: Raise &lt;ent_coef&gt;." in words

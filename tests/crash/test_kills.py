"""A run that is killed, again and again, at random moments ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from runs import began, finish, half_written, rows_now, start, timeless
from tiny import TRAINED

from mxnb.run.checkpoint import kept_updates

ZERO = (
    "unreadable checkpoints",
    "lost more than one interval",
    "went on elsewhere",
    "not identical at the end",
    "rows doubled or missing",
    "left-over temporary files",
)


def kill_once(agent: str, run_dir: Path, moment: random.Random, found: Counter[str]) -> bool:
    """Starts the run, kills it, and looks at what is left; False when it ended first.

    Two in three times some saves later, else at any moment of the start: restoring, compiling, the first update.
    """
    before, torn = rows_now(run_dir), set(half_written(run_dir))
    newest = max(kept_updates(run_dir), default=0)
    child = start(agent, run_dir)
    if moment.random() < 2 / 3:
        deadline = time.monotonic() + 120
        while child.poll() is None and rows_now(run_dir) <= before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(moment.uniform(0.0, 0.25))
    else:
        time.sleep(moment.uniform(0.5, 4.0))
    ended = child.poll() is not None
    if not ended:
        os.kill(child.pid, signal.SIGKILL)
    out, err = child.communicate()
    found["went on elsewhere"] += began(out) not in ([], [newest])
    if ended:
        assert child.returncode == 0, err
        return False
    found["kills"] += 1
    found["in the middle of a save"] += not torn.issuperset(half_written(run_dir))
    found["lost more than one interval"] += rows_now(run_dir) - max(kept_updates(run_dir), default=0) > 1
    return True


@pytest.mark.parametrize(
    ("agent", "kills"),
    [
        ("ppo", 12),
        pytest.param("ppo", 100, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
        *(pytest.param(agent, 20, marks=pytest.mark.slow) for agent in TRAINED if agent not in ("ppo", "craftax")),
    ],
)
def test_killed_runs_end_as_if_nothing_had_happened(
    agent: str, kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ((_, whole),) = finish(agent, tmp_path / "whole", save_updates=1000)
    moment, found, runs = random.Random(kills), Counter[str](), 0
    while found["kills"] < kills:
        run_dir, runs = tmp_path / f"run{runs}", runs + 1
        while found["kills"] < kills and kill_once(agent, run_dir, moment, found):
            pass
        newest = max(kept_updates(run_dir), default=0)
        ((start_, end),) = finish(agent, run_dir)
        found["went on elsewhere"] += start_ != newest
        found["not identical at the end"] += end != whole
        found["rows doubled or missing"] += timeless(run_dir) != timeless(tmp_path / "whole")
        found["unreadable checkpoints"] += (run_dir / "checkpoints" / "bad").exists()
        found["left-over temporary files"] += len(half_written(run_dir))
    with capsys.disabled():
        print(f"\n\n{agent}, {runs} runs of 120 updates that save after every one")
        for name in ("kills", "in the middle of a save", *ZERO):
            print(f"  {name:<28} {found[name]:>4}")
    assert found["kills"] >= kills and (kills < 20 or found["in the middle of a save"] > 0)
    assert not any(found[name] for name in ZERO)


def test_the_list_holds_every_agent() -> None:
    from mxnb.build import AGENTS

    assert set(AGENTS) <= set(TRAINED)

"""What the documents tell people to type works as written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)


@pytest.mark.learn
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.findall(r'"([^"]+)"', block)[-1])
def test_code_in_contributing_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):  # as in anybody's own session
        scope: dict[str, object] = {}
        exec(compile(block, "CONTRIBUTING.md", "exec"), scope)
    assert getattr(scope["result"], "status", "") == "done"
    assert "BROKEN" not in capsys.readouterr().out
    returns = [
        float(value) for value in re.findall(r'"train/mean_episode_return": ([-0-9.e]+)', _rows(scope["result"]))
    ]
    assert sum(returns[-5:]) > sum(returns[:5])  # and it learns


def _rows(result: object) -> str:
    return (Path(result.run_dir) / "metrics.jsonl").read_text()  # type: ignore[attr-defined]


def test_there_are_three_examples() -> None:
    assert len(BLOCKS) == 3


def test_the_table_of_a_t4_says_what_was_measured() -> None:
    """Every line names its figure's source, and a figure is the benchmark's."""
    medians = json.loads((ROOT / "benchmarks/results/memory.json").read_text())["medians"]
    rows = re.findall(
        r"\| `(\w+)` \| `(colab_t4\w*)` \| [^|]* \| (\S+) GiB: (estimated|measured) \|",
        (ROOT / "README.md").read_text(),
    )
    assert {f"{agent}_{preset}" for agent, preset, *_ in rows} == set(medians) and len(rows) == 8
    for agent, preset, peak, _ in rows:
        assert float(peak) == round(medians[f"{agent}_{preset}"]["peak_gib"], 3)

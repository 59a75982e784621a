"""The executed notebooks that README and GitHub show: made from the sources that are here, whole, at a real size."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "papermill_runs" / "reference"
STEMS = sorted(path.stem for path in REFERENCE.glob("*.ipynb"))


def code_hash(notebook: Any) -> str:
    spec = importlib.util.spec_from_file_location("stamp", ROOT / "scripts" / "stamp.py")
    assert spec is not None and spec.loader is not None
    stamp = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stamp)
    return stamp.code_hash(notebook)


def test_the_trained_notebooks_are_there() -> None:
    assert {"02_masked_ppo", "03_average_reward", "04_dreamer", "06_hackmatrix"} <= set(STEMS)


@pytest.mark.parametrize("stem", STEMS)
def test_none_is_stale(stem: str) -> None:
    """A reference whose source has other code by now: `make reference` makes it anew."""
    executed, source = (nbformat.read(folder / f"{stem}.ipynb", 4) for folder in (REFERENCE, ROOT / "notebooks"))
    now = code_hash(source)
    assert executed.metadata["mxnb"]["code"] == now, f"{stem} is stale: run `make reference`"
    assert code_hash(executed) == now


@pytest.mark.parametrize("stem", STEMS)
def test_each_ran_to_its_end_and_says_where(stem: str) -> None:
    executed = nbformat.read(REFERENCE / f"{stem}.ipynb", 4)
    told = executed.metadata["mxnb"]
    assert told["preset"] not in ("", "auto", "smoke") and told["parameters"]["preset"] == told["preset"]
    assert told["commit"] and not told["commit"].endswith("-dirty")
    assert told["device"] and {"jax", "craftax"} <= set(told["versions"])
    assert told["commit"] in executed.cells[0].source and told["date"] in executed.cells[0].source
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)


def test_a_change_of_code_makes_stale_and_one_of_words_does_not() -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "02_masked_ppo.ipynb", 4)
    before = code_hash(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown" or "setup" in cell.metadata.get("tags", ()):
            cell.source += "\nmore"
    assert code_hash(notebook) == before
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    last.source += "\n1"
    assert code_hash(notebook) != before

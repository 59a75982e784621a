"""Each notebook has its two halves, they agree, and its parameters cell is what papermill expects."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

from mxnb.config import CELL

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "notebooks"
STEMS = sorted({p.stem for suffix in ("py", "ipynb") for p in FOLDER.glob(f"[0-9][0-9]_*.{suffix}")})
EXTRA = {
    "02_masked_ppo": ["compare_timesteps"],
    "03_average_reward": ["compare_timesteps"],
    "04_dreamer": ["compare_timesteps"],
    "05_memory_tuning": ["sizes"],
    "06_hackmatrix": ["num_seeds"],
    "09_sweep_report": ["sweep_dir", "metric"],
}  # notebooks with parameters of their own

every = pytest.mark.parametrize("stem", STEMS)


def read(stem: str) -> Any:
    return nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)


def parameters_cell(notebook: Any) -> Any:
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return cell


def test_there_are_notebooks() -> None:
    assert "02_masked_ppo" in STEMS


@every
def test_both_halves_are_there_and_say_the_same(stem: str) -> None:
    source, notebook = jupytext.read(FOLDER / f"{stem}.py"), read(stem)
    nbformat.validate(notebook)
    halves = [
        [(c.cell_type, c.source.strip(), c.metadata.get("tags", [])) for c in n.cells] for n in (source, notebook)
    ]
    assert halves[0] == halves[1]


@every
def test_the_sync_script_agrees(stem: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "sync_notebooks.py"), "--check", stem]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@every
def test_links_to_lines_lead_to_what_they_say(stem: str) -> None:
    text = (FOLDER / f"{stem}.py").read_text()
    rows = re.findall(r"\| `([^`]+)` \| \[[^]]*, line (\d+)\]\(([^)#]+)#L(\d+)\) \|", text)
    assert len(rows) == text.count("#L") and (rows or stem != "02_masked_ppo")
    for code, number, path, anchor in rows:
        line = (FOLDER / path).read_text().splitlines()[int(number) - 1].strip()
        assert line == code and number == anchor, f"{path}: run `make notebooks`"


def test_the_sync_script_sees_a_difference(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "sync_notebooks.py"), "--dir", str(tmp_path)]
    source = (FOLDER / "02_masked_ppo.py").read_text()
    (tmp_path / "02_masked_ppo.py").write_text(source)
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert subprocess.run([*command, "--check"], capture_output=True).returncode == 0
    moved = re.sub(r"line (\d+)\]\(([^)#]+)#L\1\)", r"line 1](\2#L1)", source, count=1)
    (tmp_path / "02_masked_ppo.py").write_text(moved)
    assert (
        moved != source and subprocess.run([*command[:2], "--dir", str(tmp_path)], capture_output=True).returncode == 0
    )
    assert (tmp_path / "02_masked_ppo.py").read_text() == source  # writing brings links up to date
    (tmp_path / "02_masked_ppo.py").write_text(source.replace("seed = 0", "seed = 1", 1))
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert done.returncode == 1 and "differs" in done.stdout


@every
def test_no_outputs_and_no_counts(stem: str) -> None:
    for cell in read(stem).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
        assert "papermill" not in cell.metadata and "injected-parameters" not in cell.metadata.get("tags", [])


@every
def test_the_parameters_cell_is_plain_literals_with_the_documented_names(stem: str) -> None:
    tree = ast.parse(parameters_cell(read(stem)).source)
    names = {}
    for node in tree.body:
        assert isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        assert node.lineno == node.end_lineno
        names[node.targets[0].id] = ast.literal_eval(node.value)
    assert sorted(names) == sorted([*CELL, *EXTRA.get(stem, [])])
    for name, (type_, default) in CELL.items():
        assert type(names[name]) is type_
        assert name == "env_id" or names[name] == default, name
    assert all(names[name] == 0 or names[name] == "" for name in EXTRA.get(stem, []))


@every
@pytest.mark.filterwarnings("default")  # papermill's own
def test_papermill_sees_the_same_names(stem: str) -> None:
    papermill = pytest.importorskip("papermill")
    seen = papermill.inspect_notebook(str(FOLDER / f"{stem}.ipynb"))
    assert sorted(seen) == sorted([*CELL, *EXTRA.get(stem, [])])


@every
def test_the_next_step_checks_exactly_these_parameters(stem: str) -> None:
    code = "\n\n".join(re.sub(r"(?m)^[%!].*$", "", c.source) for c in read(stem).cells if c.cell_type == "code")
    calls = [
        n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "mxnb.parameters"
    ]
    (call,) = calls
    given = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    assert given["notebook"] == stem
    assert list(given.get("extra", [])) == EXTRA.get(stem, [])


@every
def test_no_path_of_one_machine(stem: str) -> None:
    for path in (FOLDER / f"{stem}.py", FOLDER / f"{stem}.ipynb"):
        hits = re.findall(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|mnt|content|kaggle)/[\w./-]*", path.read_text())
        assert hits == []


@every
def test_the_badge_opens_this_notebook_and_its_accelerator(stem: str) -> None:
    """The badge below the title names the file it stands in; Colab's menu is set to what the presets are for."""
    notebook = read(stem)
    (path,) = re.findall(
        r"colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/main/(\S+?)\)", notebook.cells[0].source
    )
    assert path == f"notebooks/{stem}.ipynb" and notebook.cells[0].source.splitlines()[2].startswith(
        "[![Open in Colab]"
    )
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mxnb"]
    chosen = settings.get("accelerators", {}).get(stem, "T4")
    assert notebook.metadata["colab"]["gpuType"] == chosen
    assert notebook.metadata["accelerator"] == {"T4": "GPU", "V5E1": "TPU"}[chosen]


@every
def test_mxnb_is_installed_before_anything_is_imported(stem: str) -> None:
    """pip that replaces an imported package makes Colab ask for a restart."""
    first = next(cell for cell in read(stem).cells if cell.cell_type == "code")
    assert first.metadata["tags"] == ["setup"] and first.metadata["cellView"] == "form"
    names = [
        alias.name for node in ast.walk(ast.parse(first.source)) if isinstance(node, ast.Import) for alias in node.names
    ]
    froms = [node.module or "" for node in ast.walk(ast.parse(first.source)) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in (*names, *froms)} <= set(sys.stdlib_module_names)
    assert "-c" in first.source and '"-U"' not in first.source and "--upgrade" not in first.source


def test_badges_are_stamped_from_one_place(tmp_path: Path) -> None:
    script = [sys.executable, "scripts/badges.py"]
    done = subprocess.run([*script, "--check"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    for part in ("notebooks", "scripts", "colab"):
        shutil.copytree(ROOT / part, tmp_path / part)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert subprocess.run([*script, "ann/rl-book"], capture_output=True, cwd=tmp_path).returncode == 0
    for stem in STEMS:
        text = (tmp_path / "notebooks" / f"{stem}.py").read_text()
        assert text.count(f"github/ann/rl-book/blob/main/notebooks/{stem}.ipynb") == text.count("colab-badge") == 1
        assert 'repository = "ann/rl-book"' in text
        assert f"ann/rl-book/blob/main/notebooks/{stem}.ipynb" in (tmp_path / "README.md").read_text()
    assert 'repository = "ann/rl-book"' in (tmp_path / "pyproject.toml").read_text()
    again = subprocess.run([*script, "--check"], capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0, again.stdout
    assert subprocess.run([*script, "https://x"], capture_output=True, cwd=tmp_path).returncode == 1
    with (tmp_path / "pyproject.toml").open("a") as settings:
        settings.write('\n[tool.mxnb.accelerators]\n02_masked_ppo = "V5E1"\n')
    assert subprocess.run(script, capture_output=True, cwd=tmp_path).returncode == 0
    metadata = jupytext.read(tmp_path / "notebooks" / "02_masked_ppo.py").metadata
    assert metadata["accelerator"] == "TPU" and metadata["colab"]["gpuType"] == "V5E1"

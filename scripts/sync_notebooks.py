"""Write each notebooks/NN_name.ipynb from its source, NN_name.py, or check that the two agree.

    python scripts/sync_notebooks.py                 write the notebooks whose source has changed
    python scripts/sync_notebooks.py --check         write nothing; exit 1 if a pair differs
    python scripts/sync_notebooks.py --from-ipynb    take edits made in a notebook (Colab, JupyterLab) into its source

The .py is what people edit and review; the .ipynb is what Colab opens, and never holds outputs. A cell's id
is a hash of its source, so writing twice gives the same bytes and an edit shows up as that one cell; ids that do
not fit their cells show that the notebook was edited by itself, and such edits are not overwritten.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from jupytext.config import load_jupytext_config

ROOT = Path(__file__).resolve().parent.parent
PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}
NOTEBOOK_KEYS = ("accelerator", "colab", "mxnb")
CELL_KEYS = ("tags", "cellView", "nbmake")
LINK = re.compile(r"\| `(?P<code>[^`]+)` \| \[[^]]*, line \d+\]\((?P<path>[^)#]+)#L\d+\) \|")


def main(arguments: list[str] | None = None) -> int:
    """Sync or check the named notebooks, or all of them; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a pair differs")
    parser.add_argument("--from-ipynb", action="store_true", help="take what was edited in the .ipynb into the .py")
    parser.add_argument("--force", action="store_true", help="overwrite a notebook that was edited by itself")
    parser.add_argument("--dir", type=Path, default=ROOT / "notebooks", help="where the notebooks are")
    parser.add_argument("names", nargs="*", help="notebooks (any spelling: 02_x, 02_x.py, notebooks/02_x.ipynb); all")
    options = parser.parse_args(arguments)

    stems = sorted({Path(name).stem for name in options.names}) or sorted(
        {path.stem for suffix in ("py", "ipynb") for path in options.dir.glob(f"[0-9][0-9]_*.{suffix}")}
    )
    action = check if options.check else from_ipynb if options.from_ipynb else from_source
    problems = []
    for stem in stems:
        problems += action(options.dir / f"{stem}.py", options.dir / f"{stem}.ipynb", options.force)
    print("\n".join(problems) or f"{len(stems)} notebook{'s' * (len(stems) != 1)} in step with the source.")
    return 1 if problems else 0


def from_source(source: Path, notebook: Path, force: bool = False) -> list[str]:
    """Write the notebook from its source, unless it holds edits of its own."""
    if not source.exists():
        return [_no_source(source, notebook)]
    problems = find_lines(source)
    if problems:
        return problems
    wanted = notebook_text(source)
    if notebook.exists() and not force:
        old = nbformat.read(notebook, as_version=4)
        edited = [cell.get("id") for cell in old.cells] != cell_ids(old.cells)
        if edited and content(old) != content(nbformat.reads(wanted, as_version=4)):
            return [
                f"{_name(notebook)} was edited by itself and differs from {source.name}. To take those edits: "
                f"`python scripts/sync_notebooks.py --from-ipynb {source.stem}`; to drop them: `--force {source.stem}`."
            ]
    if not notebook.exists() or notebook.read_text() != wanted:
        notebook.write_text(wanted)
        print(f"wrote {_name(notebook)}")
    return []


def find_lines(source: Path, write: bool = True) -> list[str]:
    """Brings links to lines up to date: "| `code` | [file.py, line N](../path/file.py#LN) |" is where the code is.

    Without `write`, a link that leads elsewhere is one of the problems.
    """
    problems, text = [], source.read_text()

    def link(row: re.Match) -> str:
        code, path = row["code"], row["path"]
        lines = [line.strip() for line in (ROOT / "notebooks" / path).read_text().splitlines()]
        if lines.count(code) != 1:
            problems.append(f"{source.name} links to `{code}`, which is {lines.count(code)} times a line of {path}")
            return row[0]
        number = lines.index(code) + 1
        return f"| `{code}` | [{Path(path).name}, line {number}]({path}#L{number}) |"

    fresh = LINK.sub(link, text)
    if fresh != text and not write:
        problems.append(f"{source.name} has links that lead to other lines by now: run `make notebooks`.")
    if fresh != text and not problems:
        source.write_text(fresh)
        print(f"brought the links to lines in {source.name} up to date")
    return problems


def from_ipynb(source: Path, notebook: Path, force: bool = False) -> list[str]:
    """Write the source from the notebook, then the notebook from the source."""
    if not notebook.exists():
        return from_source(source, notebook)
    read = nbformat.read(notebook, as_version=4)
    if not source.exists() or content(read) != content(jupytext.read(source)):
        clean = nbformat.v4.new_notebook(
            metadata={"kernelspec": PYTHON, **_metadata(read)},
            cells=_clean(read.cells),
        )
        source.write_text(jupytext.writes(clean, fmt="py:percent", config=_config(source)))
        print(f"wrote {_name(source)}")
    return from_source(source, notebook, force=True)


def check(source: Path, notebook: Path, force: bool = False) -> list[str]:
    """What is wrong with one pair: differences either way, outputs, or ids that are not the written ones."""
    if not source.exists():
        return [_no_source(source, notebook)]
    if not notebook.exists():
        return [f"{_name(notebook)} is missing: run `make notebooks`."]
    there = nbformat.read(notebook, as_version=4)
    nbformat.validate(there)
    if any(cell.get("outputs") or cell.get("execution_count") for cell in there.cells):
        return [f"{_name(notebook)} holds outputs: run `make notebooks`, which writes it without them."]
    back = jupytext.reads(jupytext.writes(there, fmt="py:percent", config=_config(source)), fmt="py:percent")
    wanted = nbformat.reads(notebook_text(source), as_version=4)
    for other in (there, back):
        if content(other) != content(wanted):
            where = _first_difference(content(other), content(wanted))
            return [
                f"{_name(notebook)} differs from {source.name} at {where}: "
                f"run `make notebooks` (edits made in the notebook: "
                f"`python scripts/sync_notebooks.py --from-ipynb {source.stem}` first)."
            ]
    if notebook.read_text() != notebook_text(source):
        return [f"{_name(notebook)} says the same as {source.name} in other bytes: run `make notebooks`."]
    return find_lines(source, write=False)


def notebook_text(source: Path) -> str:
    """The .ipynb that belongs to a source: no outputs, ids from the cells' sources."""
    read = jupytext.read(source)
    metadata = {"kernelspec": PYTHON, "language_info": {"name": "python"}, **_metadata(read)}
    notebook = nbformat.v4.new_notebook(metadata=metadata, cells=_clean(read.cells))
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4) + "\n"


def content(notebook: nbformat.NotebookNode) -> list:
    """What must be equal in both halves: the notebook's own metadata, then each cell's kind, text and tags."""
    cells = [(cell.cell_type, cell.source, cell.metadata) for cell in _clean(notebook.cells)]
    return [_metadata(notebook), *cells]


def cell_ids(cells: list) -> list[str]:
    """An id for each cell: a hash of its kind and source, and of how many like it came before."""
    seen = Counter()
    ids = []
    for cell in cells:
        key = f"{cell.cell_type}\n{cell.source}"
        ids.append(hashlib.sha256(f"{seen[key]}\n{key}".encode()).hexdigest()[:8])
        seen[key] += 1
    return ids


def _metadata(notebook: nbformat.NotebookNode) -> dict:
    """The notebook's own metadata; the kernel is python3 in all of them, whatever the last program called it."""
    return {key: notebook.metadata[key] for key in NOTEBOOK_KEYS if key in notebook.metadata}


def _clean(cells: list) -> list[nbformat.NotebookNode]:
    """The cells without outputs, with the written ids, the metadata that is kept, and no injected parameters."""
    kept = [cell for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    clean = []
    for cell, name in zip(kept, cell_ids(kept), strict=True):
        metadata = {key: cell.metadata[key] for key in CELL_KEYS if key in cell.metadata}
        new = {"id": name, "cell_type": cell.cell_type, "metadata": metadata, "source": cell.source}
        if cell.cell_type == "code":
            new |= {"outputs": [], "execution_count": None}
        clean.append(nbformat.from_dict(new))
    return clean


def _config(path: Path):
    return load_jupytext_config(str(ROOT / "notebooks" / path.name))


def _first_difference(here: list, there: list) -> str:
    for index, (one, other) in enumerate(zip(here, there, strict=False)):
        if one != other:
            where = "the notebook's metadata" if index == 0 else f"cell {index}"
            return where if index == 0 else f"{where} ({(other[1] or one[1]).strip().splitlines()[0][:60]!r})"
    return f"the number of cells ({len(here) - 1} against {len(there) - 1})"


def _no_source(source: Path, notebook: Path) -> str:
    return f"{_name(notebook)} has no {source.name}: run `python scripts/sync_notebooks.py --from-ipynb {source.stem}`."


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


if __name__ == "__main__":
    sys.exit(main())

"""What `python -m mxnb run` costs a run over bare papermill, and how long a sweep's table over 1,000 runs takes.

python benchmarks/runner.py FOLDER [--rounds N]      the two alternate; medians"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import nbformat


def notebook(path: Path) -> Path:
    """One that does nothing."""
    new = nbformat.v4
    cells = [
        new.new_code_cell('preset = "smoke"\nrun_dir = ""', metadata={"tags": ["parameters"]}),
        new.new_code_cell("1"),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(new.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def seconds(*words: str, cwd: Path | None = None) -> float:
    """How long `python -m ...` takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True, cwd=cwd)
    return time.perf_counter() - start


def table_seconds(here: Path) -> float:
    """`python -m mxnb sweep table FILE` over 1,000 finished runs, its process included."""
    folder = here / "papermill_runs" / "thousand"
    (here / "notebooks").mkdir(parents=True)  # with papermill_runs, what makes `here` a repository
    runs = [{"id": f"{i:010d}", "values": {"lr": i * 1e-5, "seed": i}, "params": {}} for i in range(1000)]
    for run in runs:
        (folder / run["id"]).mkdir(parents=True)
        (folder / run["id"] / "job.json").write_text(json.dumps({"status": "done", "seconds": 60.0, "attempt": 1}))
        result = {"metrics": {"train/mean_episode_return": 1.0}}
        (folder / run["id"] / "result.json").write_text(json.dumps(result))
    (folder / "sweep.json").write_text(json.dumps({"runs": runs}))
    return seconds("mxnb", "sweep", "table", "thousand.yaml", cwd=here)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    source = str(notebook(args.folder / "nothing.ipynb"))
    params = args.folder / "params.json"
    params.write_text('{"preset": "smoke"}')
    bare, ours = [], []
    for i in range(args.rounds):
        out = args.folder / str(i)
        bare.append(seconds("papermill", source, str(args.folder / "bare.ipynb"), "--no-progress-bar"))
        ours.append(seconds("mxnb", "run", source, "--params", str(params), "--out", str(out)))
    from measure import report

    times = {"papermill_s": statistics.median(bare), "run_s": statistics.median(ours)}
    report(
        what="runner",
        **times,
        overhead_s=times["run_s"] - times["papermill_s"],
        table_s=table_seconds(args.folder.resolve() / "here"),
    )


if __name__ == "__main__":
    main()

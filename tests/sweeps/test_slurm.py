"""Sweeps on a real Slurm of one node, which scripts/slurm_here.sh starts; skipped where that cannot be done."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import RESULT, TRAIN

from mxnb.__main__ import main
from mxnb.run import slurm
from mxnb.run.job import read_job
from mxnb.run.lock import InUse, locked
from mxnb.run.slurm import Task, check_slurm, run_slurm
from mxnb.run.sweep import prepare, rows, run_local, state
from mxnb.run.sweep_file import Sweep, read_sweep

Write = Callable[..., Path]
SCRIPTS = Path(__file__).parents[2] / "scripts"
ONE_CORE = "\nimport os, pathlib\npathlib.Path(p.run_dir, 'cores').write_text(str(len(os.sched_getaffinity(0))))"


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """slurm.conf of a Slurm that runs."""
    missing = [
        name
        for name in ("sbatch", "slurmd", "munged")
        if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    ]
    if missing or os.getuid():
        pytest.skip(f"{missing[0]} is not installed (scripts/system_packages.sh)" if missing else "Slurm needs root")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run(["bash", SCRIPTS / "slurm_here.sh", "start", folder], check=True)
    yield folder / "slurm.conf"
    subprocess.run(["bash", SCRIPTS / "slurm_here.sh", "stop", folder], check=True)


@pytest.fixture
def here_with_slurm(here: Path, started: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLURM_CONF", str(started))
    return here


def make(here: Path, text: str, name: str = "mine") -> Sweep:
    """A sweep that was read and prepared."""
    file = here / "papermill_runs" / "sweeps" / f"{name}.yaml"
    file.write_text("notebook: tiny\npreset: smoke\n" + text)
    sweep = read_sweep(file, lambda notebook, params: dict(params))
    prepare(sweep)
    return sweep


def begin(here: Path, name: str = "mine", jobs: int = 0) -> subprocess.Popen[bytes]:
    """The sweep in a process of its own; 0 where it did all."""
    code = (
        "from pathlib import Path; from mxnb.run.slurm import run_slurm; from mxnb.run.sweep_file import read_sweep; "
        f"sweep = read_sweep(Path('papermill_runs/sweeps/{name}.yaml'), lambda notebook, params: dict(params)); "
        f"raise SystemExit(not run_slurm(sweep, {jobs}))"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def until(holds: Callable[[], object], seconds: float = 120) -> None:
    last = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < last
        time.sleep(0.1)


def updates(run: Path) -> list[int]:
    with open(run / "metrics.jsonl") as file:
        return [json.loads(line)["update"] for line in file]


def at(run: Path, update: int) -> bool:
    return (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") >= update


def jobs_of(folder: Path) -> dict[str, str]:
    return json.loads((folder / "slurm" / "jobs.json").read_text())


def scancel(*words: str) -> None:
    subprocess.run(["scancel", *words], check=True)


def queue() -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout.strip()


def result(run: Path) -> dict[str, Any]:
    """result.json without what the clock says."""
    told = json.loads((run / "result.json").read_text())
    told["metrics"] = {k: v for k, v in told["metrics"].items() if not k.startswith(("time/", "memory/"))}
    return {k: v for k, v in told.items() if not k.endswith("_seconds")}


def test_results_are_those_of_one_machine(notebook: Write, here_with_slurm: Path) -> None:
    notebook(TRAIN + ONE_CORE)
    text = "parameters: {total_timesteps: 2048}\nseeds: [0, 1, 2]\n"
    text += "slurm: {cpus_per_task: 1, mem_gb: 1.5, partition: here, setup: ['export FROM_SETUP=1']}\n"
    local, there = make(here_with_slurm, text, "alone"), make(here_with_slurm, text, "there")
    assert run_slurm(there, jobs=2) and run_local(local, jobs=2)
    found = [result(there.folder / run.id) for run in there.runs]
    assert found == [result(local.folder / run.id) for run in local.runs]
    assert len({json.dumps(each["metrics"]) for each in found}) == 3 and found[0]["status"] == "done"
    assert [(there.folder / run.id / "cores").read_text() for run in there.runs] == ["1"] * 3
    assert {row["status"] for row in rows(there.folder)} == {"done"}
    (script,) = (there.folder / "slurm").glob("*_submission.sh")
    for words in (
        "--array=0-2%2",
        "--partition=here",
        "--signal=B:USR2@120",
        "--requeue",
        "--mem=1536M",
        "FROM_SETUP=1",
    ):
        assert words in script.read_text()


def test_from_the_command_line(notebook: Write, here_with_slurm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    notebook()
    file = here_with_slurm / "papermill_runs" / "sweeps" / "mine.yaml"
    file.write_text("notebook: tiny\nseeds: [0, 1]\n")
    words = ["sweep", "run", str(file), "--executor", "slurm"]
    with pytest.raises(SystemExit):
        main(words)  # the machine that submits is not the one that runs
    assert "name one, as in -p preset gpu" in capfd.readouterr().err
    assert main([*words, "-p", "preset", "smoke"]) == 0 and "2 done" in capfd.readouterr().out
    file.write_text("notebook: tiny\nseeds: [0, 1, 2]\n")
    assert main(["sweep", "resume", str(file)]) == 0  # there again, and with that preset
    assert "2 of 3 runs are done, 1 to submit" in capfd.readouterr().out
    assert len(jobs_of(here_with_slurm / "papermill_runs" / "mine")) == 3


def test_a_run_whose_place_is_wanted_goes_on_in_another_job_and_a_cancelled_one_in_the_next_sweep(
    notebook: Write, here_with_slurm: Path
) -> None:
    notebook(TRAIN)
    sweep = make(here_with_slurm, "parameters: {total_timesteps: 60_000}\n")
    run = sweep.folder / sweep.runs[0].id
    child = begin(here_with_slurm)
    until(lambda: at(run, 30))
    scancel("--batch", "--signal=USR2", jobs_of(sweep.folder)[run.name])  # what --signal=B:USR2 comes to
    until(lambda: read_job(run).get("status") == "preempted")
    saved = json.loads((run / "status.json").read_text())
    assert saved["status"] == "interrupted" and saved["update"] >= 30
    until(lambda: read_job(run)["attempt"] == 2 and at(run, saved["update"] + 30))
    assert child.poll() is None
    scancel(jobs_of(sweep.folder)[run.name])  # SIGTERM to every process
    assert child.wait(120) == 1 and queue() == ""
    assert read_job(run)["status"] == "preempted" and read_job(run)["error"] == "asked to end, saved"
    assert run_slurm(sweep) and read_job(run)["attempt"] == 3
    assert updates(run) == list(range(1, len(updates(run)) + 1)) and len(updates(run)) > saved["update"] + 30


def test_a_sweep_process_that_was_killed_leaves_its_jobs_to_the_next(notebook: Write, here_with_slurm: Path) -> None:
    notebook()
    sweep = make(here_with_slurm, "parameters: {wait: 4}\nseeds: [0, 1, 2]\n")
    child = begin(here_with_slurm, jobs=2)
    until(lambda: sum(state(sweep.folder / run.id) == "started" for run in sweep.runs) == 2)
    with pytest.raises(InUse):
        run_slurm(sweep)
    child.kill()
    child.wait()
    before, said = jobs_of(sweep.folder), list[str]()
    assert run_slurm(sweep, 2, said.append) and jobs_of(sweep.folder) == before
    assert "0 to submit" in said[0] and len(said) == 4
    assert [(sweep.folder / run.id / "times.txt").read_text() for run in sweep.runs] == ["once\n"] * 3
    twice = Task(["touch", "done_again"], sweep.folder / sweep.runs[0].id)  # submitted just before the kill, say
    assert twice() == "done" and not Path("done_again").exists()


def test_jobs_that_nobody_noted_are_taken_back(notebook: Write, here_with_slurm: Path) -> None:
    notebook()
    sweep = make(here_with_slurm, "parameters: {wait: 4}\nseeds: [0, 1]\n")
    child = begin(here_with_slurm, jobs=1)
    until(lambda: any(state(sweep.folder / run.id) == "started" for run in sweep.runs))
    child.kill()
    child.wait()
    lost = set(jobs_of(sweep.folder).values())
    (sweep.folder / "slurm" / "jobs.json").unlink()  # as if it had been killed just after sbatch
    said = list[str]()
    assert run_slurm(sweep, 2, said.append)
    assert "2 jobs of an earlier start are taken back" in said and not lost & set(jobs_of(sweep.folder).values())
    assert [(sweep.folder / run.id / "times.txt").read_text() for run in sweep.runs] == ["once\n"] * 2


def test_a_killed_run_is_told_and_done_by_the_next(notebook: Write, here_with_slurm: Path) -> None:
    dies = """import json, pathlib, psutil
attempt = json.loads(pathlib.Path(run_dir, "job.json").read_text())["attempt"]
papermill, run = psutil.Process().parents()[:2]
for process in [psutil.Process()] * (seed == 0 and attempt == 1) + [run, papermill] * (seed == 1 and attempt <= 2):
    process.kill()
"""
    notebook(dies + RESULT)
    sweep = make(here_with_slurm, "seeds: [0, 1]\nlimits: {retries: 1}\n")
    said: list[str] = []
    assert not run_slurm(sweep, 2, said.append)
    assert sorted(line.split()[0] for line in said[1:]) == ["dead_kernel", "done", "killed", "killed"]
    assert [state(sweep.folder / run.id) for run in sweep.runs] == ["done", "killed"]
    assert run_slurm(sweep) and read_job(sweep.folder / sweep.runs[1].id)["attempt"] == 3


def test_stop_takes_out_what_waits_and_lets_the_others_end(notebook: Write, here_with_slurm: Path) -> None:
    notebook()
    sweep = make(here_with_slurm, "parameters: {wait: 60}\nseeds: [0, 1, 2]\nlimits: {parallel: 2}\n")
    child = begin(here_with_slurm)
    until(lambda: sum(state(sweep.folder / run.id) == "started" for run in sweep.runs) == 2)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 1 and queue() == ""
    assert sorted(state(sweep.folder / run.id) for run in sweep.runs) == ["preempted", "preempted", "queued"]


def test_what_slurm_does_not_take_or_cannot_begin_is_told(notebook: Write, here_with_slurm: Path) -> None:
    notebook()
    with pytest.raises(ValueError, match=r"does not take the jobs; see slurm: .*invalid partition"):
        run_slurm(make(here_with_slurm, "slurm: {partition: nowhere}\n"))
    sweep = make(here_with_slurm, "slurm: {setup: [echo no modules here, exit 3]}\n")
    assert not run_slurm(sweep)
    told = read_job(sweep.folder / sweep.runs[0].id)
    assert (
        told["status"] == "failed"
        and "ended before the run began; its log: papermill_runs/mine/slurm/" in told["error"]
    )
    assert "no modules here" in (here_with_slurm / told["error"].split("log: ")[1]).read_text()


def test_an_array_of_seeds_is_queued_again_or_cancelled(here_with_slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON", sys.executable)
    words = [
        "sbatch",
        "--parsable",
        "--array=0-1",
        str(SCRIPTS / "train_array.sbatch"),
        "--preset",
        "smoke",
        "--no-page",
    ]
    words += ["--env-id", "catch", "--total-timesteps", "60_000", "--save-updates", "20", "--log-interval", "20"]
    job = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    runs = here_with_slurm / "papermill_runs" / "local" / "runs"

    def of(seed: int) -> Path:
        return next(iter(runs.glob(f"*-s{seed}")), runs)

    def status(seed: int) -> str:
        file = of(seed) / "status.json"
        return json.loads(file.read_text())["status"] if file.exists() else ""

    until(lambda: at(of(0), 30) and at(of(1), 30))
    scancel("--batch", "--signal=USR1", f"{job}_0")
    scancel(f"{job}_1")
    until(lambda: status(0) == status(1) == "interrupted")
    until(lambda: not queue())
    assert status(0) == "done" and status(1) == "interrupted"
    assert updates(of(0)) == list(range(1, len(updates(of(0))) + 1))
    logs = [(here_with_slurm / f"mxnb-train-{job}_{seed}.log").read_text() for seed in (0, 1)]
    assert [log.count("is queued again and goes on") for log in logs] == [1, 0]


# ------------------------------------------------------------------------------------------------ without Slurm


def test_a_machine_without_slurm_is_told_so(here: Path, notebook: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook()
    sweep = make(here, "")
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(ValueError, match="there is no sbatch here"):
        run_slurm(sweep)
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'mxnb\[slurm\]'"):
        check_slurm()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slurm: here", "slurm: expected names and values"),
        ("slurm: {partiton: here}", "slurm: unknown partiton (did you mean partition?); there are partition, account"),
        ("slurm: {partition: [here]}", "slurm: partition is ['here']; it takes a word"),
        ("slurm: {gpus_per_node: 0}", "slurm: gpus_per_node is 0; it takes a whole number of 1 or more"),
        ("slurm: {cpus_per_task: 1.5}", "slurm: cpus_per_task is 1.5; it takes a whole number"),
        ("slurm: {minutes: true}", "slurm: minutes is True; it takes a number above 0"),
        ("slurm: {minutes: 2}", "slurm: minutes is 2; give a job 5 or more"),
        ("slurm: {setup: module load cuda}", "slurm: setup is 'module load cuda'; it takes a list of lines"),
        ("slurm: {sbatch: [reservation]}", "slurm: sbatch is ['reservation']; it takes names and values"),
    ],
)
def test_a_mistake_under_slurm_is_refused(notebook: Write, here: Path, text: str, words: str) -> None:
    notebook()
    with pytest.raises(ValueError) as raised:
        make(here, text)
    assert words in str(raised.value)


def test_a_job_imports_no_jax(here: Path) -> None:
    (here / "task.pkl").write_bytes(pickle.dumps(Task([sys.executable, "-c", "print('ran')"], here)))
    code = "import pickle, sys, submitit; print(pickle.load(open('task.pkl', 'rb'))()); assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ran")


def test_a_run_that_has_ended_is_not_queued_again(here: Path) -> None:
    task = Task(["true"], here)
    (here / "job.json").write_text('{"status": "preempted"}')
    again = task.checkpoint()
    assert again.function.words == ["true"] and again.function is not task
    for status in ("done", "failed", "oom", "timeout"):
        (here / "job.json").write_text(json.dumps({"status": status}))
        assert task.checkpoint() is None


def test_one_process_a_sweep(here: Path, notebook: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook()
    monkeypatch.setattr(slurm, "check_slurm", lambda: None)
    sweep = make(here, "")
    with locked(sweep.folder), pytest.raises(InUse, match=str(os.getpid())):
        run_slurm(sweep)

"""A simulated Colab takes its machine away while notebook 02 trains: on the next one, all cells go on from Drive."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from colab_machine import Machine
from runs import kill_kernel, timeless, wait

OFTEN = {"MXNB_SAVE_MINUTES": "0.02", "MXNB_ARCHIVE_MINUTES": "0.02", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
CELL = {"preset": "smoke", "env_id": "cartpole-v1", "total_timesteps": 1_000_000}


def policy(run_dir: Path) -> str:
    return hashlib.sha256((run_dir / "policy" / "params.npz").read_bytes()).hexdigest()


def installed_once(machine: Machine) -> bool:
    """Whether the setup cell asked pip for mxnb from the clone, and to leave Colab's packages as they are."""
    (asked,) = map(json.loads, (machine.folder / "pip.jsonl").read_text().splitlines())
    kept = {line.split("==")[0] for line in asked["constraints"]}
    return asked["words"][:2] == ["install", "-q"] and asked["words"][-1] == "./mxnb" and {"jax", "numpy"} <= kept


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(name, sha256 of the policy, rows) of a run that nobody cut, on a machine with no Drive."""
    folder = tmp_path_factory.mktemp("unbroken")
    compiled = {k: v for k, v in os.environ.items() if k == "JAX_COMPILATION_CACHE_DIR"}  # to be done sooner
    machine = Machine(folder / "machine", folder / "drive", compiled, mount=False)
    said = wait(child := machine.run_all(**CELL))
    assert child.returncode == 0, said
    printed = machine.printed()
    assert "not archived: a Drive that is mounted before the run would keep it when Colab disconnects" in printed
    assert "compile cache" not in printed and not (folder / "drive").exists() and installed_once(machine)
    run = machine.run_dir()
    return run.name, policy(run), timeless(run)


def test_a_disconnected_run_goes_on_from_drive(unbroken: Any, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    first = Machine(tmp_path / "machine", drive, OFTEN)
    child = first.run_all(**CELL)
    deadline = time.monotonic() + 300
    while not list(drive.rglob("run-*.tar")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    kill_kernel(child)
    said = wait(child)
    assert child.returncode != 0 and "DeadKernelError" in said and not (first.run_dir() / "result.json").exists()
    first.disconnect()

    (kept,) = (drive / "MyDrive" / "mxnb").glob("compile_cache-*.tar.gz")
    with tarfile.open(kept) as tar:
        programs = {name for name in tar.getnames() if name.endswith("-cache")}
    (archived,) = {path.parent for path in drive.rglob("run-*.tar")}
    assert archived == drive / "MyDrive" / "mxnb" / "02_masked_ppo" / unbroken[0]

    second = Machine(tmp_path / "machine", drive, OFTEN | {"JAX_DEBUG_LOG_MODULES": "jax._src.compiler"})
    said = wait(again := second.run_all(**CELL))
    assert again.returncode == 0, said
    printed = second.printed()
    assert f"compile cache: {len(programs)} programs brought back from Drive" in printed
    (update,) = re.findall(r"goes on after update ([\d,]+) of", printed)
    assert int(update.replace(",", "")) > 0 and installed_once(second)
    assert re.search(
        rf"brought papermill_runs/local/02_masked_ppo/{unbroken[0]} back from .*, as of update {update}", printed
    )
    assert "archived in " in printed and "finished after " in printed
    found = re.findall(r"(?i)compilation cache (hit|miss) for '(jit_init|jit_updates)'", printed)
    assert {(how.lower(), name) for how, name in found} == {("hit", "jit_init"), ("hit", "jit_updates")}

    run = second.run_dir()
    rows = timeless(run)
    assert [row["update"] for row in rows] == list(range(1, len(rows) + 1))
    assert (run.name, policy(run), rows) == unbroken

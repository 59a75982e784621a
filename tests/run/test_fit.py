"""The runner: the clock, the chunks, stops and resumes never change a result, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from tiny import masked, sha256
from walking import WalkConfig, rows_of, stop_at, timeless, walk

from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.run import fit as runner
from mxnb.run.checkpoint import Lost
from mxnb.run.fit import fit


def read(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text())


def steps_in(run: Path) -> list[int]:
    return sorted(int(p.name) for p in (run / "checkpoints" / "steps").iterdir() if p.name.isdigit())


FOREVER = 1e6  # chunk_seconds that only _MAX_CHUNK limits


# ----------------------------------------------------------------------------- the same bits, however it is cut

PPO = PPOConfig(
    env_id="masked-v0", num_envs=8, num_steps=8, total_timesteps=8 * 8 * 10, hidden_dim=16, num_layers=1, lr=1e-2
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted PPO run of 10 updates: (sha256 of its state, rows without time)."""
    run = tmp_path_factory.mktemp("whole") / "run"
    result = fit(ppo(PPO, masked()), run, seed=5)
    return sha256(result.state), timeless(run)


@pytest.mark.parametrize("most", [1, 3, 256])
def test_chunk_lengths_give_the_same_bits(most: int, whole: Any, chunks: Any, tmp_path: Path) -> None:
    lengths = []
    chunks(most)
    result = fit(
        ppo(PPO, masked()), tmp_path, seed=5, chunk_seconds=FOREVER, hooks=[lambda _, rows: lengths.append(len(rows))]
    )
    assert lengths == {1: [1] * 10, 3: [1, 3, 3, 3], 256: [1, 9]}[most]
    assert sha256(result.state) == whole[0]
    assert timeless(tmp_path) == whole[1]


def test_another_seed_gives_other_bits(whole: Any, tmp_path: Path) -> None:
    assert sha256(fit(ppo(PPO, masked()), tmp_path, seed=6).state) != whole[0]


@pytest.mark.parametrize("at", [1, 7])
def test_stopped_and_resumed_gives_the_same_bits(at: int, whole: Any, chunks: Any, tmp_path: Path) -> None:
    chunks(3)
    first = fit(ppo(PPO, masked()), tmp_path, seed=5, chunk_seconds=FOREVER, hooks=[stop_at(at)])
    assert (first.status, first.update) == ("interrupted", at)
    second = fit(ppo(PPO, masked()), tmp_path, seed=5, chunk_seconds=FOREVER)
    assert (second.status, second.update) == ("done", 10)
    assert sha256(second.state) == whole[0]
    assert timeless(tmp_path) == whole[1]
    assert [row["update"] for row in rows_of(tmp_path)] == list(range(1, 11))


def test_rows_after_the_newest_checkpoint_are_made_again(chunks: Any, tmp_path: Path) -> None:
    """As after a kill: the rows are ahead of the checkpoint, and the last line is cut off."""
    chunks(1)
    uncut = fit(walk(), tmp_path / "uncut", save_updates=5)

    def die(run_dir: Path, rows: list[dict[str, Any]]) -> None:
        if rows[-1]["update"] == 8:
            raise SystemExit  # no Exception: nothing is saved, as when a process is killed

    run = tmp_path / "cut"
    with pytest.raises(SystemExit):
        fit(walk(), run, save_updates=5, hooks=[die])
    assert steps_in(run) == [5] and len(rows_of(run)) == 8
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"update": 9, "timest')
    resumed = fit(walk(), run, save_updates=5)
    assert sha256(resumed.state) == sha256(uncut.state)
    assert timeless(run) == timeless(tmp_path / "uncut")
    wall = [row["time/wall_seconds"] for row in rows_of(run)]
    assert wall == sorted(wall)


def test_one_program_for_every_count(chunks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []
    agent = walk()
    counted = replace(agent, step=lambda state: (traces.append(1), agent.step(state))[1])
    chunks(5)
    fit(counted, tmp_path, chunk_seconds=FOREVER)
    assert len(traces) <= 2  # once for the shapes, once for the program


# -------------------------------------------------------------------------------------------- ends and statuses


def test_a_finished_run_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = fit(walk(), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    broken = replace(walk(), step=lambda state: pytest.fail("it trained"))
    capsys.readouterr()
    again = fit(broken, tmp_path)
    assert (again.status, again.update, again.run_dir) == ("done", 12, tmp_path)
    assert sha256(again.state) == sha256(first.state)
    assert "This run is finished (12 updates); nothing is trained" in capsys.readouterr().out
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_run_that_died_before_its_export_is_finished_now(tmp_path: Path) -> None:
    def fail(run_dir: Path, rows: list[dict[str, Any]]) -> None:
        if rows[-1]["update"] == 12:
            raise RuntimeError("a plot failed")

    with pytest.raises(RuntimeError, match="a plot failed"):
        fit(walk(), tmp_path, hooks=[fail])
    assert read(tmp_path, "status.json")["status"] == "failed" and not (tmp_path / "result.json").exists()
    assert fit(walk(), tmp_path).status == "done"
    assert read(tmp_path, "status.json")["status"] == "done" == read(tmp_path, "result.json")["status"]
    assert (tmp_path / "policy" / "params.npz").exists() and len(rows_of(tmp_path)) == 12


def test_interrupted_runs_save_and_export(tmp_path: Path, chunks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chunks(1)
    before = signal.getsignal(signal.SIGINT)
    result = fit(walk(), tmp_path, hooks=[stop_at(4)])
    assert (result.status, result.update) == ("interrupted", 4)
    assert signal.getsignal(signal.SIGINT) is before
    assert read(tmp_path, "status.json")["status"] == "interrupted"
    assert read(tmp_path, "result.json")["update"] == 4
    assert steps_in(tmp_path) == [4]
    with np.load(tmp_path / "policy" / "params.npz") as stored:
        np.testing.assert_array_equal(stored["['w']"], result.state.policy["w"])
    said = capsys.readouterr().out
    assert "Ctrl-C again stops at once" in said
    assert re.search(r"interrupted after 4 updates in .* minutes and saved in .*; run it again to go on", said)


def test_sigterm_is_as_good_as_ctrl_c(tmp_path: Path, chunks: Any) -> None:
    chunks(2)
    ask = lambda _, rows: os.kill(os.getpid(), signal.SIGTERM) if rows[-1]["update"] == 3 else None
    assert fit(walk(), tmp_path, chunk_seconds=FOREVER, hooks=[ask]).update == 3
    assert read(tmp_path, "status.json")["status"] == "interrupted" and steps_in(tmp_path) == [3]


def test_stopped_before_the_first_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*about: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return really(*about)

    really = runner.start
    with monkeypatch.context() as patch:
        patch.setattr(runner, "start", start)
        result = fit(walk(), tmp_path)
    assert (result.status, result.update) == ("interrupted", 0)
    assert read(tmp_path, "result.json")["metrics"] == {}
    again = fit(walk(), tmp_path)
    assert (again.status, [row["update"] for row in rows_of(tmp_path)]) == ("done", list(range(1, 13)))


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, chunks: Any) -> None:
    chunks(1)

    def twice(run_dir: Path, rows: list[dict[str, Any]]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one was not heard")

    before = signal.getsignal(signal.SIGINT)  # ignored, when a shell started the tests in the background
    with pytest.raises(KeyboardInterrupt):
        fit(walk(), tmp_path, hooks=[twice])
    assert signal.getsignal(signal.SIGINT) is before
    status = read(tmp_path, "status.json")
    assert status["status"] == "failed" and "KeyboardInterrupt" in status["error"]


def test_ctrl_c_in_the_last_copy_leaves_the_run_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def keep() -> None:
        calls.append(1)
        if len(calls) == 2:  # after the run has ended
            raise KeyboardInterrupt

    monkeypatch.setattr(runner, "keep_programs", keep)
    with pytest.raises(KeyboardInterrupt):
        fit(walk(), tmp_path)
    assert read(tmp_path, "status.json")["status"] == "done" == fit(walk(), tmp_path).status


def test_outside_the_main_thread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(fit(walk(), tmp_path)))
    thread.start()
    thread.join(60)
    assert results and results[0].status == "done"
    assert "not in the main thread: Ctrl-C and SIGTERM do not reach this run" in capsys.readouterr().out


def test_a_failing_hook_loses_nothing(tmp_path: Path, chunks: Any) -> None:
    chunks(1)

    def fail(run_dir: Path, rows: list[dict[str, Any]]) -> None:
        if rows[-1]["update"] == 5:
            raise RuntimeError("the hook broke")

    with pytest.raises(RuntimeError, match="the hook broke"):
        fit(walk(), tmp_path / "cut", hooks=[fail])
    assert steps_in(tmp_path / "cut") == [5]
    status = read(tmp_path / "cut", "status.json")
    assert (status["status"], status["update"], status["error"]) == ("failed", 5, "RuntimeError: the hook broke")
    resumed = fit(walk(), tmp_path / "cut")
    assert sha256(resumed.state) == sha256(fit(walk(), tmp_path / "uncut").state)
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "uncut")


def test_hooks_see_every_row_once(tmp_path: Path, chunks: Any) -> None:
    chunks(5)
    seen: list[int] = []
    fit(walk(), tmp_path, chunk_seconds=FOREVER, hooks=[lambda run, rows: seen.extend(row["update"] for row in rows)])
    assert seen == list(range(1, 13))


@pytest.mark.parametrize("most", [1, 256])
def test_a_loss_that_is_no_number(most: int, tmp_path: Path, chunks: Any) -> None:
    chunks(most)
    agent = walk(WalkConfig(nan_at=8))
    with pytest.raises(FloatingPointError, match="the loss is not a number after update 9"):
        fit(agent, tmp_path, save_updates=3, chunk_seconds=FOREVER)
    status = read(tmp_path, "status.json")
    assert status["status"] == "failed" and "FloatingPointError" in status["error"]
    assert steps_in(tmp_path) == [3, 6]  # from before
    assert rows_of(tmp_path)[-1]["train/total_loss"] is None


def test_out_of_memory_has_its_own_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def full(run_dir: Path, rows: Any) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 TiB")

    with pytest.raises(RuntimeError):
        fit(walk(), tmp_path, hooks=[full])
    assert read(tmp_path, "status.json")["status"] == "oom"
    assert "use a smaller preset" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------- the run folder


def test_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    fit(walk(), tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError) as error:
        fit(walk(WalkConfig(lr=0.25, total=13)), tmp_path, seed=1)
    words = str(error.value)
    assert "holds a run of another configuration" in words and "resume=False" in words
    for line in ("lr: 0.5 there, 0.25 asked for", "total: 12 there, 13 asked for", "seed: 0 there, 1 asked for"):
        assert line in words
    assert "nan_at" not in words
    assert (tmp_path / "config.json").read_bytes() == before and len(rows_of(tmp_path)) == 12


@dataclass(frozen=True)
class LongerConfig(WalkConfig):
    harmless: tuple[str, ...] = ("total", "harmless")


def test_a_harmless_change_goes_on_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(walk(LongerConfig(total=5)), tmp_path / "run")
    capsys.readouterr()
    longer = fit(walk(LongerConfig(total=12)), tmp_path / "run")
    assert longer.update == 12 and timeless(tmp_path / "run")[-1]["update"] == 12
    assert "changed for the rest of the run: total: 5 there, 12 asked for" in capsys.readouterr().out
    assert read(tmp_path / "run", "config.json")["config"]["total"] == 12
    assert sha256(longer.state) == sha256(fit(walk(), tmp_path / "whole").state)
    with pytest.raises(ValueError, match=r"lr: 0\.5 there, 0\.1 asked for"):
        fit(walk(LongerConfig(total=12, lr=0.1)), tmp_path / "run")


def test_a_lost_or_damaged_config_is_no_door_for_another_one(tmp_path: Path, chunks: Any) -> None:
    chunks(1)
    fit(walk(), tmp_path, hooks=[stop_at(4)])
    (tmp_path / "config.json").write_text("")
    with pytest.raises(ValueError, match=r"config.json is damaged. Remove it, and start the run as before"):
        fit(walk(), tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"the checkpoint of update 4 in .*:\n  lr: 0\.5 there, 0\.25"):
        fit(walk(WalkConfig(lr=0.25)), tmp_path)
    with pytest.raises(ValueError, match=r"the checkpoint of update 4 in .*:\n  seed: 0 there, 1 asked for"):
        fit(walk(), tmp_path, seed=1)
    assert not (tmp_path / "config.json").exists() and read(tmp_path, "status.json")["status"] == "interrupted"
    assert len(rows_of(tmp_path)) == 4
    assert fit(walk(), tmp_path).update == 12 and read(tmp_path, "config.json")["config"]["lr"] == 0.5


@pytest.mark.parametrize("stop", [4, 99])
def test_a_run_without_its_checkpoints_never_begins_anew_by_itself(stop: int, tmp_path: Path, chunks: Any) -> None:
    chunks(1)
    status = fit(walk(), tmp_path / "run", hooks=[stop_at(stop)]).status
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "steps")
    rows = rows_of(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(Lost, match=r"a run that was saved, but none of its checkpoints. .* resume=False"):
            fit(walk(), tmp_path / "run")
        assert rows_of(tmp_path / "run") == rows and read(tmp_path / "run", "status.json")["status"] == status
    assert fit(walk(), tmp_path / "run", resume=False).status == "done"
    assert rows_of(tmp_path / "run.old1") == rows
    for left in ("policy", "result.json", "status.json"):  # each tells of a save
        for path in (tmp_path / "run").iterdir():
            if path.name != left:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(Lost):
            fit(walk(), tmp_path / "run")
        assert fit(walk(), tmp_path / "run", resume=False).status == "done"


def test_a_run_that_was_killed_before_its_first_save_says_so(
    tmp_path: Path, chunks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks(1)
    fit(walk(), tmp_path, hooks=[stop_at(4)])
    for name in ("checkpoints", "policy"):
        shutil.rmtree(tmp_path / name)
    (tmp_path / "result.json").unlink()
    (tmp_path / "status.json").write_text('{"status": "running", "update": 0}')
    assert fit(walk(), tmp_path).update == 12 and len(rows_of(tmp_path)) == 12
    assert "nothing was saved before this run stopped; its 4 updates are made again" in capsys.readouterr().out


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=r"the run folder .* cannot be made .* use another run_dir"):
            fit(walk(), run)


def test_resume_false_without_a_config_begins_anew_too(tmp_path: Path, chunks: Any) -> None:
    chunks(1)
    fit(walk(), tmp_path / "run", hooks=[stop_at(4)])
    (tmp_path / "run" / "config.json").unlink()
    assert fit(walk(), tmp_path / "run", resume=False, hooks=[stop_at(2)]).update == 2
    assert steps_in(tmp_path / "run.old1") == [4]


def test_rows_behind_the_checkpoint_go_wherever_they_stand(tmp_path: Path, chunks: Any) -> None:
    """As where metrics.jsonl is another sitting's, whose rows are shorter."""
    chunks(1)
    fit(walk(), tmp_path, hooks=[stop_at(7)])
    shutil.copytree(tmp_path / "checkpoints" / "steps" / "7", tmp_path / "seven")
    short = "".join(json.dumps(row) + "\n" for row in timeless(tmp_path))
    fit(walk(), tmp_path)
    for step in steps_in(tmp_path):
        shutil.rmtree(tmp_path / "checkpoints" / "steps" / str(step))
    shutil.move(tmp_path / "seven", tmp_path / "checkpoints" / "steps" / "7")
    rest = (json.dumps({"update": update}) + "\n" for update in range(8, 100))
    (tmp_path / "metrics.jsonl").write_text(short + "".join(rest))
    assert fit(walk(), tmp_path).update == 12
    assert [row["update"] for row in rows_of(tmp_path)] == list(range(1, 13))


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    fit(walk(), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(read(tmp_path, "config.json") | {"schema": 2}))
    with pytest.raises(ValueError, match=r"config.json has schema 2, this version of mxnb reads 1; upgrade mxnb"):
        fit(walk(), tmp_path)


def test_other_versions_are_told(tmp_path: Path, chunks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chunks(1)
    fit(walk(), tmp_path, hooks=[stop_at(4)])
    known = read(tmp_path, "config.json")
    known["versions"]["jax"] = "0.1"
    (tmp_path / "config.json").write_text(json.dumps(known))
    fit(walk(), tmp_path)
    assert (
        f"other versions than before, so the bits may differ: jax 0.1 -> {jax.__version__}" in capsys.readouterr().out
    )


def test_ppo_may_go_on_longer_only_where_nothing_is_annealed() -> None:
    assert PPO.harmless == () and replace(PPO, anneal_lr=False).harmless == ("total_timesteps",)
    assert replace(PPO, anneal_lr=False, anneal_ent_coef=True).harmless == ()


def test_resuming_needs_no_other_program(tmp_path: Path, chunks: Any) -> None:
    """Fresh and restored arrays are placed alike, or the second sitting would compile anew."""
    chunks(1)
    texts = []
    agent = ppo(PPO, masked())

    def hook(run_dir: Path, rows: Any) -> None:
        pass

    for hooks in ([stop_at(3)], [hook]):
        state = fit(agent, tmp_path, seed=5, hooks=hooks).state
        assert all(leaf.committed for leaf in jax.tree.leaves(state))
        texts.append(jax.jit(agent.step).lower(state).as_text())
    assert texts[0] == texts[1]


def test_a_run_from_before_a_field_was_added_goes_on(tmp_path: Path, chunks: Any) -> None:
    """Its config.json and its checkpoints lack the field; what was done then is what the field's default does."""
    from mxnb.config import LATER, as_json, default_run_dir
    from mxnb.run.folder import check_config

    chunks(1)
    agent = ppo(PPO, masked())
    fit(agent, tmp_path, hooks=[stop_at(2)])
    path = tmp_path / "config.json"
    told = json.loads(path.read_text())
    told["config"] = {k: v for k, v in told["config"].items() if k not in LATER}
    path.write_text(json.dumps(told))
    assert len(told["config"]) < len(as_json(PPO)) and check_config(agent, told["config"], "its checkpoint", {}) == []
    assert fit(agent, tmp_path, hooks=[stop_at(3)]).update == 3
    with pytest.raises(ValueError, match="num_microbatches: 1 there, 2 asked for"):
        fit(ppo(replace(PPO, num_microbatches=2), masked()), tmp_path)
    other = replace(PPO, num_microbatches=2)
    assert default_run_dir(PPO, "x", 0) != default_run_dir(other, "x", 0)


def test_init_is_not_run_on_resume(tmp_path: Path, chunks: Any) -> None:
    chunks(1)
    fit(walk(), tmp_path, hooks=[stop_at(4)])
    agent, ran = walk(), []

    def init(key: Any) -> Any:
        jax.debug.callback(lambda: ran.append(1))
        return agent.init(key)

    assert fit(replace(agent, init=init), tmp_path).update == 12
    jax.effects_barrier()
    assert not ran


def test_resume_false_sets_the_old_run_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    first = fit(walk(), run)
    other = fit(walk(WalkConfig(lr=0.25)), run, resume=False)
    third = fit(walk(), run, resume=False)
    assert other.status == third.status == "done" and sha256(third.state) == sha256(first.state)
    assert {p.name for p in tmp_path.iterdir()} == {"run", "run.old1", "run.old2"}
    assert read(tmp_path / "run.old1", "config.json")["config"]["lr"] == 0.5
    assert read(tmp_path / "run.old2", "config.json")["config"]["lr"] == 0.25
    assert len(rows_of(tmp_path / "run.old1")) == 12 == len(rows_of(run))
    assert "the earlier run is kept in" in capsys.readouterr().out
    assert sha256(fit(walk(), tmp_path / "new", resume=False).state) == sha256(first.state)


def test_save_updates_and_keep(tmp_path: Path, chunks: Any) -> None:
    lengths: list[int] = []
    fit(walk(), tmp_path / "a", save_updates=5, hooks=[lambda _, rows: lengths.append(len(rows))], chunk_seconds=1e6)
    assert lengths == [1, 4, 5, 2] and steps_in(tmp_path / "a") == [5, 10, 12]
    fit(walk(), tmp_path / "b", save_updates=2, keep=2)
    assert steps_in(tmp_path / "b") == [10, 12]
    fit(walk(), tmp_path / "c")
    assert steps_in(tmp_path / "c") == [12]
    chunks(4)
    fit(walk(), tmp_path / "d", save_minutes=0.0, keep=9, chunk_seconds=FOREVER)
    assert steps_in(tmp_path / "d") == [1, 5, 9, 12]


def test_evaluation_rows(tmp_path: Path) -> None:
    calls: list[Any] = []

    def evaluate(params: Any) -> dict[str, float]:
        calls.append(np.asarray(params["w"]))
        return {"return": float(len(calls))}

    fit(walk(), tmp_path, evaluate=evaluate, eval_updates=5)
    rows = rows_of(tmp_path)
    assert {row["update"]: row["eval/return"] for row in rows if "eval/return" in row} == {5: 1.0, 10: 2.0}
    assert rows[4]["train/peak"] == pytest.approx(np.abs(calls[0]).max())


def test_a_warm_start_begins_with_the_other_policy(tmp_path: Path) -> None:
    first = fit(walk(), tmp_path / "first")
    still = fit(walk(WalkConfig(lr=0.0)), tmp_path / "second", init_from=tmp_path / "first")
    np.testing.assert_array_equal(still.state.policy["w"], first.state.policy["w"])
    assert json.loads((tmp_path / "second" / "config.json").read_text())["init_from"]
    with pytest.raises(FileNotFoundError, match="has no policy to begin with"):
        fit(walk(), tmp_path / "third", init_from=tmp_path / "nowhere")
    assert not (tmp_path / "third").exists()
    with pytest.raises(ValueError, match="holds a run that did not begin with init_from="):
        fit(walk(), tmp_path / "first", init_from=tmp_path / "second")
    again = fit(walk(WalkConfig(lr=0.0)), tmp_path / "second", init_from=tmp_path / "first")  # the same: it is shown
    assert again.update == 12
    moved = fit(walk(), tmp_path / "moved", init_from=tmp_path / "first")
    (tmp_path / "moved" / "config.json").unlink()  # damaged, say; its own policy stays the one it has learned
    assert fit(walk(), tmp_path / "moved", init_from=tmp_path / "first").update == 12
    with np.load(tmp_path / "moved" / "policy" / "params.npz") as stored:
        np.testing.assert_array_equal(stored["['w']"], moved.state.policy["w"])


def test_a_warm_start_that_was_killed_before_its_first_save(tmp_path: Path) -> None:
    first = fit(walk(), tmp_path / "first")

    def die(run_dir: Path, rows: Any) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        fit(walk(WalkConfig(lr=0.0)), tmp_path / "second", init_from=tmp_path / "first", hooks=[die])
    still = fit(walk(WalkConfig(lr=0.0)), tmp_path / "second")
    np.testing.assert_array_equal(still.state.policy["w"], first.state.policy["w"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keep": 0}, "keep is 0; use 1 or more"),
        ({"save_updates": -1, "save_minutes": -0.5}, "save_minutes is -0.5; use"),
    ],
)
def test_numbers_out_of_range_are_refused(given: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        fit(walk(), tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_chunk_moves_nothing_between_host_and_device(tmp_path: Path) -> None:
    agent = ppo(PPO, masked())
    step = jax.jit(agent.step, donate_argnums=0).lower(jax.eval_shape(agent.init, jax.random.key(0))).compile()
    state = jax.jit(agent.init)(jax.random.key(0))
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, metrics = step(state)
    assert np.isfinite(jax.device_get(metrics["train/total_loss"].total))


def test_lines_on_the_console_may_be_thinned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(walk(), tmp_path, log_updates=6, save_updates=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "steps/s" in line]
    assert len(lines) == 3 and len(rows_of(tmp_path)) == 12  # the first chunk, updates 6 and 12


def test_what_the_folder_says(tmp_path: Path) -> None:
    config = replace(PPO, origins={"lr": "override", "preset": "smoke"})
    seen: list[str] = []
    fit(ppo(config, masked()), tmp_path, seed=3, hooks=[lambda run, _: seen.append(read(run, "status.json")["status"])])
    said = read(tmp_path, "config.json")
    assert (said["agent"], said["env"], said["preset"], said["seed"]) == ("ppo", "masked-v0", "smoke", 3)
    assert said["config"]["num_envs"] == 8 and said["config"]["num_minibatches"] == 4
    assert said["origins"] == {"lr": "override", "num_minibatches": "auto_scale", "update_epochs": "auto_scale"}
    assert said["versions"]["jax"] == jax.__version__ and "optax" in said["versions"]
    assert {rule["metric"] for rule in said["health"]} >= {"train/entropy_frac", "train/approx_kl", "train/clip_frac"}
    assert "origins" not in said["config"]
    assert seen and set(seen) == {"running"}

    rows = rows_of(tmp_path)
    assert [row["update"] for row in rows] == list(range(1, 11))
    assert [row["timesteps"] for row in rows] == [64 * i for i in range(1, 11)]
    assert all(row["time/steps_per_second"] > 0 for row in rows)
    assert all("\r" not in text for text in ((tmp_path / "metrics.jsonl").read_text(),))

    result = read(tmp_path, "result.json")
    assert (result["status"], result["update"], result["timesteps"]) == ("done", 10, 640)
    names = "total_loss pg_loss vf_loss entropy entropy_frac approx_kl clip_frac explained_variance mean_reward"
    names += " mean_episode_return mean_episode_length num_episodes grad_norm"
    assert {f"train/{name}" for name in names.split()} <= set(result["metrics"])
    assert not any(name.startswith("time/") for name in result["metrics"])
    assert result["metrics"]["train/total_loss"] == rows[-1]["train/total_loss"]  # the last tenth of ten
    assert result["wall_seconds"] > 0 and result["compile_seconds"] > 0
    status = read(tmp_path, "status.json")
    assert (status["status"], status["update"]) == ("done", 10) and "error" not in status


def test_rows_leave_out_what_was_not_counted(tmp_path: Path) -> None:
    fit(walk(), tmp_path)
    rows = rows_of(tmp_path)
    assert [row["update"] for row in rows if "train/mean_episode_return" in row] == [1, 4, 7, 10]
    assert all(row["train/peak"] > 0 for row in rows)
    assert read(tmp_path, "result.json")["health"][0].startswith("train/peak is ")


def test_progress_is_plain_text(tmp_path: Path, chunks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chunks(1)
    fit(walk(WalkConfig(total=60)), tmp_path)
    said = capsys.readouterr().out
    assert "\r" not in said and "\x1b" not in said
    assert re.search(r"walk on walk-v0: made the first worlds in \d+\.\d s", said)
    assert re.search(r"traced in \d+\.\d s, compiled in \d+\.\d s; 60 updates of 10 steps to go", said)
    lines = [line for line in said.splitlines() if re.match(r" *\d+%", line)]
    assert 15 <= len(lines) <= 25  # every 5 %
    assert all(re.search(r"[\d,]+ steps  [\d,]+ steps/s  .*\d+ min \d\d s to go", line) for line in lines[:-1])
    assert lines[-1].startswith("100%  600 steps")
    assert said.count("warning: train/peak") == 1  # once, not in every line
    assert re.search(r"finished after 60 updates in \d+\.\d minutes; the run is in ", said)


def test_resuming_an_unhealthy_run_warns(tmp_path: Path, chunks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chunks(1)
    fit(walk(), tmp_path, hooks=[stop_at(6)])
    capsys.readouterr()
    fit(walk(), tmp_path)
    said = capsys.readouterr().out
    assert "walk on walk-v0: goes on after update 6 of 12" in said
    assert "warning: this run was not healthy when it stopped: train/peak is" in said and "stand still" in said


def test_a_mirror_gets_every_row_of_an_interrupted_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    run = SimpleNamespace(
        id="abc", url="", log=lambda row, step: sent.append(step), finish=lambda exit_code: sent.append(-exit_code)
    )
    module = SimpleNamespace(login=lambda **how: False, init=lambda **settings: run)
    monkeypatch.setitem(sys.modules, "wandb", module)

    def stop(run_dir: Path, rows: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    assert fit(walk(), tmp_path / "run", hooks=[stop], wandb=True).status == "interrupted"
    assert fit(walk(), tmp_path / "run", wandb={"artifacts": False}).status == "done"
    assert sorted(sent) == [0, 0, *range(1, 13)]
    with pytest.raises(ValueError, match="wandb: unknown option projekt"):
        fit(walk(), tmp_path / "other", wandb={"projekt": "p"})
    assert not (tmp_path / "other").exists()

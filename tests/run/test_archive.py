"""The copy that outlives the machine: a run whose folder is gone comes back from it, curve and all."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import sha256
from walking import WalkConfig, rows_of, stop_at, timeless, walk

from mxnb.run import archive
from mxnb.run import fit as runner
from mxnb.run.checkpoint import Lost
from mxnb.run.fit import fit


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for Drive, and a working folder with no repository around it."""
    monkeypatch.setenv("MXNB_ARCHIVE", str(tmp_path / "drive"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "drive"


def kept(drive: Path) -> Path:
    """The one run's folder in the archive."""
    (folder,) = {path.parent for path in drive.rglob("run-*.tar")}
    return folder


def tar_of(folder: Path, update: int) -> Path:
    """The one archive of `update`."""
    (path,) = folder.glob(f"run-{update}-*.tar")
    return path


def updates(folder: Path) -> list[int]:
    """What is archived, the oldest first."""
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("run-*.tar"))


def test_a_lost_folder_comes_back_and_goes_on(drive: Path, chunks: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chunks(1)
    whole = fit(walk(), "elsewhere")
    run = Path("papermill_runs/local/nb/run")
    fit(walk(), run, hooks=[stop_at(5)])
    shutil.rmtree("papermill_runs")  # the machine is gone
    capsys.readouterr()
    again = fit(walk(), run)
    said = capsys.readouterr().out
    assert f"brought {run} back from " in said and "as of update 5" in said and "goes on after update 5 of 12" in said
    assert again.status == "done" and sha256(again.state) == sha256(whole.state)
    assert timeless(run) == timeless(Path("elsewhere")) and len(rows_of(run)) == 12
    assert not (run / ".unpacking").exists()
    shutil.rmtree("papermill_runs")
    shown = fit(walk(), run)  # a finished run comes back finished
    assert sha256(shown.state) == sha256(whole.state) and (run / "policy" / "params.npz").exists()
    assert json.loads((run / "status.json").read_text())["status"] == "done"


def test_what_is_there_is_not_overwritten(drive: Path, chunks: Any) -> None:
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(3)])
    del os.environ["MXNB_ARCHIVE"]
    fit(walk(), "run", hooks=[stop_at(8)])
    os.environ["MXNB_ARCHIVE"] = str(drive)
    assert fit(walk(), "run", hooks=[stop_at(9)]).update == 9  # not from 3 again


def test_the_policy_every_time_the_rest_at_most_every_half_hour(
    drive: Path, chunks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks(1)
    now = [0.0]
    monkeypatch.setattr(archive.time, "monotonic", lambda: now[0])
    seen = []

    def hook(run_dir: Path, rows: Any) -> None:
        now[0] += 10 * 60.0
        (folder,) = [p.parent.parent for p in drive.rglob("params.npz")] or [drive]
        seen.append(updates(folder))

    fit(walk(WalkConfig(total=8)), "run", save_updates=1, hooks=[hook])
    assert seen[1] == seen[2] == seen[3] == [1]
    assert seen[4] == [1, 4] and seen[7] == [4, 7] and updates(kept(drive)) == [7, 8]
    assert {p.name for p in kept(drive).iterdir() if p.suffix != ".tar"} == {"config.json", "policy"}
    for name in ("policy/params.npz", "config.json"):  # load_policy(that folder) works
        assert (kept(drive) / name).read_bytes() == (Path("run") / name).read_bytes()


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_archive_is_passed_over(
    damage: str, drive: Path, chunks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks(1)
    for at in (4, 7):
        fit(walk(), "run", hooks=[stop_at(at)])
    path = tar_of(kept(drive), 7)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data) if damage == "flipped" else path.unlink()
    shutil.rmtree("run")
    result = fit(walk(), "run", hooks=[stop_at(9)])
    said = capsys.readouterr().out
    words = f"{path.name} cannot be used (it is not what was written)"
    assert (words in said) == (damage == "flipped") and "as of update 4" in said
    assert result.update == 9


def test_a_folder_that_cannot_be_written_stops_nothing(
    drive: Path, chunks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks(1)
    drive.write_text("a file where the folder should be")
    assert fit(walk(), "run", save_updates=1).status == "done"
    said = capsys.readouterr().out
    assert said.count("could not be written (") == 2  # at first, and at the end
    assert said.count("the run goes on and tries again; set MXNB_ARCHIVE to a folder that can be written") == 1
    assert "has no newest copy there; set MXNB_ARCHIVE" in said


def test_resume_false_keeps_the_old_archive_apart(drive: Path, chunks: Any) -> None:
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(4)])
    old = kept(drive)
    fit(walk(WalkConfig(lr=0.25)), "run", resume=False)
    assert {p.name for p in old.parent.iterdir()} == {"run", "run.old1"}
    shutil.rmtree("run")
    assert fit(walk(WalkConfig(lr=0.25)), "run").update == 12


def test_a_run_that_finished_unarchived_is_archived_when_it_is_shown(drive: Path) -> None:
    del os.environ["MXNB_ARCHIVE"]
    fit(walk(), "run")
    assert not drive.exists()
    os.environ["MXNB_ARCHIVE"] = str(drive)
    fit(walk(), "run")
    before = tar_of(kept(drive), 12).stat().st_mtime_ns
    fit(walk(), "run")
    assert updates(kept(drive)) == [12] and tar_of(kept(drive), 12).stat().st_mtime_ns == before


def test_where_the_archive_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MXNB_ARCHIVE", raising=False)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "papermill_runs" / "local" / "02_masked_ppo" / "ab-s0"
    assert archive.archive_folder(run) is None
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    assert archive.archive_folder(run) is None  # not mounted
    monkeypatch.setattr(archive, "_DRIVE", tmp_path / "drive")
    (tmp_path / "drive").mkdir()
    assert archive.archive_folder(run) == tmp_path / "drive" / "mxnb" / "02_masked_ppo" / "ab-s0"
    other = tmp_path / "own"
    assert archive.archive_folder(other) == tmp_path / "drive" / "mxnb" / other.relative_to(other.anchor)


def test_killed_while_it_is_brought_back(drive: Path, chunks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every move: the next start brings it back whole."""
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(5)])
    shutil.copytree("run", "there")
    moves = 0
    while True:
        shutil.rmtree("run")
        moves, done = moves + 1, [0]

        def move(how: Any) -> Any:
            def moved(path: Path, target: Any) -> Any:
                done[0] += 1  # noqa: B023
                if done[0] == moves:  # noqa: B023
                    raise KeyboardInterrupt
                return how(path, target)

            return moved

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", move(Path.replace))
            patch.setattr(Path, "rename", move(Path.rename))
            try:
                archive.unpack(Path("run"), lambda folder, update: None)
            except KeyboardInterrupt:
                pass
            else:
                break
        assert not Path("run/checkpoints/steps/5").exists()  # it would count
    assert moves > 5
    resumed = fit(walk(), "run")
    assert sha256(resumed.state) == sha256(fit(walk(), "there").state)
    assert timeless(Path("run")) == timeless(Path("there"))


def test_the_further_one_of_folder_and_archive_is_taken(
    drive: Path, chunks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in Colab, where all cells were run before Drive was mounted: what is there comes first, and is not lost."""
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(7)])
    shutil.rmtree("run")
    del os.environ["MXNB_ARCHIVE"]
    fit(walk(), "run", hooks=[stop_at(2)])
    Path("run/mine.txt").write_text("kept")
    os.environ["MXNB_ARCHIVE"] = str(drive)
    assert fit(walk(), "run", hooks=[stop_at(8)]).update == 8
    assert "goes on after update 7 of 12" in capsys.readouterr().out
    assert [row["update"] for row in rows_of(Path("run"))] == list(range(1, 9)) and Path("run/mine.txt").exists()


def test_damaged_checkpoints_are_replaced_from_the_archive(
    drive: Path, chunks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(7)])
    shutil.rmtree("run/checkpoints/steps/7/state")
    capsys.readouterr()
    assert fit(walk(), "run", hooks=[stop_at(8)]).update == 8
    said = capsys.readouterr().out
    assert "as of update 7" in said and "goes on after update 7" in said
    assert "the checkpoint of update 7 cannot be trusted (" in said
    assert [p.name for p in Path("run/checkpoints/bad").iterdir()] == ["7"]


@pytest.mark.parametrize("local", ["damaged", "gone"])
def test_a_run_never_begins_anew_by_itself(local: str, drive: Path, chunks: Any) -> None:
    """Neither the first time nor the second, where the archive cannot be used either; and nothing is moved."""
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(7)])
    shutil.rmtree("run/checkpoints/steps/7/state") if local == "damaged" else shutil.rmtree("run")
    tar = tar_of(kept(drive), 7)
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    rows = Path("run/metrics.jsonl").read_bytes() if local == "damaged" else b""
    for _ in range(2):
        with pytest.raises(Lost):
            fit(walk(), "run")
        assert tar.exists() and not Path("run/checkpoints/bad").exists()
        assert local == "gone" or Path("run/metrics.jsonl").read_bytes() == rows
    if local == "gone":
        tar.unlink()  # not even the tar is left, but the policy is
        with pytest.raises(Lost, match=r"has this run, and no run-\*\.tar in it can be used"):
            fit(walk(), "run")
    tar.write_bytes(whole)
    assert fit(walk(), "run").update == 12 and len(rows_of(Path("run"))) == 12


def test_resume_false_never_takes_the_old_archive(drive: Path, chunks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(4)])
    monkeypatch.setattr(archive, "free_name", lambda path: path / "in" / "itself")  # a rename that fails
    with pytest.raises(OSError):
        fit(walk(WalkConfig(lr=0.25)), "run", resume=False)


@pytest.mark.parametrize("name", ["MXNB_SAVE_MINUTES", "MXNB_ARCHIVE_MINUTES"])
def test_minutes_from_outside_are_checked(name: str, drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("ten", "-1", "nan"):
        monkeypatch.setenv(name, text)
        with pytest.raises(ValueError, match=f"the environment variable {name} is '{text}'; it takes minutes"):
            fit(walk(), "run")
    monkeypatch.setenv(name, "")
    assert fit(walk(WalkConfig(total=2)), "run").status == "done"


@pytest.mark.parametrize(
    ("given", "colab", "outside", "minutes"),
    [(None, False, "", 10.0), (None, True, "", 5.0), (1.0, True, "", 1.0), (1.0, False, "0.25", 0.25)],
)
def test_how_often_a_run_is_saved(
    given: Any, colab: bool, outside: str, minutes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(
        runner, "_train", lambda agent, run, program, manager, stop, chunk, saving, *rest: told.append(saving[0])
    )
    monkeypatch.setattr(runner, "in_colab", lambda: colab)
    monkeypatch.setenv("MXNB_SAVE_MINUTES", outside)
    fit(walk(), tmp_path / "run", save_minutes=given)
    assert told == [minutes]


def test_the_archive_of_another_configuration_is_refused_and_nothing_moves(drive: Path, chunks: Any) -> None:
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(4)])
    shutil.rmtree("run")
    with pytest.raises(ValueError, match=r"lr: 0\.5 there, 0\.25 asked for"):
        fit(walk(WalkConfig(lr=0.25)), "run")
    assert {p.name for p in Path("run").iterdir()} == {"lock"} and updates(kept(drive)) == [4]
    assert fit(walk(), "run").update == 12  # with the right values it goes on


def test_an_archive_that_got_further_is_never_overwritten(drive: Path, chunks: Any) -> None:
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(7)])
    old = kept(drive)
    archive._pack(Path("run"), old, 3)  # as a run that was begun anew would
    assert {p.name for p in old.parent.iterdir()} == {"run", "run.old1"}
    assert updates(old.parent / "run.old1") == [7] and updates(old) == [3]


def test_side_runs_come_back_from_their_own_archives(drive: Path) -> None:
    fit(walk(), "run")
    fit(walk(), "run/compare/other")
    (Path("run") / "link").symlink_to("metrics.jsonl")
    Path("run/figures").mkdir()
    Path("run/figures/curve.png").write_text("a picture")
    archive.Archive(Path("run"))(12, last=True)
    (path,) = drive.rglob("run/run-12-*.tar")
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert "figures/curve.png" in names and "checkpoints/steps/12" in names
    assert not any("other" in name or name.endswith(("lock", "link")) for name in names)
    shutil.rmtree("run")
    (side,) = drive.rglob("other")
    shutil.rmtree(side)  # the machine went before the side run was archived
    assert fit(walk(), "run").status == fit(walk(), "run/compare/other").status == "done"


def test_a_drive_that_does_not_answer_stops_the_start(
    drive: Path, chunks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing about the archive, which must neither be passed over nor put away."""
    chunks(1)
    for at in (4, 7):
        fit(walk(), "run", hooks=[stop_at(at)])
    shutil.rmtree("run")

    def fail(path: Path) -> str:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
        patch.setattr(archive, "_sha256", fail)
        fit(walk(), "run")
    assert updates(kept(drive)) == [4, 7]
    assert fit(walk(), "run", hooks=[stop_at(8)]).update == 8


def test_an_archive_between_whole_and_damaged_checkpoints_is_taken(
    drive: Path, chunks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks(1)
    for at in (3, 5):
        fit(walk(), "run", hooks=[stop_at(at)])
    del os.environ["MXNB_ARCHIVE"]
    fit(walk(), "run", hooks=[stop_at(7)])
    os.environ["MXNB_ARCHIVE"] = str(drive)
    for update in (5, 7):
        shutil.rmtree(f"run/checkpoints/steps/{update}/state")
    assert fit(walk(), "run", hooks=[stop_at(8)]).update == 8
    assert "goes on after update 5 of 12" in capsys.readouterr().out
    assert [row["update"] for row in rows_of(Path("run"))] == list(range(1, 9))


def test_a_start_that_comes_too_late_is_refused_with_an_archive_too(drive: Path, chunks: Any) -> None:
    chunks(1)
    fit(walk(), "first")
    fit(walk(), "run", hooks=[stop_at(4)])
    with pytest.raises(ValueError, match="holds a run that did not begin with init_from="):
        fit(walk(), "run", init_from="first")
    Path("run/config.json").unlink()
    assert fit(walk(), "run", init_from="first").update == 12
    assert "init_from" not in json.loads(Path("run/config.json").read_text())


def test_an_older_archive_never_replaces_what_is_here(drive: Path, chunks: Any) -> None:
    """The newest one is half uploaded and the one before is behind the folder here: its rows stay as they are."""
    chunks(1)
    for at in (4, 7):
        fit(walk(), "run", hooks=[stop_at(at)])
    tar = tar_of(kept(drive), 7)
    tar.write_bytes(tar.read_bytes()[:1000])
    shutil.rmtree("run")
    del os.environ["MXNB_ARCHIVE"]
    fit(walk(), "run", hooks=[stop_at(5)])
    before = Path("run/metrics.jsonl").read_bytes()
    os.environ["MXNB_ARCHIVE"] = str(drive)
    seen = []

    def look(run_dir: Path, rows: Any) -> None:
        seen.append((rows[0]["update"], (run_dir / "metrics.jsonl").read_bytes().startswith(before)))

    assert fit(walk(), "run", hooks=[look]).status == "done" and seen[0] == (6, True)


def test_a_checkpoint_damaged_before_it_was_archived_gives_way_to_the_archive_before(
    drive: Path, chunks: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks(1)
    for at in (4, 7):
        fit(walk(), "run", hooks=[stop_at(at)])
    newest, folder = Path("run/checkpoints/steps/7"), kept(drive)
    shutil.rmtree(newest / "state")
    tar_of(folder, 7).unlink()
    archive._pack(Path("run"), folder, 7)  # whole as a file, with a checkpoint that is not
    shutil.rmtree("run")
    capsys.readouterr()
    assert fit(walk(), "run", hooks=[stop_at(8)]).update == 8
    said = capsys.readouterr().out
    assert "cannot be used (the checkpoint of update 7 is damaged" in said and "goes on after update 4 of 12" in said
    assert [row["update"] for row in rows_of(Path("run"))] == list(range(1, 9))


def test_killed_while_it_is_archived(drive: Path, chunks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every move and removal: what is there counts, and nothing is left in the end."""
    chunks(1)
    fit(walk(), "run", hooks=[stop_at(5)])
    moves = 0
    while True:
        moves, done = moves + 1, [0]

        def seam(how: Any) -> Any:
            def called(path: Path, *args: Any, **options: Any) -> Any:
                done[0] += 1  # noqa: B023
                if done[0] >= moves:  # noqa: B023
                    raise KeyboardInterrupt
                return how(path, *args, **options)

            return called

        (Path("run") / "mine.txt").write_text(str(moves))  # other bytes, another name
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", seam(Path.replace))
            patch.setattr(Path, "unlink", seam(Path.unlink))
            try:
                archive.Archive(Path("run"))(5, last=True)
            except KeyboardInterrupt:
                pass
            else:
                break
        shutil.copytree("run", "there")
        shutil.rmtree("run")
        archive.unpack(Path("run"), lambda folder, update: None)
        assert Path("run/checkpoints/steps/5").exists() and len(rows_of(Path("run"))) == 5
        shutil.rmtree("run")
        Path("there").rename("run")
    assert moves > 4 and updates(kept(drive)) == [5] and not list(kept(drive).glob(".*.part"))

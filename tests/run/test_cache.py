"""Compiled programs outlive the machine: the next one compiles nothing that this one did."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from walking import walk

import mxnb
from mxnb.agents.ppo import PPOConfig
from mxnb.config import make_config
from mxnb.run import archive, cache
from mxnb.run.cache import keep_programs, restore_programs
from mxnb.run.fit import fit

ROOT = Path(__file__).parents[2]
TUNED = "xla_gpu_per_fusion_autotune_cache_dir"


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What outlives the machines."""
    monkeypatch.setenv("MXNB_ARCHIVE", str(tmp_path / "drive"))
    monkeypatch.setenv("MXNB_ARCHIVE_CACHE_MB", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "drive"


@pytest.fixture
def machine(tmp_path: Path, drive: Path) -> Iterator[Callable[..., Path]]:
    """machine("name", file=size, ...): a new process on it, and its compile cache with these programs besides."""
    options: Any = jax.config
    there = options.jax_compilation_cache_dir

    def new(name: str, **programs: int) -> Path:
        folder = tmp_path / name
        jax.config.update("jax_compilation_cache_dir", str(folder))
        cache._there.clear()
        for program, size in programs.items():
            folder.mkdir(exist_ok=True)
            (folder / f"{program}-cache").write_bytes(os.urandom(size))
        return folder

    yield new
    jax.config.update("jax_compilation_cache_dir", there)
    cache._there.clear()


def kept(drive: Path) -> Path:
    """The one archive."""
    (path,) = drive.glob("compile_cache-*.tar.gz")
    return path


def written(path: Path) -> tuple[int, int]:
    """Another one for what was written again; reading it changes its atime alone."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def names(drive: Path) -> set[str]:
    with tarfile.open(kept(drive)) as tar:
        return set(tar.getnames())


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pack(path: Path, **members: Any) -> None:
    """Another tar file in its place; a member is its bytes, or what kind of member it is and where it leads."""
    with tarfile.open(path, "w:gz") as tar:
        for name, what in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
            else:
                info.type, info.linkname = what
            tar.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)


def test_programs_come_back_on_the_next_machine(
    machine: Callable[..., Path], drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = machine("first", jit_a=3000, jit_b=200)
    (first / TUNED).mkdir()
    (first / TUNED / "fusion.textproto").write_text("the fastest")
    for stranger in ("jit_a-atime", ".lockfile", "notes.txt"):
        (first / stranger).write_text("not a program")
    (first / "jit_link-cache").symlink_to("jit_a-cache")
    keep_programs()
    assert f"compile cache: 2 programs kept in {kept(drive).relative_to(drive.parent)} (" in capsys.readouterr().out
    assert kept(drive).stat().st_mode & 0o777 == 0o600 and os.listdir(drive) == [kept(drive).name]
    second = machine("second")
    restore_programs()
    assert "compile cache: 2 programs brought back from " in capsys.readouterr().out
    assert contents(second) == {
        name: (first / name).read_bytes() for name in ("jit_a-cache", "jit_b-cache", f"{TUNED}/fusion.textproto")
    }
    stamps = [(folder / "jit_a-cache").stat().st_mtime for folder in (first, second)]
    assert stamps[0] == pytest.approx(stamps[1], abs=1e-3)  # so that the newest are known on any machine


def test_what_is_there_stays_and_what_is_missing_comes(
    machine: Callable[..., Path], drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = machine("first", jit_a=300, jit_b=200)
    keep_programs()
    second = machine("second", jit_a=77, jit_c=50)
    own = (second / "jit_a-cache").read_bytes()
    capsys.readouterr()
    restore_programs()
    assert "1 program brought back" in capsys.readouterr().out
    assert (second / "jit_a-cache").read_bytes() == own
    assert (second / "jit_b-cache").read_bytes() == (first / "jit_b-cache").read_bytes()
    keep_programs()
    assert names(drive) == {"jit_a-cache", "jit_b-cache", "jit_c-cache"}
    machine("second")
    capsys.readouterr()
    restore_programs()
    assert capsys.readouterr().out == ""  # nothing was missing


def test_nothing_new_writes_nothing(
    machine: Callable[..., Path], drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine("first")
    keep_programs()
    assert not drive.exists()  # no program, no file
    machine("first", jit_a=300)
    keep_programs()
    monkeypatch.setattr(cache, "_pack", lambda *a: pytest.fail("it was written again"))
    monkeypatch.setattr(cache, "_unpack", lambda *a: pytest.fail("it was read again"))
    capsys.readouterr()
    keep_programs()
    restore_programs()
    monkeypatch.undo()
    monkeypatch.setenv("MXNB_ARCHIVE", str(drive))
    monkeypatch.setenv("MXNB_ARCHIVE_CACHE_MB", "")
    before = written(kept(drive))
    machine("second")
    restore_programs()
    keep_programs()
    assert written(kept(drive)) == before and "kept" not in capsys.readouterr().out


def test_the_newest_that_there_is_room_for(
    machine: Callable[..., Path], drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = machine("first", jit_old=400, jit_middle=400, jit_new=400)
    for age, name in enumerate(("jit_new", "jit_middle", "jit_old")):
        os.utime(folder / f"{name}-cache", (1e9 - age, 1e9 - age))
    monkeypatch.setenv("MXNB_ARCHIVE_CACHE_MB", "0.001")
    keep_programs()
    assert names(drive) == {"jit_new-cache", "jit_middle-cache"}
    before = written(kept(drive))
    keep_programs()
    assert written(kept(drive)) == before
    monkeypatch.setenv("MXNB_ARCHIVE_CACHE_MB", "0.0005")  # less than before
    second = machine("second")
    restore_programs()
    assert "holds more than the 0.0005 MB of MXNB_ARCHIVE_CACHE_MB" in capsys.readouterr().out
    assert contents(second) == {}


@pytest.mark.parametrize("damage", ["flipped", "cut", "no tar", "empty", "another kind"])
def test_a_broken_archive_is_passed_over_and_replaced(
    damage: str, machine: Callable[..., Path], drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine("first", jit_a=5000, jit_b=5000)
    keep_programs()
    path, data = kept(drive), bytearray(kept(drive).read_bytes())
    if damage == "another kind":
        with tarfile.open(path, "w:bz2"):
            pass
    else:
        data[3000] ^= 1
        words = {"flipped": data, "cut": data[: len(data) // 2], "no tar": b"not a tar file", "empty": b""}
        path.write_bytes(words[damage])
    second = machine("second")
    capsys.readouterr()
    restore_programs()
    said = capsys.readouterr().out
    assert f"{path.name} cannot be used (" in said and said.count("\n") == 1
    assert contents(second) == {} and not list(second.iterdir())
    machine("second", jit_a=10)
    keep_programs()
    assert names(drive) == {"jit_a-cache"}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("../outside-cache", b"x"),
        ("/{tmp}/outside-cache", b"x"),
        (f"{TUNED}/../../outside-cache", b"x"),
        (f"{TUNED}/../outside-cache", b"x"),
        ("..-cache", b"x"),
        (".hidden-cache", b"x"),
        ("notes.txt", b"x"),
        ("folder/jit_x-cache", b"x"),
        ("jit_x-cache", (tarfile.SYMTYPE, "../outside-cache")),
        ("jit_x-cache", (tarfile.LNKTYPE, "../outside-cache")),
        ("jit_x-cache", (tarfile.FIFOTYPE, "")),
        (TUNED, (tarfile.SYMTYPE, "..")),
    ],
)
def test_what_is_no_program_is_never_unpacked(
    name: str, what: Any, machine: Callable[..., Path], drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine("first", jit_a=10)
    keep_programs()
    name = name.format(tmp=tmp_path)
    pack(kept(drive), **{"jit_first-cache": b"fine", name: what})
    second = machine("second")
    before = contents(tmp_path)
    capsys.readouterr()
    restore_programs()
    assert "is no program); programs are compiled anew" in capsys.readouterr().out
    assert contents(tmp_path) == before and not list(second.iterdir()) and not list(tmp_path.rglob("outside*"))


def test_members_own_nothing_and_may_do_nothing(machine: Callable[..., Path], drive: Path) -> None:
    """A tar file may ask for any owner and mode."""
    machine("first", jit_a=10)
    keep_programs()
    with tarfile.open(kept(drive), "w:gz") as tar:
        info = tarfile.TarInfo("jit_x-cache")
        info.uid, info.gid, info.mode = 12345, 12345, 0o6777
        tar.addfile(info, io.BytesIO())
    second = machine("second")
    restore_programs()
    about = (second / "jit_x-cache").stat()
    assert about.st_uid == os.getuid() and about.st_mode & 0o6113 == 0


@pytest.mark.parametrize("how", ["written by others", "another user's"])
def test_an_archive_that_may_be_anothers_is_left_alone(
    how: str,
    machine: Callable[..., Path],
    drive: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine("first", jit_a=10)
    keep_programs()
    if how == "written by others":
        kept(drive).chmod(0o620)
    else:
        me = os.getuid()
        monkeypatch.setattr(cache.os, "getuid", lambda: me + 1)
    before = kept(drive).read_bytes()
    second = machine("second", jit_b=20)
    capsys.readouterr()
    restore_programs()
    keep_programs()
    said = capsys.readouterr().out
    assert "somebody else may have written it, and what is in it is run; chmod 600 it if it is yours" in said
    assert said.count("\n") == 1 and set(contents(second)) == {"jit_b-cache"} and kept(drive).read_bytes() == before


def test_a_drive_that_fails_stops_nothing(
    machine: Callable[..., Path], drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine("first", jit_a=10)
    keep_programs()
    before = kept(drive).read_bytes()

    def fail(number: int) -> Any:
        def failing(*given: Any, **options: Any) -> Any:
            raise OSError(number, os.strerror(number))

        return failing

    for seam, number in ((("gzip", "open"), 5), (("tempfile", "mkdtemp"), 28)):  # reading there, writing here
        machine(f"second-{number}", jit_b=10)
        with monkeypatch.context() as patch:
            patch.setattr(getattr(cache, seam[0]), seam[1], fail(number))
            restore_programs()
        keep_programs()  # it is not known what is there, so it is not replaced
        said = capsys.readouterr().out
        assert os.strerror(number) in said and "programs are compiled anew, and it is left as it is" in said
        assert kept(drive).read_bytes() == before
    for name, number in (("mkstemp", 13), ("write", 28), ("replace", 5)):
        machine("third", jit_c=10)
        restore_programs()
        capsys.readouterr()
        with monkeypatch.context() as patch:
            if name == "write":
                patch.setattr(tarfile.TarFile, "add", fail(number))
            else:
                patch.setattr(cache.tempfile if name == "mkstemp" else cache.os, name, fail(number))
            keep_programs()
            keep_programs()
        said = capsys.readouterr().out
        assert said.count("warning: compile cache: ") == 1 and f"({OSError(number, os.strerror(number))})" in said
        assert "the run goes on, and the next machine compiles its programs anew" in said
        assert kept(drive).read_bytes() == before and os.listdir(drive) == [kept(drive).name]


def test_a_run_goes_on_without_a_drive_that_can_be_written(
    machine: Callable[..., Path], drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive.write_text("a file where the folder should be")
    machine("first", jit_a=10)
    assert fit(walk(), "run").status == "done"
    said = capsys.readouterr().out
    assert said.count("warning: compile cache: ") == 1


def test_what_a_killed_process_left_is_cleared_away(machine: Callable[..., Path], drive: Path) -> None:
    drive.mkdir()
    second = machine("second", jit_a=10)
    for folder in (drive, second):
        for age in ("old", "new"):
            (folder / f".mxnb-programs-{age}").mkdir()
            (folder / f".mxnb-programs-{age}-file").write_text("half")
        (folder / ".mxnb-of-somebody").mkdir()
        for name in ("programs-old", "programs-old-file", "of-somebody"):
            os.utime(folder / f".mxnb-{name}", (1e9, 1e9))
    keep_programs()
    machine("second")
    restore_programs()
    for folder in (drive, second):  # another process may be at the new ones
        left = {p.name for p in folder.glob(".mxnb-*")}
        assert left == {".mxnb-programs-new", ".mxnb-programs-new-file", ".mxnb-of-somebody"}


def test_when_nothing_is_done(machine: Callable[..., Path], drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("first", jit_a=10)
    monkeypatch.setenv("MXNB_ARCHIVE_CACHE_MB", "0")
    keep_programs()
    monkeypatch.setenv("MXNB_ARCHIVE_CACHE_MB", "")
    for folder in (None, "gs://bucket/jax"):
        jax.config.update("jax_compilation_cache_dir", folder)
        keep_programs()
    machine("first")
    jax.config.update("jax_compilation_cache_max_size", 1000)  # its books would not know of files that we bring
    try:
        keep_programs()
    finally:
        jax.config.update("jax_compilation_cache_max_size", -1)
    monkeypatch.setenv("MXNB_ARCHIVE", "")
    keep_programs()  # not in Colab
    assert not drive.exists()
    monkeypatch.setenv("MXNB_ARCHIVE", str(drive))
    (drive / "cache").mkdir(parents=True)
    machine("drive/cache", jit_a=10)
    keep_programs()  # it is there already
    assert os.listdir(drive) == ["cache"]
    for text in ("many", "-1", "nan", "inf"):
        monkeypatch.setenv("MXNB_ARCHIVE_CACHE_MB", text)
        with pytest.raises(ValueError, match=f"MXNB_ARCHIVE_CACHE_MB is '{text}'; it takes megabytes"):
            fit(walk(), "run")
    assert not Path("run").exists()


def test_in_colab_it_is_drive(
    machine: Callable[..., Path],
    drive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MXNB_ARCHIVE")
    monkeypatch.setattr(archive, "_DRIVE", tmp_path / "MyDrive")
    (tmp_path / "MyDrive").mkdir()
    machine("first", jit_a=10)
    keep_programs()
    assert not list((tmp_path / "MyDrive").iterdir())
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab-1")
    keep_programs()
    assert "compile cache: 1 program kept in Drive (" in capsys.readouterr().out
    machine("second")
    restore_programs()
    assert capsys.readouterr().out == "compile cache: 1 program brought back from Drive\n"
    assert kept(tmp_path / "MyDrive" / "mxnb")


def test_build_restores_and_fit_keeps(machine: Callable[..., Path], drive: Path) -> None:
    machine("first", jit_a=10)
    seen = []
    fit(walk(), "run", hooks=[lambda run_dir, rows: seen.append(names(drive))])
    assert seen[0] == {"jit_a-cache"}  # before the first update is done
    second = machine("second")
    mxnb.build(make_config(PPOConfig, preset="smoke", env_id="cartpole-v1"))
    assert set(contents(second)) == {"jit_a-cache"}
    third = machine("third")

    def evaluation(run_dir: Path, rows: Any) -> None:
        (third / "jit_late-cache").write_bytes(b"compiled late")

    fit(walk(), "run2", hooks=[evaluation])
    assert names(drive) >= {"jit_a-cache", "jit_late-cache"}


CHILD = """
import logging
logging.basicConfig()
logging.getLogger("jax._src.compiler").setLevel(logging.DEBUG)
import mxnb
from mxnb.agents.ppo import PPOConfig
from mxnb.config import make_config
plan = mxnb.plan(make_config(PPOConfig, preset="smoke", env_id="cartpole-v1"))
mxnb.fit(plan.agent, "run")
"""


def test_a_second_machine_compiles_nothing(drive: Path, tmp_path: Path) -> None:
    """Two processes with nothing in common but the archive; jax itself says what it found in its cache.

    The path of the cache is the same, as it is in Colab: jax looks for programs by that too.
    """
    home, hits, wrote, caches = tmp_path / "home", [], [], []
    environ = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "caches"), "PYTHONPATH": str(ROOT)}
    environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # or the clock decides which programs are kept
    environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    for _ in range(2):
        home.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=home, env=environ, timeout=300
        )
        assert done.returncode == 0, done.stderr
        hits.append(set(re.findall(r"compilation cache hit for '(\w+)'", done.stderr)))
        wrote.append(re.findall(r"compile cache: (.*)", done.stdout))
        caches.append(contents(home / "caches" / "mxnb" / "jax"))
        shutil.rmtree(home)
    assert {"jit_init", "jit_updates"}.isdisjoint(hits[0]) and {"jit_init", "jit_updates"} <= hits[1]
    (count,) = re.findall(r"^(\d+ programs?) kept in ", wrote[0][0])
    assert [words.split(" from ")[0] for words in wrote[1]] == [f"{count} brought back"]  # and nothing was new
    assert caches[0] == caches[1] != {}

"""A second copy of a run in a folder that outlives the machine, such as a mounted Google Drive.

The run itself stays on the local disk: orbax's renames are slow or wrong on mounted clouds. What goes there is one
tar file with everything that a resumed run needs, its sha256 in its name, and the policy.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mxnb.config import policy_file, run_root
from mxnb.run.checkpoint import Damaged
from mxnb.run.folder import Refused, free_name, shown

_DRIVE = Path("/content/drive/MyDrive")  # where google.colab mounts it
_KEEP = 2
_NAME = re.compile(r"run-(\d+)-([0-9a-f]{16})\.tar")
_LEFT_OUT = ("lock", "wandb", "checkpoints", ".*")


def in_colab() -> bool:
    """Whether this machine is one of Colab's."""
    return "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ


def minutes_from(name: str, default: float) -> float:
    """Minutes in the environment variable `name`; ValueError names it where it is no number of 0 or more."""
    text = os.environ.get(name, "")
    try:
        minutes = float(text) if text else default
    except ValueError:
        minutes = -1.0
    if not minutes >= 0:
        raise Refused(f"the environment variable {name} is {text!r}; it takes minutes, such as 5 or 0.5")
    return minutes


def archive_root() -> Path | None:
    """What outlives the machine: $MXNB_ARCHIVE, or in Colab Drive's folder mxnb, if it is mounted."""
    if root := os.environ.get("MXNB_ARCHIVE", ""):
        return Path(root)
    with suppress(OSError):
        if in_colab() and _DRIVE.is_dir():
            return _DRIVE / "mxnb"
    return None


def archive_folder(run_dir: Path) -> Path | None:
    """Where this run is archived, below `archive_root`; None where there is none."""
    if (root := archive_root()) is None:
        return None
    here, base = run_dir.resolve(), run_root().resolve()
    return root / (here.relative_to(base) if here.is_relative_to(base) else here.relative_to(here.anchor))


class Stored(NamedTuple):
    """An archived state of a run; its file is called run-<update>-<first 16 letters of its sha256>.tar."""

    update: int
    digest: str
    path: Path


def was_archived(run_dir: Path) -> bool:
    """Whether the archive knows of this run, be it by its policy alone."""
    folder = archive_folder(run_dir)
    return bool(_stored(folder)) or (folder is not None and policy_file(folder).exists())


def _stored(folder: Path | None) -> list[Stored]:
    """The archived states of a run, the newest first."""
    if folder is None:
        return []
    names = ((_NAME.fullmatch(path.name), path) for path in folder.glob("run-*.tar"))
    return sorted((Stored(int(name[1]), name[2], path) for name, path in names if name), reverse=True)


class Archive:
    """Copies a run away: the policy at every save; everything at the first, then at most every 30 minutes, at the end.

    $MXNB_ARCHIVE_MINUTES changes the 30. A copy that fails is told once and never stops the run.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.folder = run_dir, archive_folder(run_dir)
        self.every = 60 * minutes_from("MXNB_ARCHIVE_MINUTES", 30.0)
        self.at, self.failed = -math.inf, False

    def __call__(self, update: int, *, last: bool = False) -> None:
        """After a save: brings the archive up to date with checkpoint `update`."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                if last or time.monotonic() - self.at >= self.every:
                    _pack(self.run_dir, self.folder, update)
                    self.at = time.monotonic()
            finally:  # after it: a policy there says that a run can be brought back
                _copy_policy(self.run_dir, self.folder)
            self.failed = False
        except Exception as error:
            if last or not self.failed:
                cure = (
                    "mount Drive and make room on it"
                    if in_colab()
                    else "set MXNB_ARCHIVE to a folder that can be written"
                )
                goes_on = "this run has no newest copy there" if last else "the run goes on and tries again"
                print(
                    f"warning: the archive {self.folder} could not be written ({error}): {goes_on}; {cure}", flush=True
                )
            self.failed = True

    def catch_up(self, update: int) -> None:
        """For a finished run: archives it if that has not been done, say because no Drive was mounted then."""
        if self.folder is not None and not any(stored.update == update for stored in _stored(self.folder)):
            self(update, last=True)


def unpack(run_dir: Path, check: Callable[[Path, int], Any], above: int = -1) -> bool:
    """Brings the newest archived state that is whole into `run_dir`, with a word; whether there was one.

    check(folder, update) raises where the archived run is another one's, and nothing is moved then; or `Damaged`, and
    the one before is tried. An OSError, of a Drive that does not answer or a disk that is full, says nothing about the
    archive and is the caller's. Only states of updates above `above` count. What is in `run_dir` stays but for the
    files that the archive has too, and the checkpoint counts only when all else is in place.
    """
    for update, digest, path in _stored(archive_folder(run_dir)):
        if update <= above:
            break
        fresh = run_dir / ".unpacking"
        try:
            if _sha256(path) != digest:
                raise Damaged("it is not what was written")
            shutil.rmtree(fresh, ignore_errors=True)
            with tarfile.open(path) as tar:
                careful: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                tar.extractall(fresh, **careful)
            check(fresh, update)
            _merge(fresh, run_dir)
        except (Damaged, tarfile.TarError) as error:
            print(f"the archive {path} cannot be used ({error})", flush=True)
            continue
        except Refused as error:
            raise Refused(str(error).replace(str(fresh), f"the archive {path}")) from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        print(f"brought {shown(run_dir)} back from {path}, as of update {update:,}", flush=True)
        return True
    return False


def _merge(source: Path, target: Path) -> None:
    """Moves what is in `source` over `target`, but for a config.json there; checkpoints, each in one move, at last."""
    steps = Path("checkpoints") / "steps"
    for path in sorted(source.rglob("*")):
        part = path.relative_to(source)
        if path.is_file() and not part.is_relative_to(steps) and part != Path("config.json"):
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            path.replace(target / part)
    if not (target / "config.json").exists():
        (source / "config.json").replace(target / "config.json")
    for path in (source / steps).iterdir():
        (target / steps).mkdir(parents=True, exist_ok=True)
        if not (target / steps / path.name).exists():
            path.rename(target / steps / path.name)


def set_archive_aside(run_dir: Path) -> None:
    """Keeps the archive of an earlier run from being taken for this one's; OSError where it cannot be renamed."""
    folder = archive_folder(run_dir)
    if folder is not None and folder.exists():
        print(f"the earlier archive is kept in {folder.rename(free_name(folder))}")


def _pack(run_dir: Path, folder: Path, update: int) -> None:
    """Writes the tar file, gives it the name that makes it count, then removes all but the newest two."""
    if any(stored.update > update for stored in _stored(folder)):  # of a run that had got further than this one
        set_archive_aside(run_dir)
        folder.mkdir(parents=True)
    for torn in folder.glob(".*.part"):
        torn.unlink()
    fresh = folder / f".run-{update}.part"
    try:
        with tarfile.open(fresh, "w") as tar:
            for part in sorted(run_dir.iterdir()):
                tar.add(part, part.name, filter=partial(_worth_keeping, run_dir))
            for part in (f"checkpoints/steps/{update}", "checkpoints/best"):
                if (run_dir / part).exists():
                    tar.add(run_dir / part, part)
        path = fresh.replace(folder / f"run-{update}-{_sha256(fresh)}.tar")
    finally:
        fresh.unlink(missing_ok=True)
    others = [stored for stored in _stored(folder) if stored.path != path]
    earlier = [stored for stored in others if stored.update < update]
    for old in others:
        if old not in earlier[: _KEEP - 1]:
            old.path.unlink(missing_ok=True)


def _worth_keeping(run_dir: Path, info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """None for what a resumed run does not need, and for side runs, which have archives of their own."""
    name = Path(info.name)
    left_out = any(name.match(pattern) for pattern in _LEFT_OUT) or (run_dir / name / "config.json").exists()
    return None if left_out or info.issym() or info.islnk() else info


def _copy_policy(run_dir: Path, folder: Path) -> None:
    """What `load_policy(folder)` needs."""
    for part in ("config.json", "policy/params.npz"):
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.part")
        shutil.copyfile(run_dir / part, fresh)
        fresh.replace(target)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]

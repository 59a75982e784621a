"""Compiled programs in the folder that outlives the machine, beside the runs that `mxnb.run.archive` keeps there.

The compile cache itself stays on the local disk: on a mounted Drive every program would be read over the network. What
goes there is one tar file for each kind of machine. Whoever can write it can run code here, so one that is not this
user's alone is left untouched, and so is whatever in it is not a program of jax's.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import re
import shutil
import stat
import tarfile
import tempfile
import time
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mxnb.run.archive import archive_root
from mxnb.run.folder import Refused, shown

_PROGRAM = re.compile(r"[^./\\][^/\\]*-cache")  # as jax names what it has compiled
_TUNED = "xla_gpu_per_fusion_autotune_cache_dir"  # where XLA keeps which of a GPU's kernels were fastest
_TUNING = re.compile(rf"{_TUNED}/[^./\\][^/\\]*")
_DRAFT = ".mxnb-programs-"
_TORN = 3600.0  # seconds after which an unfinished copy is nobody's any more


class _Places(NamedTuple):
    archive: Path
    folder: Path  # the compile cache
    most: int  # bytes that the archive may hold


class _Unusable(Exception):
    """An archive that cannot have been written by `keep_programs`, or not to the end."""


# What this process knows to be in each archive; None where that could not be found out, so it is left as it is.
_there: dict[_Places, set[str] | None] = {}


def restore_programs() -> None:
    """Before the first compile: brings what an earlier machine has compiled into the compile cache, with a word.

    Does something once a process, where runs are archived (see `archive_folder`). What the cache has already stays as
    it is. An archive that is broken or somebody else's, or a Drive that does not answer, is told and stops nothing.

    Raises `Refused` where $MXNB_ARCHIVE_CACHE_MB is no number of 0 or more; 0 turns this off.
    """
    places = _places()
    if places is None or places in _there:
        return
    archive, folder, _ = places
    _there[places] = None
    try:
        names, fresh = _unpack(places)
    except FileNotFoundError:
        _there[places] = set()
        return
    except _Unusable as error:
        _there[places] = set()  # the next one takes its place
        print(f"compile cache: {shown(archive)} cannot be used ({error}); programs are compiled anew", flush=True)
        return
    except Exception as error:
        print(
            f"warning: compile cache: {shown(archive)} could not be brought to {shown(folder)} ({error}); "
            "programs are compiled anew, and it is left as it is",
            flush=True,
        )
        return
    _there[places] = names
    if count := sum(_TUNING.fullmatch(name) is None for name in fresh):
        print(f"compile cache: {_programs(count)} brought back from {_shortly(archive)}", flush=True)


def keep_programs() -> None:
    """After compiling: copies the compile cache away where it has programs that are not there yet, with a word.

    At most $MXNB_ARCHIVE_CACHE_MB (by default 500) of the newest. What goes wrong is told and stops nothing.
    """
    restore_programs()
    places = _places()
    if places is None or (there := _there[places]) is None:
        return
    try:
        names = _newest(places)
        if set(names) <= there:
            return
        size = _pack(places, names)
    except Exception as error:
        _there[places] = None
        print(
            f"warning: compile cache: {shown(places.archive)} could not be written ({error}): the run goes on, and the "
            "next machine compiles its programs anew",
            flush=True,
        )
        return
    _there[places] = set(names)
    count = sum(_PROGRAM.fullmatch(name) is not None for name in names)
    print(f"compile cache: {_programs(count)} kept in {_shortly(places.archive)} ({size / 1e6:.1f} MB)", flush=True)


def _places() -> _Places | None:
    """Where the programs are and where they are kept; None where nothing is, or the cache is no folder of this disk."""
    options: Any = jax.config
    told, root, most = options.jax_compilation_cache_dir, archive_root(), _most()
    if not told or "://" in str(told) or root is None or not most:
        return None
    if options.jax_compilation_cache_max_size != -1:  # jax then has books of its own on what is in the folder
        return None
    folder = Path(told).absolute()
    if folder.is_relative_to(root.absolute()):
        return None
    return _Places(root / f"compile_cache-{_machine()}.tar.gz", folder, most)


def _most() -> int:
    text = os.environ.get("MXNB_ARCHIVE_CACHE_MB", "")
    with suppress(ValueError, OverflowError):
        if (most := int(1e6 * float(text or 500))) >= 0:
            return most
    raise Refused(f"the environment variable MXNB_ARCHIVE_CACHE_MB is {text!r}; it takes megabytes, such as 500, or 0")


@cache
def _machine() -> str:
    """The kind of device, as part of a file's name; of a CPU with what it can do: programs of another may crash it."""
    device = jax.devices()[0]
    name = device.device_kind
    if device.platform == "cpu":
        able = [platform.machine(), platform.processor()]
        with suppress(OSError):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            able += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
        name = f"cpu-{hashlib.sha256(repr(able).encode()).hexdigest()[:8]}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _unpack(places: _Places) -> tuple[set[str], set[str]]:
    """(names in the archive, those that were not in the cache); nothing counts before all of it was read."""
    archive, folder, most = places
    about = archive.stat()
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise PermissionError(
            f"of user {about.st_uid}, mode {stat.filemode(about.st_mode)}: somebody else may have written it, and what "
            "is in it is run; chmod 600 it if it is yours, else delete it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _clear_torn(folder)
    fresh = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=folder))
    names: set[str] = set()
    try:
        with gzip.open(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isreg() or not (_PROGRAM.fullmatch(member.name) or _TUNING.fullmatch(member.name)):
                    raise _Unusable(f"{member.name!r} in it is no program")
                most -= member.size
                if most < 0:
                    raise _Unusable(f"it holds more than the {places.most / 1e6:g} MB of MXNB_ARCHIVE_CACHE_MB")
                names.add(member.name)
                _write(tar, member, fresh / member.name)
            while file.read(1 << 20):  # up to the checksum
                pass
        missing = {name for name in names if not (folder / name).exists()}
        for name in missing:
            (folder / name).parent.mkdir(exist_ok=True)
            (fresh / name).replace(folder / name)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _Unusable(str(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _Unusable(str(error)) from error  # gzip's: a wrong checksum
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return names, missing


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """One file, and nothing else of what the tar file says about it but its time: who owns it, say, or may write it."""
    source = tar.extractfile(member)
    assert source is not None  # a regular file
    path.parent.mkdir(exist_ok=True)
    with source, open(path, "wb") as file:
        shutil.copyfileobj(source, file)
    os.utime(path, (member.mtime, member.mtime))


def _newest(places: _Places) -> list[str]:
    """The files of the cache that are worth keeping, the newest first, as many as there is room for."""
    files = []
    for path in (*places.folder.glob("*-cache"), *(places.folder / _TUNED).glob("*")):
        name = path.relative_to(places.folder).as_posix()
        with suppress(OSError):  # another process has cleared it away
            about = path.lstat()
            if stat.S_ISREG(about.st_mode) and (_PROGRAM.fullmatch(name) or _TUNING.fullmatch(name)):
                files.append((about.st_mtime, about.st_size, name))
    names, room = [], places.most
    for _, size, name in sorted(files, reverse=True):
        room -= size
        if room < 0:
            break
        names.append(name)
    return names


def _pack(places: _Places, names: list[str]) -> int:
    """Writes the archive beside its place, then moves it there; its size in bytes."""
    root = places.archive.parent
    root.mkdir(parents=True, exist_ok=True)
    _clear_torn(root)
    number, fresh = tempfile.mkstemp(prefix=_DRAFT, dir=root)  # which nobody else may read or write
    try:
        # Not compressed, for jax has done that: gzip is there for its checksum.
        with os.fdopen(number, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=0) as tar:
            for name in names:
                tar.add(places.folder / name, name, recursive=False)
        size = os.path.getsize(fresh)
        os.replace(fresh, places.archive)
    finally:
        Path(fresh).unlink(missing_ok=True)
    return size


def _clear_torn(folder: Path) -> None:
    """Removes what a process that was killed has left."""
    for path in folder.glob(f"{_DRAFT}*"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > _TORN:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _programs(count: int) -> str:
    return "1 program" if count == 1 else f"{count:,} programs"


def _shortly(archive: Path) -> str:
    """Drive is what readers call it; any other folder by its name."""
    return shown(archive) if os.environ.get("MXNB_ARCHIVE") else "Drive"

"""One run, one process: a lock on the run folder that ends with its owner, however that ends."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no such lock; folders are not guarded there
    fcntl: Any = None

_BEAT = 20.0  # seconds between heartbeats
_WATCH = 50.0  # seconds without one after which an owner that no lock of the system's vouches for counts as dead
_LONG = 600.0  # seconds since a heartbeat after which nobody watches


class InUse(RuntimeError):
    """Another process trains in the run folder."""


@contextmanager
def locked(run_dir: Path, name: str = "lock") -> Iterator[int | None]:
    """Holds `run_dir`/`name`, a JSON file of host, pid and heartbeat; makes the folder if it is not there.

    On one machine the operating system frees the lock with its process, also after SIGKILL. Between machines, and on
    file systems without locks, the heartbeat counts: it is watched for 50 seconds, and if it does not move, its owner
    is dead. `InUse` names the process that holds the folder. The folder may be renamed while the lock is held.

    Yields the lock's file descriptor, None where the system has none: a process that inherits it holds the lock too.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the run folder {run_dir} cannot be made ({error}); use another run_dir") from None
    if fcntl is None:
        yield None
        return
    file = _take(run_dir, name)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(file, over), daemon=True)
    beating.start()
    try:
        yield file
    finally:
        over.set()
        beating.join()
        with suppress(OSError):
            os.ftruncate(file, 0)  # emptied, not unlinked: another process may be looking at this very file
        os.close(file)


def held(run_dir: Path, name: str = "lock") -> bool:
    """Whether a process trains in `run_dir`; where the file system has no locks, whether it has said so of late."""
    if fcntl is None:
        return True
    try:
        file = os.open(run_dir / name, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:  # another user's, say
        return True
    try:
        return not _flock(file) and time.time() - float(_read(file).get("beat", 0.0)) < _LONG
    except BlockingIOError:
        return True
    finally:
        os.close(file)


def _take(run_dir: Path, name: str) -> int:
    """A descriptor of the locked file, or InUse."""
    path = run_dir / name
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            owner = _read(file)
            for look in range(6):
                try:
                    ours = _flock(file)
                    break
                except BlockingIOError:
                    if look == 5:
                        raise InUse(_words(run_dir, owner)) from None
                    time.sleep(0.05)  # `held` takes it for a moment, to look
            with suppress(OSError):
                if not os.path.samestat(os.fstat(file), os.stat(path)):
                    raise FileNotFoundError  # the folder was renamed meanwhile
                if owner and not (ours and owner.get("host") == socket.gethostname()):
                    _watch(file, owner, run_dir)
                _write(file)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        run_dir.mkdir(parents=True, exist_ok=True)


def _flock(file: int) -> bool:
    """Takes the system's lock; BlockingIOError if another holds it, False where the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _watch(file: int, owner: dict[str, Any], run_dir: Path) -> None:
    """Waits to see whether another machine's owner lives; InUse if it does."""
    if time.time() - float(owner.get("beat", 0.0)) > _LONG:
        return
    print(f"{_words(run_dir, owner).split(';')[0]}, or was; watching for {_WATCH:.0f} s ...", flush=True)
    until = time.monotonic() + _WATCH
    while time.monotonic() < until:
        time.sleep(min(1.0, _WATCH / 10))
        if _read(file) not in ({}, owner):
            raise InUse(_words(run_dir, owner))


def _beat(file: int, over: threading.Event) -> None:
    while not over.wait(_BEAT):
        _write(file)


def _write(file: int) -> None:
    """Says who holds the file; what cannot be written (a full disk) is no reason to stop: the lock itself holds."""
    text = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "beat": time.time()}).encode()
    with suppress(OSError):
        os.pwrite(file, text, 0)
        os.ftruncate(file, len(text))


def _read(file: int) -> dict[str, Any]:
    try:
        return dict(json.loads(os.pread(file, 4096, 0)))
    except (OSError, ValueError):
        return {}


def _words(run_dir: Path, owner: dict[str, Any]) -> str:
    who = f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
    return f"{run_dir} is in use by {who}; wait for it, stop it, or use another run_dir"

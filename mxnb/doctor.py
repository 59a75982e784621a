"""Is everything here ready? `mxnb.doctor()` looks at the machine, `python -m mxnb doctor --envs` at the environments.

A row is green, grey (good to know) or red, and a red one names its mend. Looking changes nothing: devices are asked
in another process, and one that somebody else holds is left alone.
"""

from __future__ import annotations

import bz2
import html
import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mxnb.config import ENV_IDS, canonical_env_id, run_root, use_compilation_cache

GOOD, NOTE, BAD = "ok", "note", "broken"
_SIGNS = {GOOD: "✓", NOTE: "·", BAD: "✗"}
_COLOURS = {GOOD: "#009E73", NOTE: "#757575", BAD: "#D55E00"}
_DRIVE = Path("/content/drive/MyDrive")
_TPU_LOCK = "/tmp/libtpu_lockfile"
_CHIPS = ("/dev/accel*", "/dev/vfio/[0-9]*")  # a TPU's, which one process at a time may open
_LEAST_DISK = 5e9  # bytes that the largest preset may use
_NEEDED = ("flax", "optax", "orbax-checkpoint", "gymnax", "craftax", "numpy")
_ASK = (
    "import json, jax; print(json.dumps([[d.platform, d.device_kind, (d.memory_stats() or {}).get('bytes_limit')] "
    "for d in jax.local_devices()]))"
)


@dataclass(frozen=True)
class Row:
    """One thing that was looked at: state is "ok", "note" or "broken"."""

    name: str
    state: str
    words: str
    mend: str = ""


@dataclass(frozen=True, repr=False)
class Checkup:
    """All rows: a table in a notebook, plain text elsewhere; `.ok` is False where one is broken."""

    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return not any(row.state == BAD for row in self.rows)

    def __repr__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = []
        for row in self.rows:
            lines.append(f"{_SIGNS[row.state]} {row.name:<{width}}  {row.words}")
            lines += [f"  {'':<{width}}  mend: {row.mend}"] if row.mend else []
        broken = sum(row.state == BAD for row in self.rows)
        return "\n".join([*lines, "all is ready" if self.ok else f"{broken} of {len(self.rows)} rows need a mend"])

    def _repr_html_(self) -> str:
        look = "text-align:left;vertical-align:top;padding:3px 10px;white-space:normal"
        cell, words = f'style="{look}"', f'style="{look};overflow-wrap:anywhere"'  # no path widens it
        lines = []
        for row in self.rows:
            sign = f'<b style="color:{_COLOURS[row.state]};white-space:nowrap">{_SIGNS[row.state]} {row.state}</b>'
            mend = f"<br><b>Mend:</b> {html.escape(row.mend)}" if row.mend else ""
            lines.append(
                f"<tr><td {cell}>{sign}</td><td {cell}>{html.escape(row.name)}</td>"
                f"<td {words}>{html.escape(row.words)}{mend}</td></tr>"
            )
        return f'<div style="overflow-x:auto"><table>{"".join(lines)}</table></div>'


def doctor() -> Checkup:
    """Looks at Python, jax, its plug-ins, the devices, distrax, Craftax's textures, caches, disk, Drive and wandb.

    Takes some seconds, most of them for asking the devices. Changes nothing and needs no network.
    """
    looks: tuple[tuple[str, Callable[[], Row]], ...] = (
        ("Python", _python),
        ("jax", _jax),
        ("plug-ins", _plugins),
        ("devices", _devices),
        ("memory share", _memory_share),
        ("distrax", _distrax),
        ("Craftax textures", _textures),
        ("compile cache", _cache),
        ("disk", _disk),
        ("Drive", _drive),
        ("wandb", _wandb),
    )
    rows = []
    for name, look in looks:
        try:
            rows.append(look())
        except Exception as error:  # a doctor who faints helps nobody
            rows.append(
                Row(
                    name,
                    BAD,
                    f"could not be looked at: {type(error).__name__}: {error}",
                    f"look at the cause, {type(error).__name__}; the other rows stand",
                )
            )
    return Checkup(tuple(rows))


def _installed(name: str) -> str:
    """The version of an installed package, or ""."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _python() -> Row:
    here = platform.python_version()
    if tuple(map(int, here.split(".")[:2])) < (3, 11):
        return Row("Python", BAD, here, "mxnb needs Python 3.11 or newer")
    return Row("Python", GOOD, here)


def _jax() -> Row:
    jax, jaxlib = _installed("jax"), _installed("jaxlib")
    if not jax or not jaxlib:
        return Row("jax", BAD, f"jax {jax or 'is missing'}, jaxlib {jaxlib or 'is missing'}", "pip install jax")
    if _numbers(jax) < (0, 7, 2):
        return Row("jax", BAD, f"jax {jax} is too old", "pip install 'jax>=0.7.2', before anything imports it")
    if _numbers(jax)[:2] != _numbers(jaxlib)[:2]:
        return Row("jax", BAD, f"jax {jax} beside jaxlib {jaxlib}", f"pip install jaxlib=={jax}, then restart")
    running = getattr(_imported_jax(), "__version__", jax)
    if running != jax:
        words = f"jax {running} is running, and {jax} is installed"
        return Row("jax", BAD, words, "restart (in Colab: Runtime > Restart)")
    if missing := [name for name in _NEEDED if not _installed(name)]:
        return Row("jax", BAD, f"jax {jax}; missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Row("jax", GOOD, f"jax {jax}, jaxlib {jaxlib}, flax {_installed('flax')}")


def _imported_jax() -> Any:
    """The module, where something has imported it."""
    return sys.modules.get("jax")


def _numbers(version_: str) -> tuple[int, ...]:
    """0.7.2rc1 as (0, 7, 2)."""
    return tuple(int(re.match(r"\d*", part)[0] or 0) for part in version_.split(".")[:3])  # type: ignore[index]


def _plugins() -> Row:
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return Row("plug-ins", GOOD, "JAX_PLATFORMS is cpu: no accelerator is used")
    if metal := _installed("jax-metal"):
        words = f"jax-metal {metal} lacks operations that mxnb needs"
        return Row("plug-ins", BAD, words, "set JAX_PLATFORMS=cpu before Python starts, or pip uninstall jax-metal")
    jaxlib = _installed("jaxlib")
    cuda = {name: found for n in (12, 13) if (found := _installed(name := f"jax-cuda{n}-plugin"))}
    for name, found in cuda.items():
        if found != jaxlib:
            return Row("plug-ins", BAD, f"{name} {found} beside jaxlib {jaxlib}", f"pip install {name}=={jaxlib}")
    if not cuda and shutil.which("nvidia-smi"):
        words = "there is an NVIDIA driver, and jax has no CUDA plug-in"
        return Row("plug-ins", BAD, words, f"pip install 'jax[cuda12]=={jaxlib}', then restart")
    if _chips() and not _installed("libtpu"):
        return Row(
            "plug-ins", BAD, "there is a TPU, and jax has no libtpu", f"pip install 'jax[tpu]=={jaxlib}', then restart"
        )
    told = [f"{name} {found}" for name, found in {**cuda, "libtpu": _installed("libtpu")}.items() if found]
    return Row("plug-ins", GOOD if told else NOTE, ", ".join(told) or "none: jax runs on the CPU")


def _devices() -> Row:
    only_cpu = os.environ.get("JAX_PLATFORMS", "") == "cpu"
    holder = "" if only_cpu or _initialised() else _chip_holder()
    if holder:
        words = f"a TPU is here, and {holder} holds it; one process owns the chip"
        pid = holder.split()[1]
        mend = (
            f"if no such process runs, sudo rm {_TPU_LOCK}; if one does, end it"
            if pid == "?"
            else f"end it (kill {pid})"
        )
        return Row("devices", BAD, words, f"{mend}, or set JAX_PLATFORMS=cpu before Python starts")
    try:
        found = _asked_here() if _initialised() else _asked_elsewhere()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        named = os.environ.get("JAX_PLATFORMS", "")
        mend = f"unset JAX_PLATFORMS (it is {named!r})" if named else "restart; then look at the rows above"
        return Row("devices", BAD, f"jax cannot open its devices: {str(error)[-300:]}", mend)
    told = []
    for where, kind, limit in sorted(set(found), key=str):
        count = sum(one[1] == kind for one in found)
        room = f", {limit / 2**30:.1f} GiB usable" if limit else ""
        told.append(f"{f'{count} x ' if count > 1 else ''}{kind if where != 'cpu' else 'CPU'}{room}")
    words = "; ".join(told)
    gpu = os.environ.get("COLAB_GPU", "0") not in ("", "0")
    if gpu and not only_cpu and all(one[0] == "cpu" for one in found):
        return Row("devices", BAD, f"this runtime has a GPU, and jax sees {words}", "Runtime > Disconnect and delete")
    return Row("devices", GOOD, words)


def _initialised() -> bool:
    """Whether jax has opened its devices in this process."""
    if "jax" not in sys.modules:
        return False

    bridge = importlib.import_module("jax._src.xla_bridge")
    return bool(bridge.backends_are_initialized())


def _asked_here() -> list[tuple[str, str, int | None]]:
    import jax

    return [(d.platform, d.device_kind, (d.memory_stats() or {}).get("bytes_limit")) for d in jax.local_devices()]


def _asked_elsewhere() -> list[tuple[str, str, int | None]]:
    """The devices as another process sees them; RuntimeError with the last line it wrote where it fails."""
    more = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # only looking
    done = subprocess.run(
        [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=90, env=os.environ | more, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise RuntimeError(lines[-1])
    return [tuple(one) for one in json.loads(done.stdout.strip().splitlines()[-1])]


def _chips() -> set[str]:
    return {str(path) for pattern in _CHIPS for path in Path("/").glob(pattern[1:])}


def _chip_holder() -> str:
    """Another process that has a TPU open, as "process PID (name)"; "" where none is seen."""
    chips = _chips()
    for folder in Path("/proc").glob("[0-9]*") if chips else ():
        if int(folder.name) != os.getpid() and any(link in chips for link in _links(folder / "fd")):
            return f"process {folder.name} ({(folder / 'comm').read_text().strip()})"
    lock = Path(_TPU_LOCK)  # libtpu's own, which other users' processes leave too
    if chips and lock.exists() and not os.access(lock, os.W_OK):
        return f"process ? (of another user, by {lock})"
    return ""


def _links(folder: Path) -> Iterator[str]:
    """What the files of a process point to; nothing where we may not look."""
    try:
        for entry in folder.iterdir():
            yield os.readlink(entry)
    except OSError:
        return


def _memory_share() -> Row:
    new, old = (os.environ.get(name) for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"))
    if new and old:
        words = "XLA_CLIENT_MEM_FRACTION and XLA_PYTHON_CLIENT_MEM_FRACTION are both set, and jax refuses that"
        return Row("memory share", BAD, words, "unset XLA_PYTHON_CLIENT_MEM_FRACTION, the older name")
    if "tensorflow" in sys.modules:
        words = "TensorFlow is imported here, and takes a GPU's memory for itself"
        return Row("memory share", BAD, words, "restart, and do not import TensorFlow beside mxnb")
    if os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "").lower() in ("false", "0"):
        return Row("memory share", NOTE, "a GPU's memory is taken as it is needed (slower, and it may fragment)")
    share = new or old or "0.75"
    if not re.fullmatch(r"0?\.\d+|1(\.0*)?", share):
        return Row(
            "memory share", BAD, f"the share {share!r} is no number from 0 to 1", "set it to 0.75, say, or unset it"
        )
    return Row("memory share", GOOD, f"of a GPU, jax takes {float(share):.0%} at its first use")


def _distrax() -> Row:
    mend = "pip install 'distrax>=0.1.7' before anything is imported, then restart"
    found = _installed("distrax")
    if not found:
        return Row("distrax", BAD, "missing", mend)
    try:
        importlib.import_module("distrax")
    except Exception as error:
        return Row("distrax", BAD, f"{found} cannot be imported: {type(error).__name__}: {error}", mend)
    return Row("distrax", GOOD, found)


def _textures() -> Row:
    spec = importlib.util.find_spec("craftax")
    if spec is None or not spec.origin:
        return Row("Craftax textures", BAD, "craftax is missing", "pip install 'craftax>=1.6'")
    home = Path(spec.origin).parent
    missing = []
    own = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mxnb"
    for part, name in (("craftax_classic", "texture_cache_classic.pbz2"), ("craftax", "texture_cache.pbz2")):
        path = home / part / "assets" / name
        path = path if os.access(path.parent, os.W_OK) else own / name  # as mxnb.envs.craftax chooses
        if not path.exists():
            missing.append("Classic" if "classic" in name else "full")
            continue
        try:
            with bz2.open(path) as file:
                while file.read(1 << 20):
                    pass
        except (OSError, EOFError):
            mend = f"nothing to do (or delete {path.name} in {path.parent})"
            return Row("Craftax textures", BAD, f"{name} is damaged; mxnb makes it again at the first use", mend)
    if missing:
        words = f"not made yet for {' and '.join(missing)}: about a minute each, at the first use"
        return Row("Craftax textures", NOTE, words)
    return Row("Craftax textures", GOOD, "there, for Classic and full")


def _cache() -> Row:
    config = getattr(_imported_jax(), "config", None)
    told = getattr(config, "jax_compilation_cache_dir", None) or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if told and "://" in str(told):
        return Row("compile cache", NOTE, f"in a bucket, {told}, so every process pays for reading it")
    folder = Path(told or _default_cache())
    if folder.is_relative_to(_DRIVE):
        mend = "unset JAX_COMPILATION_CACHE_DIR; a copy is kept on Drive without that"
        return Row("compile cache", BAD, "on Drive, where each program is read over the network", mend)
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(nearest, os.W_OK) or not nearest.is_dir():
        mend = "set JAX_COMPILATION_CACHE_DIR to a folder of your own"
        return Row("compile cache", BAD, f"{folder} cannot be written", mend)
    if folder.exists() and folder.stat().st_mode & 0o002:
        mend = f"chmod o-w {folder}"
        return Row("compile cache", BAD, "everybody may write there, and what is there is run", mend)
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    size = 0
    for path in files:
        with suppress(OSError):  # another process has cleared it away
            size += path.stat().st_size
    kept = 0
    with suppress(OSError):  # a Drive that does not answer
        kept = sum(path.stat().st_size for path in (_DRIVE / "mxnb").glob("compile_cache-*.tar.gz"))
    copy = f"; {kept / 1e6:.0f} MB kept on Drive" if kept else ""
    return Row("compile cache", GOOD, f"{len(files)} files, {size / 1e6:.0f} MB in {folder}{copy}")


def _default_cache() -> Path:
    """Where `mxnb.config.use_compilation_cache` keeps programs."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mxnb" / "jax"


def _disk() -> Row:
    root = Path(os.environ.get("MXNB_RUN_DIR") or run_root())
    nearest = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    words = f"{free / 1e9:.1f} GB free for runs in {root}"
    if not os.access(nearest, os.W_OK):
        return Row("disk", BAD, f"{root} cannot be written", "set MXNB_RUN_DIR to a folder of your own")
    if free < _LEAST_DISK:
        return Row("disk", BAD, words, "make room, or set MXNB_RUN_DIR to a folder on another disk")
    return Row("disk", GOOD, words)


def _drive() -> Row:
    if "google.colab" not in sys.modules and "COLAB_RELEASE_TAG" not in os.environ:
        return Row("Drive", NOTE, "not in Colab")
    if not _DRIVE.is_dir():
        mend = "click the folder symbol on the left, then Mount Drive; runs are then archived there and survive"
        return Row("Drive", BAD, "not mounted: when Colab takes the machine, the run is gone", mend)
    free = shutil.disk_usage(_DRIVE).free
    if free < _LEAST_DISK / 10:
        return Row(
            "Drive", BAD, f"mounted, {free / 1e9:.2f} GB free", "make room there: archives take up to 200 MB each"
        )
    return Row("Drive", GOOD, f"mounted, {free / 1e9:.0f} GB free")


def _wandb() -> Row:
    found = _installed("wandb")
    mode = os.environ.get("WANDB_MODE", "")
    if not found:
        return Row("wandb", NOTE, "not installed; runs need it only with wandb=True (pip install wandb)")
    if mode == "online" and not os.environ.get("WANDB_API_KEY") and not (Path.home() / ".netrc").exists():
        return Row("wandb", BAD, "WANDB_MODE is online, and nobody is logged in", "wandb login, or unset WANDB_MODE")
    return Row("wandb", GOOD, f"{found}, {mode or 'off unless a run asks for it'}")


def envs(make: Callable[[str], Any], ids: Sequence[str] = ()) -> bool:
    """Checks every environment (or those named), prints a line each and the words of every broken rule.

    make: how an id becomes an `Env`, as `mxnb.make`. Returns whether all are ready; ValueError for unknown ids.
    """
    from mxnb.envs.check import check

    use_compilation_cache()
    chosen = [canonical_env_id(i) for i in ids] or list(ENV_IDS)
    print(f"Checking {len(chosen)} environments; the Craftax ones take about a minute each the first time.", flush=True)
    width = max(map(len, chosen))
    ready = 0
    for env_id in chosen:
        start = time.monotonic()
        try:
            report = check(make(env_id))
            problems = report.problems
        except Exception as error:
            problems = (f"cannot be made: {type(error).__name__}: {error}",)
        ready += not problems
        print(
            f"  {env_id:<{width}}  {'BROKEN' if problems else 'ok':<6}  {time.monotonic() - start:5.1f} s", flush=True
        )
        for problem in problems:
            print(f"    {problem}", flush=True)
    print(f"{ready} of {len(chosen)} environments are ready.")
    return ready == len(chosen)

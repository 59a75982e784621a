"""Checkpoints that are verified before they are trusted, and the policy as a plain npz file.

A checkpoint is the whole training state, saved by orbax, and a JSON record beside it with each leaf's shape, dtype
and sha256: orbax restores a file with a flipped byte without a word, casts dtypes silently and takes an empty folder
for the newest checkpoint. What fails verification is set aside in checkpoints/bad, never deleted.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mxnb.config import write_json
from mxnb.run import hosts
from mxnb.run.folder import shown
from mxnb.run.hosts import keyed, numbers

SCHEMA = 2
"""2: with the leaves' digests; 1, which had none, is refused."""


class Drift(ValueError):
    """A whole checkpoint whose shapes or dtypes are not those asked for."""


class Damaged(ValueError):
    """A file that is not what was written."""


class Lost(ValueError):
    """A run was saved, and no checkpoint of it can be trusted or found; damaged: {update: what is wrong with it}."""

    def __init__(self, words: str, damaged: dict[int, str] | None = None) -> None:
        super().__init__(words)
        self.damaged = damaged or {}


def steps_folder(run_dir: Path) -> Path:
    """Where a run folder keeps its checkpoints, each in a folder named by its update."""
    return (run_dir / "checkpoints" / "steps").resolve()


def kept_updates(run_dir: Path) -> list[int]:
    """The updates of which there is a checkpoint, damaged or not, in ascending order."""
    folder = steps_folder(run_dir)
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


@contextmanager
def open_checkpoints(run_dir: Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """The run folder's checkpoints, the newest `keep` of them; what a killed process left half-written is removed."""
    steps = steps_folder(run_dir)
    _sweep(steps)
    if hosts.several():
        steps.mkdir(parents=True, exist_ok=True)  # orbax does so only where it may wait for all processes
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=not hosts.several(), enable_async_checkpointing=False, **hosts.orbax()
    )
    manager = ocp.CheckpointManager(steps, options=options)
    try:
        yield manager
    finally:
        manager.close()


def save(manager: ocp.CheckpointManager, update: int, state: Any, meta: dict[str, Any]) -> None:
    """Saves `state` and `meta` as checkpoint `update`; a second save of the same update does nothing."""
    if manager.latest_step() == update:
        return
    _sweep(Path(manager.directory))  # a save that failed leaves what it wrote, which is room that this one needs
    record = {"schema": SCHEMA, "update": update, "leaves": digests(state), **meta}
    if hosts.several():  # orbax stores no array of one process then, but NumPy's, which have no keys
        record["numbers"], state = True, jax.tree.map(lambda x: np.asarray(numbers(x)), state)
    record["sha256"] = _record_digest(record)
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record))
    if not manager.save(update, args=args, force=True):
        raise OSError(f"orbax did not write the checkpoint of update {update}")


def _sweep(steps: Path) -> None:
    """Removes half-written checkpoints; orbax's own cleaning fails every later save when it fails once."""
    for torn in steps.glob("*.orbax-checkpoint-tmp*") if steps.is_dir() else ():
        shutil.rmtree(torn, ignore_errors=True)


def restore(manager: ocp.CheckpointManager, shapes: Any) -> tuple[Any, dict[str, Any]] | None:
    """(state, meta) of the newest checkpoint that is whole, or None when there is none at all.

    Newer ones that are not are moved to checkpoints/bad, with a message.
    shapes: the State as `jax.eval_shape(agent.init, key)` gives it; orbax needs it to rebuild the records.

    Raises `Drift` where a whole checkpoint holds other shapes or dtypes, which is another agent's, and `Lost` where
    none is whole; nothing is moved then. What says nothing about the checkpoint, such as too little memory or a disk
    that cannot be read, is raised as it is.
    """
    damaged: dict[int, str] = {}
    for update in sorted(manager.all_steps(), reverse=True):
        try:
            state, meta = _read(Path(manager.directory) / str(update), update, shapes)
        except Drift:
            raise
        except Exception as error:
            if _says_nothing(error):
                error.add_note(
                    f"while the checkpoint of update {update} was read; move {manager.directory}/{update} away"
                )
                raise
            damaged[update] = _first_line(error)
            continue
        set_aside(manager, damaged)
        return state, meta
    if damaged:
        lines = "".join(f"\n  update {update}: {words}" for update, words in damaged.items())
        raise Lost(
            f"none of the checkpoints in {manager.directory} can be trusted; nothing was moved:{lines}\n"
            "Bring one back from a copy, or begin anew with resume=False (--no-resume), which keeps this folder aside.",
            damaged,
        )
    return None


def set_aside(manager: ocp.CheckpointManager, damaged: dict[int, str]) -> None:
    """Moves checkpoints to checkpoints/bad; damaged: {update: what is wrong with it}."""
    for update, words in damaged.items():
        folder = Path(manager.directory) / str(update)
        bad = folder.parent.parent / "bad"
        bad.mkdir(exist_ok=True)
        names = (bad / (folder.name + (f"-{n}" if n else "")) for n in range(10_000))
        aside = folder.rename(next(path for path in names if not path.exists()))
        print(
            f"the checkpoint of update {update} cannot be trusted ({words}); it is kept in {shown(aside)}", flush=True
        )
    if damaged:
        manager.reload()


def restore_at(run_dir: Path, update: int, shapes: Any) -> Any:
    """The State of the checkpoint of `update`, read without touching a run that may go on in that folder.

    FileNotFoundError says which checkpoints there are; ValueError where it is damaged or `shapes` are not its own.
    """
    kept = kept_updates(run_dir)
    if update not in kept:
        raise FileNotFoundError(f"{run_dir} has no checkpoint of update {update}; it has {kept or 'none'}")
    try:
        return _read(steps_folder(run_dir) / str(update), update, shapes)[0]
    except Drift:
        raise
    except Exception as error:
        if _says_nothing(error):
            raise
        words = f"the checkpoint of update {update} is damaged ({_first_line(error)}); {run_dir} has {kept}"
        raise Damaged(words) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:120]


def digests(tree: Any) -> dict[str, list[Any]]:
    """{leaf's path: [shape, dtype, sha256 of its bytes]}; a PRNG key counts as its numbers."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(jax.device_get(numbers(leaf)))
        content: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        found[_name(path)] = [list(array.shape), str(leaf.dtype), hashlib.sha256(content).hexdigest()]
    return found


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _record_digest(record: dict[str, Any]) -> str:
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


_ELSEWHERE = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAVAILABLE")  # TensorStore's words


def _says_nothing(error: Exception) -> bool:
    """Whether an error while reading says nothing about the checkpoint: memory, permissions, a failing disk."""
    gone = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    return (isinstance(error, MemoryError | OSError) and not gone) or any(word in str(error) for word in _ELSEWHERE)


def _read(folder: Path, update: int, shapes: Any) -> tuple[Any, dict[str, Any]]:
    """(state, meta) of one checkpoint, verified."""
    if not (folder / "meta").is_dir():
        raise ValueError("its record is missing")
    with ocp.Checkpointer(ocp.JsonCheckpointHandler(**hosts.orbax()), **hosts.orbax()) as reader:
        meta = reader.restore(folder / "meta")
    if meta.get("schema") != SCHEMA:
        newer = isinstance(meta.get("schema"), int) and meta["schema"] > SCHEMA
        raise ValueError(
            f"it has schema {meta.get('schema')}, this version of mxnb reads {SCHEMA}; "
            + ("upgrade mxnb" if newer else "go on with the version that wrote it")
        )
    if meta.get("sha256") != _record_digest(meta) or meta["update"] != update:
        raise ValueError("its record is not what was saved")
    _compare(meta["leaves"], shapes, folder)
    plain = meta.get("numbers", False)
    stored = jax.tree.map(lambda x: jax.eval_shape(numbers, x), shapes) if plain else shapes
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), stored)
    with ocp.StandardCheckpointer(**hosts.orbax()) as reader:
        state = reader.restore(folder / "state", target)
    state = jax.tree.map(keyed, state, shapes) if plain else state
    found = digests(state)
    if wrong := [name for name, leaf in meta["leaves"].items() if found[name][2] != leaf[2]]:
        raise ValueError(f"{', '.join(wrong[:3])} is not what was saved")
    return state, meta


def _compare(leaves: dict[str, list[Any]], shapes: Any, folder: Path) -> None:
    """Drift, in words, unless the record's shapes and dtypes are those asked for."""
    asked = {
        _name(path): [list(jax.eval_shape(numbers, leaf).shape), str(leaf.dtype)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    }
    stored = {name: leaf[:2] for name, leaf in leaves.items()}
    differ = sorted(name for name in {*stored, *asked} if stored.get(name) != asked.get(name))
    if differ:
        show = lambda leaf: "missing" if leaf is None else f"{leaf[1]}{leaf[0]}"
        lines = [f"  {name}: {show(stored.get(name))} there, {show(asked.get(name))} asked for" for name in differ[:8]]
        more = [f"  and {len(differ) - 8} more"] if differ[8:] else []
        raise Drift("\n".join([f"{folder} holds another agent's state, of other shapes or dtypes:", *lines, *more]))


def best_value(run_dir: Path) -> float:
    """The evaluation's return of the policy in checkpoints/best; -inf where there is none."""
    try:
        return float(json.loads(best_file(run_dir).with_name("best.json").read_text())["eval/return"])
    except (OSError, ValueError, KeyError, TypeError):
        return -math.inf


def keep_best(run_dir: Path, params: Any, update: int, value: float) -> None:
    """Puts `params` into checkpoints/best, with the update and the return of their evaluation."""
    save_params(best_file(run_dir), params)
    write_json(best_file(run_dir).with_name("best.json"), {"update": update, "eval/return": value})


def best_file(run_dir: Path) -> Path:
    """Where a run folder keeps the parameters of its best evaluation, beside best.json."""
    return run_dir / "checkpoints" / "best" / "params.npz"


def save_params(path: Path, params: Any) -> None:
    """Writes parameters as an npz file, one array per leaf, named by its path; no pickle."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    arrays: Any = {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{os.getpid()}.npz")
    np.savez(fresh, **arrays)
    fresh.replace(path)


def load_params(path: Path, shapes: Any) -> Any:
    """Parameters from `save_params`, in the structure of `shapes`; ValueError where they do not fit."""
    keyed, tree = jax.tree_util.tree_flatten_with_path(shapes)
    names = [jax.tree_util.keystr(key) for key, _ in keyed]
    data = io.BytesIO(path.read_bytes())
    try:
        stored = dict(np.load(data))  # every entry is read, and so checked by zip's own sums
    except MemoryError:
        raise
    except Exception as error:  # a flipped byte raises nearly anything
        words = f"{path} is damaged ({error}); a checkpoint has the policy too: load_policy(run, N)"
        raise Damaged(words) from None
    if sorted(names) != sorted(stored):
        raise ValueError(f"{path} holds other parameters than this network: {sorted(set(names) ^ set(stored))}")
    arrays = [stored[name] for name in names]
    for name, array, (_, leaf) in zip(names, arrays, keyed, strict=True):
        if array.shape != leaf.shape:
            raise ValueError(f"{path}: {name} has shape {array.shape}, the network's is {leaf.shape}")
        if array.dtype != leaf.dtype:
            raise ValueError(f"{path}: {name} is {array.dtype}, the network's is {leaf.dtype}")
    return jax.tree.unflatten(tree, arrays)

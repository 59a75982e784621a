"""Saving and restoring the whole training state with orbax, and the policy as a plain npz file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

SCHEMA = 1


@contextmanager
def open_checkpoints(run_dir: Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """The run folder's checkpoints, the newest `keep` of them; left-over temporary folders are removed."""
    folder = (run_dir / "checkpoints" / "steps").resolve()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, cleanup_tmp_directories=True, enable_async_checkpointing=False
    )
    manager = ocp.CheckpointManager(folder, options=options)
    try:
        yield manager
    finally:
        manager.close()


def save(manager: ocp.CheckpointManager, update: int, state: Any, meta: dict[str, Any]) -> None:
    """Saves `state` and `meta` as checkpoint `update`; a second save of the same update does nothing."""
    if manager.latest_step() == update:
        return
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({"schema": SCHEMA, "update": update, **meta})
    )
    if not manager.save(update, args=args, force=True):
        raise RuntimeError(f"the checkpoint of update {update} was not written; look at the disk's free space")


def restore(manager: ocp.CheckpointManager, shapes: Any) -> tuple[Any, dict[str, Any]] | None:
    """(state, meta) of the newest checkpoint, or None when there is none.

    shapes: the State as `jax.eval_shape(agent.init, key)` gives it; orbax needs it to rebuild the records.
    """
    update = manager.latest_step()
    if update is None:
        return None
    args = ocp.args.Composite(state=ocp.args.StandardRestore(_target(shapes)), meta=ocp.args.JsonRestore())
    found = manager.restore(update, args=args)
    return found["state"], found["meta"]


def restore_at(run_dir: Path, update: int, shapes: Any) -> Any:
    """The State of the checkpoint of `update`, read without touching a run that may go on in that folder.

    FileNotFoundError says which checkpoints there are; ValueError where `shapes` are not those of the checkpoint.
    """
    folder = (run_dir / "checkpoints" / "steps").resolve()
    kept = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    if update not in kept:
        raise FileNotFoundError(f"{run_dir} has no checkpoint of update {update}; it has {sorted(kept) or 'none'}")
    path = folder / str(update) / "state"
    with ocp.StandardCheckpointer() as reader:
        stored: Any = reader.metadata(path)
        stored = {leaf.name: tuple(leaf.shape) for leaf in jax.tree.leaves(stored.item_metadata.tree)}
        asked = {
            jax.tree_util.keystr(name, simple=True, separator="."): jax.eval_shape(_numbers, leaf).shape
            for name, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        }
        # Told here, since orbax would fail half-way through reading.
        if differ := sorted(name for name in {*stored, *asked} if stored.get(name) != asked.get(name)):
            name = differ[0]
            raise ValueError(
                f"{path}: {name} has shape {stored.get(name)}, this agent's is {asked.get(name)}"
                + (f" (and {len(differ) - 1} more differ)" if differ[1:] else "")
            )
        return reader.restore(path, _target(shapes))


def _numbers(x: Any) -> Any:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _target(shapes: Any) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


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
    with np.load(path) as stored:
        names = [jax.tree_util.keystr(key) for key, _ in keyed]
        if sorted(names) != sorted(stored.files):
            raise ValueError(
                f"{path} holds other parameters than this network: {sorted(set(names) ^ set(stored.files))}"
            )
        arrays = [stored[name] for name in names]
    for name, array, (_, leaf) in zip(names, arrays, keyed, strict=True):
        if array.shape != leaf.shape:
            raise ValueError(f"{path}: {name} has shape {array.shape}, the network's is {leaf.shape}")
    return jax.tree.unflatten(tree, arrays)

"""A run of several processes: process 0 leads it and has the run folder, the others do what it orders.

What all must do at the same moment (cut the state, do n updates, gather the state) process 0 announces by a short
message to all; the others wait for the next one in `follow`. So one clock and one disk decide, and nobody waits for
what another skips. In a run of one process nothing here communicates or computes.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mxnb.config import as_json
from mxnb.run.program import updates

_BYTES = 4096  # of a message; all processes send as much, or the exchange would be another program
_PIECE = 1 << 26  # bytes sent at once, so that the devices need no second state for them

# Set while the others carry out an order. Where that failed, they may still wait inside it, and the next message would
# never be answered: it is not sent then.
_apart = threading.Event()


class Ended(RuntimeError):
    """Process 0 could not go on; the message has its error."""


def several() -> bool:
    """Whether this is one of several processes of `jax.distributed`."""
    return jax.process_count() > 1


def leads() -> bool:
    """Whether this process has the run folder and decides."""
    return jax.process_index() == 0


def check(agent: Any, seed: int, mesh: Any) -> None:
    """ValueError in every process unless the mesh has all their devices and all were asked for the same run."""
    if not several():
        return
    if _apart.is_set():
        raise RuntimeError("the processes of this run have lost each other; start all of them again")
    whole = mesh is not None and {*mesh.devices.flat} == {*jax.devices()}
    there = "" if whole else "mesh is None" if mesh is None else f"the mesh is of {mesh.size} devices"
    run = {"seed": seed, "agent": agent.name, "environment": agent.spec.id, "jax": jax.__version__}
    run |= {name: _short(value) for name, value in as_json(agent.config).items()}
    told = _exchange(run | {"fault": there})
    faults = [answer.pop("fault") for answer in told]
    if any(faults):
        process, fault = next((i, words) for i, words in enumerate(faults) if words)
        raise ValueError(
            f"{fault} in process {process}, and jax has {jax.device_count()} in {jax.process_count()} processes; use "
            'mesh=jax.make_mesh((jax.device_count(),), ("envs",)) in each'
        )
    first, *others = told
    for process, other in enumerate(others, 1):
        if differ := sorted(name for name in {*first, *other} if first.get(name) != other.get(name)):
            raise ValueError(f"process {process} was asked for another run than process 0: other {', '.join(differ)}")


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def leading() -> Iterator[None]:
    """Process 0's run: when it is over, the others' is too, and an error ends it everywhere."""
    try:
        yield
    except BaseException as error:
        if several() and not _apart.is_set():
            _exchange({"do": "fail", "error": f"{type(error).__name__}: {error}"[:600]})
        raise
    if several():
        _exchange({"do": "end"})


def placed(state: Any, places: Any, update: int) -> Any:
    """Process 0's state after `update` updates where `places` says, on all processes' devices."""
    if not several():
        return jax.device_put(state, places)
    with _order("place", update=update):
        return _cut(_shared(_shapes(state), state), _shapes(state), places)


def shown(state: Any, update: int) -> None:
    """Lets every process have the state of a finished run, on a device of its own."""
    if several():
        with _order("show", update=update):
            _shared(_shapes(state), state)


def ordered(program: Any, stop: threading.Event) -> Any:
    """The program of a chunk, run by all processes; sets `stop` where one of them was asked to stop."""
    if not several():
        return program

    def run(state: Any, count: Any) -> Any:
        with _order("run", count=int(count)) as answers:
            if any(answer.get("stop") for answer in answers):
                stop.set()
            return jax.block_until_ready(program(state, np.int32(count)))

    return run


def gathered(tree: Any) -> Any:
    """What is cut over the processes' devices, whole on process 0; the tree as it is where that has all of it."""
    if not several() or all(x.is_fully_addressable for x in jax.tree.leaves(tree)):
        return tree
    with _order("gather"):
        return _whole(tree)


def local(tree: Any) -> Any:
    """What every device has, as arrays of this process alone: other functions know of no other process."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree) if several() else tree


def follow(agent: Any, places: Any, mesh: Any, stop: threading.Event, rows: int) -> tuple[str, Any, int]:
    """(status, state, update) of a run that process 0 leads; raises `Ended` where that failed there."""
    state, update, program = None, 0, None
    while True:
        order = _exchange({"stop": stop.is_set()})[0]
        match order["do"]:
            case "place":
                shapes, update = jax.eval_shape(agent.init, jax.random.key(0)), order["update"]
                state = _cut(_shared(shapes), shapes, places)
                program = updates(agent, rows, mesh=mesh).call
            case "show":
                shapes, update = agent.kept_shapes(), order["update"]
                state = jax.tree.unflatten(jax.tree.structure(shapes), _shared(shapes))
                state = jax.device_put(jax.tree.map(keyed, state, shapes), jax.local_devices()[0])
            case "run":
                assert program is not None
                state = jax.block_until_ready(program(state, np.int32(order["count"]))[0])
                update += order["count"]
            case "gather":
                _whole(agent.kept(state))
            case "end":
                return "done" if update >= agent.num_updates else "interrupted", state, update
            case _:
                raise Ended(f"process 0 ended this run after {update} updates: {order['error']}")


def numbers(x: Any) -> Any:
    """What is sent and stored of a leaf: a PRNG key's numbers, or itself."""
    return jax.random.key_data(x) if _is_key(x) else x


def keyed(array: Any, shape: Any) -> Any:
    """The other way round: a key where `shape` is one's."""
    return jax.random.wrap_key_data(array, impl=_kind(shape)) if _is_key(shape) else array


def orbax() -> dict[str, Any]:
    """Options that keep orbax from waiting for other processes; {} in a run of one."""
    if not several():
        return {}
    from orbax.checkpoint.options import MultiprocessingOptions

    me = jax.process_index()
    alone = MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}")
    return {"multiprocessing_options": alone}


@contextmanager
def _order(what: str, **more: Any) -> Iterator[list[dict[str, Any]]]:
    """Announces what all do now; the answers say who was asked to stop."""
    if _apart.is_set():
        raise RuntimeError("the processes of this run have lost each other; start all of them again")
    _apart.set()
    yield _exchange({"do": what, **more})
    _apart.clear()  # not after an error


def _exchange(message: dict[str, Any]) -> list[dict[str, Any]]:
    """What each process says; a collective, as all that follows."""
    text = json.dumps(message).encode()
    buffer = np.zeros(_BYTES, np.uint8)
    buffer[: len(text)] = np.frombuffer(text, np.uint8)
    return [json.loads(bytes(row).rstrip(b"\0")) for row in multihost_utils.process_allgather(buffer)]


def _shared(shapes: Any, tree: Any = None) -> list[np.ndarray]:
    """The leaves of process 0's tree, keys as their numbers, in every process; only process 0 has one to give."""
    plain = [jax.eval_shape(numbers, leaf) for leaf in jax.tree.leaves(shapes)]
    ends = np.cumsum([math.prod(x.shape) * x.dtype.itemsize for x in plain])
    if tree is None:
        stream = np.zeros(ends[-1], np.uint8)
    else:  # as bytes: a sum of floats, by which jax sends, would lose the sign of a zero
        stream = np.concatenate([_bytes(np.asarray(numbers(leaf))) for leaf in jax.tree.leaves(tree)])
    for start in range(0, len(stream), _PIECE):
        piece = slice(start, start + _PIECE)
        stream[piece] = multihost_utils.broadcast_one_to_all(stream[piece])
    parts = np.split(stream, ends[:-1])
    return [part.copy().view(x.dtype).reshape(x.shape) for part, x in zip(parts, plain)]


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _cut(arrays: list[np.ndarray], shapes: Any, places: Any) -> Any:
    """Global arrays, of which each process makes its own devices' parts."""

    def part(array: np.ndarray, shape: Any, place: Any) -> Any:
        return keyed(jax.make_array_from_callback(array.shape, place, lambda index: array[index]), shape)

    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(tree, [part(*three) for three in zip(arrays, leaves, jax.tree.leaves(places))])


def _whole(tree: Any) -> Any:
    """Each leaf as a NumPy array, and each key as an array of this process."""

    def whole(x: Any) -> Any:
        if _is_key(x):
            return jax.random.wrap_key_data(whole(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        if x.is_fully_replicated:
            return np.asarray(x.addressable_data(0))
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(whole, tree)


def _shapes(tree: Any) -> Any:
    return jax.eval_shape(lambda: tree)


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _kind(key: Any) -> Any:
    """The generator of a key that is known by its shape alone, which jax tells of an array only."""
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
    return found[0]

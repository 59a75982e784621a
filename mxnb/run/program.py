"""The two compiled programs of a run: one makes its State, one does any number of updates."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MAX_ROWS = 256  # of the on-device metric buffer, and so the most updates in one call


class Program(NamedTuple):
    """A program and how long it took to make."""

    call: Any  # what jax compiled: call it, or ask for its memory_analysis()
    traced: float  # seconds
    compiled: float  # seconds


# A plan reads the memory of the programs that `fit` is going to run. They wait here to be taken once: who trains the
# same agent again traces it again, for its functions may be other ones by then.
_waiting: dict[str, tuple[Any, tuple[Any, ...], Program]] = {}


def first_state(agent: Any) -> Program:
    """key -> State."""
    return _program("init", agent, (), jax.jit(agent.init), (jax.random.key(0),))


def placement(agent: Any, mesh: Any = None) -> Any:
    """Where each leaf of a State lives: on the first device; with a mesh, what leads with the env axis is cut over it.

    That are the leaves of `.envs`; every device has all the others. Raises ValueError where they cannot be cut evenly.
    """
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    if mesh is None:
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda x: here, shapes)
    problems = [
        f"{name} = {value} does not divide over the mesh's {mesh.size} devices: use a multiple of {mesh.size}"
        for name in ("num_envs", "shards")
        if (value := getattr(agent.config, name, 1)) % mesh.size
    ]
    if problems:
        raise ValueError("; ".join(problems))
    mesh = Mesh(mesh.devices, mesh.axis_names)  # whose axes the compiler may use as it likes
    whole, cut = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (mesh.axis_names,)))
    place = lambda path, x: cut if getattr(path[0], "name", "") == "envs" and x.ndim else whole
    return jax.tree_util.tree_map_with_path(place, shapes)


def updates(agent: Any, rows: int = MAX_ROWS, donate: bool = True, mesh: Any = None) -> Program:
    """(state, n) -> (state, metrics): n <= rows updates in one call; metrics have a leading axis of `rows`.

    n is traced, so that its choice cannot change a result. The state's buffers are used again for the new state, unless
    donate is False. mesh: the state lies as `placement` says, and the compiler cuts the work along with it.
    """
    places = placement(agent, mesh)
    options: dict[str, Any] = {} if mesh is None else {"out_shardings": (places, places.update)}

    @partial(jax.jit, donate_argnums=0 if donate else (), **options)
    def updates(state: Any, count: Any) -> Any:
        shapes = jax.eval_shape(agent.step, state)[1]
        buffer = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), shapes)

        def one(i: Any, carry: Any) -> Any:
            state, buffer = carry
            state, metrics = agent.step(state)
            return state, jax.tree.map(lambda rows, x: rows.at[i].set(x), buffer, metrics)

        return jax.lax.fori_loop(0, count, one, (state, buffer))

    # Placed as fit places a state: what comes out is then where a restored state is.
    shaped = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
    state = jax.tree.map(shaped, jax.eval_shape(agent.init, jax.random.key(0)), places)
    with nullcontext() if mesh is None else jax.set_mesh(Mesh(mesh.devices, mesh.axis_names)):
        return _program("updates", agent, (rows, donate, mesh), updates, (state, jnp.int32(1)))


def hand_over(kind: str, agent: Any, program: Program, rows: int = MAX_ROWS, donate: bool = True) -> None:
    """Lets the next `first_state(agent)` ("init") or `updates(agent, rows, donate)` ("updates") have this program."""
    _waiting[kind] = (
        agent,
        (rows, donate, None) if kind == "updates" else (),
        program._replace(traced=0.0, compiled=0.0),
    )


def _program(kind: str, agent: Any, options: tuple[Any, ...], function: Any, arguments: tuple[Any, ...]) -> Program:
    whose, known, program = _waiting.pop(kind, (None, (), None))
    if program is not None and whose is agent and known == options:
        return program
    started = time.perf_counter()
    lowered = function.trace(*arguments).lower()
    traced = time.perf_counter()
    return Program(lowered.compile(), traced - started, time.perf_counter() - traced)

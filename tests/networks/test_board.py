"""The board's eye against NumPy, where it must not change, and where it must."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mxnb.networks.actor_critic import ActorCritic
from mxnb.networks.board import REACH, BoardReader

ROWS, COLUMNS, CHANNELS, OFFSET, DIM = 4, 6, 3, 5, 7
CELLS = ROWS * COLUMNS
SIZE = OFFSET + CELLS * CHANNELS + 2  # two entries after the board
READER = BoardReader(DIM, (OFFSET, ROWS, COLUMNS, CHANNELS), (1, 0))  # the row is entry 1, the column entry 0


def seen(row: int, column: int, seed: int = 0, shift: tuple[int, int] = (0, 0)) -> Any:
    """An observation with something in the middle of the board only, moved by `shift`, and a player."""
    draw = np.random.default_rng(seed)
    board = np.zeros((ROWS, COLUMNS, CHANNELS), np.float32)
    board[1 + shift[0], 2 + shift[1]] = draw.normal(size=CHANNELS)
    board[2 + shift[0], 3 + shift[1]] = draw.normal(size=CHANNELS)
    flat = np.concatenate([draw.normal(size=OFFSET), board.reshape(-1), draw.normal(size=2)]).astype(np.float32)
    flat[1], flat[0] = row / (ROWS - 1), column / (COLUMNS - 1)
    return flat


@pytest.fixture(scope="module")
def params() -> Any:
    made: Any = READER.init(jax.random.key(0), jnp.zeros((1, SIZE)))
    made["params"]["cell"]["bias"] = jnp.linspace(0.1, 0.7, DIM)  # an empty cell differs from one outside
    return made


def parts(out: Any) -> Any:
    """(beside, every cell, around the player)."""
    beside = SIZE - CELLS * CHANNELS + CELLS
    return np.split(np.asarray(out), [beside, beside + CELLS * DIM], -1)


def by_hand(params: Any, obs: np.ndarray, row: int, column: int) -> np.ndarray:
    """The same, one cell after another."""
    kernel, bias = (np.asarray(params["params"]["cell"][name], np.float64) for name in ("kernel", "bias"))
    board = obs[OFFSET : OFFSET + CELLS * CHANNELS].reshape(ROWS, COLUMNS, CHANNELS)
    read = {(r, c): np.maximum(board[r, c] @ kernel + bias, 0) for r in range(ROWS) for c in range(COLUMNS)}
    at = [float((r, c) == (row, column)) for r in range(ROWS) for c in range(COLUMNS)]
    out = [*obs[:OFFSET], *obs[OFFSET + CELLS * CHANNELS :], *at]
    for cell in read.values():
        out += [*cell]
    for r in range(row - REACH, row + REACH + 1):
        for c in range(column - REACH, column + REACH + 1):
            out += [*read.get((r, c), np.zeros(DIM))]
    return np.array(out)


def test_the_features_against_numpy_for_every_place_of_the_player(params: Any) -> None:
    places = [(r, c) for r in range(ROWS) for c in range(COLUMNS)]
    obs = np.stack([seen(r, c, seed=i) for i, (r, c) in enumerate(places)])
    out = jax.jit(READER.apply)(params, obs)
    wanted = np.stack([by_hand(params, o, r, c) for o, (r, c) in zip(obs, places, strict=True)])
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)


def test_a_scene_moved_with_its_player_looks_the_same_around_it(params: Any) -> None:
    here, there = (READER.apply(params, jnp.asarray(seen(1 + d, 2 + d, shift=(d, d))[None])) for d in (0, 1))
    (beside, cells, around), (beside2, cells2, around2) = parts(here[0]), parts(there[0])
    # The eight cells beside the player lie on the board both times.
    window = np.reshape([around, around2], (2, 2 * REACH + 1, 2 * REACH + 1, DIM))[:, 1:4, 1:4]
    np.testing.assert_allclose(window[0], window[1], rtol=1e-6)
    assert np.abs(cells - cells2).max() > 0.1 and np.abs(beside - beside2).max() > 0.1


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
def test_an_actor_critic_reads_through_it_with_any_leading_axes(params: Any, lead: tuple[int, ...]) -> None:
    network = ActorCritic(5, 8, 2, board=READER)
    obs = jnp.asarray(np.broadcast_to(seen(2, 1), (*lead, SIZE)))
    (logits, value), made = jax.jit(network.init_with_output)(jax.random.key(1), obs)
    assert logits.shape == (*lead, 5) and value.shape == lead
    inputs = SIZE - CELLS * CHANNELS + CELLS * (1 + DIM) + (2 * REACH + 1) ** 2 * DIM
    assert made["params"]["first"]["kernel"].shape == (inputs, 8)
    grads = jax.grad(lambda p: sum((x**2).sum() for x in network.apply(p, obs)))(made)
    assert all((jnp.abs(g) > 0).any() for g in jax.tree.leaves(grads))

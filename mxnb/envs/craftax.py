"""Craftax brought to the contract: deaths told apart from the time limit, exact masks, pictures.

Source: Matthews et al. 2024, Craftax (arXiv:2402.16801); package craftax 1.6.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from mxnb.envs.api import CAUSES, Env, Spec, strong


class _Game(NamedTuple):
    """What differs between Classic and full Craftax."""

    constants: Any
    env: Any  # Craftax's own symbolic environment, without auto-reset
    params: Any
    mask: Any
    num_binary: int
    dead: Any  # state -> bool
    won: Any  # state -> bool


def _classic() -> _Game:
    from craftax.craftax_classic import constants
    from craftax.craftax_classic.envs.craftax_symbolic_env import CraftaxClassicSymbolicEnvNoAutoReset

    from mxnb.envs.craftax_masks import classic_mask

    def dead(state: Any) -> Any:
        block = state.map[state.player_position[0], state.player_position[1]]
        return (state.player_health <= 0) | (block == constants.BlockType.LAVA.value)

    game = CraftaxClassicSymbolicEnvNoAutoReset()
    return _Game(constants, game, game.default_params, classic_mask, 1323, dead, lambda state: jnp.zeros((), bool))


def _full() -> _Game:
    from craftax.craftax import constants
    from craftax.craftax.envs.craftax_symbolic_env import CraftaxSymbolicEnvNoAutoReset
    from craftax.craftax.game_logic import has_beaten_boss

    from mxnb.envs.craftax_full_mask import full_mask

    game = CraftaxSymbolicEnvNoAutoReset()

    def won(state: Any) -> Any:
        return has_beaten_boss(state, game.static_env_params)

    return _Game(constants, game, game.default_params, full_mask, 8217, lambda state: state.player_health <= 0, won)


def craftax(*, classic: bool, pixels: bool = False) -> Env:
    """Craftax-Classic (17 actions) or full Craftax (43), with symbolic or pixel observations.

    Symbolic: 1,345 numbers of which the first 1,323 are bits, or 8,268 and 8,217. Pixels: the game's own
    picture for agents, uint8[63, 63, 3] or [130, 110, 3], rounded (Craftax divides it by 255 and leaves the
    rounding to its users). The same key makes the same world in both.

    Reward: Craftax's own (achievements and a tenth of the health won or lost). Episodes end by death (in
    Classic also by lava) or, in full Craftax, by beating the boss (`terminated`), or after 10,000 or 100,000
    steps (`truncated`). info holds the achievements and CAUSES, 0 or 1 each.
    """
    game = _classic() if classic else _full()
    constants, params = game.constants, game.params
    achievements = _names(constants.Achievement)
    draw = agent_view(constants) if pixels else None

    def reset(key: Any) -> tuple[Any, Any]:
        obs, state = game.env.reset_env(key, params)
        state = strong(state)  # a fresh world holds Python numbers, which are no arrays for a mask
        return (draw(state) if draw else obs), state

    def step(key: Any, state: Any, action: Any) -> tuple[Any, ...]:
        obs, state, reward, _, _ = game.env.step_env(key, state, action, params)
        # The game's own flag merges the causes; the state tells them apart.
        death = game.dead(state)
        win = game.won(state) & ~death
        limit = (state.timestep >= params.max_timesteps) & ~death & ~win
        info = dict(zip(achievements, state.achievements.astype(jnp.float32), strict=True))
        causes = (~(death | win | limit), death, limit, win)
        info |= {name: cause.astype(jnp.float32) for name, cause in zip(CAUSES, causes, strict=True)}
        return (draw(state) if draw else obs), state, reward, death | win, limit, info

    size = constants.BLOCK_PIXEL_SIZE_AGENT
    rows, columns = constants.OBS_DIM
    view = ((rows + constants.INVENTORY_OBS_HEIGHT) * size, columns * size, 3)
    spec = Spec(
        id=f"craftax-{'classic-' if classic else ''}{'pixels' if pixels else 'symbolic'}-v1",
        obs_shape=view if pixels else game.env.observation_space(params).shape,
        obs_dtype=jnp.uint8 if pixels else jnp.float32,
        num_binary=0 if pixels else game.num_binary,
        num_actions=len(constants.Action),
        action_names=_names(constants.Action),
        max_steps=params.max_timesteps,
        info=(*achievements, *CAUSES),
    )
    return Env(spec, reset, step, game.mask, lambda state: renderer(constants)(state))


def _names(enum: Any) -> tuple[str, ...]:
    """In the order of the values, which is not the order of full Craftax's achievements in its source."""
    return tuple(member.name.lower() for member in sorted(enum, key=lambda member: member.value))


@functools.cache
def renderer(constants: Any) -> Any:
    """The game's picture for people: state -> uint8[H, W, 3] at 16 pixels a tile, jitted; loads textures once."""
    import jax

    return jax.jit(_pixels(constants, constants.BLOCK_PIXEL_SIZE_IMG))


@functools.cache
def agent_view(constants: Any) -> Any:
    """The game's picture for agents: state -> uint8[H, W, 3] at 7 (Classic) or 10 pixels a tile."""
    return _pixels(constants, constants.BLOCK_PIXEL_SIZE_AGENT)


def _pixels(constants: Any, size: int) -> Any:
    from importlib import import_module

    load_textures(constants)
    module = import_module(constants.__name__.replace(".constants", ".renderer"))
    with _quiet():
        draw = module.make_craftax_pixel_renderer(size)

    def render(state: Any) -> Any:
        return jnp.round(jnp.clip(draw(state), 0, 255)).astype(jnp.uint8)

    return render


def load_textures(constants: Any) -> None:
    """Loads Craftax's textures; makes or mends their cache, safely beside other processes.

    Craftax writes the cache in place: a process killed there leaves a truncated file that breaks every
    later run, and two processes can mix their bytes. So one process at a time writes a new file and
    renames it. constants: `craftax.craftax_classic.constants` (or that of full Craftax).
    """
    cache = Path(constants.TEXTURE_CACHE_FILE)
    if not os.access(cache.parent, os.W_OK):
        shared = cache
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mxnb" / cache.name
        cache.parent.mkdir(parents=True, exist_ok=True)
        if shared.exists() and not cache.exists():
            write_bytes(cache, shared.read_bytes())
    with _locked(cache.with_suffix(".lock")):
        constants.TEXTURE_CACHE_FILE = str(cache)
        if cache.exists():
            try:
                with _quiet():
                    constants.load_all_textures()
                return
            except Exception as error:  # a broken pickle can raise nearly anything
                print(f"Craftax's texture cache is damaged ({type(error).__name__}); making it again.")
                cache.unlink()
        print("Making Craftax's textures: about a minute, only this once.", flush=True)
        fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
        constants.TEXTURE_CACHE_FILE = str(fresh)
        try:
            with _quiet():
                constants.load_all_textures()
            fresh.replace(cache)
        finally:
            constants.TEXTURE_CACHE_FILE = str(cache)
            fresh.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees all of it or none."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(data)
    fresh.replace(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    if sys.platform == "win32":  # no flock there, and no parallel runs either
        yield
        return
    import fcntl

    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

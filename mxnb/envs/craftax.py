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
from typing import Any

import jax.numpy as jnp
from craftax.craftax_classic import constants as classic
from craftax.craftax_classic.envs.craftax_symbolic_env import CraftaxClassicSymbolicEnvNoAutoReset

from mxnb.envs.api import Env, Spec
from mxnb.envs.craftax_masks import classic_mask

CLASSIC_ACHIEVEMENTS = tuple(a.name.lower() for a in classic.Achievement)


def craftax_classic() -> Env:
    """Craftax-Classic-Symbolic-v1: 1,345 numbers of which the first 1,323 are bits, 17 actions.

    Reward: 1 for each new achievement (22 in all), 0.1 per health point won or lost. Episodes end by
    death or lava (`terminated`) or after 10,000 steps (`truncated`). info holds the achievements, 0 or 1.
    """
    game = CraftaxClassicSymbolicEnvNoAutoReset()
    params = game.default_params

    def reset(key: Any) -> tuple[Any, Any]:
        return game.reset_env(key, params)

    def step(key: Any, state: Any, action: Any) -> tuple[Any, ...]:
        obs, state, reward, _, _ = game.step_env(key, state, action, params)
        # The game's own flag merges death and time limit; the state tells them apart.
        block = state.map[state.player_position[0], state.player_position[1]]
        terminated = (state.player_health <= 0) | (block == classic.BlockType.LAVA.value)
        truncated = (state.timestep >= params.max_timesteps) & ~terminated
        info = dict(zip(CLASSIC_ACHIEVEMENTS, state.achievements.astype(jnp.float32), strict=True))
        return obs, state, reward, terminated, truncated, info

    spec = Spec(
        id="craftax-classic-symbolic-v1",
        obs_shape=(1345,),
        num_binary=1323,
        num_actions=17,
        action_names=tuple(a.name.lower() for a in classic.Action),
        max_steps=params.max_timesteps,
        info=CLASSIC_ACHIEVEMENTS,
    )
    return Env(spec, reset, step, classic_mask, lambda state: classic_renderer()(state))


@functools.cache
def classic_renderer() -> Any:
    """The game's own picture of a Classic state: state -> uint8[144, 144, 3], jitted; loads textures once."""
    import jax
    from craftax.craftax_classic.renderer import make_craftax_pixel_renderer

    load_textures(classic)
    with _quiet():
        draw = make_craftax_pixel_renderer(classic.BLOCK_PIXEL_SIZE_IMG)

    @jax.jit
    def render(state: Any) -> Any:
        pixels = draw(state)
        return jnp.round(jnp.clip(pixels, 0, 255)).astype(jnp.uint8)

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

"""Craftax-Classic against the game itself, and the texture cache against bad luck."""

from __future__ import annotations

import bz2
import functools
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from craftax.craftax_classic import constants as classic
from craftax.craftax_classic.envs.craftax_symbolic_env import CraftaxClassicSymbolicEnvNoAutoReset
from tiny import assert_same_bits

from mxnb.build import make
from mxnb.envs import craftax
from mxnb.envs.api import CAUSES
from mxnb.envs.craftax import load_textures
from mxnb.envs.vector import make_worlds

N, STEPS = 16, 300
ENV = craftax.craftax(classic=True)
CLASSIC_ACHIEVEMENTS = tuple(name for name in ENV.spec.info if name not in CAUSES)
GAME = CraftaxClassicSymbolicEnvNoAutoReset()


@jax.jit
@jax.vmap
def both(key: Any, state: Any, action: Any) -> Any:
    """Our step and the game's own from the same state; one program, since Craftax takes long to compile."""
    return ENV.step(key, state, action), GAME.step_env(key, state, action, GAME.default_params)


def ours(key: Any, state: Any, action: Any) -> Any:
    return both(key, state, action)[0]


@pytest.fixture(scope="module")
def worlds() -> Any:
    """(obs, state) of N fresh worlds."""
    return jax.jit(lambda key: make_worlds(ENV, key, N))(jax.random.key(0))


def keys_at(t: int) -> Any:
    return jax.random.split(jax.random.fold_in(jax.random.key(3), t), N)


@pytest.fixture(scope="module")
def played(worlds: Any) -> Any:
    """STEPS random steps of N worlds by our step and, from the same states, by the game's own."""
    actions = np.random.default_rng(0).integers(0, 17, (STEPS, N)).astype(np.int32)
    obs, state = worlds
    ticks = [SimpleNamespace(obs=np.asarray(obs))]
    for t in range(STEPS):
        a, b = both(keys_at(t), state, actions[t])
        ticks.append(SimpleNamespace(obs=np.asarray(a[0]), ours=a, theirs=b))
        state = a[1]
    return ticks


def test_steps_equal_the_game(played: Any) -> None:
    for t, tick in enumerate(played[1:]):
        obs, state, reward, terminated, truncated, info = tick.ours
        obs_, state_, reward_, done_, info_ = tick.theirs
        assert_same_bits((obs, state, reward), (obs_, state_, reward_), f"step {t}:")
        assert_same_bits(terminated | truncated, done_, f"step {t}:")
        for name in CLASSIC_ACHIEVEMENTS:  # the game reports percents, and only on an episode's last step
            np.testing.assert_array_equal(info[name] * 100 * done_, info_[f"Achievements/{name}"])


def test_resets_equal_the_game(worlds: Any) -> None:
    one = jax.jit(lambda key: (ENV.reset(key), GAME.reset_env(key, GAME.default_params)))
    mine, theirs = one(jax.random.split(jax.random.key(0), N)[3])
    assert_same_bits(mine, theirs)
    assert_same_bits(jax.tree.map(lambda x: x[3], worlds), mine)  # in a batch it is the same world


def test_spec_and_contract(played: Any) -> None:
    spec = ENV.spec
    assert (spec.id, spec.obs_shape, spec.num_binary, spec.num_actions) == (
        "craftax-classic-symbolic-v1",
        (1345,),
        1323,
        17,
    )
    assert spec.max_steps == 10_000 and len(spec.info) == 22 + 4 and len(spec.action_names) == 17
    assert spec.action_names[0] == "noop" and make("Craftax-Classic-Symbolic-v1").spec == spec
    obs = np.stack([tick.obs for tick in played])
    assert obs.shape == (STEPS + 1, N, 1345) and obs.dtype == np.float32
    bits, rest = obs[..., :1323], obs[..., 1323:]
    assert ((bits == 0) | (bits == 1)).all()
    assert 0.02 < bits.mean() < 0.5
    # 12 counts / 10, 4 needs / 10, 4 of direction, light, asleep
    assert (rest >= 0).all() and (rest <= 1).all()
    assert len(np.unique(rest)) > 10
    assert set(np.unique(rest[..., 16:20])) == {0.0, 1.0}
    for tick in played[1:]:
        obs, _, reward, terminated, truncated, info = tick.ours
        assert (terminated.dtype, truncated.dtype) == (jnp.bool_, jnp.bool_)
        assert reward.dtype == jnp.float32 and set(info) == set(spec.info)


def test_achievements_are_in_info(worlds: Any, played: Any) -> None:
    unlocked = [np.stack([np.asarray(tick.ours[5][name]) for tick in played[1:]]) for name in CLASSIC_ACHIEVEMENTS]
    for name, column in zip(CLASSIC_ACHIEVEMENTS, unlocked, strict=True):
        assert set(np.unique(column)) <= {0.0, 1.0}, name
        assert (np.diff(column, axis=0) >= 0).all(), name  # what was achieved stays achieved
    assert any(column.any() for column in unlocked)
    state = worlds[1]
    at = classic.Achievement.COLLECT_DIAMOND.value
    state = state.replace(achievements=state.achievements.at[:, at].set(True))
    info = ours(keys_at(0), state, jnp.zeros(N, jnp.int32))[5]
    assert {name for name in info if info[name].all()} == {"collect_diamond", "cause/alive"}


def flags(state: Any, action: int = 0) -> Any:
    """(terminated, truncated) of one step, with the cause checked against them."""
    *_, terminated, truncated, info = ours(keys_at(0), state, jnp.full(N, action, jnp.int32))
    causes = np.stack([np.asarray(info[name]) for name in CAUSES])
    assert set(np.unique(causes)) <= {0.0, 1.0} and (causes.sum(0) == 1).all()
    np.testing.assert_array_equal(causes[1] + causes[3], terminated)
    np.testing.assert_array_equal(causes[2], truncated)
    assert not causes[3].any()  # Classic cannot be won
    return terminated, truncated


def test_the_limit_truncates(worlds: Any) -> None:
    state = worlds[1]
    for timestep, over in ((9_998, False), (9_999, True)):
        terminated, truncated = flags(state.replace(timestep=jnp.full(N, timestep, jnp.int32)))
        assert not terminated.any() and truncated.tolist() == [over] * N


def test_starving_terminates(worlds: Any) -> None:
    state = worlds[1]
    full = lambda x: jnp.full(N, x, jnp.int32)
    starving = state.replace(
        player_health=full(1), player_food=full(0), player_drink=full(0), player_recover=jnp.full(N, -14.9, jnp.float32)
    )
    for at in (starving, starving.replace(timestep=full(9_999))):  # death counts, even at the limit
        terminated, truncated = flags(at)
        assert terminated.all() and not truncated.any()
    terminated, truncated = flags(starving.replace(player_health=full(9)))
    assert not (terminated | truncated).any()


def test_lava_terminates(worlds: Any) -> None:
    state = worlds[1]
    right = state.player_position + jnp.array([[0, 1]])
    lava = state.map.at[jnp.arange(N), right[:, 0], right[:, 1]].set(classic.BlockType.LAVA.value)
    state = state.replace(map=lava)
    assert not flags(state)[0].any()
    terminated, truncated = flags(state, classic.Action.RIGHT.value)
    assert terminated.all() and not truncated.any()


# ------------------------------------------------------------------------------------------------ pictures


@pytest.fixture
def textures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty texture cache of our own, and a maker that takes no minute; `.made` counts its work."""
    cache = tmp_path / "assets" / "texture_cache_classic.pbz2"
    cache.parent.mkdir()
    monkeypatch.setattr(classic, "TEXTURE_CACHE_FILE", str(cache))
    monkeypatch.delenv("CRAFTAX_RELOAD_TEXTURES", raising=False)
    world = SimpleNamespace(cache=cache, made=[])

    def make_them(size: int) -> dict[str, Any]:
        world.made.append(size)
        rows, columns = classic.OBS_DIM
        blocks = np.zeros((len(classic.BlockType), rows * size, columns * size, 3), np.uint8)
        return {"full_map_block_textures": blocks, "made": len(world.made)}

    monkeypatch.setattr(classic, "load_all_textures_given_size", make_them)
    # the game's loader itself, without what it remembers from other tests
    fresh = functools.lru_cache(maxsize=None)(classic.load_all_textures.__wrapped__)
    monkeypatch.setattr(classic, "load_all_textures", fresh)
    return world


def read(path: Path) -> Any:
    return pickle.loads(bz2.decompress(path.read_bytes()))


def leftovers(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} - {"texture_cache_classic.pbz2", "texture_cache_classic.lock"}


def test_textures_are_made_once(textures: Any, capsys: pytest.CaptureFixture[str]) -> None:
    load_textures(classic)
    assert "Making Craftax's textures" in capsys.readouterr().out
    assert len(textures.made) == 3 and set(read(textures.cache)) == set(textures.made)
    assert leftovers(textures.cache.parent) == set()
    classic.load_all_textures.cache_clear()  # as in the next process
    load_textures(classic)
    assert len(textures.made) == 3 and capsys.readouterr().out == ""
    assert str(textures.cache) == classic.TEXTURE_CACHE_FILE


@pytest.mark.parametrize("damage", ["half", "empty", "other"])
def test_a_damaged_cache_is_made_again_with_a_word(
    damage: str, textures: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    load_textures(classic)
    whole = textures.cache.read_bytes()
    other = bz2.compress(pickle.dumps({"something": "else"}))
    textures.cache.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "other": other}[damage])
    classic.load_all_textures.cache_clear()
    capsys.readouterr()
    load_textures(classic)
    words = capsys.readouterr().out
    assert "Craftax's texture cache is damaged (" in words and "making it again" in words
    assert len(textures.made) == 6
    assert set(read(textures.cache)) == set(textures.made)
    assert leftovers(textures.cache.parent) == set()


def test_a_failed_making_leaves_nothing_behind(textures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, data: Any) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(classic, "save_compressed_pickle", full)
    with pytest.raises(OSError, match="No space left"):
        load_textures(classic)
    assert not textures.cache.exists() and leftovers(textures.cache.parent) == set()
    assert str(textures.cache) == classic.TEXTURE_CACHE_FILE


def test_a_read_only_package_keeps_its_cache_elsewhere(
    textures: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    can = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != textures.cache.parent and can(p, mode))  # root may all
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    load_textures(classic)
    there = tmp_path / "home" / "mxnb" / textures.cache.name
    assert there.exists() and str(there) == classic.TEXTURE_CACHE_FILE
    assert list(textures.cache.parent.iterdir()) == []
    classic.load_all_textures.cache_clear()
    load_textures(classic)
    assert len(textures.made) == 3


@pytest.mark.parametrize("damaged", [False, True])
def test_a_read_only_package_with_textures_is_copied(
    textures: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damaged: bool
) -> None:
    load_textures(classic)
    whole = textures.cache.read_bytes()
    if damaged:
        textures.cache.write_bytes(whole[:100])
    for other in textures.cache.parent.glob("*.lock"):
        other.unlink()
    before = {p.name: p.read_bytes() for p in textures.cache.parent.iterdir()}
    can = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != textures.cache.parent and can(p, mode))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    classic.load_all_textures.cache_clear()
    load_textures(classic)
    there = tmp_path / "home" / "mxnb" / textures.cache.name
    assert str(there) == classic.TEXTURE_CACHE_FILE and len(textures.made) == (6 if damaged else 3)
    assert set(read(there)) == set(textures.made)
    assert {p.name: p.read_bytes() for p in textures.cache.parent.iterdir()} == before  # nothing was written there


@pytest.fixture(scope="module")
def states(worlds: Any) -> list[Any]:
    return [jax.tree.map(lambda x, i=i: x[i], worlds[1]) for i in range(3)]


def test_pictures(states: list[Any]) -> None:
    """With the game's own textures; making them takes half a minute where no test or run has yet."""
    frames = [np.asarray(ENV.render(state)) for state in states]
    for frame in frames:
        assert (frame.shape, frame.dtype) == ((144, 144, 3), np.uint8)
        assert 20 < frame.mean() < 235 and len(np.unique(frame)) > 30
    assert (frames[0] != frames[1]).any()
    from craftax.craftax_classic.renderer import make_craftax_pixel_renderer

    exact = np.asarray(jax.jit(make_craftax_pixel_renderer(classic.BLOCK_PIXEL_SIZE_IMG))(states[0]))
    np.testing.assert_array_equal(frames[0], np.round(exact).astype(np.uint8))


def test_pictures_are_rounded_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from craftax.craftax_classic import renderer

    values = jnp.array([-3.0, 0.4, 0.6, 126.99999, 254.6, 300.0])
    monkeypatch.setattr(renderer, "make_craftax_pixel_renderer", lambda size: lambda state: values)
    monkeypatch.setattr(craftax, "load_textures", lambda constants: None)
    craftax.renderer.cache_clear()
    try:
        drawn = craftax.renderer(classic)(jnp.zeros(()))
    finally:
        craftax.renderer.cache_clear()
    assert drawn.dtype == jnp.uint8 and drawn.tolist() == [0, 0, 1, 127, 255, 255]

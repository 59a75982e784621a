"""Damaged checkpoints are found, set aside with a word, and the one before is taken; nothing is deleted."""

from __future__ import annotations

import errno
import gc
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from tiny import assert_same_bits, masked

from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.run import checkpoint

# orbax leaves coroutines behind that nobody awaits when a restore fails half-way.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONFIG = PPOConfig(num_envs=4, num_steps=4, total_timesteps=160, hidden_dim=64, num_layers=1)


@pytest.fixture(autouse=True)
def _collected() -> Any:
    """Those coroutines go while the filter above holds."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def agent() -> Any:
    return ppo(CONFIG, masked())


@pytest.fixture(scope="module")
def state(agent: Any) -> Any:
    return jax.jit(agent.init)(jax.random.key(7))


@pytest.fixture(scope="module")
def saved(state: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the checkpoints 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("saved")
    with checkpoint.open_checkpoints(folder, 9) as manager:
        for update in (1, 2, 3):
            checkpoint.save(manager, update, replace(state, update=jnp.int32(update)), {"wall_seconds": 1.0})
    return folder


def largest(folder: Path) -> Path:
    """The file that holds most of the numbers."""
    return max((folder / "state" / "ocdbt.process_0" / "d").iterdir(), key=lambda p: p.stat().st_size)


def flip(folder: Path) -> None:
    path = largest(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(folder: Path) -> None:
    path = largest(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: Path) -> None:
    largest(folder).write_bytes(b"")


def lose(folder: Path) -> None:
    largest(folder).unlink()


def lose_record(folder: Path) -> None:
    shutil.rmtree(folder / "meta")


def hollow(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def record(folder: Path) -> Path:
    return folder / "meta" / "metadata"


def flip_record(folder: Path) -> None:
    path = record(folder)
    text = path.read_text()
    assert text.count('"wall_seconds": ') == 1
    path.write_text(text.replace('"wall_seconds": ', '"wall_seconds": 9'))


def renamed(folder: Path) -> None:
    """An older checkpoint under a newer number."""
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "1", folder)


def of_another_schema(folder: Path) -> None:
    record(folder).write_text(json.dumps(json.loads(record(folder).read_text()) | {"schema": 99}))


DAMAGE: tuple[Callable[[Path], None], ...] = (
    flip,
    truncate,
    empty,
    lose,
    lose_record,
    flip_record,
    renamed,
    hollow,
    of_another_schema,
)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_the_one_before_is_taken_and_the_damaged_one_kept(
    damage: Callable[[Path], None],
    agent: Any,
    state: Any,
    saved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    steps = run / "checkpoints" / "steps"
    damage(steps / "3")
    with checkpoint.open_checkpoints(run, 9) as manager:
        found, meta = checkpoint.restore(manager, jax.eval_shape(agent.init, jax.random.key(0)))
        assert_same_bits(found, replace(state, update=jnp.int32(2)))
        assert meta["update"] == 2
        said = capsys.readouterr().out
        assert "the checkpoint of update 3 cannot be trusted (" in said and "it is kept in" in said
        assert (run / "checkpoints" / "bad" / "3").is_dir() and {p.name for p in steps.iterdir()} == {"1", "2"}
        checkpoint.save(manager, 3, replace(state, update=jnp.int32(3)), {"wall_seconds": 2.0})
        assert manager.latest_step() == 3  # the run goes on
        damage(steps / "3")
    with checkpoint.open_checkpoints(run, 9) as manager:
        checkpoint.restore(manager, jax.eval_shape(agent.init, jax.random.key(0)))
    assert {p.name for p in (run / "checkpoints" / "bad").iterdir()} == {"3", "3-1"}


def test_a_flipped_byte_anywhere_is_seen_or_does_no_harm(
    agent: Any, state: Any, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    seen = 0
    files = sorted(p.relative_to(saved) for p in (saved / "checkpoints" / "steps" / "3").rglob("*") if p.is_file())
    for i, file in enumerate(files):
        run = tmp_path / str(i)
        shutil.copytree(saved, run)
        data = bytearray((run / file).read_bytes())
        data[len(data) * (1 + i % 3) // 4] ^= 1 << i % 8
        (run / file).write_bytes(data)
        with checkpoint.open_checkpoints(run, 9) as manager:
            found, meta = checkpoint.restore(manager, shapes)
        assert_same_bits(found, replace(state, update=jnp.int32(meta["update"])))
        assert (run / "checkpoints" / "bad" / "3").exists() == (meta["update"] == 2)
        seen += meta["update"] == 2
    assert seen >= 4 and len(files) > 12


def test_where_none_is_whole_nothing_is_moved_and_nothing_begins_anew(agent: Any, saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    steps = run / "checkpoints" / "steps"
    flip(steps / "1")
    lose(steps / "2")
    of_another_schema(steps / "3")
    with checkpoint.open_checkpoints(run, 9) as manager, pytest.raises(checkpoint.Lost) as error:
        checkpoint.restore(manager, jax.eval_shape(agent.init, jax.random.key(0)))
    words = str(error.value)
    assert "update 3: it has schema 99, this version of mxnb reads 2; upgrade mxnb" in words
    assert "is not what was saved" in words and "resume=False" in words
    assert error.value.damaged.keys() == {1, 2, 3}
    assert {p.name for p in steps.iterdir()} == {"1", "2", "3"} and not (run / "checkpoints" / "bad").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        PermissionError("no"),
        MemoryError(),
        ValueError("RESOURCE_EXHAUSTED: out of memory"),
    ],
    ids=repr,
)
def test_what_says_nothing_about_a_checkpoint_moves_none(
    error: Exception, agent: Any, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "digests", fail)
    with checkpoint.open_checkpoints(saved, 9) as manager, pytest.raises(type(error)):
        checkpoint.restore(manager, jax.eval_shape(agent.init, jax.random.key(0)))
    assert checkpoint.kept_updates(saved) == [1, 2, 3]


def test_another_dtype_or_shape_is_an_error_and_nothing_moves(agent: Any, saved: Path) -> None:
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    wide = replace(shapes, update=jax.ShapeDtypeStruct((), jnp.float32))  # orbax would cast it
    other = jax.eval_shape(ppo(replace(CONFIG, hidden_dim=16), masked()).init, jax.random.key(0))
    with checkpoint.open_checkpoints(saved, 9) as manager:
        with pytest.raises(ValueError, match=r"update: int32\[\] there, float32\[\] asked for"):
            checkpoint.restore(manager, wide)
        with pytest.raises(ValueError, match=r"holds another agent's state, of other shapes or dtypes:\n"):
            checkpoint.restore(manager, other)
    assert not (saved / "checkpoints" / "bad").exists()


def test_an_older_schema_is_refused_with_a_word(agent: Any, state: Any, tmp_path: Path) -> None:
    with checkpoint.open_checkpoints(tmp_path, 9) as manager:
        checkpoint.save(manager, 1, state, {})
    path = record(tmp_path / "checkpoints" / "steps" / "1")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1}))
    words = r"it has schema 1, .*; go on with the version that wrote it"
    with checkpoint.open_checkpoints(tmp_path, 9) as manager, pytest.raises(checkpoint.Lost, match=words):
        checkpoint.restore(manager, jax.eval_shape(agent.init, jax.random.key(0)))


def test_a_flipped_byte_in_a_policy_file_is_told_or_does_no_harm(agent: Any, state: Any, tmp_path: Path) -> None:
    """Every byte of its table of contents and of the first array's header: zip's and NumPy's own errors are many."""
    path = tmp_path / "params.npz"
    checkpoint.save_params(path, state.policy)
    data = path.read_bytes()
    shapes = jax.eval_shape(agent.init, jax.random.key(0)).policy
    for at in (*range(200), *range(data.index(b"PK\x01\x02"), len(data))):
        for bit in (1, 128):
            flipped = bytearray(data)
            flipped[at] ^= bit
            path.write_bytes(flipped)
            with suppress(ValueError):
                assert_same_bits(checkpoint.load_params(path, shapes), state.policy)


def test_a_damaged_policy_file_is_told(agent: Any, state: Any, tmp_path: Path) -> None:
    checkpoint.save_params(tmp_path / "params.npz", state.policy)
    data = (tmp_path / "params.npz").read_bytes()
    shapes = jax.eval_shape(agent.init, jax.random.key(0)).policy
    flipped = bytearray(data)
    flipped[len(data) // 3] ^= 1
    for content in (data[: len(data) // 2], b"", b"\x93NUMPY", bytes(flipped)):
        (tmp_path / "params.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"params.npz is damaged .* load_policy\(run, N\)"):
            checkpoint.load_params(tmp_path / "params.npz", shapes)

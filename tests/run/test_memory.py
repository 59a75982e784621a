"""What a run needs is told and, where it cannot fit, refused; and a replay may stay out of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest
from tiny import DREAMER_SIZES, TRAINED, masked

import mxnb
from mxnb.agents.dreamer import DreamerConfig, dreamer
from mxnb.run import memory
from mxnb.run.checkpoint import kept_updates


def small(**more: Any) -> Any:
    return dreamer(DreamerConfig(**DREAMER_SIZES | more), masked())


@pytest.mark.parametrize("name", ["ppo", "dreamer"])
def test_parts_add_up_to_the_state(name: str) -> None:
    agent = TRAINED[name]()
    state = jax.jit(agent.init)(jax.random.key(0))
    plain = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    found = memory.parts(agent)
    assert sum(found.values()) == sum(plain(x).nbytes for x in jax.tree.leaves(state))
    assert ("replay" in found) == (name == "dreamer")


def test_a_replay_larger_than_the_device_is_refused_with_what_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "device_bytes", lambda: 1_000_000)
    agent = small(replay_size=400_000)
    with pytest.raises(
        ValueError, match=r"replay 4.8 MB.*70% of this device are 700 kB; use replay_size = \d+ or less"
    ) as said:
        mxnb.fit(agent, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    fits = int(str(said.value).split("replay_size = ")[1].split()[0])
    memory.check_memory(small(replay_size=fits))
    with pytest.raises(ValueError, match="replay_size"):
        memory.check_memory(small(replay_size=fits + 4000))


def test_where_no_replay_would_fit_a_smaller_preset_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device_bytes", lambda: 1000)
    for agent in (TRAINED["ppo"](), small()):
        with pytest.raises(ValueError, match="use a smaller preset, or fewer environments"):
            memory.check_memory(agent)


def test_a_replay_that_would_fit_and_be_too_small_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 rows would fit, and a sequence of each environment takes 32."""
    agent = small(replay_size=400_000)
    found = memory.parts(agent)
    rest = sum(found.values()) - found["replay"]
    room = rest + 20 * found["replay"] / 400_000
    monkeypatch.setattr(memory, "device_bytes", lambda: room / memory.SHARE)
    with pytest.raises(ValueError, match="use a smaller preset, or fewer environments"):
        memory.check_memory(agent)


def test_the_machine_has_memory() -> None:
    assert memory.device_bytes() > 100e6
    assert [memory.size(n) for n in (12, 3400, 5.6e6, 7.89e9)] == ["12 bytes", "3.4 kB", "5.6 MB", "7.89 GB"]


def test_without_its_replay_a_run_goes_on_after_playing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint is small, the policy loads from it, and the resumed run first fills a new replay."""
    first = small(save_replay=False, replay_size=40_000, total_timesteps=64 + 4 * 10)
    result = mxnb.fit(first, tmp_path, seed=3)
    assert result.status == "done" and kept_updates(tmp_path) == [10]
    weight = sum(f.stat().st_size for f in (tmp_path / "checkpoints").rglob("*") if f.is_file())
    assert weight < 400_000, "the replay alone is 480 kB"
    told = capsys.readouterr().out
    assert "memory: " in told and "replay 480 kB" in told and " besides; the device has " in told
    policy = mxnb.load_policy(tmp_path, 10, agent=first)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), policy.params, result.state.policy))
    again = mxnb.fit(first, tmp_path, seed=3)
    assert again.status == "done" and again.state.envs is None
    assert "the checkpoint holds no replay" not in capsys.readouterr().out
    longer = small(save_replay=False, replay_size=40_000, total_timesteps=64 + 4 * 14)
    more = mxnb.fit(longer, tmp_path, seed=3)
    assert "the checkpoint holds no replay: the policy plays 64 steps first to fill one" in capsys.readouterr().out
    assert int(more.state.update) == 14 and int(more.state.envs.replay.filled) == 16 + 4

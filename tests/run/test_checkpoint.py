"""What is saved comes back bit for bit; what does not fit is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_same_bits, masked

from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.build import build, load_policy
from mxnb.run import checkpoint
from mxnb.run.fit import fit

CONFIG = PPOConfig(num_envs=4, num_steps=4, total_timesteps=160, hidden_dim=8, num_layers=1)


@pytest.fixture(scope="module")
def agent() -> Any:
    return ppo(CONFIG, masked())


@pytest.fixture(scope="module")
def state(agent: Any) -> Any:
    return jax.jit(agent.init)(jax.random.key(7))


def shapes(agent: Any) -> Any:
    return jax.eval_shape(agent.init, jax.random.key(0))


def test_a_whole_state_comes_back_bit_for_bit(agent: Any, state: Any, tmp_path: Path) -> None:
    with checkpoint.open_checkpoints(tmp_path, 3) as manager:
        assert checkpoint.restore(manager, shapes(agent)) is None
        checkpoint.save(manager, 4, state, {"metrics_offset": 17, "wall_seconds": 1.5})
    with checkpoint.open_checkpoints(tmp_path, 3) as manager:
        found, meta = checkpoint.restore(manager, shapes(agent))
    assert_same_bits(found, state)
    leaves, _ = meta.pop("leaves"), meta.pop("sha256")
    assert meta == {"schema": 2, "update": 4, "metrics_offset": 17, "wall_seconds": 1.5}
    assert leaves["update"][:2] == [[], "int32"] and len(leaves) == len(jax.tree.leaves(state))
    kinds = lambda tree: [(x.dtype, getattr(x, "weak_type", False)) for x in jax.tree.leaves(tree)]
    assert kinds(found) == kinds(shapes(agent))  # or a resumed run would compile another program
    assert_same_bits(jax.random.split(found.key), jax.random.split(state.key))


def test_the_newest_few_are_kept_and_a_second_save_is_nothing(agent: Any, state: Any, tmp_path: Path) -> None:
    with checkpoint.open_checkpoints(tmp_path, 2) as manager:
        for update in (1, 2, 5, 9):
            now = replace(state, update=jnp.int32(update))
            checkpoint.save(manager, update, now, {"wall_seconds": float(update)})
        checkpoint.save(manager, 9, state, {"wall_seconds": 0.0})
        steps = tmp_path / "checkpoints" / "steps"
        assert sorted(p.name for p in steps.iterdir()) == ["5", "9"]
        found, meta = checkpoint.restore(manager, shapes(agent))
        assert int(found.update) == 9 == meta["update"] and meta["wall_seconds"] == 9.0
        with pytest.raises(OSError, match="orbax did not write the checkpoint of update 3"):
            manager.save = lambda *args, **kwargs: False  # orbax's way to say no
            checkpoint.save(manager, 3, state, {})


def test_relative_folders_work(state: Any, agent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with checkpoint.open_checkpoints(Path("run"), 1) as manager:
        checkpoint.save(manager, 1, state, {})
    assert (tmp_path / "run" / "checkpoints" / "steps" / "1").is_dir()


def test_left_over_temporary_folders_are_removed(state: Any, agent: Any, tmp_path: Path) -> None:
    with checkpoint.open_checkpoints(tmp_path, 3) as manager:
        checkpoint.save(manager, 1, state, {})
    steps = tmp_path / "checkpoints" / "steps"
    (steps / "2.orbax-checkpoint-tmp").mkdir()
    (steps / "2.orbax-checkpoint-tmp" / "half").write_text("a process was killed here")
    with checkpoint.open_checkpoints(tmp_path, 3) as manager:
        assert checkpoint.restore(manager, shapes(agent))[1]["update"] == 1
    assert [p.name for p in steps.iterdir()] == ["1"]


# --------------------------------------------------------------------------------------------------- the policy


def test_parameters_come_back_from_npz(agent: Any, state: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy" / "params.npz"
    checkpoint.save_params(path, state.policy)
    assert [p.name for p in path.parent.iterdir()] == ["params.npz"]
    assert_same_bits(checkpoint.load_params(path, shapes(agent).policy), state.policy)
    with np.load(path) as stored:  # plain arrays under readable names, no pickle
        assert "['params']['logits']['kernel']" in stored.files


def test_other_shapes_and_names_are_refused(state: Any, tmp_path: Path) -> None:
    path = tmp_path / "params.npz"
    checkpoint.save_params(path, state.policy)
    for change, words in (
        ({"hidden_dim": 16}, r"has shape \(.*\b8\b.*\), the network's is \(.*16.*\)"),
        ({"num_layers": 2}, r"holds other parameters than this network: .*actor_1"),
    ):
        other = shapes(ppo(replace(CONFIG, **change), masked())).policy
        with pytest.raises(ValueError, match=words):
            checkpoint.load_params(path, other)
    checkpoint.save_params(path, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.policy))
    with pytest.raises(ValueError, match=r"is float64, the network's is float32"):
        checkpoint.load_params(path, state.policy)


def test_load_policy_acts_as_the_trained_agent(tmp_path: Path) -> None:
    config = PPOConfig(
        env_id="cartpole-v1", num_envs=8, num_steps=16, total_timesteps=8 * 16 * 4, hidden_dim=16, num_layers=1
    )
    trained, _ = build(config)
    with pytest.raises(FileNotFoundError, match="no policy yet; wait for its first save, or train it"):
        load_policy(tmp_path / "run")
    result = fit(trained, tmp_path / "run")
    policy = load_policy(str(tmp_path / "run"))
    assert policy.spec == trained.spec and policy.memory(policy.params) == ()
    assert_same_bits(policy.params, result.state.policy)
    obs = jax.random.normal(jax.random.key(0), (32, 4))
    for key in (None, jax.random.key(1)):
        ours = jax.vmap(lambda o: trained.act(result.state.policy, o, None, (), key))(obs)  # noqa: B023
        theirs = jax.vmap(lambda o: policy.act(policy.params, o, None, (), key))(obs)  # noqa: B023
        assert_same_bits(ours, theirs)


def test_load_policy_of_an_earlier_checkpoint_and_of_an_own_environment(tmp_path: Path) -> None:
    agent = ppo(replace(CONFIG, total_timesteps=4 * CONFIG.num_envs * CONFIG.num_steps, env_id="own-v0"), masked())
    kept: dict[int, Any] = {}
    result = fit(
        agent,
        tmp_path,
        save_updates=2,
        evaluate=lambda policy: kept.update({len(kept): jax.device_get(policy)}) or {},
        eval_updates=2,
    )
    with pytest.raises(
        ValueError, match=r"cannot be built from its config.json; where the environment, .* is your own"
    ):
        load_policy(tmp_path)
    assert_same_bits(load_policy(tmp_path, agent=agent).params, result.state.policy)
    earlier = load_policy(tmp_path, 2, agent=agent)
    assert_same_bits(earlier.params, kept[0])
    with pytest.raises(AssertionError):
        assert_same_bits(earlier.params, result.state.policy)
    with pytest.raises(FileNotFoundError, match=r"has no checkpoint of update 3; it has \[2, 4\]"):
        load_policy(tmp_path, 3, agent=agent)
    for checkpoint_ in (None, 2):
        with pytest.raises(ValueError, match=r"(?i)shape"):
            load_policy(tmp_path, checkpoint_, agent=ppo(replace(CONFIG, hidden_dim=16), masked()))
    folder = tmp_path / "checkpoints" / "steps" / "4.orbax-checkpoint-tmp"  # a save that is going on
    folder.mkdir()
    load_policy(tmp_path, 2, agent=agent)
    assert folder.exists()
    with pytest.raises(FileNotFoundError, match="has no checkpoint of update 2; it has none"):
        load_policy(tmp_path / "mistyped", 2, agent=agent)
    assert not (tmp_path / "mistyped").exists()
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["config"]["env_id"] = "cartpole-v1"
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"was trained on 'masked-v0', its config.json says 'cartpole-v1'; where"):
        load_policy(tmp_path)


def test_the_best_policy_is_kept_apart(tmp_path: Path) -> None:
    agent = ppo(replace(CONFIG, total_timesteps=6 * CONFIG.num_envs * CONFIG.num_steps, env_id="own-v0"), masked())
    seen: list[Any] = []
    values = [1.0, 3.0, 2.0, 3.0, float("nan"), 0.0]

    def evaluate(policy: Any) -> dict[str, float]:
        seen.append(jax.device_get(policy))
        return {"return": values[len(seen) - 1]}

    with pytest.raises(FileNotFoundError, match="has no best policy; train with evaluate"):
        load_policy(tmp_path, "best")
    fit(agent, tmp_path, evaluate=evaluate, eval_updates=1)
    assert_same_bits(load_policy(tmp_path, "best", agent=agent).params, seen[1])
    record = json.loads((tmp_path / "checkpoints" / "best" / "best.json").read_text())
    assert record == {"update": 2, "eval/return": 3.0}
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["eval/return"] for row in rows] == [1.0, 3.0, 2.0, 3.0, None, 0.0]
    with pytest.raises(ValueError, match="checkpoint is 'bets'; it is the number of an update, or 'best'"):
        load_policy(tmp_path, "bets", agent=agent)

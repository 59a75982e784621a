"""From names to makers, and from a run folder back to its policy."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mxnb
from mxnb import config
from mxnb.agents.ppo import PPOConfig
from mxnb.config import ENV_IDS, make_config

table: Any = import_module("mxnb.build")  # the module: `mxnb.build` is the function
KNOWN = ", ".join(ENV_IDS)


@pytest.fixture
def names_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments that are just their names: these tests are about names."""
    monkeypatch.setattr(table, "ENVS", {name: partial(str, name) for name in table.ENVS})


@pytest.mark.usefixtures("names_only")
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *[(name, name) for name in table.ENVS],
        ("Craftax-Classic-Symbolic-v1", "craftax-classic-symbolic-v1"),
        ("craftax-classic-v1", "craftax-classic-symbolic-v1"),
        ("craftax_classic_v1", "craftax-classic-symbolic-v1"),
        ("craftax_classic", "craftax-classic-symbolic-v1"),
        ("CRAFTAX CLASSIC SYMBOLIC", "craftax-classic-symbolic-v1"),
        ("CartPole-v1", "cartpole-v1"),
        ("cart_pole", "cartpole-v1"),
        ("MountainCar", "mountaincar-v0"),
        ("craftax", "craftax-symbolic-v1"),
        ("Craftax-Pixels", "craftax-pixels-v1"),
        ("breakout", "breakout-minatar"),
        ("Catch-bsuite", "catch-bsuite"),
        ("four_rooms", "fourrooms-misc"),
        ("probe_mask", "probe-mask-v0"),
        ("River_Swim", "chain-river-swim-v0"),
        ("chain-risk", "chain-risk-v0"),
    ],
)
def test_make_is_forgiving(written: str, meant: str) -> None:
    assert mxnb.make(written) == meant


@pytest.mark.usefixtures("names_only")
@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("craftax-clasic-v1", "craftax-classic-symbolic-v1"),
        ("cartpol-v1", "cartpole-v1"),
        ("cartpole-v7", "cartpole-v1"),
        ("montaincar-v0", "mountaincar-v0"),
        ("breakot", "breakout-minatar"),
    ],
)
def test_an_unknown_id_names_the_nearest(written: str, near: str) -> None:
    with pytest.raises(ValueError) as caught:
        mxnb.make(written)
    said = str(caught.value)
    assert said.startswith(f"unknown environment {written!r}; did you mean {near}") and said.endswith(f"? All: {KNOWN}")


@pytest.mark.usefixtures("names_only")
@pytest.mark.parametrize("written", ["", "zzzzzz"])
def test_an_id_like_no_other_lists_them_all(written: str) -> None:
    with pytest.raises(ValueError, match=f"All: {KNOWN}"):
        mxnb.make(written)


def test_every_environment_is_called_what_the_table_says() -> None:
    assert tuple(table.ENVS) == ENV_IDS
    for name in table.ENVS:
        assert mxnb.make(name).spec.id == name


def test_build_makes_the_agent_and_the_environment() -> None:
    agent, env = mxnb.build(make_config(PPOConfig, preset="smoke", env_id="CartPole"))
    assert (agent.name, env.spec.id, agent.spec) == ("ppo", "cartpole-v1", env.spec)
    assert (agent.steps_per_update, agent.num_updates) == (128, 8)
    assert agent.config == agent.config.resolve()


def test_build_names_what_it_can_build() -> None:
    with pytest.raises(TypeError, match="dict is no agent's configuration; have ppo"):
        mxnb.build({})


def test_build_fails_before_training_for_an_unknown_environment() -> None:
    with pytest.raises(ValueError, match="did you mean cartpole-v1"):
        mxnb.build(make_config(PPOConfig, env_id="cartpolle-v1"))


def test_the_compilation_cache_is_turned_on_and_yours_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", "mine")
        config.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == "mine"
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        config.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mxnb" / "jax")
    finally:
        jax.config.update("jax_compilation_cache_dir", there)


def test_a_trained_policy_is_loaded_as_it_was(tmp_path: Path, key: Any) -> None:
    config = make_config(PPOConfig, env_id="cartpole-v1", num_envs=4, num_steps=8, total_timesteps=64, hidden_dim=16)
    agent, env = mxnb.build(config)
    with pytest.raises(FileNotFoundError, match="has no policy yet; wait for its first save, or train it to the end"):
        mxnb.load_policy(tmp_path / "run")
    result = mxnb.fit(agent, tmp_path / "run", seed=5)
    policy = mxnb.load_policy(tmp_path / "run")
    ours, theirs = jax.tree.leaves(policy.params), jax.tree.leaves(result.state.policy)
    assert len(ours) == len(theirs) == 10
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    obs = jnp.array([0.1, 0.0, -0.1, 0.0])
    for key_ in (None, key):
        action, _, extras = policy.act(policy.params, obs, None, policy.memory(policy.params), key_)
        expected, _, wanted = agent.act(result.state.policy, obs, None, (), key_)
        assert action == expected and extras["value"] == wanted["value"]
    episodes = mxnb.evaluate(policy, env, 4, key, max_steps=20)
    assert episodes.returns.shape == (4,) and (episodes.lengths > 0).all()


def test_the_package_keeps_its_functions_whatever_is_imported_first() -> None:
    # mxnb.build and mxnb.evaluate are modules too, and importing one must not hide the function.
    code = (
        "import mxnb, mxnb.build, mxnb.evaluate, mxnb.show, mxnb.run.fit\n"
        "names = ('build', 'check', 'evaluate', 'fit', 'make', 'parameters', 'load_policy')\n"
        "assert all(callable(getattr(mxnb, name)) for name in names)\n"
        "from mxnb.build import ENVS\n"
        "assert mxnb.show.__name__ == 'mxnb.show' and set(dir(mxnb)) == set(mxnb.__all__)\n"
        "try:\n    mxnb.nonsense\n"
        "except AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("module 'mxnb' has no attribute 'nonsense'; it exports build, check, doctor")


def test_the_name_of_a_stream_is_told_from_that_of_its_environment() -> None:
    with pytest.raises(ValueError, match="what agent average_reward makes of an environment; give that one's own id"):
        mxnb.make("survival-cartpole-v1")

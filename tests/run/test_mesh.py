"""The same training on one device and on eight: environments bit for bit, parameters to float32's rounding."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from tiny import PPO_SIZES, masked

from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.run.fit import fit

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.brief


@pytest.mark.parametrize("name", ["ppo", "ppo_rnn", "average_reward", "dreamer"])
def test_eight_devices_do_what_one_does(name: str, tmp_path: Path) -> None:
    """The State's environments are cut over them, all else is everywhere; a run on eight goes on on one."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    told = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": paths}
    words = [sys.executable, str(Path(__file__).with_name("mesh_child.py")), name, str(tmp_path / "run")]
    done = subprocess.run(words, env=told, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (far,) = re.findall(r"parameters differ by at most (\S+)", done.stdout)
    assert float(far) < 1e-5
    if name == "ppo":
        assert "usable on each of 8 x this CPU" in done.stdout and "goes on after update 1 of 3" in done.stdout


def test_what_cannot_be_cut_evenly_is_refused(tmp_path: Path) -> None:
    one = jax.make_mesh((1,), ("envs",))
    agent = ppo(PPOConfig(**PPO_SIZES | {"total_timesteps": 128}), masked())
    assert fit(agent, tmp_path / "one", mesh=one).status == "done"
    words = r"num_envs = 8 does not divide over the mesh's 3 devices: use a multiple of 3; shards = 1 does not"
    with pytest.raises(ValueError, match=words):
        fit(agent, tmp_path / "run", mesh=SimpleNamespace(size=3, axis_names=("envs",)))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="shards = 3 does not divide num_envs = 8; use shards = 1"):
        PPOConfig(**PPO_SIZES | {"shards": 3}).resolve()

"""One agent on one device and on eight: `python mesh_child.py NAME FOLDER` with eight virtual CPU devices."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tiny import DREAMER_SIZES, PPO_SIZES, host, masked

from mxnb.agents.average_reward import AverageRewardConfig, average_reward
from mxnb.agents.dreamer import DreamerConfig, dreamer
from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.agents.ppo_rnn import PPORnnConfig, ppo_rnn
from mxnb.envs.survival import survival
from mxnb.run.fit import fit
from mxnb.run.program import placement, updates

SIZES = PPO_SIZES | {"num_envs": 64, "shards": 8, "num_minibatches": 1, "update_epochs": 1}
SIZES |= {"total_timesteps": 64 * 16 * 3}
DREAMS = DREAMER_SIZES | {"num_envs": 16, "shards": 8, "replay_size": 16 * 64, "prefill": 256}
LIVES = {"phase_steps": 4, "r_reset": 5}


def built(name: str) -> Any:
    if name == "dreamer":
        return dreamer(DreamerConfig(**DREAMS | {"total_timesteps": 256 + 16 * 6}), masked())
    if name == "average_reward":
        return average_reward(AverageRewardConfig(**SIZES | LIVES), survival(masked(), 5))
    return ppo(PPOConfig(**SIZES), masked()) if name == "ppo" else ppo_rnn(PPORnnConfig(**SIZES), masked())


def updated(agent: Any, mesh: Any) -> Any:
    """The state after one update, begun alike."""
    start = jax.device_put(jax.jit(agent.init)(jax.random.key(0)), placement(agent, mesh))
    return updates(agent, donate=False, mesh=mesh).call(start, jnp.int32(1))[0]


def main(name: str, folder: str) -> None:
    agent, mesh = built(name), jax.make_mesh((8,), ("envs",))
    alone, shared = updated(agent, None), updated(agent, mesh)
    # What Dreamer remembers while playing is its networks' work, and those differ by rounding.
    worlds = lambda envs: (envs.vec, envs.replay) if name == "dreamer" else envs
    for x, y in zip(*(jax.tree.leaves(host(worlds(s.envs))) for s in (alone, shared)), strict=True):
        np.testing.assert_array_equal(x, y)
    leaves = zip(*(jax.tree.leaves(host(s.policy)) for s in (alone, shared)), strict=True)
    print("parameters differ by at most", max(np.abs(x - y).max() for x, y in leaves))
    cut = [leaf for leaf in jax.tree.leaves(shared.envs) if leaf.ndim]
    assert all(leaf.addressable_shards[0].data.shape[0] == leaf.shape[0] // 8 for leaf in cut)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(shared.policy))
    if name == "ppo":  # a run that was begun on eight devices goes on on one
        with suppress(Stopped):
            fit(agent, folder, mesh=mesh, hooks=[stop])
        result = fit(agent, folder)
        assert (result.status, result.update) == ("done", 3)


class Stopped(Exception):
    """Ends a run after its first chunk, which is saved."""


def stop(run_dir: Any, rows: Any) -> None:
    raise Stopped


if __name__ == "__main__":
    main(*sys.argv[1:])

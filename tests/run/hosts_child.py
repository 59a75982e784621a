"""One process of a run: `python hosts_child.py PROCESS PROCESSES PORT FOLDER SCENE ...`, each with its devices."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tiny import PPO_SIZES, masked

from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.run import fit as runner

UPDATES = 12
SIZES = PPO_SIZES | {"num_envs": 8, "shards": 4, "num_minibatches": 1, "update_epochs": 2}
SIZES |= {"total_timesteps": 8 * 16 * UPDATES}


def agent(**other: Any) -> Any:
    return ppo(PPOConfig(**SIZES | other), masked())


def mesh() -> Any:
    return jax.make_mesh((jax.device_count(),), ("envs",))


def told(folder: Path, name: str, **words: Any) -> None:
    """What the test reads."""
    (folder / f"{name}-{jax.process_index()}.json").write_text(json.dumps(words))


def run(folder: Path, name: str, **options: Any) -> None:
    """A run to its end, or as far as it gets."""
    result = runner.fit(agent(), folder / name, mesh=mesh(), chunk_seconds=0.05, **options)
    leaves = [np.asarray(leaf.addressable_data(0)) for leaf in jax.tree.leaves(result.state.policy)]
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()
    told(folder, name, status=result.status, update=result.update, policy=digest, pid=os.getpid())


def slow(run_dir: Any, rows: Any) -> None:
    """A hook that gives the test time for a signal."""
    time.sleep(0.2)


def main(process: str, processes: str, port: str, folder: str, *scenes: str) -> None:
    if int(processes) > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process), heartbeat_timeout_seconds=20)
    for scene in scenes:
        run(Path(folder), scene)


if __name__ == "__main__":
    main(*sys.argv[1:])

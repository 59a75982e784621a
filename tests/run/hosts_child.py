"""One process of a run: `python hosts_child.py PROCESS PROCESSES PORT FOLDER HOW:RUN ...`, with its own devices."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tiny import PPO_SIZES, host, masked, sha256

from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.run.fit import fit

UPDATES = 12
SIZES: dict[str, Any] = PPO_SIZES | {"shards": 4, "num_minibatches": 1, "total_timesteps": 8 * 16 * UPDATES}


def agent(**other: Any) -> Any:
    return ppo(PPOConfig(**SIZES | other), masked())


def mesh() -> Any:
    return jax.make_mesh((jax.device_count(),), ("envs",))


def tell(folder: Path, name: str, words: Any) -> None:
    """What the test reads."""
    (folder / f"{name}-{jax.process_index()}.json").write_text(json.dumps(words))


def run(folder: Path, name: str, **options: Any) -> None:
    """A run as far as it gets; of several processes only the first is given the folder."""
    own = folder if jax.process_index() == 0 else folder / "nobody"
    result = fit(agent(), own / name, mesh=mesh(), chunk_seconds=0.05, **options)
    policy = jax.tree.map(lambda x: x.addressable_data(0), result.state.policy)
    tell(folder, name, {"status": result.status, "update": result.update, "policy": sha256(host(policy))})


def slow(folder: Path, name: str) -> None:
    """With time for a signal."""
    run(folder, name, hooks=[lambda run_dir, rows: time.sleep(0.2)])


def twice(folder: Path, name: str) -> None:
    """To its end, with evaluations, which know of one process only; and once more, when there is nothing to train."""
    size = jax.jit(lambda policy: sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(policy)))

    def evaluate(policy: Any) -> dict[str, Any]:
        assert all(leaf.is_fully_addressable for leaf in jax.tree.leaves(policy))
        return {"return": size(policy)}

    for _ in range(2):
        run(folder, name, evaluate=evaluate, eval_updates=4)


def failing(folder: Path, name: str) -> None:
    """Ended by an error of process 0's alone, after a save."""

    def full(run_dir: Any, rows: Any) -> None:
        if rows[-1]["update"] >= 5:
            raise OSError("no room")

    tell(folder, name, [refused(run, folder, name, hooks=[full])])


def errors(folder: Path, name: str) -> None:
    """Everything that is refused."""
    mine, second = jax.sharding.Mesh(jax.local_devices(), ("envs",)), jax.process_index()
    asked: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"mesh": None}),
        ({}, {"mesh": mine}),
        ({}, {"mesh": None} if second else {}),  # one alone: the other must not wait for it
        ({}, {"seed": second}),
        ({"lr": 1e-3 * (1 + second)}, {}),
        ({"num_envs": 7, "shards": 1}, {}),
        ({}, {"keep": 0}),
    ]
    tell(folder, name, [refused(fit, agent(**c), folder / name, **{"mesh": mesh()} | o) for c, o in asked])


def refused(call: Any, *args: Any, **options: Any) -> list[str]:
    """The error, in words."""
    try:
        call(*args, **options)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


HOW = {"run": run, "slow": slow, "twice": twice, "failing": failing, "errors": errors}


def main(process: str, processes: str, port: str, folder: str, *scenes: str) -> None:
    if int(processes) > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))
    for scene in scenes:
        how, name = scene.split(":")
        HOW[how](Path(folder), name)


if __name__ == "__main__":
    main(*sys.argv[1:])

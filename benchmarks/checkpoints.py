"""Seconds to save, verify and restore a training state, by size.

    python benchmarks/checkpoints.py 200    a state of 200 MB, three times; the medians
    python benchmarks/checkpoints.py ppo    the share of saving in a run of the cpu preset that saves every minute

In a temporary folder on the disk that holds this one."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from measure import report


def timed(work: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def measured(state: Any, shapes: Any) -> dict[str, float]:
    """Medians of three rounds, with the state's size."""
    from mxnb.run import checkpoint

    megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
    rounds: list[tuple[float, ...]] = []
    for _ in range(3):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            with checkpoint.open_checkpoints(Path(folder), 1) as manager:
                save_s = timed(lambda: checkpoint.save(manager, 1, state, {}))[0]
            with checkpoint.open_checkpoints(Path(folder), 1) as manager:
                restore_s, found = timed(lambda: jax.block_until_ready(checkpoint.restore(manager, shapes)))
        rounds.append((save_s, restore_s, timed(lambda: checkpoint.digests(found[0]))[0]))  # noqa: B023
    save_s, restore_s, verify_s = map(statistics.median, zip(*rounds, strict=True))
    return {
        "megabytes": megabytes,
        "save_s": save_s,
        "restore_s": restore_s,
        "verify_s": verify_s,
        "verify_mb_per_s": megabytes / verify_s,
    }


def share_of_training() -> dict[str, float]:
    """A run of PPO on Craftax-Classic in the cpu preset that saves every minute, as notebook 02 does; two minutes."""
    import mxnb
    from mxnb.agents.ppo import PPOConfig
    from mxnb.config import make_config
    from mxnb.run import fit as runner

    agent, _ = mxnb.build(make_config(PPOConfig, preset="cpu", total_timesteps=600_000))
    seconds: list[float] = []
    whole = runner.save

    def save(*args: Any, **how: Any) -> None:
        seconds.append(timed(lambda: whole(*args, **how))[0])

    runner.save = save
    with tempfile.TemporaryDirectory(dir=".") as folder:
        wall, _ = timed(lambda: mxnb.fit(agent, Path(folder) / "run", save_minutes=1))
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = sum(agent.steps_per_update / row["time/steps_per_second"] for row in rows)
    return {
        "saves": len(seconds),
        "save_s": statistics.median(seconds),
        "training_s": trained,
        "wall_s": wall,
        "percent_of_training": 100 * sum(seconds) / trained,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", help="megabytes, or ppo")
    args = parser.parse_args()
    if args.what != "ppo":
        leaves = 20
        size = int(float(args.what) * 1e6 / 4 / leaves)
        state = {f"leaf{i}": jax.random.normal(jax.random.key(i), (size,)) for i in range(leaves)}
        report(**measured(state, jax.eval_shape(lambda: state)))
        return
    report(**share_of_training())


if __name__ == "__main__":
    main()

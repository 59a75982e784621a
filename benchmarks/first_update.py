"""Seconds from the start of Python to the first row of metrics.jsonl, and peak memory, through `fit`.

    python benchmarks/first_update.py first RUN_DIR     Craftax-Classic, 64 x 64, the cpu preset's sizes
    python benchmarks/first_update.py smoke RUN_DIR     the whole smoke preset

The harness sets JAX_COMPILATION_CACHE_DIR (empty for the cold run) and BENCH_BEGIN, when it started Python."""

from __future__ import annotations

import os
import time

BEGIN = float(os.environ.get("BENCH_BEGIN", time.time()))

import argparse  # noqa: E402  the clock starts before any import
import threading  # noqa: E402
from pathlib import Path  # noqa: E402

UPDATES = 3  # what `first` trains: enough to reach the first row and end by itself


def watch(metrics: Path, found: list[float], stop: threading.Event) -> None:
    """Notes when the first whole line of `metrics` can be read by others."""
    while not found and not stop.wait(0.02):
        if metrics.exists() and b"\n" in metrics.read_bytes():
            found.append(time.time() - BEGIN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("first", "smoke"))
    parser.add_argument("run_dir", type=Path)
    args = parser.parse_args()
    found: list[float] = []
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(args.run_dir / "metrics.jsonl", found, stop))
    watcher.start()
    try:
        from mxnb.agents.ppo import PPOConfig
        from mxnb.build import build
        from mxnb.config import make_config
        from mxnb.run.fit import fit

        sizes = {} if args.what == "smoke" else {"total_timesteps": UPDATES * 64 * 64}
        config = make_config(PPOConfig, preset="smoke" if args.what == "smoke" else "cpu", **sizes)
        agent, _ = build(config)
        fit(agent, args.run_dir, seed=0, resume=False)
        time.sleep(0.1)  # one more look at the file
    finally:
        stop.set()
        watcher.join()
    from measure import report

    report(what=args.what, first_metrics_s=found[0], whole_s=time.time() - BEGIN)


if __name__ == "__main__":
    main()

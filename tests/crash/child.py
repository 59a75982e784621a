"""A training process for the crash tests; prints the update each run went on after and the sha256 of its final State.

PYTHONPATH=tests python tests/crash/child.py ppo RUN_DIR [RUN_DIR ...] [--save-updates N] [--file-limit BYTES]"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from typing import Any

from tiny import TRAINED, sha256

from mxnb.config import use_compilation_cache
from mxnb.run.fit import fit


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("agent", choices=tuple(TRAINED))
    parser.add_argument("run_dirs", type=Path, nargs="+")
    parser.add_argument("--save-updates", type=int, default=1)
    parser.add_argument("--keep", type=int, default=3)
    parser.add_argument("--file-limit", type=int, default=0, help="no file may grow beyond this: a disk that fills up")
    args = parser.parse_args()
    use_compilation_cache()
    agent = TRAINED[args.agent]()
    if args.file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.file_limit, args.file_limit))
    for run_dir in args.run_dirs:
        said: list[int] = []

        def say_start(_: Path, rows: Any, said: list[int] = said) -> None:
            if not said:
                said.append(rows[0]["update"] - 1)
                print("from", *said, flush=True)

        how = {"save_updates": args.save_updates, "save_minutes": 1e9, "keep": args.keep}
        result = fit(agent, run_dir, hooks=[say_start], **how)
        if not said:
            print("from", result.update)
        print("state", sha256(result.state), flush=True)


if __name__ == "__main__":
    main()

"""The command line: `python -m mxnb --help`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status (0 when all went well)."""
    parser = argparse.ArgumentParser(prog="python -m mxnb", description="A notebook-first RL workbook in JAX.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="say whether everything here is ready")
    doctor.add_argument(
        "--envs", nargs="*", metavar="ENV_ID", required=True, help="check these environments, or without ids all"
    )
    args = parser.parse_args(argv)
    from mxnb import doctor as doctor_
    from mxnb.build import make

    try:
        return 0 if doctor_.envs(make, args.envs) else 1
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    raise SystemExit(main())

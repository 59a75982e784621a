"""Is everything here ready? `python -m mxnb doctor --envs` looks at the environments, rule by rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from mxnb.config import ENV_IDS, canonical_env_id, use_compilation_cache


def envs(make: Callable[[str], Any], ids: Sequence[str] = ()) -> bool:
    """Checks every environment (or those named), prints a line each and the words of every broken rule.

    make: how an id becomes an `Env`, as `mxnb.make`. Returns whether all are ready; ValueError for unknown ids.
    """
    from mxnb.envs.check import check

    use_compilation_cache()
    chosen = [canonical_env_id(i) for i in ids] or list(ENV_IDS)
    print(f"Checking {len(chosen)} environments; the Craftax ones take about a minute each the first time.", flush=True)
    width = max(map(len, chosen))
    ready = 0
    for env_id in chosen:
        start = time.monotonic()
        try:
            report = check(make(env_id))
            problems = report.problems
        except Exception as error:
            problems = (f"cannot be made: {type(error).__name__}: {error}",)
        ready += not problems
        print(
            f"  {env_id:<{width}}  {'BROKEN' if problems else 'ok':<6}  {time.monotonic() - start:5.1f} s", flush=True
        )
        for problem in problems:
            print(f"    {problem}", flush=True)
    print(f"{ready} of {len(chosen)} environments are ready.")
    return ready == len(chosen)

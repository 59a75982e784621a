"""What every measured process needs: compile, time, and print one JSON line. Imports nothing of mxnb, so that
the peers' environments can use it too."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import time

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "craftax", "rejax")

# One recipe for both sides of the PPO comparison. `calls` and `seconds` are lower bounds of the measured window.
PPO_CASES = {
    "craftax": {"env": "craftax-classic-symbolic-v1", "num_envs": 64, "num_steps": 64, "hidden_dim": 256},
    "cartpole_64": {"env": "cartpole-v1", "num_envs": 64, "num_steps": 64, "hidden_dim": 64},
    "cartpole_512": {"env": "cartpole-v1", "num_envs": 512, "num_steps": 64, "hidden_dim": 64},
}
PPO_COMMON = {
    "num_layers": 2, "num_minibatches": 4, "update_epochs": 4, "lr": 2.5e-4, "gamma": 0.99, "gae_lambda": 0.95,
    "clip_eps": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5,
}  # fmt: skip


def compile_timed(function, *args, donate: bool = True):
    """(compiled function, seconds of tracing and compiling), apart from running it."""
    begin = time.perf_counter()
    compiled = jax.jit(function, donate_argnums=(0,) if donate else ()).lower(*args).compile()
    return compiled, time.perf_counter() - begin


def time_calls(call, state, *, warm_up: int, calls: int, seconds: float = 0.0):
    """Calls `state, out = call(state)`: `warm_up` times untimed, then at least `calls` times and `seconds` long.

    Returns (number of timed calls, their seconds, cores used meanwhile, the outputs of the timed calls). Fewer
    cores used than in another run of the same program means that something else was running."""
    for _ in range(warm_up):
        state, out = call(state)
        jax.block_until_ready((state, out))
    outs = []
    begin, cpu_begin = time.perf_counter(), time.process_time()
    while len(outs) < calls or time.perf_counter() - begin < seconds:
        state, out = call(state)
        jax.block_until_ready((state, out))
        outs.append(out)
    elapsed = time.perf_counter() - begin
    return len(outs), elapsed, (time.process_time() - cpu_begin) / elapsed, outs


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, as far as they are installed here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def report(**numbers) -> None:
    """Prints the one line that the harness reads."""
    line = {
        **numbers,
        "peak_rss_mb": peak_rss_mb(),
        "device_kind": jax.devices()[0].device_kind,
        "versions": versions(),
    }
    print(json.dumps(line), flush=True)

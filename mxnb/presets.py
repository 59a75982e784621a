"""The sizes that fit a device. A preset changes scale, never meaning.

`expect` says how long the run takes and how much disk it may use, and whether that was measured.
"""

from __future__ import annotations

import os
from typing import Any

NAMES = ("smoke", "cpu", "colab_t4", "colab_t4_small", "gpu", "tpu")
"""Every agent has exactly these; "auto" chooses among them."""

# compare_timesteps belongs to notebooks 02 and 03: the budget of what they compare with.
_SMOKE = "training takes seconds once compiled and learns nothing: a test that all runs; 10 MB of disk"
_UNKNOWN = "not measured yet; up to 500 MB of disk"
_LOOK = "takes a few minutes the first time and trains nothing"
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Not an agent: what notebook 01 looks at.
    "env_checks": {
        "smoke": {"num_envs": 8, "num_steps": 16, "check_all": False, "expect": "a test that all runs; no disk"},
        "cpu": {"num_envs": 64, "num_steps": 256, "check_all": True, "expect": _LOOK},
        "colab_t4": {"num_envs": 256, "num_steps": 256, "check_all": True, "expect": _LOOK},
        "colab_t4_small": {"num_envs": 64, "num_steps": 256, "check_all": False, "expect": _LOOK},
        "gpu": {"num_envs": 1024, "num_steps": 256, "check_all": True, "expect": _LOOK},
        "tpu": {"num_envs": 2048, "num_steps": 256, "check_all": True, "expect": _LOOK},
    },
    "ppo": {
        "smoke": {
            "num_envs": 8,
            "num_steps": 16,
            "total_timesteps": 1024,
            "hidden_dim": 32,
            "compare_timesteps": 512,
            "expect": "training takes seconds once compiled and learns nothing: a test that all runs; 10 MB of disk",
        },
        "cpu": {
            "num_envs": 64,
            "num_steps": 64,
            "total_timesteps": 1_000_000,
            "hidden_dim": 256,
            "compare_timesteps": 100_000,
            "expect": "training takes about 3 minutes on Craftax-Classic and 2 CPU cores (measured); 80 MB of disk",
        },
        "colab_t4": {
            "num_envs": 64,
            "num_steps": 128,
            "total_timesteps": 5_000_000,
            "hidden_dim": 256,
            "compare_timesteps": 500_000,
            "expect": "not measured on a T4 yet; 80 MB of disk",
        },
        "colab_t4_small": {
            "num_envs": 32,
            "num_steps": 64,
            "total_timesteps": 1_000_000,
            "hidden_dim": 128,
            "compare_timesteps": 100_000,
            "expect": "not measured on a T4 yet; 50 MB of disk",
        },
        "gpu": {
            "num_envs": 1024,
            "num_steps": 64,
            "total_timesteps": 50_000_000,
            "hidden_dim": 512,
            "compare_timesteps": 5_000_000,
            "expect": "not measured yet; 300 MB of disk",
        },
        "tpu": {
            "num_envs": 2048,
            "num_steps": 128,
            "total_timesteps": 100_000_000,
            "hidden_dim": 512,
            "compare_timesteps": 10_000_000,
            "expect": "not measured yet; 500 MB of disk",
        },
    },
    "ppo_rnn": {
        "smoke": {"num_envs": 8, "num_steps": 16, "total_timesteps": 1024, "hidden_dim": 32, "expect": _SMOKE},
        "cpu": {
            "num_envs": 64,
            "num_steps": 64,
            "total_timesteps": 1_000_000,
            "hidden_dim": 256,
            "expect": "training takes about 8 minutes on Craftax-Classic and 2 CPU cores (measured); 80 MB of disk",
        },
        "colab_t4": {
            "num_envs": 64,
            "num_steps": 128,
            "total_timesteps": 5_000_000,
            "hidden_dim": 256,
            "expect": _UNKNOWN,
        },
        "colab_t4_small": {
            "num_envs": 32,
            "num_steps": 64,
            "total_timesteps": 1_000_000,
            "hidden_dim": 128,
            "expect": _UNKNOWN,
        },
        "gpu": {
            "num_envs": 1024,
            "num_steps": 64,
            "total_timesteps": 50_000_000,
            "hidden_dim": 512,
            "expect": _UNKNOWN,
        },
        "tpu": {
            "num_envs": 2048,
            "num_steps": 128,
            "total_timesteps": 100_000_000,
            "hidden_dim": 512,
            "expect": _UNKNOWN,
        },
    },
    "average_reward": {
        "smoke": {
            "num_envs": 8,
            "num_steps": 16,
            "total_timesteps": 1024,
            "compare_timesteps": 1024,
            "hidden_dim": 32,
            "phase_steps": 4,
            "expect": _SMOKE,
        },
        "cpu": {
            "num_envs": 64,
            "num_steps": 64,
            "total_timesteps": 1_000_000,
            "compare_timesteps": 1_000_000,
            "hidden_dim": 256,
            "phase_steps": 256,
            "expect": "training takes about 8 minutes on Craftax-Classic and 2 CPU cores (measured); 50 MB of disk",
        },
        "colab_t4": {
            "num_envs": 128,
            "num_steps": 64,
            "total_timesteps": 5_000_000,
            "compare_timesteps": 5_000_000,
            "hidden_dim": 256,
            "phase_steps": 256,
            "expect": _UNKNOWN,
        },
        "colab_t4_small": {
            "num_envs": 32,
            "num_steps": 64,
            "total_timesteps": 1_000_000,
            "compare_timesteps": 1_000_000,
            "hidden_dim": 128,
            "phase_steps": 256,
            "expect": _UNKNOWN,
        },
        "gpu": {
            "num_envs": 256,
            "num_steps": 64,
            "total_timesteps": 10_000_000,
            "compare_timesteps": 10_000_000,
            "hidden_dim": 256,
            "phase_steps": 256,
            "expect": _UNKNOWN,
        },
        "tpu": {
            "num_envs": 2048,
            "num_steps": 64,
            "total_timesteps": 100_000_000,
            "compare_timesteps": 100_000_000,
            "hidden_dim": 256,
            "phase_steps": 256,
            "expect": _UNKNOWN,
        },
    },
}

_NEEDS = {"colab_t4": "gpu", "colab_t4_small": "gpu", "gpu": "gpu", "tpu": "tpu"}


def choose(preset: str) -> tuple[str, str]:
    """The preset's name and why. "auto" or "" looks at MXNB_PRESET, then at the hardware.

    Raises ValueError for a preset whose hardware is not there.
    """
    given, why = (preset, "parameter") if preset not in ("", "auto") else (os.environ.get("MXNB_PRESET"), "MXNB_PRESET")
    if given and given != "auto":
        return _checked(given), why
    platform, kind = _device()
    if platform == "tpu":
        return "tpu", f"auto: {kind}"
    if platform == "gpu":
        return ("colab_t4" if "T4" in kind else "gpu"), f"auto: {kind}"
    return "cpu", "auto: no accelerator"


def _checked(preset: str) -> str:
    needs = _NEEDS.get(preset)
    if needs and needs != _device()[0]:
        here = "a TPU" if _device()[0] == "tpu" else "a GPU" if _device()[0] == "gpu" else "no accelerator"
        raise ValueError(
            f"preset {preset!r} is for a {needs.upper()} and JAX sees {here} here; use preset='auto' or 'cpu', "
            f"or choose a runtime with a {needs.upper()} (in Colab: Runtime > Change runtime type)"
        )
    return preset


def _device() -> tuple[str, str]:
    import jax

    device = jax.devices()[0]
    platform = "gpu" if device.platform in ("gpu", "cuda", "rocm") else device.platform
    return platform, device.device_kind

"""The sizes that fit a device. A preset changes scale, never meaning.

`expect` says how long the run takes and how much disk it may use, and whether that was measured.
"""

from __future__ import annotations

import os
from typing import Any

NAMES = ("smoke", "cpu", "colab_t4", "colab_t4_small", "gpu", "tpu")
"""Every agent has exactly these; "auto" chooses among them."""

# compare_timesteps belongs to notebooks 02 to 04: the budget of what they compare with; sizes to 05: how many it tries.
_SMOKE = "training takes seconds once compiled and learns nothing: a test that all runs; 10 MB of disk"
_UNKNOWN = "not measured yet; up to 500 MB of disk"
_LOOK = "takes a few minutes the first time and trains nothing"
_LARGE = "not measured yet; up to 2 GB of disk, most of it the replay in 3 checkpoints"
_LARGEST = "not measured yet; up to 5 GB of disk, most of it 3 checkpoints"
# Dreamer's sizes: the world model's, then how much is replayed.
_SMALL = {
    "deter": 256,
    "hidden_dim": 128,
    "stoch": 16,
    "classes": 16,
    "blocks": 4,
    "units": 128,
    "num_layers": 2,
    "num_bins": 63,
    "lr": 1e-3,
    "warmup_steps": 50,
}
_PROBE = _SMALL | {
    "deter": 128,
    "hidden_dim": 64,
    "stoch": 8,
    "classes": 8,
    "units": 64,
    "num_envs": 16,
    "batch_size": 8,
    "num_steps": 16,
    "train_ratio": 64,
    "starts": 128,
    "horizon": 10,
}
_T4 = {
    "deter": 1024,
    "hidden_dim": 256,
    "stoch": 32,
    "classes": 16,
    "blocks": 8,
    "units": 256,
    "num_layers": 3,
    "num_bins": 255,
    "lr": 2e-4,
    "warmup_steps": 500,
}
_SIZE12M = _T4 | {
    "deter": 2048,
    "num_envs": 16,
    "batch_size": 16,
    "num_steps": 64,
    "train_ratio": 128,
    "starts": 1024,
    "total_timesteps": 1_000_000,
    "compare_timesteps": 1_000_000,
    "replay_size": 1_000_000,
    "expect": _LARGEST,
}
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
            "sizes": 1,
            "expect": "training takes seconds once compiled and learns nothing: a test that all runs; 10 MB of disk",
        },
        "cpu": {
            "num_envs": 64,
            "num_steps": 64,
            "total_timesteps": 1_000_000,
            "hidden_dim": 256,
            "compare_timesteps": 100_000,
            "sizes": 4,
            "expect": "training takes about 3 minutes on Craftax-Classic and 2 CPU cores (measured); 80 MB of disk",
        },
        "colab_t4": {
            "num_envs": 64,
            "num_steps": 128,
            "total_timesteps": 5_000_000,
            "hidden_dim": 256,
            "compare_timesteps": 500_000,
            "sizes": 3,
            "expect": "not measured on a T4 yet; 80 MB of disk",
        },
        "colab_t4_small": {
            "num_envs": 32,
            "num_steps": 64,
            "total_timesteps": 1_000_000,
            "hidden_dim": 128,
            "compare_timesteps": 100_000,
            "sizes": 3,
            "expect": "not measured on a T4 yet; 50 MB of disk",
        },
        "gpu": {
            "num_envs": 1024,
            "num_steps": 64,
            "total_timesteps": 50_000_000,
            "hidden_dim": 512,
            "compare_timesteps": 5_000_000,
            "sizes": 6,
            "expect": "not measured yet; 300 MB of disk",
        },
        "tpu": {
            "num_envs": 2048,
            "num_steps": 128,
            "total_timesteps": 100_000_000,
            "hidden_dim": 512,
            "compare_timesteps": 10_000_000,
            "sizes": 6,
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
    "dreamer": {
        "smoke": _PROBE
        | {
            "total_timesteps": 1024 + 2 * 16,
            "compare_timesteps": 1024,
            "replay_size": 4096,
            "expect": _SMOKE,
        },
        "cpu": _SMALL
        | {
            "num_envs": 8,
            "batch_size": 16,
            "num_steps": 32,
            "train_ratio": 16,
            "starts": 128,
            "total_timesteps": 200_000,
            "compare_timesteps": 200_000,
            "replay_size": 200_000,
            "ent_coef": 3e-3,
            "expect": "training takes 7 to 10 minutes on Craftax-Classic and 2 CPU cores (measured); 100 MB of disk",
        },
        "colab_t4": _T4
        | {
            "num_envs": 16,
            "batch_size": 16,
            "num_steps": 64,
            "train_ratio": 64,
            "starts": 256,
            "total_timesteps": 1_000_000,
            "compare_timesteps": 1_000_000,
            "replay_size": 1_000_000,
            "expect": _LARGE,
        },
        "colab_t4_small": _T4
        | {
            "num_envs": 16,
            "batch_size": 8,
            "num_steps": 64,
            "train_ratio": 64,
            "starts": 128,
            "total_timesteps": 500_000,
            "compare_timesteps": 500_000,
            "replay_size": 500_000,
            "expect": _LARGE,
        },
        "gpu": _SIZE12M
        | {
            "deter": 4096,
            "hidden_dim": 512,
            "classes": 32,
            "units": 512,
            "train_ratio": 256,
            "lr": 1e-4,
            "warmup_steps": 1000,
        },
        "tpu": _SIZE12M | {"num_envs": 64, "batch_size": 32, "starts": 2048},
        "probe": _PROBE
        | {"total_timesteps": 20_000, "compare_timesteps": 20_000, "replay_size": 50_000, "expect": _UNKNOWN},
        "size12m": _SIZE12M,
        "size25m": _SIZE12M
        | {
            "deter": 3072,
            "hidden_dim": 384,
            "classes": 24,
            "units": 384,
            "train_ratio": 256,
            "lr": 1e-4,
            "warmup_steps": 1000,
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

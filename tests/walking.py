"""An agent that compiles in no time, and what its run folder says, for the tests of the runner."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mxnb.agents.api import Agent, Health, Max, Mean
from mxnb.envs.api import Spec


@dataclass(frozen=True)
class WalkConfig:
    total: int = 12
    lr: float = 0.5
    nan_at: int = -1  # the update whose loss is not a number


@struct.dataclass
class WalkState:
    policy: Any
    envs: Any
    update: Any
    key: Any


def walk(config: WalkConfig = WalkConfig()) -> Agent:
    """A random walk under Agent's contract: 10 steps an update, no network."""

    def init(key: Any) -> Any:
        return WalkState({"w": jnp.zeros(3)}, jnp.zeros(2), jnp.int32(0), key)

    def step(state: Any) -> Any:
        key, now = jax.random.split(state.key)
        w = state.policy["w"] + config.lr * jax.random.normal(now, (3,))
        loss = jnp.where(state.update == config.nan_at, jnp.nan, w.sum())
        ended = (state.update % 3 == 0).astype(jnp.float32) * 2  # two episodes in every third update
        metrics = {
            "train/total_loss": Mean(loss, jnp.float32(1)),
            "train/mean_episode_return": Mean(ended * w[0], ended),
            "train/num_episodes": Mean(ended, jnp.float32(1)),
            "train/peak": Max(jnp.abs(w).max()),
        }
        return WalkState({"w": w}, state.envs + w[:2], state.update + 1, key), metrics

    rule = Health("train/peak", 0.0, 1e-9, "it walks", "stand still")
    spec = Spec("walk-v0", (1,), num_actions=2)
    return Agent("walk", config, spec, config.total, 10, init, step, lambda p: (), lambda *a: None, (rule,))


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def timeless(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))} for row in rows_of(run)]


def stop_at(update: int) -> Any:
    """A hook that presses Ctrl-C once the run is there."""

    def hook(run_dir: Path, rows: list[dict[str, Any]]) -> None:
        if rows[-1]["update"] >= update and not hook.done:  # type: ignore[attr-defined]
            hook.done = True  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGINT)

    hook.done = False  # type: ignore[attr-defined]
    return hook

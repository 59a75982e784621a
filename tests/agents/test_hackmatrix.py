"""Masked PPO on HackMatrix: what is reported of every step adds up."""

from __future__ import annotations

import jax
import numpy as np

from mxnb.agents.api import Max
from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.build import make
from mxnb.envs.hackmatrix.tables import COMPONENTS


def test_an_updates_metrics_add_up() -> None:
    env = make("HackMatrix-v1")
    config = PPOConfig(
        env_id="hackmatrix-v1", num_envs=8, num_steps=32, num_minibatches=2, update_epochs=1, hidden_dim=16,
        num_layers=1, shared_layers=1, total_timesteps=256,
    )  # fmt: skip
    agent = ppo(config, env)
    _, metrics = jax.jit(agent.step)(agent.init(jax.random.key(0)))
    values = {k: float(m.value if isinstance(m, Max) else m.total / m.count) for k, m in metrics.items()}
    parts = [values[f"reward/{name}"] for name in COMPONENTS]
    assert np.isfinite(parts).all() and abs(sum(parts) - values["train/mean_reward"]) < 1e-5
    assert abs(values["reward/step_penalty"] + 0.01) < 1e-7
    groups = [values[f"actions/{name}_frac"] for name in ("move", "siphon", "program")]
    assert abs(sum(groups) - 1) < 1e-6 and groups[0] > 0.5
    single = [values[f"actions/{name}"] for name in env.spec.action_names]
    assert abs(sum(single[:4]) - groups[0]) < 1e-6 and abs(sum(single[5:]) - groups[2]) < 1e-6
    assert values["stats/invalid_frac"] == 0 and values["stats/highest_stage"] >= 1
    assert "stats/highest_stage" in metrics and isinstance(metrics["stats/highest_stage"], Max)

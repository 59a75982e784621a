"""What an agent needs to learn an environment that its defaults do not: found by measured runs, printed as such.

A recipe lies between the preset and what the reader gives: overrides win over it. Options are the same in every
preset; sizes are said preset by preset, where the agent's own are for another environment.
"""

from __future__ import annotations

from typing import Any

# Notebook 06 tells why. Weights are linear, so UNDO takes back what was paid; lost and healed health have the same one,
# so a wound and its cure sum to nothing.
_HACKMATRIX = {
    "cell_dim": 16,
    "reward_scale": {
        "score_gain": 0.0,
        "new_programs": 2.0,
        "damage_penalty": 0.5,
        "hp_recovery": 0.5,
        "death_penalty": 0.25,
        "siphon_death_penalty": 0.05,
        "victory": 0.01,
    },
    "normalise_value": True,
    "lambda_": 0.95,
    "ent_coef": 0.1,
    "anneal_ent_coef": True,
    "update_epochs": 2,
}
RECIPES: dict[tuple[str, str], tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    ("ppo", "hackmatrix-v1"): (
        _HACKMATRIX,
        {
            "smoke": {"num_seeds": 2},
            "cpu": {
                "num_envs": 256,
                "num_steps": 32,
                "total_timesteps": 10_000_000,
                "hidden_dim": 128,
                "num_seeds": 3,
                "expect": "a seed trains 10 to 13 minutes on 2 CPU cores, the notebook trains 3; 40 MB of disk",
            },
            "colab_t4": {"num_envs": 512, "num_steps": 32, "total_timesteps": 20_000_000, "num_seeds": 1},
            "colab_t4_small": {"num_envs": 256, "num_steps": 32, "total_timesteps": 10_000_000, "num_seeds": 1},
            "gpu": {"num_envs": 1024, "num_steps": 32, "total_timesteps": 200_000_000, "num_seeds": 1},
            "tpu": {"num_envs": 2048, "num_steps": 32, "total_timesteps": 200_000_000, "num_seeds": 1},
        },
    ),
}
"""(agent, environment) -> (options, preset -> sizes and what to expect)."""


def recipe(agent: str, env_id: str, preset: str) -> dict[str, Any]:
    """The recipe's values for a preset; {} where the agent has none for that environment, or without a preset."""
    options, sizes = RECIPES.get((agent, env_id), ({}, {}))
    return {**options, **sizes.get(preset, {})} if preset else {}

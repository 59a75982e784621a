"""The first update's losses, frozen: a change that moves them is either a mistake or belongs into the changelog.

`python tests/agents/test_golden.py` prints fresh ones; they go to tests/golden/first_update.json together with a
line under "Numbers changed" in CHANGELOG.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from tiny import DREAMER_SIZES, PPO_SIZES, masked

pytestmark = pytest.mark.brief

GOLDEN = Path(__file__).parent.parent / "golden" / "first_update.json"
SIZES = PPO_SIZES | {"lr": 1e-2}
NAMES = ("ppo", "ppo_rnn", "average_reward", "dreamer")


def losses(agent_name: str) -> dict[str, float]:
    from mxnb.build import AGENTS
    from mxnb.envs.survival import survival

    config_class, maker = AGENTS[agent_name]()
    more = {"phase_steps": 5, "r_reset": 5} if agent_name == "average_reward" else {}
    env = survival(masked(), 5) if more else masked()
    agent = maker(config_class(**(DREAMER_SIZES if agent_name == "dreamer" else SIZES | more)), env)
    metrics = jax.jit(agent.step)(jax.jit(agent.init)(jax.random.key(0)))[1]
    return {k: float(m.total / m.count) for k, m in metrics.items() if k.startswith("train/") and hasattr(m, "total")}


@pytest.mark.parametrize("agent_name", NAMES)
def test_losses_of_the_first_update(agent_name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[agent_name]
    assert losses(agent_name) == pytest.approx(golden, rel=1e-3, abs=1e-5)


if __name__ == "__main__":
    print(json.dumps({name: losses(name) for name in NAMES}, indent=1))

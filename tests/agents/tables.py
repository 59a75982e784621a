"""Agents with a table for a network, on problems whose answers are exact."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mxnb.agents import average_reward as module
from mxnb.agents.ppo_rnn import forward
from mxnb.envs import chains
from mxnb.envs.api import Env
from mxnb.envs.survival import survival
from mxnb.kernels import tabular


class Table(nn.Module):
    """A logit for each state and action, and a value for each state; the memory passes through."""

    actions: int

    @nn.compact
    def __call__(self, memory: Any, obs: Any, is_first: Any) -> Any:
        zeros = nn.initializers.zeros
        head = nn.Dense(self.actions, use_bias=False, kernel_init=zeros, name="logits")(obs)
        return memory, head, nn.Dense(1, kernel_init=zeros, name="value")(obs)[..., 0]


class Learned(NamedTuple):
    """What a run learned, against what is exact for its own policy."""

    gain: float  # of the sampled policy, exactly
    estimate: float  # the agent's
    value_error: float  # mu-weighted, relative to the bias
    policy: Any  # [S, A]


def learn(
    mdp: Any, *, updates: int, seed: int = 0, env: Env | None = None, how: Any = module, **fields: Any
) -> Learned:
    """The average-reward agent with a `Table` on the environment of `mdp`, or on `env`, whose first states are its."""
    sizes = {"num_envs": 64, "num_steps": 64, "update_epochs": 4, "num_minibatches": 1, "lr": 1e-2, "hidden_dim": 1}
    fields = sizes | {"phase_steps": 0} | fields
    steps = updates * fields["num_envs"] * fields["num_steps"]
    config = how.AverageRewardConfig(total_timesteps=steps, **fields)
    network = Table(mdp.reward.shape[1])
    agent = how.average_reward(config, env or chains.from_table("table", mdp), network)

    @jax.jit
    def train(key: Any) -> Any:
        return jax.lax.fori_loop(0, updates, lambda _, state: agent.step(state)[0], agent.init(key))

    state = train(jax.random.key(seed))
    states, width = len(mdp.reward), agent.spec.obs_shape[0]
    obs = jnp.eye(states, width)[:, None]
    _, head, value = forward(network, state.policy, jnp.zeros((1, 1)), obs, jnp.zeros((states, 1), bool))
    policy = tabular.softmax(np.asarray(head[:, 0], np.float64))
    exact = tabular.evaluate_policy(mdp, policy)
    values = np.asarray(value[:, 0], np.float64)
    values -= exact.stationary @ values
    error = np.sqrt((exact.stationary * (values - exact.bias) ** 2).sum() / (exact.stationary * exact.bias**2).sum())
    return Learned(exact.gain, float(state.gain.rho), float(error), policy)


def risk_with_deaths(chain: str = "explicit") -> Env:
    """`chains.risk` told as a death: one state, and a fall of 60 empty steps."""
    mdp = chains.MDP(np.ones((1, 2, 1)), np.array([[0.3, 0.5]]))
    return survival(chains.from_table("risk", mdp, death=[[0.0, 0.02]]), 60, chain=chain, reward="native")

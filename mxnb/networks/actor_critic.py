"""The multilayer perceptron that acts and judges."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import initializers as init
from jaxtyping import Array, Float, Shaped


class ActorCritic(nn.Module):
    """A policy and a value over one shared first layer: `num_layers` tanh layers to each.

    The first layer reads the observation, which is most of the arithmetic (Craftax: 1,345 x 256 of 480,000
    weights), so both use it; the later layers are the actor's and the critic's own. Orthogonal
    initialisation with gain sqrt(2), 0.01 for the logits (a nearly uniform first policy) and 1 for the
    value, as in Andrychowicz et al. 2021, arXiv:2006.05990.
    """

    num_actions: int
    hidden_dim: int = 256
    num_layers: int = 2
    obs_ndim: int = 1

    @nn.compact
    def __call__(self, obs: Shaped[Array, "*B"]) -> tuple[Float[Array, "*L A"], Float[Array, "*L"]]:
        """obs -> (logits, value); the last `obs_ndim` axes of obs are one observation, read as one long row."""
        obs = obs.reshape(*obs.shape[: obs.ndim - self.obs_ndim], -1)
        gain = init.orthogonal(math.sqrt(2.0))

        def layer(name: str, x: Array) -> Array:
            return jnp.tanh(nn.Dense(self.hidden_dim, kernel_init=gain, name=name)(x))

        actor = critic = layer("first", obs)
        for i in range(1, self.num_layers):
            actor, critic = layer(f"actor_{i}", actor), layer(f"critic_{i}", critic)
        logits = nn.Dense(self.num_actions, kernel_init=init.orthogonal(0.01), name="logits")(actor)
        value = nn.Dense(1, kernel_init=init.orthogonal(1.0), name="value")(critic)
        return logits, value[..., 0]

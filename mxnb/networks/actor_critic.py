"""The multilayer perceptron that acts and judges."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import initializers as init
from jaxtyping import Array, Float


class ActorCritic(nn.Module):
    """Two towers, one for the policy's logits and one for the value, of `num_layers` tanh layers each.

    Orthogonal initialisation with gain sqrt(2), 0.01 for the logits (a nearly uniform first policy) and 1
    for the value. The towers share no weights; their first layers are one matrix product, since reading
    the observation is most of the work. Source: Andrychowicz et al. 2021, arXiv:2006.05990 (separate
    towers, small last policy layer).
    """

    num_actions: int
    hidden_dim: int = 256
    num_layers: int = 2

    @nn.compact
    def __call__(self, obs: Float[Array, "*B D"]) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
        """obs -> (logits, value)."""
        gain = init.orthogonal(jnp.sqrt(2.0))

        def both(key: jax.Array, shape: tuple[int, int], dtype: type = jnp.float32) -> jax.Array:
            actor, critic = jax.random.split(key)
            half = (shape[0], shape[1] // 2)
            return jnp.concatenate([gain(actor, half, dtype), gain(critic, half, dtype)], axis=1)

        first = jnp.tanh(nn.Dense(2 * self.hidden_dim, kernel_init=both, name="first")(obs))
        actor, critic = jnp.split(first, 2, axis=-1)
        for layer in range(1, self.num_layers):
            actor = jnp.tanh(nn.Dense(self.hidden_dim, kernel_init=gain, name=f"actor_{layer}")(actor))
            critic = jnp.tanh(nn.Dense(self.hidden_dim, kernel_init=gain, name=f"critic_{layer}")(critic))
        logits = nn.Dense(self.num_actions, kernel_init=init.orthogonal(0.01), name="logits")(actor)
        value = nn.Dense(1, kernel_init=init.orthogonal(1.0), name="value")(critic)
        return logits, value[..., 0]

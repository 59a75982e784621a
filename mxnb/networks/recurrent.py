"""A policy and a value that remember: a gated recurrent unit between the observation and the heads."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import initializers as init
from jaxtyping import Array, Bool, Float, Shaped

from mxnb.networks.actor_critic import features, heads


class GRU(nn.Module):
    r"""A gated recurrent unit over time that forgets where an episode begins.

    h' = (1 - is_first) h;  r = sigma(W_r x + U_r h'),  z = sigma(W_z x + U_z h'),
    n = tanh(W_n x + r (U_n h' + b)),  h <- (1 - z) n + z h'.  W holds the biases of r, z and n.
    The inputs' products are one matrix product over all times, outside the scan. Source: Cho et al. 2014,
    arXiv:1406.1078, in the variant of Chung et al. 2014 with the reset gate behind the product.
    remat: the way back computes each tick again, so that of T ticks only the memories are kept.
    dtype: what the products are computed in; the memory is float32.
    """

    hidden_dim: int
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, memory: Float[Array, "B H"], x: Float[Array, "T B D"], is_first: Bool[Array, "T B"]
    ) -> tuple[Float[Array, "B H"], Float[Array, "T B H"]]:
        """(memory after the last time, memory after every time); is_first[t]: x[t] begins an episode."""
        h = self.hidden_dim
        inputs = nn.Dense(3 * h, dtype=self.dtype, kernel_init=init.orthogonal(1.0), name="inputs")(x)
        gate = self.param("gates", init.orthogonal(1.0), (h, 2 * h))
        new = self.param("candidate", init.orthogonal(1.0), (h, h))
        bias = self.param("candidate_bias", init.zeros, (h,))
        gate, new = gate.astype(self.dtype), new.astype(self.dtype)
        product = lambda memory, weights: (memory.astype(self.dtype) @ weights).astype(jnp.float32)

        def tick(carry: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            x_t, first = now[0].astype(jnp.float32), now[1]
            carry = jnp.where(first[:, None], 0.0, carry)
            r, z = jnp.split(nn.sigmoid(x_t[:, : 2 * h] + product(carry, gate)), 2, axis=-1)
            candidate = jnp.tanh(x_t[:, 2 * h :] + r * (product(carry, new) + bias[None]))
            carry = (1.0 - z) * candidate + z * carry
            return carry, carry

        return jax.lax.scan(jax.checkpoint(tick) if self.remat else tick, memory, (inputs, is_first))


class FeedForwardActorCritic(nn.Module):
    """`ActorCritic` in the place of a `RecurrentActorCritic`: the memory passes unread; there is nothing to `remat`."""

    num_outputs: int
    hidden_dim: int = 256
    num_layers: int = 1
    obs_ndim: int = 1
    shared_layers: int = 0
    gaussian: bool = False
    remat: bool = False
    dtype: Any = jnp.float32
    board: Any = None

    @nn.compact
    def __call__(
        self, memory: Float[Array, "B H"], obs: Shaped[Array, "T B *o"], is_first: Bool[Array, "T B"]
    ) -> tuple[Float[Array, "B H"], Float[Array, "T B K"], Float[Array, "T B"]]:
        """(memory, head, value)."""
        return memory, *heads(self, features(obs, self.obs_ndim, self.dtype, self.board))


class RecurrentActorCritic(nn.Module):
    """A tanh layer, a `GRU`, then the layers and heads of `ActorCritic`; all of width `hidden_dim`."""

    num_outputs: int
    hidden_dim: int = 256
    num_layers: int = 1
    obs_ndim: int = 1
    shared_layers: int = 0
    gaussian: bool = False
    remat: bool = False
    dtype: Any = jnp.float32
    board: Any = None

    @nn.compact
    def __call__(
        self, memory: Float[Array, "B H"], obs: Shaped[Array, "T B *o"], is_first: Bool[Array, "T B"]
    ) -> tuple[Float[Array, "B H"], Float[Array, "T B K"], Float[Array, "T B"]]:
        """(memory after the last observation, head, value); `memory` is from before the first one."""
        layer = nn.Dense(self.hidden_dim, dtype=self.dtype, kernel_init=init.orthogonal(math.sqrt(2.0)), name="encoder")
        x = jnp.tanh(layer(features(obs, self.obs_ndim, self.dtype, self.board)))
        memory, seen = GRU(self.hidden_dim, self.remat, self.dtype, name="gru")(memory, x, is_first)
        return memory, *heads(self, seen)

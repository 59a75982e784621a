"""The parts of a recurrent state-space model: layers, the block GRU, and categorical latents.

Shapes: [*L, D] deterministic state, [*L, S, C] latents: S groups, each one of C classes.
Source: Hafner et al. 2023, arXiv:2301.04104; the block GRU is of its second version (2024).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import initializers as init
from jaxtyping import Array, Float

EPSILON = 1e-4  # of norms: at first rows all inputs are 0, where a norm's slope is 1 / sqrt(EPSILON)
UNIMIX = 0.01  # share of the uniform distribution in every categorical one


def dense(width: int, name: str, scale: float = 1.0) -> nn.Dense:
    """A layer whose weights are drawn with standard deviation scale / sqrt(inputs); all zero where scale is 0."""
    drawn = init.variance_scaling(scale**2, "fan_in", "truncated_normal") if scale else init.zeros
    return nn.Dense(width, kernel_init=drawn, name=name)


class Layer(nn.Module):
    """A dense layer, RMS normalisation and silu."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*L D"]) -> Float[Array, "*L W"]:
        """silu(norm(W x + b))."""
        return nn.silu(nn.RMSNorm(EPSILON, name="norm")(dense(self.width, "dense")(x)))


class MLP(nn.Module):
    """`num_layers` layers, then a dense one to `outputs` whose weights begin at `scale`, or none where outputs is 0."""

    width: int
    num_layers: int
    outputs: int = 0
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "*L D"]) -> Float[Array, "*L O"]:
        """x through all layers."""
        for i in range(self.num_layers):
            x = Layer(self.width, name=f"layer_{i}")(x)
        return dense(self.outputs, "out", self.scale)(x) if self.outputs else x


class BlockGRU(nn.Module):
    r"""A gated recurrent unit whose recurrence is `blocks` blocks, each of its own part of the state.

    x = [silu(norm(W_h h)), silu(norm(W_z z)), silu(norm(W_a a))];  y_g = silu(norm(B_g [h_g, x]));
    r_g, c_g, u_g = B'_g y_g;  h'_g = s(u_g - 1) tanh(s(r_g) c_g) + (1 - s(u_g - 1)) h_g.
    The norm is over all blocks together. Where the state is wide, dense products of it are most of the arithmetic;
    blocks divide it by their number.
    """

    deter: int
    hidden_dim: int
    blocks: int

    @nn.compact
    def __call__(
        self, h: Float[Array, "*L D"], z: Float[Array, "*L Z"], action: Float[Array, "*L A"]
    ) -> Float[Array, "*L D"]:
        """The next h from h, the flat latents z and the action taken there."""
        part = self.deter // self.blocks
        named = (("from_deter", h), ("from_stoch", z), ("from_action", action))
        x = jnp.concatenate([Layer(self.hidden_dim, name=name)(value) for name, value in named], -1)
        split = lambda v: v.reshape(*v.shape[:-1], self.blocks, -1)
        # B_g's columns for x are one dense product for all blocks: the same sum, without copies of x.
        fan_in = 1.0 / (part + 3 * self.hidden_dim)
        drawn = init.normal(fan_in**0.5)
        own = self.param("block", drawn, (self.blocks, part, part))
        y = nn.Dense(self.deter, kernel_init=drawn, name="block_inputs")(x)
        y = y + jnp.einsum("...gi,gio->...go", split(h), own).reshape(y.shape)
        y = split(nn.silu(nn.RMSNorm(EPSILON, name="norm")(y)))
        gates = self.param("gates", init.normal(part**-0.5), (self.blocks, part, 3 * part))
        r, c, u = jnp.split(jnp.einsum("...gi,gio->...go", y, gates), 3, axis=-1)
        update = nn.sigmoid(u - 1.0)
        new = update * jnp.tanh(nn.sigmoid(r) * c) + (1.0 - update) * split(h)
        return new.reshape(h.shape)


def unimix(logits: Float[Array, "*L C"]) -> Float[Array, "*L C"]:
    """Log-probabilities of 99 % softmax(logits) and 1 % uniform, so that no class is ever impossible."""
    probs = (1.0 - UNIMIX) * jax.nn.softmax(logits, axis=-1) + UNIMIX / logits.shape[-1]
    return jnp.log(probs)


def sample_latent(log_prob: Float[Array, "*L S C"], uniform: Float[Array, "*L S"] | None) -> Float[Array, "*L Z"]:
    """One class a group, as ones and zeros in a row [*L, S C], with the gradient of the probabilities.

    uniform: one number in [0, 1) a group, which picks by the inverse of the cumulated probabilities; None: the most
    probable class. Straight-through: z = onehot + p - sg(p) (Bengio et al. 2013, arXiv:1308.3432).
    """
    probs = jnp.exp(log_prob)
    if uniform is None:
        chosen = probs.argmax(-1)
    else:
        reached = jnp.cumsum(jax.lax.stop_gradient(probs), -1) <= uniform[..., None]
        chosen = jnp.minimum(reached.sum(-1), probs.shape[-1] - 1)
    z = jax.nn.one_hot(chosen, probs.shape[-1], dtype=probs.dtype)
    z = z + (probs - jax.lax.stop_gradient(probs))
    return z.reshape(*z.shape[:-2], -1)


def divergence(log_p: Float[Array, "*L S C"], log_q: Float[Array, "*L S C"]) -> Float[Array, "*L"]:
    """KL(p || q) in nats, summed over the groups."""
    return (jnp.exp(log_p) * (log_p - log_q)).sum((-2, -1))


def latent_entropy(log_p: Float[Array, "*L S C"]) -> Float[Array, "*L"]:
    """Entropy in nats, summed over the groups."""
    return -(jnp.exp(log_p) * log_p).sum((-2, -1))

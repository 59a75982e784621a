"""Dreamer's world model: what sees, remembers, predicts, paints and judges.

Everything but `core` and `posterior` works on all rows of a batch at once; only those two belong into a scan over time.
Source: Hafner et al. 2023, arXiv:2301.04104; the observation's likelihoods are of section "World model learning".
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from mxnb.kernels.symlog import symexp, symlog
from mxnb.networks.rssm import EPSILON, MLP, BlockGRU, dense, unimix

_SMALLEST = 3  # pixels a side that strided convolutions leave at least


class Eye(nn.Module):
    """A picture as one row: 3 x 3 convolutions at stride 2 without padding, channels doubling from `depth`.

    63 pixels become 31, 15, 7, 3. uint8 is read as 0 to 1; the picture is centred around 0.
    """

    depth: int

    @nn.compact
    def __call__(self, picture: Shaped[Array, "*L H W C"]) -> Float[Array, "*L D"]:
        """picture -> features."""
        leading = picture.shape[:-3]
        x = as_unit(picture).reshape(-1, *picture.shape[-3:]) - 0.5
        for i, _ in enumerate(sides(picture.shape[-3:])):
            x = nn.Conv(self.depth * 2**i, (3, 3), 2, padding="VALID", name=f"conv_{i}")(x)
            x = nn.silu(nn.RMSNorm(EPSILON, name=f"norm_{i}")(x))
        return x.reshape(*leading, -1)


class Painter(nn.Module):
    """The way back from features to a picture's values before the sigmoid, with the sizes of `Eye` mirrored."""

    depth: int
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "*L D"]) -> Float[Array, "*L H W C"]:
        """features -> picture."""
        leading = x.shape[:-1]
        steps = sides(self.shape)
        height, width = steps[-1][1]
        channels = self.depth * 2 ** (len(steps) - 1)
        x = nn.silu(nn.RMSNorm(EPSILON, name="norm")(dense(height * width * channels, "dense")(x)))
        x = x.reshape(-1, height, width, channels)
        for i, (before, _) in reversed(tuple(enumerate(steps))):
            last = i == 0
            out = self.shape[-1] if last else self.depth * 2 ** (i - 1)
            x = nn.ConvTranspose(out, (3, 3), (2, 2), padding="VALID", name=f"conv_{i}")(x)
            # Where a side was even, the convolution left its last row or column unread: it is repeated.
            short = [(0, max(0, n - m)) for n, m in zip(before, x.shape[1:3], strict=True)]
            x = jnp.pad(x, ((0, 0), *short, (0, 0)), mode="edge")[:, : before[0], : before[1]]
            x = x if last else nn.silu(nn.RMSNorm(EPSILON, name=f"norm_{i}")(x))
        return x.reshape(*leading, *self.shape)


def sides(shape: tuple[int, ...]) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
    """(height, width) before and after each convolution; at least one, and on while both sides keep 3 pixels.

    Raises ValueError for a picture too small for one.
    """
    if min(shape[:2]) < _SMALLEST:
        raise ValueError(f"a picture of {shape[0]} x {shape[1]} pixels is too small; it needs 3 x 3, or flatten it")
    half = lambda n: (n - _SMALLEST) // 2 + 1
    found, here = [], (int(shape[0]), int(shape[1]))
    while not found or min(half(n) for n in here) >= _SMALLEST:
        after = (half(here[0]), half(here[1]))
        found.append((here, after))
        here = after
    return tuple(found)


def as_unit(picture: Any) -> Any:
    """uint8 as float32 0 to 1; anything else as float32."""
    x = picture.astype(jnp.float32)
    return x / 255.0 if picture.dtype == jnp.uint8 else x


class WorldModel(nn.Module):
    """What Dreamer's world model computes; the methods are for `apply(..., method=)`.

    obs_shape, num_binary: of the environment's Spec; the first `num_binary` entries are predicted as bits, the others
    as symlog values; a picture [H, W, C] as values between 0 and 1. deter, hidden_dim, stoch, classes, blocks: sizes of
    the core (D, H, S, C, G); units, num_layers: of encoder and decoder; depth: channels of the first convolution.
    scale: numbers are multiplied by it before symlog; squared errors far below 1 would teach nothing beside many bits.
    """

    obs_shape: tuple[int, ...]
    num_binary: int
    num_actions: int
    deter: int
    hidden_dim: int
    stoch: int
    classes: int
    blocks: int
    units: int
    num_layers: int
    num_bins: int
    depth: int
    scale: float = 1.0
    predicts_mask: bool = False

    def setup(self) -> None:
        """The parts."""
        self.is_picture = len(self.obs_shape) == 3 and not self.num_binary
        entries = math.prod(self.obs_shape)
        if self.is_picture:
            self.eye = Eye(self.depth)
            self.painter = Painter(self.depth, self.obs_shape)
        else:
            self.eye = MLP(self.units, self.num_layers)
            self.painter = MLP(self.units, self.num_layers, entries)
        self.gru = BlockGRU(self.deter, self.hidden_dim, self.blocks)
        self.posterior_net = MLP(self.hidden_dim, 1, self.stoch * self.classes)
        self.prior_net = MLP(self.hidden_dim, 2, self.stoch * self.classes)
        self.reward_net = MLP(self.units, 1, self.num_bins, 0.0)
        self.cont_net = MLP(self.units, 1, 1)
        if self.predicts_mask:
            self.mask_net = MLP(self.units, 1, self.num_actions)

    def __call__(self, obs: Any, h: Any, z: Any, action: Any) -> Any:
        """Every part once, so that `init` makes all parameters."""
        h = self.core(h, z, action)
        log_prob = self.posterior(h, self.encode(obs))
        feature = jnp.concatenate([h, z], -1)
        legal = self.legal(feature) if self.predicts_mask else None
        return log_prob, self.prior(h), self.decode(feature), self.reward(feature), self.cont(feature), legal

    def encode(self, obs: Shaped[Array, "*B"]) -> Float[Array, "*L E"]:
        """What the posterior sees of observations [*L, *obs_shape]; numbers that are no bits pass through symlog."""
        if self.is_picture:
            return self.eye(obs)
        flat = obs.reshape(*obs.shape[: obs.ndim - len(self.obs_shape)], -1).astype(jnp.float32)
        bits, rest = flat[..., : self.num_binary], flat[..., self.num_binary :]
        return self.eye(jnp.concatenate([bits, symlog(self.scale * rest)], -1))

    def core(self, h: Float[Array, "*L D"], z: Float[Array, "*L Z"], action: Float[Array, "*L A"]) -> Any:
        """h_t from h_{t-1}, z_{t-1} and a_{t-1}."""
        return self.gru(h, z, action)

    def posterior(self, h: Float[Array, "*L D"], embedded: Float[Array, "*L E"]) -> Float[Array, "*L S C"]:
        """Log-probabilities of z_t given h_t and the observation."""
        return self._latent(self.posterior_net(jnp.concatenate([h, embedded], -1)))

    def prior(self, h: Float[Array, "*L D"]) -> Float[Array, "*L S C"]:
        """Log-probabilities of z_t given h_t alone."""
        return self._latent(self.prior_net(h))

    def _latent(self, logits: Float[Array, "*L Z"]) -> Float[Array, "*L S C"]:
        return unimix(logits.reshape(*logits.shape[:-1], self.stoch, self.classes))

    def decode(self, feature: Float[Array, "*L F"]) -> Shaped[Array, "*B"]:
        """Logits of bits and pixels and symlog of numbers, [*L, *obs_shape]."""
        out = self.painter(feature)
        return out if self.is_picture else out.reshape(*out.shape[:-1], *self.obs_shape)

    def reward(self, feature: Float[Array, "*L F"]) -> Float[Array, "*L K"]:
        """Logits over the bins of the reward received on arriving here."""
        return self.reward_net(feature)

    def cont(self, feature: Float[Array, "*L F"]) -> Float[Array, "*L"]:
        """The logit of the chance that the future goes on from here, times the discount."""
        return self.cont_net(feature)[..., 0]

    def legal(self, feature: Float[Array, "*L F"]) -> Float[Array, "*L A"]:
        """Logits of each action being legal here."""
        return self.mask_net(feature)


def observation_loss(
    out: Any, obs: Any, obs_ndim: int, num_binary: int, scale: float = 1.0, coef: float = 1.0
) -> Float[Array, "*L"]:
    """-ln p(obs) of decoded observations, up to constants, summed over each observation's entries.

    Bits: binary cross entropy. Numbers: coef (prediction - symlog(scale obs))^2. Pictures: (sigmoid(out) - obs)^2.
    """
    leading = obs.shape[: obs.ndim - obs_ndim]
    if obs_ndim == 3 and not num_binary:
        return jnp.square(nn.sigmoid(out) - as_unit(obs)).reshape(*leading, -1).sum(-1)
    out, obs = out.reshape(*leading, -1), obs.reshape(*leading, -1).astype(jnp.float32)
    bits = bit_loss(out[..., :num_binary], obs[..., :num_binary]).sum(-1)
    return bits + coef * jnp.square(out[..., num_binary:] - symlog(scale * obs[..., num_binary:])).sum(-1)


def bit_loss(logit: Float[Array, "*L"], target: Float[Array, "*L"]) -> Float[Array, "*L"]:
    """Binary cross entropy in nats, for targets between 0 and 1: softplus(logit) - target logit."""
    return jax.nn.softplus(logit) - target * logit


def decoded(out: Any, obs_ndim: int, num_binary: int, scale: float = 1.0) -> Float[Array, "*B"]:
    """Decoded observations in the environment's units: chances for bits, 0 to 1 for pictures, numbers as they are."""
    if obs_ndim == 3 and not num_binary:
        return nn.sigmoid(out)
    flat = out.reshape(*out.shape[: out.ndim - obs_ndim], -1)
    found = jnp.concatenate([nn.sigmoid(flat[..., :num_binary]), symexp(flat[..., num_binary:]) / scale], -1)
    return found.reshape(out.shape)

"""The networks that act and judge, for numbers and for pictures."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import initializers as init
from jaxtyping import Array, Float, Shaped

_SMALL_PICTURE = 36  # pixels: below, one fine convolution; from here on, three that stride, which leave 1 or more
_HIDDEN = init.orthogonal(math.sqrt(2.0))


class ActorCritic(nn.Module):
    """A policy and a value: `num_layers` tanh layers to each, of which the first `shared_layers` are one.

    Observations of three axes [height, width, channels] pass through convolutions first (`Convolutions`);
    any other is read as one long row. The first layer reads the observation, which is most of the
    arithmetic (Craftax: 1,345 x 256 of 480,000 weights), so by default both use it. Orthogonal
    initialisation with gain sqrt(2), 0.01 for the policy's head (a nearly uniform first policy) and 1 for
    the value, as in Andrychowicz et al. 2021, arXiv:2006.05990.

    num_outputs: logits, or with `gaussian` action entries; the head then holds means and the logarithms of
    the deviations, [*L, 2 num_outputs], the latter one parameter each, the same in every state.
    dtype: what the layers compute in; parameters, heads and what comes out are float32.
    board: a module that reads the observation first, such as `mxnb.networks.board.BoardReader`.
    """

    num_outputs: int
    hidden_dim: int = 256
    num_layers: int = 2
    obs_ndim: int = 1
    shared_layers: int = 1
    gaussian: bool = False
    dtype: Any = jnp.float32
    board: Any = None

    @nn.compact
    def __call__(self, obs: Shaped[Array, "*B"]) -> tuple[Float[Array, "*L K"], Float[Array, "*L"]]:
        """obs -> (head, value); the last `obs_ndim` axes of obs are one observation."""
        return heads(self, features(obs, self.obs_ndim, self.dtype, self.board))


def features(obs: Any, obs_ndim: int, dtype: Any = jnp.float32, board: Any = None) -> Any:
    """What the first layer reads: what `board` makes of it, a picture's convolutions, else one long row.

    For use inside a compact method, whose module gets the convolutions as "eye".
    """
    if board is not None:
        return board(obs)
    if obs_ndim == 3:
        return Convolutions(dtype, name="eye")(obs)
    return obs.reshape(*obs.shape[: obs.ndim - obs_ndim], -1)


def heads(module: Any, x: Float[Array, "*L D"]) -> tuple[Float[Array, "*L K"], Float[Array, "*L"]]:
    """(head, value) of features x [*L, D] by `module`'s own layers; for use inside its compact method."""

    def layer(name: str, x: Array) -> Array:
        return jnp.tanh(nn.Dense(module.hidden_dim, dtype=module.dtype, kernel_init=_HIDDEN, name=name)(x))

    actor = critic = x
    for i in range(module.num_layers):
        if i < module.shared_layers:
            actor = critic = layer("first" if i == 0 else f"shared_{i}", actor)
        else:
            actor, critic = layer(f"actor_{i}", actor), layer(f"critic_{i}", critic)
    actor, critic = actor.astype(jnp.float32), critic.astype(jnp.float32)
    head = nn.Dense(module.num_outputs, kernel_init=init.orthogonal(0.01), name="logits")(actor)
    if module.gaussian:
        log_std = module.param("log_std", init.zeros, (module.num_outputs,))
        head = jnp.concatenate(
            [head, jnp.broadcast_to(log_std.reshape((1,) * (head.ndim - 1) + (-1,)), head.shape)], -1
        )
    value = nn.Dense(1, kernel_init=init.orthogonal(1.0), name="value")(critic)
    return head, value[..., 0]


class Convolutions(nn.Module):
    """A picture [*L, height, width, channels] as one row of numbers.

    From 36 pixels a side on: 32 filters of 8 x 8 at stride 4, 64 of 4 x 4 at 2, 64 of 3 x 3 at 1, as in Mnih
    et al. 2015, "Human-level control through deep reinforcement learning"; below, 16 of 3 x 3 at stride 1, as in
    Young & Tian 2019, arXiv:1903.03176 (MinAtar). uint8 is read as 0 to 1. dtype: as in `ActorCritic`.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, picture: Shaped[Array, "*L H W C"]) -> Float[Array, "*L D"]:
        """picture -> features."""
        leading = picture.shape[:-3]
        x = picture.reshape(-1, *picture.shape[-3:])
        x = x.astype(jnp.float32) / 255.0 if picture.dtype == jnp.uint8 else x
        large = min(x.shape[1:3]) >= _SMALL_PICTURE
        for filters, side, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)) if large else ((16, 3, 1),):
            x = nn.Conv(filters, (side, side), stride, padding="VALID", dtype=self.dtype, kernel_init=_HIDDEN)(x)
            x = nn.relu(x)
        return x.astype(jnp.float32).reshape(*leading, -1)

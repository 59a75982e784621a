"""Gradient transformations that optax has not: clipping by each tensor's own size, and LaProp."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

_TINY = 1e-20  # beside a root of squared gradients


def clip_by_tensor(share: float, floor: float = 1e-3) -> optax.GradientTransformation:
    """Scales each tensor's gradient down to at most `share` of the tensor's own norm, which counts as `floor` or more.

    g <- g / max(1, |g| / (share max(floor, |p|))), norms over the whole tensor. Source: adaptive gradient clipping,
    Brock et al. 2021, arXiv:2102.06171, by tensor as in Hafner et al. 2023, arXiv:2301.04104.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("clip_by_tensor needs the parameters: call update(grads, state, params)")

        def clip(g: Any, p: Any) -> Any:
            limit = share * jnp.maximum(floor, jnp.linalg.norm(p.reshape(-1)))
            return g / jnp.maximum(1.0, jnp.linalg.norm(g.reshape(-1)) / limit)

        return jax.tree.map(clip, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class LaPropState(NamedTuple):
    """What LaProp remembers."""

    count: Any  # int32: updates done
    momentum: Any  # of normalised gradients, as the parameters
    square: Any  # of squared gradients, as the parameters


def scale_by_laprop(decay: float = 0.9, square_decay: float = 0.999) -> optax.GradientTransformation:
    """Adam with the normalisation before the momentum, so that an old large gradient cannot blow up a step.

    v <- b2 v + (1 - b2) g^2;  u = g / (sqrt(v / (1 - b2^t)) + 1e-20);  m <- b1 m + (1 - b1) u;  step m / (1 - b1^t).
    Source: Ziyin et al. 2020, arXiv:2002.04839.
    """

    def init(params: Any) -> LaPropState:
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)
        return LaPropState(jnp.zeros((), jnp.int32), zeros(), zeros())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count = state.count + 1
        t = count.astype(jnp.float32)
        seen = 1.0 - square_decay**t
        square = jax.tree.map(lambda v, g: square_decay * v + (1.0 - square_decay) * g * g, state.square, updates)
        unit = jax.tree.map(lambda g, v: g / (jnp.sqrt(v / seen) + _TINY), updates, square)
        momentum = jax.tree.map(lambda m, u: decay * m + (1.0 - decay) * u, state.momentum, unit)
        step = jax.tree.map(lambda m: m / (1.0 - decay**t), momentum)
        return step, LaPropState(count, momentum, square)

    return optax.GradientTransformation(init, update)


def laprop(lr: float, *, warmup: int = 0, clip: float = 0.3) -> optax.GradientTransformation:
    """`clip_by_tensor`, LaProp and the step size, which rises linearly from 0 over the first `warmup` updates."""
    rate: Any = optax.linear_schedule(0.0, lr, warmup) if warmup else lr
    return optax.chain(clip_by_tensor(clip), scale_by_laprop(), optax.scale_by_learning_rate(rate))

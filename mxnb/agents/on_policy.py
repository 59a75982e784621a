"""What agents that learn from their own rollouts share: action heads, metric sums, health rules, the optimiser."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import optax

from mxnb.agents.api import Health, Max, Mean
from mxnb.envs.api import TICK_INFO, Spec, finite_bounds
from mxnb.envs.vector import VecStep
from mxnb.kernels.gaussian import gaussian, sample_gaussian, to_bounds
from mxnb.kernels.masked import masked_categorical, sample_masked
from mxnb.networks.board import BoardReader

HEALTH = (
    Health(
        "train/entropy_frac",
        0.1,
        1.01,
        "the policy has collapsed: it hardly ever chooses between its legal actions",
        "raise ent_coef (0.03, then 0.1) or lower lr, and start anew: a collapsed policy seldom recovers",
    ),
    Health(
        "train/approx_kl",
        -1e-3,
        0.06,
        "each update moves the policy far from the one that gathered the data",
        "lower lr, or update_epochs, or raise num_envs * num_steps",
    ),
    Health(
        "train/clip_frac",
        0.0,
        0.3,
        "a large share of the samples is clipped, so much of the data earns no gradient",
        "lower lr or update_epochs",
    ),
    Health(
        "train/no_legal_action",
        0.0,
        0.0,
        "a state had no legal action, so actions were drawn at random from all",
        "mend the environment's action_mask: keep one action (NOOP, say) always legal",
    ),
)


def head_of(spec: Spec) -> dict[str, Any]:
    """What a network's head must be for `spec`: num_outputs and whether it is gaussian.

    ValueError for several agents and for bounds that are not finite.
    """
    if spec.agents:
        raise ValueError(f"{spec.id} has {len(spec.agents)} agents; this algorithm is for one")
    if spec.num_actions:
        return {"num_outputs": spec.num_actions, "gaussian": False}
    return {"num_outputs": len(finite_bounds(spec)[0]), "gaussian": True}


def own_network(config: Any) -> None:
    """ValueError where a network of one's own is given together with options for those that are built here."""
    if config.compute_dtype != "float32" or getattr(config, "remat", False) or config.cell_dim:
        raise ValueError("compute_dtype, remat, cell_dim are for the networks built here; put them into your own")


def board_reader(config: Any, spec: Spec) -> BoardReader | None:
    """What reads the board of an observation first, or None; ValueError where there is none to read."""
    if not config.cell_dim:
        return None
    if spec.board is None:
        raise ValueError(f"{spec.id} has no board that its Spec tells of; use cell_dim=0")
    if config.normalise_obs:
        raise ValueError("cell_dim reads the player's place from the observation as it is; use normalise_obs=False")
    return BoardReader(config.cell_dim, spec.board, spec.player, dtype=jnp.dtype(config.compute_dtype))


def check_parts(config: Any, spec: Spec) -> None:
    """ValueError unless reward_scale names what the environment tells of every step, with numbers."""
    have = [name for _, name in spec.step_means]
    unknown = [str(name) for name in config.reward_scale if name not in have]
    if unknown:
        told = f"it has {', '.join(have)}" if have else "its Spec has no step_means; use reward_scale={}"
        raise ValueError(f"reward_scale: {spec.id} tells of no {', '.join(unknown)} in a step; {told}")
    number = lambda v: isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
    wrong = {name: scale for name, scale in config.reward_scale.items() if not number(scale)}
    if wrong:
        raise ValueError(f"reward_scale: {wrong}; give each part a finite number, 1 for the whole of it")


def learned_reward(config: Any, spec: Spec, seen: VecStep) -> Any:
    """The reward as the agent learns from it: what reward_scale names counts that many times.

    Parts of the reward ("reward/..." in Spec.step_means) count once unless named, other things not at all.

    Unlike a bound on the whole it is linear: what was paid and is taken back, as by an UNDO, sums to 0 here too.
    """
    paid = {name: float(metric.startswith("reward/")) for metric, name in spec.step_means}
    extra = (scale - paid[name] for name, scale in config.reward_scale.items())
    return seen.reward + sum(more * seen.info[name] for more, name in zip(extra, config.reward_scale, strict=True))


def check_network(spec: Spec, outputs: Any, lead: tuple[int, ...]) -> None:
    """ValueError unless a network's (head, value), given as shapes for observations [*lead, *obs_shape], fit."""
    head = head_of(spec)
    width = head["num_outputs"] * (2 if head["gaussian"] else 1)
    got = [tuple(x.shape) for x in outputs]
    if got != [(*lead, width), lead]:
        raise ValueError(
            f"the network gives head {list(got[0])} and value {list(got[1])} for observations "
            f"{[*lead, *spec.obs_shape]} of {spec.id}; expected {[*lead, width]} and {list(lead)}"
        )


def distribution(spec: Spec, head: Any, mask: Any) -> Any:
    """The distribution over actions that a head means: categorical over legal ones, or Gaussian."""
    return masked_categorical(head, mask) if spec.num_actions else gaussian(head)


def choose(spec: Spec, key: Any, head: Any, mask: Any) -> Any:
    """One action for each row of `head`: sampled with a key, the most probable without."""
    if spec.num_actions:
        return distribution(spec, head, mask).probs.argmax(-1) if key is None else sample_masked(key, head, mask)
    return jnp.split(head, 2, axis=-1)[0] if key is None else sample_gaussian(key, head)


def env_action(spec: Spec, action: Any) -> Any:
    """The action as the environment takes it: continuous ones are clipped and scaled to its bounds."""
    return action if spec.num_actions else to_bounds(action, *finite_bounds(spec))


def acted(spec: Spec, key: Any, head: Any, value: Any, mask: Any) -> tuple[Any, dict[str, Any]]:
    """(the environment's action, extras) for `Agent.act` from one head [K]; probs is empty for a Gaussian."""
    dist = distribution(spec, head, mask)
    action = choose(spec, key, head, mask)
    extras = {
        "value": value,
        "log_prob": dist.log_prob(action),
        "entropy": dist.entropy(),
        "probs": dist.probs if spec.num_actions else jnp.zeros((0,)),
    }
    return env_action(spec, action), extras


def adam(config: Any, num_updates: int) -> Any:
    """Adam behind a clip of the gradient's global norm; lr warms up, then falls linearly to 0 where asked for.

    config: lr, anneal_lr, warmup_updates, max_grad_norm, num_minibatches, update_epochs.
    """
    per_update = config.num_minibatches * config.update_epochs
    warm = config.warmup_updates * per_update
    lr: Any = config.lr
    if config.anneal_lr:
        lr = optax.linear_schedule(config.lr, 0.0, max(1, num_updates * per_update - warm))
    if warm:
        after = lr if config.anneal_lr else optax.constant_schedule(config.lr)
        lr = optax.join_schedules([optax.linear_schedule(0.0, config.lr, warm), after], [warm])
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(lr, eps=1e-5))


def mean(value: Any) -> Mean:
    """A metric seen once."""
    return Mean(value, jnp.ones(()))


def pool(metrics: dict[str, Any]) -> dict[str, Any]:
    """Pools metrics over their leading axis: sums add up, maxima compete."""
    return {
        name: Max(m.value.max(0)) if isinstance(m, Max) else Mean(m.total.sum(0), m.count.sum(0))
        for name, m in metrics.items()
    }


def tick_sums(spec: Spec, action: Any, mask: Any, seen: VecStep) -> dict[str, Any]:
    """One tick's metrics: rewards, action counts, and the statistics of episodes that ended in it."""
    n = jnp.float32(seen.reward.shape[0])
    done = seen.terminated | seen.truncated
    ended = done.sum(dtype=jnp.float32)

    def over_ended(x: Any) -> Mean:
        return Mean(jnp.where(done, x, 0.0).sum(dtype=jnp.float32), ended)

    sums: dict[str, Any] = {
        "train/mean_reward": Mean(seen.reward.sum(), n),
        "train/mean_episode_return": over_ended(seen.info["episode_return"]),
        "train/mean_episode_length": over_ended(seen.info["episode_length"]),
    }
    if spec.num_actions:
        names = spec.action_names or tuple(str(i) for i in range(spec.num_actions))
        taken = action[:, None] == jnp.arange(spec.num_actions)[None]
        counted = seen.info.get("tick/alive")  # None: every action counts
        counts = taken.sum(0, dtype=jnp.float32) if counted is None else (taken * counted[:, None]).sum(0)
        total = n if counted is None else counted.sum()
        sums |= {f"actions/{name}": Mean(counts[i], total) for i, name in enumerate(names)}
        for group, members in spec.action_groups:
            sums[f"actions/{group}"] = Mean(sum(counts[names.index(name)] for name in members), total)
    sums |= {f"stats/{name}": over_ended(seen.info[name]) for name in spec.info if name not in TICK_INFO}
    sums |= {metric: Mean(seen.info[name].sum(), n) for metric, name in spec.step_means}
    sums |= {metric: Max(seen.info[name].max()) for metric, name in spec.step_maxima}
    if mask is not None:
        sums["train/no_legal_action"] = Max((~mask.any(-1)).any().astype(jnp.float32))
    return sums

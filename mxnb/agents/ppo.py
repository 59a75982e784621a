"""Masked PPO, from top to bottom: configuration, state, loss, rollout, update, agent.

Source: Schulman et al. 2017, arXiv:1707.06347; masks as in Huang & Ontanon 2022, arXiv:2006.14171.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mxnb.agents.api import Agent, Health, Max, Mean
from mxnb.envs.api import Env, Spec
from mxnb.envs.vector import VecEnv, VecStep, vectorise
from mxnb.kernels.losses import explained_variance, normalise, ppo_policy_loss, value_loss
from mxnb.kernels.masked import masked_categorical, sample_masked
from mxnb.kernels.packing import pack, unpack
from mxnb.kernels.returns import gae
from mxnb.networks.actor_critic import ActorCritic


@dataclass(frozen=True)
class PPOConfig:
    """What PPO can be told. A 0 in the three auto-scaled fields leaves them to `auto_scale`."""

    env_id: str = "craftax-classic-symbolic-v1"
    """The environment; see `mxnb.make`."""
    total_timesteps: int = 1_000_000
    """env.step calls times num_envs, rounded down to whole updates."""
    num_envs: int = 64
    """Environments in step."""
    num_steps: int = 64
    """Steps of each environment in one rollout; num_envs * num_steps is the batch."""
    num_minibatches: int = 0
    """Parts of the shuffled batch, one gradient step each; 0: min(4 f, 64), f = max(1, batch // 32768)."""
    update_epochs: int = 0
    """Passes over the batch; 0: max(2, 4 // f)."""
    lr: float = 0.0
    """Adam's step size; 0: 5e-4 * 16 / (num_minibatches * update_epochs)."""
    anneal_lr: bool = True
    """Whether lr falls linearly to 0 over the run."""
    discount: float = 0.99
    """Discount of future reward per step."""
    lambda_: float = 0.8
    """GAE's lambda: 0 trusts the critic, 1 the observed returns."""
    clip_eps: float = 0.2
    """Ratios outside 1 +- clip_eps earn no further gradient."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""
    hidden_dim: int = 256
    """Width of every layer."""
    num_layers: int = 2
    """Hidden layers of actor and critic; the first is shared."""
    normalise_advantage: bool = True
    """Whether each minibatch's advantages get mean 0 and standard deviation 1."""
    use_mask: bool = True
    """Whether the policy sees the environment's action mask; False samples from all actions."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each value came from; written by `mxnb.parameters`, part of no comparison."""

    def resolve(self) -> PPOConfig:
        """The same with every 0 of `auto_scale` filled in; ValueError lists sizes that do not fit."""
        return auto_scale(self)


BASE_LR = 5e-4


def auto_scale(config: PPOConfig) -> PPOConfig:
    """Fills in num_minibatches, update_epochs and lr where they are 0.

    f = max(1, batch // 32768); num_minibatches = min(4 f, 64); update_epochs = max(2, 4 // f);
    lr = 5e-4 * 16 / (num_minibatches * update_epochs), so that the gradient steps of an update together
    move about as far at every size. Each only where it was left open.
    """
    _raise(_out_of_range(config))
    batch = config.num_envs * config.num_steps
    factor = max(1, batch // 32768)
    minibatches = config.num_minibatches or min(4 * factor, 64)
    epochs = config.update_epochs or max(2, 4 // factor)
    lr = config.lr or BASE_LR * 16 / (minibatches * epochs)
    filled = {"num_minibatches": minibatches, "update_epochs": epochs, "lr": lr}
    origins = dict(config.origins) | {k: "auto_scale" for k in filled if not getattr(config, k)}
    problems = []
    if batch % minibatches:
        fits = [m for m in range(1, batch + 1) if batch % m == 0]
        nearest = min(fits, key=lambda m: abs(m - minibatches))
        problems.append(
            f"num_envs * num_steps = {config.num_envs} * {config.num_steps} = {batch} does not divide into "
            f"num_minibatches = {minibatches}; use num_minibatches = {nearest}"
        )
    if config.total_timesteps < batch:
        problems.append(
            f"total_timesteps = {config.total_timesteps} is less than one update; "
            f"use at least num_envs * num_steps = {batch}"
        )
    _raise(problems)
    return replace(config, **filled, origins=origins)


def _out_of_range(config: PPOConfig) -> list[str]:
    """What is outside the values that make sense, in words."""
    c = config
    counts = ("num_envs", "num_steps", "hidden_dim", "num_layers")
    problems = [f"{name} is {getattr(c, name)}; use at least 1" for name in counts if getattr(c, name) < 1]
    shares = ("discount", "lambda_")
    problems += [f"{n} is {getattr(c, n)}; use a number from 0 to 1" for n in shares if not 0 <= getattr(c, n) <= 1]
    problems += [
        f"{n} is {getattr(c, n)}; use more than 0" for n in ("clip_eps", "max_grad_norm") if getattr(c, n) <= 0
    ]
    others = ("lr", "ent_coef", "vf_coef", "num_minibatches", "update_epochs")
    return problems + [f"{name} is {getattr(c, name)}; use 0 or more" for name in others if getattr(c, name) < 0]


def _raise(problems: list[str]) -> None:
    if problems:
        raise ValueError("\n".join(problems))


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


@struct.dataclass
class State:
    """Everything that training needs to go on."""

    policy: Any  # the network's parameters
    opt_state: Any  # Adam's moments and step count
    envs: Any  # VecState
    update: Any  # int32: updates done
    key: Any  # PRNG key of actions and shuffles


class Transition(NamedTuple):
    """One step of all environments; the rollout stacks them to [T, N, ...]. No next_obs, no info."""

    obs: Any  # Packed: what the action was sampled from
    mask: Any  # bool[N, A] of that moment, or None
    action: Any  # int32[N]
    log_prob: Any  # float32[N]
    value: Any  # float32[N]
    reward: Any  # float32[N]
    terminated: Any  # bool[N]
    truncated: Any  # bool[N]
    final_value: Any  # float32[N]: V(final_obs) where truncated, else 0


def forward(network: ActorCritic, params: Any, obs: Any) -> Any:
    """(logits [*B, A], value [*B]) of observations [*B, D]."""
    return network.apply(params, obs)


def loss(network: ActorCritic, config: PPOConfig, params: Any, obs: Any, batch: Transition, gae_: Any) -> Any:
    """Clipped policy loss + vf_coef * value loss - ent_coef * entropy, over one minibatch [B].

    gae_: (advantage, value_target), each [B]. Returns (loss, metrics).
    """
    advantage, value_target = gae_
    logits, value = forward(network, params, obs)
    dist = masked_categorical(logits, batch.mask)
    log_prob: Any = dist.log_prob(batch.action)
    if config.normalise_advantage:
        advantage = normalise(advantage)
    policy = ppo_policy_loss(log_prob, batch.log_prob, advantage, clip_eps=config.clip_eps)
    vf_loss = value_loss(value, value_target)
    entropy = dist.entropy()
    total = policy.loss + config.vf_coef * vf_loss - config.ent_coef * entropy.mean()
    legal = jnp.full(entropy.shape, logits.shape[-1]) if batch.mask is None else batch.mask.sum(-1)
    choice = legal > 1  # with one legal action there is nothing to choose
    share = jnp.where(choice, entropy / jnp.log(jnp.maximum(legal, 2)), 0.0)
    metrics = {
        "train/total_loss": _mean(total),
        "train/pg_loss": _mean(policy.loss),
        "train/vf_loss": _mean(vf_loss),
        "train/entropy": _mean(entropy.mean()),
        "train/entropy_frac": Mean(share.sum(), choice.sum(dtype=jnp.float32)),
        "train/approx_kl": _mean(policy.approx_kl),
        "train/clip_frac": _mean(policy.clip_frac),
    }
    return total, metrics


def rollout(network: ActorCritic, config: PPOConfig, venv: VecEnv, state: State) -> Any:
    """`num_steps` steps of all environments with the current policy.

    Returns (envs, key, transitions [T, N, ...], V of the observation after the last step [N], metrics).
    """
    spec = venv.spec

    def tick(carry: Any, _: None) -> Any:
        envs, key = carry
        key, action_key = jax.random.split(key)
        mask = envs.mask if config.use_mask else None
        logits, value = forward(network, state.policy, envs.obs)
        action = sample_masked(action_key, logits, mask)
        log_prob = masked_categorical(logits, mask).log_prob(action)
        after, seen = venv.step(envs, action)
        final_value = jax.lax.cond(
            seen.truncated.any(),
            lambda: jnp.where(seen.truncated, forward(network, state.policy, seen.final_obs)[1], 0.0),
            lambda: jnp.zeros_like(value),
        )
        transition = Transition(
            obs=pack(envs.obs, spec.num_binary, spec.obs_shape),
            mask=mask,
            action=action,
            log_prob=log_prob,
            value=value,
            reward=seen.reward,
            terminated=seen.terminated,
            truncated=seen.truncated,
            final_value=final_value,
        )
        return (after, key), (transition, _sums(venv, action, mask, seen))

    (envs, key), (transitions, sums) = jax.lax.scan(tick, (state.envs, state.key), None, config.num_steps)
    last_value = forward(network, state.policy, envs.obs)[1]
    metrics = _pool(sums)
    metrics["train/num_episodes"] = _mean(metrics["train/mean_episode_return"].count)
    return envs, key, transitions, last_value, metrics


def advantages(config: PPOConfig, transitions: Transition, last_value: Any) -> Any:
    """(advantage, value_target), each [T, N], from a rollout and V after its last step [N]."""
    t = transitions
    done = t.terminated | t.truncated
    next_value = jnp.concatenate([t.value[1:], last_value[None]])
    next_value = jnp.where(done, t.final_value, next_value)
    stream = partial(gae, discount=config.discount, lambda_=config.lambda_)
    inputs = (t.reward, t.value, next_value, t.terminated, t.truncated)
    return jax.vmap(stream, in_axes=1, out_axes=1)(*inputs)


def update(network: ActorCritic, config: PPOConfig, optimiser: Any, spec: Spec, state: State, data: Any) -> Any:
    """`update_epochs` passes over the batch in shuffled minibatches.

    data: (transitions, (advantage, value_target)) with leaves [T, N, ...]. Returns (state, metrics).
    """
    size = config.num_envs * config.num_steps
    flat = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), data)

    def minibatch(carry: Any, rows: Any) -> Any:
        params, opt_state = carry
        batch, gae_ = jax.tree.map(lambda x: x[rows], flat)
        obs = unpack(batch.obs, spec.num_binary, spec.obs_shape)
        grad_fn = jax.grad(partial(loss, network, config), has_aux=True)
        grads, metrics = grad_fn(params, obs, batch, gae_)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        metrics["train/grad_norm"] = _mean(optax.tree.norm(grads))
        return (optax.apply_updates(params, updates), opt_state), metrics

    def epoch(carry: Any, key: Any) -> Any:
        # One sort of random words shuffles; jax.random.permutation sorts twice to rule out ties (1 in 2^32 a pair).
        rows = jnp.argsort(jax.random.bits(key, (size,))).reshape(config.num_minibatches, -1)
        return jax.lax.scan(minibatch, carry, rows)

    key, shuffle_key = jax.random.split(state.key)
    keys = jax.random.split(shuffle_key, config.update_epochs)
    (params, opt_state), metrics = jax.lax.scan(epoch, (state.policy, state.opt_state), keys)
    state = replace(state, policy=params, opt_state=opt_state, key=key, update=state.update + 1)
    return state, _pool(_pool(metrics))


def ppo(config: PPOConfig, env: Env) -> Agent:
    """Masked PPO on `env`, whose actions must be discrete.

    Raises ValueError for sizes that do not fit together and for continuous actions.
    """
    config = config.resolve()
    spec = env.spec
    if not spec.num_actions:
        raise ValueError(f"{spec.id} has continuous actions; PPO here needs discrete ones")
    venv = vectorise(env, config.num_envs)
    network = ActorCritic(spec.num_actions, config.hidden_dim, config.num_layers, len(spec.obs_shape))
    num_updates = config.total_timesteps // (config.num_envs * config.num_steps)
    steps = num_updates * config.num_minibatches * config.update_epochs
    lr = optax.linear_schedule(config.lr, 0.0, steps) if config.anneal_lr else config.lr
    optimiser = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(lr, eps=1e-5))

    def init(key: Any) -> State:
        net_key, env_key, key = jax.random.split(key, 3)
        params = network.init(net_key, jnp.zeros((1, *spec.obs_shape)))
        return State(params, optimiser.init(params), venv.init(env_key), jnp.zeros((), jnp.int32), key)

    def step(state: State) -> tuple[State, dict[str, Any]]:
        envs, key, transitions, last_value, seen = rollout(network, config, venv, state)
        gae_ = advantages(config, transitions, last_value)
        state = replace(state, envs=envs, key=key)
        state, metrics = update(network, config, optimiser, spec, state, (transitions, gae_))
        fit = explained_variance(transitions.value.reshape(-1), gae_[1].reshape(-1))
        return state, metrics | seen | {"train/explained_variance": _mean(fit)}

    def act(params: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        logits, value = forward(network, params, obs)
        mask = mask if config.use_mask else None
        dist = masked_categorical(logits, mask)
        action = dist.probs.argmax(-1) if key is None else sample_masked(key, logits, mask)
        extras = {
            "value": value,
            "log_prob": dist.log_prob(action),
            "entropy": dist.entropy(),
            "probs": dist.probs,
        }
        return action, memory, extras

    return Agent(
        name="ppo",
        config=config,
        spec=spec,
        num_updates=num_updates,
        steps_per_update=config.num_envs * config.num_steps,
        init=init,
        step=step,
        memory=lambda params: (),
        act=act,
        health=HEALTH,
    )


def _mean(value: Any) -> Mean:
    return Mean(value, jnp.ones(()))


def _pool(metrics: dict[str, Any]) -> dict[str, Any]:
    """Pools metrics over their leading axis: sums add up, maxima compete."""
    return {
        name: Max(m.value.max(0)) if isinstance(m, Max) else Mean(m.total.sum(0), m.count.sum(0))
        for name, m in metrics.items()
    }


def _sums(venv: VecEnv, action: Any, mask: Any, seen: VecStep) -> dict[str, Any]:
    """One tick's metrics: rewards, action counts, and the statistics of episodes that ended in it."""
    spec, n = venv.spec, jnp.float32(venv.num_envs)
    done = seen.terminated | seen.truncated
    ended = done.sum(dtype=jnp.float32)

    def over_ended(x: Any) -> Mean:
        return Mean(jnp.where(done, x, 0.0).sum(dtype=jnp.float32), ended)

    names = spec.action_names or tuple(str(i) for i in range(spec.num_actions))
    counts = (action[:, None] == jnp.arange(spec.num_actions)[None]).sum(0, dtype=jnp.float32)
    sums: dict[str, Any] = {
        "train/mean_reward": Mean(seen.reward.sum(), n),
        "train/mean_episode_return": over_ended(seen.info["episode_return"]),
        "train/mean_episode_length": over_ended(seen.info["episode_length"]),
    }
    sums |= {f"actions/{name}": Mean(counts[i], n) for i, name in enumerate(names)}
    sums |= {f"stats/{name}": over_ended(seen.info[name]) for name in spec.info}
    if mask is not None:
        sums["train/no_legal_action"] = Max((~mask.any(-1)).any().astype(jnp.float32))
    return sums

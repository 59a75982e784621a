"""Masked PPO, from top to bottom: configuration, state, loss, rollout, update, agent.

Source: Schulman et al. 2017, arXiv:1707.06347; masks as in Huang & Ontanon 2022, arXiv:2006.14171.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mxnb.agents.api import Agent, Mean
from mxnb.agents.on_policy import (
    HEALTH,
    acted,
    adam,
    board_reader,
    check_network,
    check_parts,
    choose,
    distribution,
    env_action,
    head_of,
    learned_reward,
    mean,
    own_network,
    pool,
    tick_sums,
)
from mxnb.agents.scales import first_policy, in_units, learn_scales, standardise
from mxnb.envs.api import Env, Spec
from mxnb.envs.vector import VecEnv, vectorise
from mxnb.kernels.losses import (
    clipped_value_loss,
    explained_variance,
    normalise,
    ppo_policy_loss,
    value_loss,
    weighted_mean,
)
from mxnb.kernels.microbatches import in_parts
from mxnb.kernels.packing import pack, unpack
from mxnb.kernels.returns import gae
from mxnb.kernels.running import deviation
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
    shards: int = 1
    """Parts of the environments, each with its own queue of worlds, for `fit(mesh=...)`; results depend on it."""
    num_steps: int = 64
    """Steps of each environment in one rollout; num_envs * num_steps is the batch."""
    num_minibatches: int = 0
    """Parts of the shuffled batch, one gradient step each; 0: min(4 f, 64), f = max(1, batch // 32768)."""
    update_epochs: int = 0
    """Passes over the batch; 0: max(2, 4 // f)."""
    num_microbatches: int = 1
    """Parts in which a minibatch goes through the network and back: the same gradient from less memory, slower."""
    lr: float = 0.0
    """Adam's step size; 0: 5e-4 * 16 / (num_minibatches * update_epochs)."""
    anneal_lr: bool = True
    """Whether lr falls linearly to 0 over the run."""
    warmup_updates: int = 0
    """Updates over which lr rises from 0 first."""
    discount: float = 0.99
    """Discount of future reward per step."""
    lambda_: float = 0.8
    """GAE's lambda: 0 trusts the critic, 1 the observed returns."""
    clip_eps: float = 0.2
    """Ratios outside 1 +- clip_eps earn no further gradient."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""
    anneal_ent_coef: bool = False
    """Whether ent_coef falls linearly to 0 over the run."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    vf_clip_eps: float = 0.0
    """Values that moved further than this from the rollout's earn no gradient towards it; 0: no such clip."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""
    hidden_dim: int = 256
    """Width of every layer."""
    num_layers: int = 2
    """Hidden layers of actor and critic."""
    shared_layers: int = 1
    """How many of them, from the first, actor and critic share (0: separate trunks), besides convolutions."""
    cell_dim: int = 0
    """Units that read each cell of the board first, the same for all (`mxnb.networks.board`); 0: one long row."""
    compute_dtype: str = "float32"
    """What layers compute in: float32, or bfloat16 where the hardware has it (a T4 has not); parameters are float32."""
    normalise_advantage: bool = True
    """Whether each minibatch's advantages get mean 0 and standard deviation 1."""
    normalise_value: bool = False
    """Whether the critic learns targets of mean 0 and deviation 1 (PopArt); for returns far from 1."""
    reward_scale: dict = field(default_factory=dict, hash=False)
    """How many times parts of the reward count in learning, {"kills": 0.5}; see `on_policy.learned_reward`."""
    normalise_obs: bool = False
    """Whether observations are scaled by their running mean and deviation; entries that are bits stay bits."""
    use_mask: bool = True
    """Whether the policy sees the environment's action mask; False samples from all actions."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each value came from; written by `mxnb.parameters`, part of no comparison."""

    @property
    def num_updates(self) -> int:
        """Whole updates in total_timesteps."""
        return self.total_timesteps // (self.num_envs * self.num_steps)

    @property
    def harmless(self) -> tuple[str, ...]:
        """Fields that a resumed run may change: its length, where nothing is annealed over it."""
        return () if self.anneal_lr or self.anneal_ent_coef else ("total_timesteps",)

    def resolve(self) -> PPOConfig:
        """The same with every 0 of `auto_scale` filled in; ValueError lists sizes that do not fit."""
        return auto_scale(self)


BASE_LR = 5e-4
_Config = TypeVar("_Config", bound=PPOConfig)


def auto_scale(config: _Config) -> _Config:
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
    elif batch // minibatches % config.num_microbatches:
        problems.append(
            f"a minibatch of {batch // minibatches} does not divide into num_microbatches = {config.num_microbatches}; "
            f"use num_microbatches = {math.gcd(batch // minibatches, config.num_microbatches)}"
        )
    if config.num_envs % config.shards:
        nearest = math.gcd(config.num_envs, config.shards)
        problems.append(
            f"shards = {config.shards} does not divide num_envs = {config.num_envs}; use shards = {nearest}"
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
    counts = ("num_envs", "shards", "num_steps", "hidden_dim", "num_layers", "num_microbatches")
    problems = [f"{name} is {getattr(c, name)}; use at least 1" for name in counts if getattr(c, name) < 1]
    shares = ("discount", "lambda_")
    problems += [f"{n} is {getattr(c, n)}; use a number from 0 to 1" for n in shares if not 0 <= getattr(c, n) <= 1]
    if c.compute_dtype not in ("float32", "bfloat16"):
        problems.append(f"compute_dtype is {c.compute_dtype!r}; use 'float32' or 'bfloat16'")
    problems += [
        f"{n} is {getattr(c, n)}; use more than 0" for n in ("clip_eps", "max_grad_norm") if getattr(c, n) <= 0
    ]
    others = ("lr", "ent_coef", "vf_coef", "num_minibatches", "update_epochs", "vf_clip_eps")
    others += ("shared_layers", "cell_dim")
    return problems + [f"{name} is {getattr(c, name)}; use 0 or more" for name in others if getattr(c, name) < 0]


def _raise(problems: list[str]) -> None:
    if problems:
        raise ValueError("\n".join(problems))


@struct.dataclass
class State:
    """Everything that training needs to go on."""

    policy: Any  # {"params": the network's}, with the options on "obs_stats" and "value_stats" (Running)
    opt_state: Any  # Adam's moments and step count
    envs: Any  # VecState
    update: Any  # int32: updates done
    key: Any  # PRNG key of actions and shuffles


class Transition(NamedTuple):
    """One step of all environments; the rollout stacks them to [T, N, ...]. No next_obs, no info."""

    obs: Any  # Packed: what the action was sampled from
    mask: Any  # bool[N, A] of that moment, or None
    action: Any  # int32[N], or float32[N, D] before it is clipped to the environment's bounds
    log_prob: Any  # float32[N]
    value: Any  # float32[N]
    reward: Any  # float32[N]
    terminated: Any  # bool[N]
    truncated: Any  # bool[N]
    final_value: Any  # float32[N]: V(final_obs) where truncated, else 0
    weight: Any = None  # float32[N]: 0 where the action counted for nothing; None: each counts (mxnb.envs.survival)
    duration: Any = None  # float32[N]: steps that it took; None: one each


def forward(network: Any, policy: Any, obs: Any) -> Any:
    """(head [*B, K], value [*B] in units of the reward) of observations [*B, *o].

    policy: the network's params; with the options on, obs_stats and value_stats as well.
    """
    head, value = network.apply({"params": policy["params"]}, standardise(policy, obs))
    return head, in_units(policy, value)


def loss(config: PPOConfig, spec: Spec, policy: Any, seen: Any, batch: Transition, gae_: Any, ent_coef: Any) -> Any:
    """Clipped policy loss + vf_coef * value loss - ent_coef * entropy, over one minibatch [B].

    seen: (head [B, K], value [B]) under the new parameters; gae_: (advantage, value_target), each [B].
    Returns (loss, metrics).
    """
    (head, value), (advantage, value_target) = seen, gae_
    dist = distribution(spec, head, batch.mask)
    log_prob: Any = dist.log_prob(batch.action)
    if config.normalise_advantage:
        advantage = normalise(advantage, batch.weight)
    surrogate = ppo_policy_loss(log_prob, batch.log_prob, advantage, batch.weight, clip_eps=config.clip_eps)
    scale = deviation(policy["value_stats"]) if config.normalise_value else 1.0
    value, value_target = value / scale, value_target / scale
    if config.vf_clip_eps:
        vf_loss = clipped_value_loss(value, batch.value / scale, value_target, clip_eps=config.vf_clip_eps)
    else:
        vf_loss = value_loss(value, value_target)
    entropies = dist.entropy()
    entropy = weighted_mean(entropies, batch.weight)
    total = surrogate.loss + config.vf_coef * vf_loss - ent_coef * entropy
    metrics = {
        "train/total_loss": mean(total),
        "train/pg_loss": mean(surrogate.loss),
        "train/vf_loss": mean(vf_loss),
        "train/entropy": mean(entropy),
        "train/approx_kl": mean(surrogate.approx_kl),
        "train/clip_frac": mean(surrogate.clip_frac),
    }
    if spec.num_actions:
        legal = jnp.full(entropies.shape, head.shape[-1]) if batch.mask is None else batch.mask.sum(-1)
        choice = legal > 1  # with one legal action there is nothing to choose
        choice = choice if batch.weight is None else choice & (batch.weight > 0)
        share = jnp.where(choice, entropies / jnp.log(jnp.maximum(legal, 2)), 0.0)
        metrics["train/entropy_frac"] = Mean(share.sum(), choice.sum(dtype=jnp.float32))
    return total, metrics


def rollout(network: Any, config: PPOConfig, venv: VecEnv, state: State) -> Any:
    """`num_steps` steps of all environments with the current policy.

    Returns (envs, key, transitions [T, N, ...], V of the observation after the last step [N], metrics).
    """
    spec = venv.spec

    def tick(carry: Any, _: None) -> Any:
        envs, key = carry
        key, action_key = jax.random.split(key)
        mask = envs.mask if config.use_mask else None
        head, value = forward(network, state.policy, envs.obs)
        action = choose(spec, action_key, head, mask)
        log_prob = distribution(spec, head, mask).log_prob(action)
        after, seen = venv.step(envs, env_action(spec, action))
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
            reward=learned_reward(config, spec, seen),
            terminated=seen.terminated,
            truncated=seen.truncated,
            final_value=final_value,
            weight=seen.info.get("tick/alive"),
            duration=seen.info.get("tick/tau"),
        )
        return (after, key), (transition, tick_sums(spec, action, mask, seen))

    (envs, key), (transitions, sums) = jax.lax.scan(tick, (state.envs, state.key), None, config.num_steps)
    last_value = forward(network, state.policy, envs.obs)[1]
    metrics = pool(sums)
    metrics["train/num_episodes"] = mean(metrics["train/mean_episode_return"].count)
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


def update(network: Any, config: PPOConfig, optimiser: Any, spec: Spec, state: State, data: Any) -> Any:
    """`update_epochs` passes over the batch in shuffled minibatches.

    data: (transitions, (advantage, value_target)) with leaves [T, N, ...]. Returns (state, metrics).
    """
    size = config.num_envs * config.num_steps
    flat = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), data)
    ent_coef = entropy_weight(config, state.update)

    def minibatch(carry: Any, rows: Any) -> Any:
        batch, gae_ = jax.tree.map(lambda x: x[rows], flat)

        def objective(params: Any) -> Any:
            policy = state.policy | params
            look = lambda obs: forward(network, policy, unpack(obs, spec.num_binary, spec.obs_shape))
            seen = in_parts(look, config.num_microbatches, batch.obs)
            return loss(config, spec, policy, seen, batch, gae_, ent_coef)

        return descend(optimiser, objective, carry)

    def epoch(carry: Any, key: Any) -> Any:
        # One sort of random words shuffles; jax.random.permutation sorts twice to rule out ties (1 in 2^32 a pair).
        rows = jnp.argsort(jax.random.bits(key, (size,))).reshape(config.num_minibatches, -1)
        return jax.lax.scan(minibatch, carry, rows)

    key, shuffle_key = jax.random.split(state.key)
    keys = jax.random.split(shuffle_key, config.update_epochs)
    params = {"params": state.policy["params"]}
    (params, opt_state), metrics = jax.lax.scan(epoch, (params, state.opt_state), keys)
    policy = learn_scales(config, spec, state.policy | params, data)
    state = replace(state, policy=policy, opt_state=opt_state, key=key, update=state.update + 1)
    return state, pool(pool(metrics))


def entropy_weight(config: PPOConfig, update: Any) -> Any:
    """ent_coef at this update."""
    return config.ent_coef * (1.0 - update / config.num_updates) if config.anneal_ent_coef else config.ent_coef


def descend(optimiser: Any, objective: Any, carry: Any) -> Any:
    """One gradient step of (params, opt_state) down objective(params) -> (loss, metrics)."""
    params, opt_state = carry
    grads, metrics = jax.grad(objective, has_aux=True)(params)
    updates, opt_state = optimiser.update(grads, opt_state, params)
    metrics["train/grad_norm"] = mean(optax.tree.norm(grads))
    return (optax.apply_updates(params, updates), opt_state), metrics


def parts(config: PPOConfig, env: Env, network: Any = None) -> tuple[Any, VecEnv, Any]:
    """(network, vectorised environment, optimiser) of a resolved configuration; network as in `ppo`."""
    spec = env.spec
    head = head_of(spec)
    check_parts(config, spec)
    if network is None:
        sizes = (config.hidden_dim, config.num_layers, len(spec.obs_shape), config.shared_layers)
        dtype = jnp.dtype(config.compute_dtype)
        options = {"gaussian": head["gaussian"], "dtype": dtype, "board": board_reader(config, spec)}
        network = ActorCritic(head["num_outputs"], *sizes, **options)
    else:
        own_network(config)
        obs = jnp.zeros((2, *spec.obs_shape), spec.obs_dtype)
        check_network(spec, jax.eval_shape(network.init_with_output, jax.random.key(0), obs)[0], (2,))
    return network, vectorise(env, config.num_envs, shards=config.shards), adam(config, config.num_updates)


def ppo(config: PPOConfig, env: Env, network: Any = None) -> Agent:
    """Masked PPO on `env`, with discrete or continuous actions.

    network: a flax module, obs [*B, *o] -> (head [*B, K], value [*B]), instead of `ActorCritic`; K is the number of
    actions, or twice the number of action entries. For `normalise_value` its last layer is a Dense called "value".
    Raises ValueError for sizes that do not fit together, several agents, and unbounded actions.
    """
    config = config.resolve()
    spec = env.spec
    network, venv, optimiser = parts(config, env, network)

    def init(key: Any) -> State:
        net_key, env_key, key = jax.random.split(key, 3)
        policy = first_policy(config, spec, network.init(net_key, jnp.zeros((1, *spec.obs_shape), spec.obs_dtype)))
        opt_state = optimiser.init({"params": policy["params"]})
        return State(policy, opt_state, venv.init(env_key), jnp.zeros((), jnp.int32), key)

    def step(state: State) -> tuple[State, dict[str, Any]]:
        envs, key, transitions, last_value, seen = rollout(network, config, venv, state)
        gae_ = advantages(config, transitions, last_value)
        state = replace(state, envs=envs, key=key)
        state, metrics = update(network, config, optimiser, spec, state, (transitions, gae_))
        fit = explained_variance(transitions.value.reshape(-1), gae_[1].reshape(-1))
        return state, metrics | seen | {"train/explained_variance": mean(fit)}

    def act(policy: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        head, value = forward(network, policy, obs)
        action, extras = acted(spec, key, head, value, mask if config.use_mask else None)
        return action, memory, extras

    return Agent(
        name="ppo",
        config=config,
        spec=spec,
        num_updates=config.num_updates,
        steps_per_update=config.num_envs * config.num_steps,
        init=init,
        step=step,
        memory=lambda params: (),
        act=act,
        health=HEALTH,
    )

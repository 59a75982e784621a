"""Masked PPO with a memory, from top to bottom: configuration, state, rollout, update, agent.

The loss, the advantages and the options are those of `mxnb.agents.ppo`; what differs is that a network with a
memory reads sequences. Its memory at the rollout's start is kept, `is_first` clears it inside the scan, and a
minibatch is a part of the environments with all their steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mxnb.agents import ppo
from mxnb.agents.api import Agent
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
from mxnb.agents.ppo import PPOConfig, Transition
from mxnb.agents.scales import first_policy, in_units, learn_scales, standardise
from mxnb.envs.api import Env, Spec
from mxnb.envs.vector import VecEnv, vectorise
from mxnb.kernels.losses import explained_variance
from mxnb.kernels.microbatches import in_parts
from mxnb.kernels.packing import pack, unpack
from mxnb.networks.recurrent import RecurrentActorCritic


@dataclass(frozen=True)
class PPORnnConfig(PPOConfig):
    """What recurrent PPO can be told: PPO's fields, with `hidden_dim` the width of the memory too."""

    num_layers: int = 1
    """Hidden layers of actor and critic behind the memory."""
    shared_layers: int = 0
    """How many of them, from the first, actor and critic share; they always share the memory and what feeds it."""
    remat: bool = False
    """Whether the way back computes each step of the memory again instead of keeping it: less memory, slower."""

    def resolve(self) -> PPORnnConfig:
        """The same with every 0 of `auto_scale` filled in; ValueError lists sizes that do not fit."""
        config = ppo.auto_scale(self)
        if config.num_envs % config.num_minibatches:
            fits = [m for m in range(1, config.num_envs + 1) if config.num_envs % m == 0]
            nearest = min(fits, key=lambda m: abs(m - config.num_minibatches))
            if not self.num_minibatches:
                found = replace(self, num_minibatches=nearest).resolve()
                return replace(found, origins={**found.origins, "num_minibatches": "auto_scale"})
            raise ValueError(
                f"num_envs = {config.num_envs} does not divide into num_minibatches = {config.num_minibatches}, "
                f"and a minibatch is a part of the environments; use num_minibatches = {nearest}"
            )
        part = config.num_envs // config.num_minibatches
        if part % config.num_microbatches:
            raise ValueError(
                f"a minibatch of {part} environments does not divide into num_microbatches = "
                f"{config.num_microbatches}; use num_microbatches = {math.gcd(part, config.num_microbatches)}"
            )
        return config


@struct.dataclass
class State:
    """Everything that training needs to go on."""

    policy: Any  # as in mxnb.agents.ppo.State
    opt_state: Any  # Adam's moments and step count
    envs: Any  # VecState
    memory: Any  # float32[N, H]: of what was seen before envs.obs
    is_first: Any  # bool[N]: envs.obs begins an episode, so that memory does not count
    update: Any  # int32: updates done
    key: Any  # PRNG key of actions and shuffles


def forward(network: Any, policy: Any, memory: Any, obs: Any, is_first: Any) -> Any:
    """(memory after the last time [B, H], head [T, B, K], value [T, B]) of observations [T, B, *o]."""
    obs = standardise(policy, obs)
    memory, head, value = network.apply({"params": policy["params"]}, memory, obs, is_first)
    return memory, head, in_units(policy, value)


def look(network: Any, policy: Any, memory: Any, obs: Any, is_first: Any) -> Any:
    """The same for one time: (memory after obs [B, H], head [B, K], value [B]) of obs [B, *o]."""
    memory, head, value = forward(network, policy, memory, obs[None], is_first[None])
    return memory, head[0], value[0]


def rollout(network: Any, config: PPORnnConfig, venv: VecEnv, state: Any) -> Any:
    """`num_steps` steps of all environments with the current policy.

    state: a State, or another agent's with the same fields and more.
    Returns (state with new envs, memory, is_first and key; (transitions, is_first), each [T, N, ...]; V of the
    observation after the last step [N]; metrics).
    """
    spec, policy = venv.spec, state.policy
    never = jnp.zeros(config.num_envs, bool)

    def tick(carry: Any, _: None) -> Any:
        envs, memory, is_first, key = carry
        key, action_key = jax.random.split(key)
        mask = envs.mask if config.use_mask else None
        seen_so_far, head, value = look(network, policy, memory, envs.obs, is_first)
        action = choose(spec, action_key, head, mask)
        log_prob = distribution(spec, head, mask).log_prob(action)
        after, seen = venv.step(envs, env_action(spec, action))
        # The final observation follows envs.obs in the same episode, so it is judged with the memory after envs.obs.
        final_value = jax.lax.cond(
            seen.truncated.any(),
            lambda: jnp.where(seen.truncated, look(network, policy, seen_so_far, seen.final_obs, never)[2], 0.0),
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
        return (after, seen_so_far, seen.is_first, key), ((transition, is_first), tick_sums(spec, action, mask, seen))

    carry = (state.envs, state.memory, state.is_first, state.key)
    (envs, memory, is_first, key), (data, sums) = jax.lax.scan(tick, carry, None, config.num_steps)
    last_value = look(network, policy, memory, envs.obs, is_first)[2]
    metrics = pool(sums)
    metrics["train/num_episodes"] = mean(metrics["train/mean_episode_return"].count)
    state = replace(state, envs=envs, memory=memory, is_first=is_first, key=key)
    return state, data, last_value, metrics


def update(network: Any, config: PPORnnConfig, optimiser: Any, spec: Spec, state: Any, memory: Any, data: Any) -> Any:
    """`update_epochs` passes over the environments in shuffled minibatches, each with all its steps.

    memory: [N, H] at the rollout's start; data: ((transitions, is_first), (advantage, value_target)), leaves
    [T, N, ...]. Returns (state, metrics).
    """
    ent_coef = ppo.entropy_weight(config, state.update)

    def minibatch(carry: Any, rows: Any) -> Any:
        (batch, is_first), gae_ = jax.tree.map(lambda x: x[:, rows], data)
        flat = lambda tree: jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

        def objective(params: Any) -> Any:
            policy = state.policy | params

            def look(memory: Any, obs: Any, is_first: Any) -> Any:
                obs = unpack(obs, spec.num_binary, spec.obs_shape)
                return forward(network, policy, memory[0], obs, is_first)[1:]

            seen = in_parts(look, config.num_microbatches, memory[rows][None], batch.obs, is_first, axis=1)
            return ppo.loss(config, spec, policy, flat(seen), flat(batch), flat(gae_), ent_coef)

        return ppo.descend(optimiser, objective, carry)

    def epoch(carry: Any, key: Any) -> Any:
        rows = jnp.argsort(jax.random.bits(key, (config.num_envs,))).reshape(config.num_minibatches, -1)
        return jax.lax.scan(minibatch, carry, rows)

    key, shuffle_key = jax.random.split(state.key)
    keys = jax.random.split(shuffle_key, config.update_epochs)
    params = {"params": state.policy["params"]}
    (params, opt_state), metrics = jax.lax.scan(epoch, (params, state.opt_state), keys)
    (transitions, _), gae_ = data
    policy = learn_scales(config, spec, state.policy | params, (transitions, gae_))
    state = replace(state, policy=policy, opt_state=opt_state, key=key, update=state.update + 1)
    return state, pool(pool(metrics))


def check_recurrent(spec: Spec, config: PPORnnConfig, network: Any) -> None:
    """ValueError unless a network keeps its memory at the width hidden_dim, and its head and value fit."""
    example = (
        jnp.zeros((2, config.hidden_dim)),
        jnp.zeros((3, 2, *spec.obs_shape), spec.obs_dtype),
        jnp.ones((3, 2), bool),
    )
    memory, *out = jax.eval_shape(network.init_with_output, jax.random.key(0), *example)[0]
    if memory.shape != example[0].shape:
        raise ValueError(
            f"the network gives a memory {list(memory.shape)} for {list(example[0].shape)}; "
            f"it must keep its shape, [B, hidden_dim = {config.hidden_dim}]"
        )
    check_network(spec, out, (3, 2))


def ppo_rnn(config: PPORnnConfig, env: Env, network: Any = None) -> Agent:
    """Masked recurrent PPO on `env`, with discrete or continuous actions.

    network: a flax module (memory [B, H], obs [T, B, *o], is_first [T, B]) -> (memory, head [T, B, K], value [T, B])
    instead of `RecurrentActorCritic`, with H = hidden_dim. Raises ValueError as `mxnb.agents.ppo.ppo`.
    """
    config = config.resolve()
    spec = env.spec
    head = head_of(spec)
    check_parts(config, spec)
    if network is None:
        sizes = (config.hidden_dim, config.num_layers, len(spec.obs_shape), config.shared_layers)
        options = {"gaussian": head["gaussian"], "remat": config.remat, "dtype": jnp.dtype(config.compute_dtype)}
        options["board"] = board_reader(config, spec)
        network = RecurrentActorCritic(head["num_outputs"], *sizes, **options)
    else:
        own_network(config)
        check_recurrent(spec, config, network)
    venv = vectorise(env, config.num_envs, shards=config.shards)
    optimiser = adam(config, config.num_updates)

    def init(key: Any) -> State:
        net_key, env_key, key = jax.random.split(key, 3)
        memory = jnp.zeros((config.num_envs, config.hidden_dim))
        obs = jnp.zeros((1, 1, *spec.obs_shape), spec.obs_dtype)
        policy = first_policy(config, spec, network.init(net_key, memory[:1], obs, jnp.ones((1, 1), bool)))
        return State(
            policy=policy,
            opt_state=optimiser.init({"params": policy["params"]}),
            envs=venv.init(env_key),
            memory=memory,
            is_first=jnp.ones(config.num_envs, bool),
            update=jnp.zeros((), jnp.int32),
            key=key,
        )

    def step(state: State) -> tuple[State, dict[str, Any]]:
        after, data, last_value, seen = rollout(network, config, venv, state)
        gae_ = ppo.advantages(config, data[0], last_value)
        after, metrics = update(network, config, optimiser, spec, after, state.memory, (data, gae_))
        fit = explained_variance(data[0].value.reshape(-1), gae_[1].reshape(-1))
        return after, metrics | seen | {"train/explained_variance": mean(fit)}

    def act(policy: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        memory, head, value = look(network, policy, memory[None], obs[None], jnp.zeros(1, bool))
        action, extras = acted(spec, key, head[0], value[0], mask if config.use_mask else None)
        return action, memory[0], extras

    return Agent(
        name="ppo_rnn",
        config=config,
        spec=spec,
        num_updates=config.num_updates,
        steps_per_update=config.num_envs * config.num_steps,
        init=init,
        step=step,
        memory=lambda policy: jnp.zeros(config.hidden_dim),
        act=act,
        health=HEALTH,
    )

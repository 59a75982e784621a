r"""Dreamer, from top to bottom: rows, state, collecting, learning, agent (`dreamer_config` has what it can be told).

It learns a model of the world from replayed rows, and its policy from futures imagined with that model.

One environment's stream is a sequence of rows. Row t holds what arrived and what was chosen there:

    obs_t  reward_t  is_first_t  is_last_t  is_terminal_t  |  action_t
           on arriving at obs_t                            |  chosen at obs_t, ignored on last rows

    row      0 first      1          2          3 last      4 first
    obs      o_0          o_1        o_2        o_3         o'_0
    reward   0            r(a_0)     r(a_1)     r(a_2)      0
    action   a_0          a_1        a_2        0           a'_0

An episode of n steps takes n + 1 rows; terminal rows are last rows whose future is worth nothing, a time limit's row is
last and not terminal. The model reaches row t from row t - 1 by action_{t-1}; heads at row t predict reward_t and
whether row t is terminal. `mxnb.envs.vector` in next_step mode gives exactly these rows.

Source: Hafner et al. 2023, arXiv:2301.04104 (DreamerV3).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mxnb.agents import world
from mxnb.agents.api import Agent, Health
from mxnb.agents.dreamer_config import DreamerConfig
from mxnb.agents.on_policy import HEALTH, acted, choose, env_action, head_of, mean, pool, tick_sums
from mxnb.agents.replay import Row, empty_replay, load, row_bytes, sample, store, write
from mxnb.agents.world import Memory, Nets, forget, no_memory
from mxnb.envs.api import Env, Spec
from mxnb.envs.vector import VecEnv, vectorise
from mxnb.kernels.imagined import no_spread
from mxnb.kernels.optim import laprop
from mxnb.kernels.symlog import make_bins
from mxnb.networks.rssm import MLP
from mxnb.networks.world_model import WorldModel, sides

COLLAPSED = Health(
    "train/entropy_frac",
    0.05,
    1.01,
    "the policy hardly ever chooses between its actions, in what it imagines",
    "early in a run it may recover by itself; where it stays and the return is low, treble ent_coef, start anew",
)
SURPRISED = Health(
    "train/kl",
    -1e-3,
    30.0,
    "the world model is surprised by every step: what it expects says little about what comes",
    "train longer; if it stays, lower lr",
)


@struct.dataclass
class Stream:
    """The environments, what arrived with their present observations, and everything they were seen to do."""

    vec: Any  # VecState
    reward: Any  # float32[N]: received on arriving at vec.obs
    is_first: Any  # bool[N]: vec.obs begins an episode
    is_terminal: Any  # bool[N]: vec.obs is its episode's last, and the future is worth nothing
    memory: Any  # Memory [N]: before vec.obs
    replay: Any  # Replay; None while playing


@struct.dataclass
class State:
    """Everything that training needs to go on."""

    policy: Any  # {"params": {"world", "actor", "critic"}}
    slow: Any  # the slow critic's params
    opt_state: Any  # LaProp's moments and step count
    spread: Any  # Spread: of imagined returns
    envs: Any  # Stream
    update: Any  # int32: updates done
    key: Any  # PRNG key of actions, latents and batches


def networks(config: DreamerConfig, spec: Spec) -> Nets:
    """The three networks for `spec`; ValueError for environments that Dreamer cannot play."""
    head = head_of(spec)
    width = head["num_outputs"]
    if len(spec.obs_shape) == 3 and not spec.num_binary:
        sides(spec.obs_shape)
    model = WorldModel(
        obs_shape=tuple(spec.obs_shape),
        num_binary=spec.num_binary,
        num_actions=width,
        scale=config.number_scale if spec.num_binary else 1.0,
        predicts_mask=config.use_mask,
        **{n: getattr(config, n) for n in ("deter", "hidden_dim", "stoch", "classes", "blocks", "units")},
        **{n: getattr(config, n) for n in ("num_layers", "num_bins", "depth")},
    )
    actor = MLP(config.units, config.num_layers, width * (2 if head["gaussian"] else 1), 0.01)
    critic = MLP(config.units, config.num_layers, config.num_bins, 0.0)
    return Nets(model, actor, critic, spec, make_bins(config.num_bins))


def first_params(nets: Nets, key: Any) -> Any:
    """Parameters of all three networks: rewards and values begin at exactly 0, the policy nearly uniform."""
    keys = jax.random.split(key, 3)
    memory = no_memory(nets, 1)
    obs = jnp.zeros((1, *nets.spec.obs_shape), nets.spec.obs_dtype)
    feature = jnp.concatenate([memory.h, memory.z], -1)
    made = {
        "world": nets.world.init(keys[0], obs, *memory),
        "actor": nets.actor.init(keys[1], feature),
        "critic": nets.critic.init(keys[2], feature),
    }
    return {name: variables["params"] for name, variables in made.items()}


def tick(config: DreamerConfig, nets: Nets, venv: VecEnv, params: Any, stream: Stream, key: Any) -> Any:
    """One step of all environments: (stream, (their rows as stored, metric sums)). params None: random actions.

    Environments whose episode is over ignore their action and begin the next one; that is no step of any episode.
    """
    spec, vec = venv.spec, stream.vec
    latent_key, action_key = jax.random.split(key)
    is_last = vec.needs_reset
    mask = vec.mask if config.use_mask else None
    if params is None:
        width = nets.world.num_actions * (1 if spec.num_actions else 2)
        memory, head = stream.memory, jnp.zeros((venv.num_envs, width))
    else:
        draw = jax.random.uniform(latent_key, (venv.num_envs, nets.world.stoch))
        h, z = world.look(nets, params, forget(stream.memory, stream.is_first), vec.obs, draw)
        head = nets.head(params, jnp.concatenate([h, z], -1))
        memory = Memory(h, z, stream.memory.action)
    action = choose(spec, action_key, head, mask)
    action = jnp.where(is_last.reshape(is_last.shape + (1,) * (action.ndim - 1)), 0, action)
    row = Row(vec.obs, action, stream.reward, stream.is_first, is_last, stream.is_terminal, mask)
    after, seen = venv.step(vec, env_action(spec, action))
    counted = seen._replace(info=seen.info | {"tick/alive": (~is_last).astype(jnp.float32)})
    stream = stream.replace(  # type: ignore[attr-defined]
        vec=after,
        reward=seen.reward,
        is_first=seen.is_first,
        is_terminal=seen.terminated,
        memory=memory if params is None else memory._replace(action=nets.coded(action)),
    )
    return stream, (store(spec, row), tick_sums(spec, action, mask, counted))


def play(config: DreamerConfig, nets: Nets, venv: VecEnv, params: Any, stream: Stream, keys: Any) -> Any:
    """One `tick` for each key, and their rows into the replay: (stream, metrics)."""
    one = lambda stream, key: tick(config, nets, venv, params, stream, key)
    after, (stored, sums) = jax.lax.scan(one, stream.replace(replay=None), keys)  # type: ignore[attr-defined]
    return after.replace(replay=write(stream.replay, stored)), pool(sums)


def begin(config: DreamerConfig, nets: Nets, venv: VecEnv, key: Any) -> Stream:
    """Fresh environments with nothing in the replay; ValueError where masks are asked for and there are none."""
    vec = venv.init(key)
    if config.use_mask and vec.mask is None:
        raise ValueError(f"use_mask is True, and {venv.spec.id} has no action masks; leave use_mask out")
    n = venv.num_envs
    never = jnp.zeros(n, bool)
    replay = empty_replay(n, config.capacity, row_bytes(venv.spec, config.use_mask))
    return Stream(vec, jnp.zeros(n), ~never, never, no_memory(nets, n), replay)


def total_loss(config: DreamerConfig, nets: Nets, params: Any, slow: Any, spread: Any, rows: Row, key: Any) -> Any:
    """(loss, (spread, metrics)) of one batch of rows [T, B, ...]: the world model's, the actor's and the critic's."""
    draw_key, dream_key, start_key = jax.random.split(key, 3)
    length, batch = rows.reward.shape
    draws = jax.random.uniform(draw_key, (length, batch, nets.world.stoch))
    model, states, metrics = world.world_loss(config, nets, params, rows, draws)
    near = config.starts // batch
    first = jax.random.randint(start_key, (), 0, length - near + 1)
    cut = lambda tree: jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, near), tree)
    rows, (h, z) = cut(rows), world.sg(cut(states))
    flat = lambda x: x.reshape(near * batch, -1)
    dream = world.imagine(config, nets, params, flat(h), flat(z), dream_key)
    imagined, returns, spread, more = world.dream_loss(config, nets, params, slow, spread, dream)
    boot = returns[0].reshape(near, batch)
    feature = jnp.concatenate([h, z], -1)
    replayed = world.replay_value_loss(config, nets, params, slow, rows, feature, boot)
    loss = model + imagined + config.replay_value_coef * replayed
    return loss, (spread, metrics | more | {"replay_value_loss": replayed, "model_loss": model, "total_loss": loss})


def learn(config: DreamerConfig, nets: Nets, optimiser: Any, replay: Any, carry: Any, key: Any) -> Any:
    """One gradient step on rows drawn from `replay`: ((params, slow, opt_state, spread), metrics)."""
    params, slow, opt_state, spread = carry
    sample_key, loss_key = jax.random.split(key)
    rows = load(nets.spec, sample(replay, sample_key, config.batch_size, config.num_steps), config.use_mask)
    loss = lambda p: total_loss(config, nets, p, slow, spread, rows, loss_key)
    (_, (spread, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = optimiser.update(grads, opt_state, params)
    params: Any = optax.apply_updates(params, updates)
    blend = lambda s, p: config.slow_decay * s + (1.0 - config.slow_decay) * p
    slow = jax.tree.map(blend, slow, params["critic"])
    metrics["grad_norm"] = optax.tree.norm(grads)
    return (params, slow, opt_state, spread), {f"train/{k}": mean(v) for k, v in metrics.items()}


def dreamer(config: DreamerConfig, env: Env) -> Agent:
    """Dreamer on `env`, with discrete or continuous actions. One update is a few steps and a few gradient steps.

    Raises ValueError for sizes that do not fit, and as `mxnb.agents.on_policy.head_of`.
    """
    config = config.resolve()
    spec = env.spec
    nets = networks(config, spec)
    venv = vectorise(env, config.num_envs, autoreset="next_step", shards=config.shards)
    optimiser = laprop(config.lr, warmup=config.warmup_steps, clip=config.clip)
    ticks, gradient_steps = config.cadence

    def init(key: Any) -> State:
        net_key, env_key, fill_key, key = jax.random.split(key, 4)
        params = first_params(nets, net_key)
        keys = jax.random.split(fill_key, config.prefill_ticks)
        return State(
            policy={"params": params},
            slow=jax.tree.map(jnp.copy, params["critic"]),
            opt_state=optimiser.init(params),
            spread=no_spread(),
            envs=play(config, nets, venv, None, begin(config, nets, venv, env_key), keys)[0],
            update=jnp.zeros((), jnp.int32),
            key=key,
        )

    def regrown(state: State) -> State:
        key, env_key, fill_key = jax.random.split(state.key, 3)
        keys = jax.random.split(fill_key, config.prefill_ticks)
        fresh = begin(config, nets, venv, env_key)
        envs = play(config, nets, venv, state.policy["params"], fresh, keys)[0]
        return state.replace(envs=envs, key=key)  # type: ignore[attr-defined]

    def step(state: State) -> tuple[State, dict[str, Any]]:
        key, play_key, learn_key = jax.random.split(state.key, 3)
        # Learning first: replay is read before it is written, so XLA need not keep a copy of it.
        carry = (state.policy["params"], state.slow, state.opt_state, state.spread)
        study = lambda carry, key: learn(config, nets, optimiser, state.envs.replay, carry, key)
        carry, metrics = jax.lax.scan(study, carry, jax.random.split(learn_key, gradient_steps))
        params, slow, opt_state, spread = carry
        stream, seen = play(config, nets, venv, params, state.envs, jax.random.split(play_key, ticks))
        seen["train/num_episodes"] = mean(seen["train/mean_episode_return"].count)
        after = State({"params": params}, slow, opt_state, spread, stream, state.update + 1, key)
        return after, pool(metrics) | seen

    def act(policy: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        params, draw = policy["params"], None
        if key is not None:
            key, draw_key = jax.random.split(key)
            draw = jax.random.uniform(draw_key, (1, nets.world.stoch))
        memory = jax.tree.map(lambda x: x[None], memory)
        h, z = world.look(nets, params, memory, obs[None], draw)
        feature = jnp.concatenate([h, z], -1)[0]
        value = nets.judge(params["critic"], feature)[1]
        head, legal = nets.head(params, feature), mask if config.use_mask else None
        action, extras = acted(spec, key, head, value, legal)
        own = choose(spec, key, head, legal)  # the same draw, not yet scaled to the environment's bounds
        return action, Memory(h[0], z[0], nets.coded(own)), extras

    return Agent(
        name="dreamer",
        config=config,
        spec=spec,
        num_updates=config.num_updates,
        steps_per_update=ticks * config.num_envs,
        init=init,
        step=step,
        memory=lambda policy: no_memory(nets),
        act=act,
        health=(COLLAPSED, *(rule for rule in HEALTH if rule.metric == "train/no_legal_action"), SURPRISED),
        steps_before=config.prefill_ticks * config.num_envs,
        begun=lambda state: state.replace(slow=jax.tree.map(jnp.copy, state.policy["params"]["critic"])),
        **({} if config.save_replay else {"kept": lambda state: state.replace(envs=None), "regrown": regrown}),
    )

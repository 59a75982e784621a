r"""Dreamer, from top to bottom: rows, configuration, state, collecting, learning, agent.

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

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mxnb.agents import world
from mxnb.agents.api import Agent, Health
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
    "the policy hardly ever chooses between its legal actions, in what it imagines",
    "where the return is not yet what it should be, raise ent_coef (1e-3, then 3e-3) and start anew",
)
SURPRISED = Health(
    "train/kl",
    0.0,
    80.0,
    "the world model is surprised by every step: what it expects says little about what comes",
    "train longer or raise train_ratio; if it stays, lower lr",
)


@dataclass(frozen=True)
class DreamerConfig:
    """What Dreamer can be told."""

    env_id: str = "craftax-classic-symbolic-v1"
    """The environment; see `mxnb.make`."""
    total_timesteps: int = 1_000_000
    """env.step calls times num_envs, the prefill included, rounded down to whole updates."""
    num_envs: int = 16
    """Environments in step."""
    batch_size: int = 16
    """Sequences replayed in one gradient step; the last one is the newest of an environment."""
    num_steps: int = 64
    """Rows of each."""
    train_ratio: int = 64
    """Replayed rows for each environment step: one gradient step every batch_size * num_steps / train_ratio steps."""
    starts: int = 256
    """States that imagination starts from in a gradient step: starts / batch_size neighbours of each sequence."""
    horizon: int = 15
    """Imagined actions from each of them."""
    replay_size: int = 1_000_000
    """Rows kept, over all environments."""
    prefill: int = 1024
    """Random steps taken before anything is learned."""
    deter: int = 1024
    """Width of the deterministic state."""
    hidden_dim: int = 256
    """Width of the layers around it."""
    stoch: int = 32
    """Groups of latents."""
    classes: int = 16
    """Classes in each group."""
    blocks: int = 8
    """Blocks of the recurrence; they divide deter."""
    units: int = 256
    """Width of encoder, decoder and heads."""
    num_layers: int = 3
    """Layers of encoder, decoder, actor and critic; the heads of reward and continue have one."""
    num_bins: int = 255
    """Bins of rewards and values; odd."""
    depth: int = 16
    """Channels of a picture's first convolution."""
    number_scale: float = 10.0
    """What numbers beside bits are multiplied by: Craftax gives counts in tenths, too small to be learned."""
    lr: float = 2e-4
    """LaProp's step size."""
    warmup_steps: int = 500
    """Gradient steps over which lr rises from 0."""
    clip: float = 0.3
    """Each tensor's gradient is scaled down to this share of the tensor's norm."""
    discount: float = 1 - 1 / 333
    """Discount of future reward per step."""
    lambda_: float = 0.95
    """Of imagined and replayed returns: 0 trusts the critic, 1 the rewards."""
    ent_coef: float = 3e-4
    """Weight of the policy's entropy."""
    free_nats: float = 1.0
    """A row's divergence below this earns no gradient."""
    dyn_coef: float = 1.0
    """Weight of teaching the prior what the posterior says."""
    rep_coef: float = 0.1
    """Weight of teaching the posterior to be predictable."""
    replay_value_coef: float = 0.3
    """Weight of the critic's loss on replayed rows."""
    slow_decay: float = 0.98
    """Share of itself that the slow critic keeps in a gradient step."""
    slow_coef: float = 1.0
    """Weight of staying near the slow critic."""
    save_replay: bool = True
    """Whether checkpoints hold the replay; without it a resumed run lets its policy fill a new one first."""
    use_mask: bool = False
    """Whether the policy sees the environment's action mask while playing, and learns to foresee it in imagination."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each value came from; written by `mxnb.parameters`, part of no comparison."""

    @property
    def cadence(self) -> tuple[int, int]:
        """(ticks of all environments, gradient steps) of one update, in lowest terms."""
        replayed, asked = self.batch_size * self.num_steps, self.num_envs * self.train_ratio
        shared = math.gcd(replayed, asked)
        return replayed // shared, asked // shared

    @property
    def capacity(self) -> int:
        """Rows of each environment's ring."""
        return self.replay_size // self.num_envs

    @property
    def prefill_ticks(self) -> int:
        """Random ticks before the first update: enough for `prefill` steps and for one sequence."""
        return max(-(-self.prefill // self.num_envs), self.num_steps)

    @property
    def num_updates(self) -> int:
        """Whole updates in what total_timesteps leaves after the prefill."""
        left = self.total_timesteps - self.prefill_ticks * self.num_envs
        return max(0, left) // (self.cadence[0] * self.num_envs)

    @property
    def harmless(self) -> tuple[str, ...]:
        """Fields that a resumed run may change."""
        return ("total_timesteps",)

    def resolve(self) -> DreamerConfig:
        """The same; ValueError lists what does not fit."""
        problems = _problems(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _problems(config: DreamerConfig) -> list[str]:
    """What is out of range or does not fit together, in words that name the mend."""
    c, least = config, {"num_steps": 2, "batch_size": 2, "classes": 2, "num_bins": 3}
    positive = ("num_envs", "train_ratio", "horizon", "deter", "hidden_dim", "stoch", "blocks", "units", "num_layers")
    least |= dict.fromkeys((*positive, "depth"), 1)
    problems = [f"{n} is {getattr(c, n)}; use at least {low}" for n, low in least.items() if getattr(c, n) < low]
    if problems:
        return problems
    if c.deter % c.blocks:
        problems.append(f"blocks = {c.blocks} does not divide deter = {c.deter}; use {math.gcd(c.deter, c.blocks)}")
    if c.num_bins % 2 == 0:
        problems.append(f"num_bins is {c.num_bins}; it must be odd, so that one bin is 0: use {c.num_bins + 1}")
    rows = c.batch_size * c.num_steps
    if c.starts % c.batch_size or not 2 * c.batch_size <= c.starts <= rows:
        nearest = c.batch_size * min(max(2, round(c.starts / c.batch_size)), c.num_steps)
        problems.append(
            f"starts is {c.starts}; it must be a multiple of batch_size = {c.batch_size} from {2 * c.batch_size} to "
            f"batch_size * num_steps = {rows}: use {nearest}"
        )
    if c.capacity < max(c.prefill_ticks, c.cadence[0]) and c.capacity >= c.num_steps:
        need = c.num_envs * max(c.prefill_ticks, c.cadence[0])
        problems.append(f"replay_size = {c.replay_size} does not hold the prefill and one update; use at least {need}")
    if c.capacity < c.num_steps:
        problems.append(
            f"replay_size = {c.replay_size} holds {c.capacity} rows of each of {c.num_envs} environments, and "
            f"a sequence is num_steps = {c.num_steps} long; use replay_size of at least {c.num_envs * c.num_steps}"
        )
    if not c.num_updates:
        least_total = (c.prefill_ticks + c.cadence[0]) * c.num_envs
        problems.append(
            f"total_timesteps = {c.total_timesteps} is less than the prefill and one update; use at least {least_total}"
        )
    unit = ("discount", "lambda_", "slow_decay")
    problems += [f"{n} is {getattr(c, n)}; use 0 to 1" for n in unit if not 0 <= getattr(c, n) <= 1]
    if c.lr <= 0:
        problems.append(f"lr is {c.lr}; use more than 0 (1e-3 for small networks, 4e-5 for the largest)")
    if c.number_scale <= 0:
        problems.append(f"number_scale is {c.number_scale}; use more than 0 (10 for Craftax's tenths)")
    if c.clip <= 0:
        problems.append(f"clip is {c.clip}; use more than 0 (0.3 is usual)")
    weights = ("ent_coef", "free_nats", "dyn_coef", "rep_coef", "replay_value_coef", "slow_coef")
    return problems + [f"{n} is {getattr(c, n)}; use 0 or more" for n in weights if getattr(c, n) < 0]


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

    Environments whose episode is over ignore their action and begin the next one; that is no step.
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
    return loss, (spread, metrics | more | {"replay_value_loss": replayed, "model_loss": model})


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
    venv = vectorise(env, config.num_envs, autoreset="next_step")
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
        action, extras = acted(spec, key, nets.head(params, feature), value, mask if config.use_mask else None)
        return action, Memory(h[0], z[0], nets.coded(action)), extras

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
        **({} if config.save_replay else {"kept": lambda state: state.replace(envs=None), "regrown": regrown}),
    )

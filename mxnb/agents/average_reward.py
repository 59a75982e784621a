r"""Average-reward actor-critic, from top to bottom: configuration, state, advantages, agent.

No discount: the policy maximises the gain rho, the mean reward a step, on one endless stream. A death is an ordinary
transition whose cost follows from rho (`mxnb.envs.survival`); it is never cut. Rollout, loss and minibatches are those
of `mxnb.agents.ppo_rnn`; what differs is how advantages are made:

    delta_t = r_t - rho tau_t + V(s_{t+1}) - V(s_t),   A_t = delta_t + lambda^tau_t A_{t+1}

Source: Ma et al. 2021, arXiv:2106.03442 (average-reward PPO); Zhang & Ross 2021, arXiv:2106.07329.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mxnb.agents import ppo_rnn
from mxnb.agents.api import Agent, Health
from mxnb.agents.on_policy import (
    HEALTH,
    acted,
    adam,
    board_reader,
    choose,
    env_action,
    head_of,
    mean,
    own_network,
)
from mxnb.agents.ppo import Transition
from mxnb.agents.ppo_rnn import PPORnnConfig
from mxnb.agents.scales import first_policy
from mxnb.envs.api import Env
from mxnb.envs.vector import VecEnv, VecState, vectorise
from mxnb.kernels.average_reward import (
    RHOS,
    Gain,
    centre,
    differential_gae,
    differential_td,
    learn_rho,
    no_gain,
    step_rho,
)
from mxnb.kernels.losses import explained_variance
from mxnb.networks.recurrent import FeedForwardActorCritic, RecurrentActorCritic

IMMORTAL = Health(
    "train/deathless",
    0.0,
    0.5,
    "nobody has died for long, and while alive every step pays 1: there is nothing to learn from",
    "if lives just are that long, raise r_reset; where the task has no deaths, train on its rewards: reward='native'",
)
DEATHLESS_STEPS = 10_000  # seen before anybody is called immortal
OBJECTIVES = ("average", "centred-discounted", "discounted")
CRITICS = ("lambda", "td0")
METHODS = ("ppo", "a2c")
CHAINS = ("explicit", "collapsed")
REWARDS = ("alive", "native")
A2C_LR = 1e-3


@dataclass(frozen=True)
class AverageRewardConfig(PPORnnConfig):
    """What the average-reward agent can be told: recurrent PPO's fields, and these."""

    lambda_: float = 0.95
    """Trace of the differential advantages, below 1; their horizon is about 1 / (1 - lambda_) steps."""
    normalise_value: bool = True
    """Whether the critic learns targets of deviation 1 (PopArt): values reach gain * r_reset."""
    r_reset: int = 50
    """Empty steps that a death costs."""
    chain: str = "explicit"
    """explicit: those steps are played; collapsed: the death is one transition that takes 1 + r_reset steps."""
    reward: str = "alive"
    """alive: 1 a step lived; native: the environment's own reward, for tasks without deaths too."""
    recurrent: bool = True
    """Whether the network remembers (a gated recurrent unit), or sees the present observation alone."""
    objective: str = "average"
    """average (no discount); centred-discounted (discount, and reward minus the gain); discounted (to compare)."""
    rho: str = "ratio"
    """How the gain is estimated: ratio, ema, batch or td; see `mxnb.kernels.average_reward.learn_rho`."""
    rho_beta: float = 0.1
    """Weight of the newest batch in the gain (ratio, ema), or the gain's step size (td)."""
    critic: str = "lambda"
    """The value's target: lambda (V + A) or td0 (V + delta)."""
    method: str = "ppo"
    """ppo, or a2c: one step down the whole batch, which is PPO's first; its lr is 0.001 unless given."""
    centre_targets: bool = True
    """Whether value targets are shifted to mean 0 where there is no discount; otherwise values may drift."""
    phase_steps: int = 256
    """Before training, environment i takes a random number of random steps below this, so that lives differ in age."""

    def resolve(self) -> AverageRewardConfig:
        """The same with every 0 of `auto_scale` filled in; ValueError lists what does not fit."""
        problems = _problems(self)
        config = self
        if self.method == "a2c":
            origins = self.origins if self.lr else {**self.origins, "lr": "a2c"}
            config = replace(self, num_minibatches=1, update_epochs=1, lr=self.lr or A2C_LR, origins=origins)
        try:
            resolved: Any = super(AverageRewardConfig, config).resolve()
        except ValueError as error:
            problems += str(error).splitlines()
        if problems:
            raise ValueError("\n".join(dict.fromkeys(problems)))
        return resolved


def _problems(config: AverageRewardConfig) -> list[str]:
    """What is out of range among the fields that recurrent PPO has not, in words."""
    choices = {"objective": OBJECTIVES, "rho": RHOS, "critic": CRITICS, "method": METHODS}
    choices |= {"chain": CHAINS, "reward": REWARDS}
    given = {name: getattr(config, name) for name in choices}
    problems = [f"{n} is {v!r}; choose from {', '.join(choices[n])}" for n, v in given.items() if v not in choices[n]]
    if config.r_reset < 0:
        problems.append(f"r_reset is {config.r_reset}; a death costs 0 steps or more (50 is usual)")
    if config.r_reset == 0 and config.reward == "alive":
        problems.append("r_reset is 0, so every step pays 1 and nothing can be learned; use 50, or reward 'native'")
    undiscounted = config.objective == "average" or config.discount == 1
    if undiscounted and config.lambda_ == 1:
        problems.append(f"lambda_ is {config.lambda_}; without a discount it must be below 1 (0.95 is usual)")
    if config.objective == "discounted" and config.discount == 1:
        problems.append("objective is 'discounted' with discount 1, where values have no end; use objective 'average'")
    if config.objective == "discounted" and config.rho == "td":
        problems.append("rho is 'td', but a discounted surprise holds no gain to learn; use rho 'ratio'")
    if not 0 < config.rho_beta <= 1:
        problems.append(f"rho_beta is {config.rho_beta}; use more than 0 and at most 1 (0.1 is usual)")
    if config.method == "a2c" and not {config.num_minibatches, config.update_epochs} <= {0, 1}:
        problems.append("method is 'a2c', which takes one step an update; leave num_minibatches and update_epochs out")
    if config.reward_scale:
        problems.append("reward_scale would change what the gain is the mean of; use reward_scale={}")
    if config.phase_steps < 0:
        problems.append(f"phase_steps is {config.phase_steps}; use 0 or more")
    return problems


@struct.dataclass
class State:
    """Everything that training needs to go on."""

    policy: Any  # as in mxnb.agents.ppo.State
    opt_state: Any  # Adam's moments and step count
    envs: Any  # VecState
    memory: Any  # float32[N, H]: of what was seen before envs.obs
    is_first: Any  # bool[N]: envs.obs begins a life, so that memory does not count
    gain: Any  # Gain: the estimate of the mean reward a step
    update: Any  # int32: updates done
    key: Any  # PRNG key of actions and shuffles


def advantages(config: AverageRewardConfig, transitions: Transition, last_value: Any, rho: Any) -> Any:
    """((advantage, value_target), delta), each [T, N], from a rollout, V after its last step [N] and the gain.

    The value of a step that ends a life in death is that of the next life's first observation, which is the next step's
    own; that of a limit or a win is V(final_obs), and the trace stops there.
    """
    t = transitions
    discount = 1.0 if config.objective == "average" else config.discount
    rate = jnp.zeros(()) if config.objective == "discounted" else rho
    duration = jnp.ones_like(t.reward) if t.duration is None else t.duration
    following = jnp.concatenate([t.value[1:], last_value[None]])
    cut = t.truncated  # a death is none: what follows it is the price of it
    next_value = jnp.where(cut, t.final_value, following)
    streams = partial(jax.vmap, in_axes=1, out_axes=1)
    surprise = streams(lambda r, v, after, tau: differential_td(r, v, after, tau, rate, discount=discount))
    delta = surprise(t.reward, t.value, next_value, duration)
    trace = streams(partial(differential_gae, lambda_=config.lambda_, discount=discount))
    advantage = trace(delta, duration, cut)
    value_target = t.value + (advantage if config.critic == "lambda" else delta)
    if config.centre_targets and discount == 1.0:  # with a discount the constant is not free
        value_target = centre(value_target)
    return (advantage, value_target), delta


def out_of_step(venv: VecEnv, envs: VecState, key: Any, steps: int) -> VecState:
    """Each environment after its own random number of random steps, from 0 to `steps` - 1.

    Started together, all lives would be young at first and end in waves, and the gain would be overstated by
    h(s_0) / T (Puterman 1994, chapter 8).
    """
    age_key, key = jax.random.split(key)
    ages = jax.random.randint(age_key, (venv.num_envs,), 0, steps)
    spec, head = venv.spec, head_of(venv.spec)
    equal = jnp.zeros((venv.num_envs, head["num_outputs"] * (2 if head["gaussian"] else 1)))

    def tick(envs: VecState, now: Any) -> tuple[VecState, None]:
        t, tick_key = now
        after, _ = venv.step(envs, env_action(spec, choose(spec, tick_key, equal, envs.mask)))
        goes = t < ages
        wide = lambda x: goes.reshape(goes.shape + (1,) * (x.ndim - 1))
        keep = lambda new, old: jnp.where(wide(new), new, old)
        own = ("env", "obs", "mask", "needs_reset", "returns", "lengths")
        kept = {name: jax.tree.map(keep, getattr(after, name), getattr(envs, name)) for name in own}
        return after.replace(**kept), None  # type: ignore[attr-defined]

    return jax.lax.scan(tick, envs, (jnp.arange(steps), jax.random.split(key, steps)))[0]


def average_reward(config: AverageRewardConfig, env: Env, network: Any = None) -> Agent:
    """An actor-critic for the mean reward a step, on an endless `env`, such as `mxnb.envs.survival.survival` makes.

    network: as in `mxnb.agents.ppo_rnn.ppo_rnn`. An environment that ends without saying what a death costs starts its
    next episode at no cost. Raises ValueError as `mxnb.agents.ppo.ppo`, and for fields out of range.
    """
    config = config.resolve()
    spec = env.spec
    head = head_of(spec)
    if network is None:
        sizes = (config.hidden_dim, config.num_layers, len(spec.obs_shape), config.shared_layers)
        kind = RecurrentActorCritic if config.recurrent else FeedForwardActorCritic
        options = {"gaussian": head["gaussian"], "remat": config.remat, "dtype": jnp.dtype(config.compute_dtype)}
        options["board"] = board_reader(config, spec)
        network = kind(head["num_outputs"], *sizes, **options)
    else:
        own_network(config)
        ppo_rnn.check_recurrent(spec, config, network)
    venv = vectorise(env, config.num_envs, shards=config.shards)
    batch = config.num_envs * config.num_steps
    optimiser = adam(config, config.num_updates)

    def init(key: Any) -> State:
        net_key, env_key, phase_key, key = jax.random.split(key, 4)
        memory = jnp.zeros((config.num_envs, config.hidden_dim))
        obs = jnp.zeros((1, 1, *spec.obs_shape), spec.obs_dtype)
        policy = first_policy(config, spec, network.init(net_key, memory[:1], obs, jnp.ones((1, 1), bool)))
        envs = venv.init(env_key)
        if config.phase_steps:
            envs = out_of_step(venv, envs, phase_key, config.phase_steps)
        return State(
            policy=policy,
            opt_state=optimiser.init({"params": policy["params"]}),
            envs=envs,
            memory=memory,
            is_first=jnp.ones(config.num_envs, bool),
            gain=no_gain(),
            update=jnp.zeros((), jnp.int32),
            key=key,
        )

    def step(state: State) -> tuple[State, dict[str, Any]]:
        after, data, last_value, seen = ppo_rnn.rollout(network, config, venv, state)
        transitions = data[0]
        duration = jnp.ones_like(transitions.reward) if transitions.duration is None else transitions.duration
        gain: Gain = learn_rho(state.gain, transitions.reward, duration, how=config.rho, beta=config.rho_beta)
        gae_, delta = advantages(config, transitions, last_value, gain.rho)
        if config.rho == "td":
            gain = step_rho(gain, delta, duration, beta=config.rho_beta)
        after, metrics = ppo_rnn.update(network, config, optimiser, spec, after, state.memory, (data, gae_))
        batch_gain = transitions.reward.mean() / duration.mean()
        deathless = (gain.rho > 0.9999) & (gain.batches * batch >= DEATHLESS_STEPS)
        fit = explained_variance(transitions.value.reshape(-1), gae_[1].reshape(-1))
        metrics |= {
            "train/rho": mean(gain.rho),
            "train/batch_rho": mean(batch_gain),
            "train/rho_gap": mean(jnp.abs(gain.rho - batch_gain)),
            "train/deathless": mean(deathless.astype(jnp.float32)),
            "train/mean_value": mean(transitions.value.mean()),
            "train/mean_delta": mean(delta.mean()),
            "train/explained_variance": mean(fit),
        }
        return replace(after, gain=gain), metrics | seen

    def act(policy: Any, obs: Any, mask: Any, memory: Any, key: Any) -> Any:
        memory, head, value = ppo_rnn.look(network, policy, memory[None], obs[None], jnp.zeros(1, bool))
        action, extras = acted(spec, key, head[0], value[0], mask if config.use_mask else None)
        return action, memory[0], extras

    return Agent(
        name="average_reward",
        config=config,
        spec=spec,
        num_updates=config.num_updates,
        steps_per_update=batch,
        init=init,
        step=step,
        memory=lambda policy: jnp.zeros(config.hidden_dim),
        act=act,
        health=(*HEALTH, IMMORTAL) if config.reward == "alive" else HEALTH,
    )

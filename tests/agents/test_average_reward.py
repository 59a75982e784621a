"""The average-reward agent: what must not change its advantages, exact problems learned, and the bugs put back."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents.tables import Learned, learn, module, risk_with_deaths
from flax import linen as nn
from tiny import assert_same_bits, mutant

from mxnb.agents.average_reward import AverageRewardConfig, advantages, average_reward, out_of_step
from mxnb.agents.ppo import Transition
from mxnb.agents.ppo_rnn import rollout
from mxnb.envs import chains
from mxnb.envs import survival as survival_module
from mxnb.envs.survival import survival
from mxnb.envs.vector import vectorise
from mxnb.networks.recurrent import RecurrentActorCritic
from mxnb.run.metrics import judge

pytestmark = pytest.mark.brief

SIZES: dict[str, Any] = {
    "num_envs": 8,
    "num_steps": 16,
    "total_timesteps": 8 * 16 * 10,
    "hidden_dim": 16,
    "num_minibatches": 4,
    "update_epochs": 2,
    "phase_steps": 20,
    "r_reset": 5,
}


WATCHED = ("train/rho", "train/deathless", "train/entropy_frac")


def mortal() -> Any:
    """Two states of one-hot observations and three actions, in which lives are short."""
    transition = np.full((2, 3, 2), 0.5)
    mdp = chains.MDP(transition, np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    return chains.from_table("mortal", mdp, death=[[0.0, 0.1, 0.3], [0.3, 0.1, 0.0]])


def endless(config: Any, env: Any) -> Any:
    return survival(env, config.r_reset, chain=config.chain, reward=config.reward)


def agent_of(**more: Any) -> Any:
    config = AverageRewardConfig(**SIZES | more)
    return average_reward(config, endless(config, mortal()))


# ------------------------------------------------------------------------------------------------ advantages


def batch(offset: float = 0.0) -> tuple[Transition, Any]:
    """Two streams of 6 steps: a death with its chain and a respawn; a limit, a collapsed death and a win."""
    rng = np.random.default_rng(0)
    value = jnp.asarray(rng.normal(size=(6, 2)), jnp.float32) + offset
    truncated = jnp.zeros((6, 2), bool).at[1, 1].set(True).at[4, 1].set(True)
    final = jnp.where(truncated, jnp.asarray(rng.normal(size=(6, 2)), jnp.float32) + offset, 0.0)
    t = Transition(
        obs=None,
        mask=None,
        action=None,
        log_prob=None,
        value=value,
        reward=jnp.array([[1, 1], [1, 1], [0, 1], [0, 1], [1, 1], [1, 1]], jnp.float32),
        terminated=jnp.zeros((6, 2), bool).at[3, 0].set(True).at[3, 1].set(True),
        truncated=truncated,
        final_value=final,
        weight=jnp.array([[1, 1], [1, 1], [0, 1], [0, 1], [1, 1], [1, 1]], jnp.float32),
        duration=jnp.ones((6, 2)).at[3, 1].set(3.0),
    )
    return t, jnp.asarray(rng.normal(size=2), jnp.float32) + offset


@pytest.mark.parametrize("critic", ["lambda", "td0"])
def test_the_constant_of_the_values_is_free(critic: str) -> None:
    """With a death, its chain, a collapsed death, a limit and a win in the batch; targets are centred besides."""
    config = AverageRewardConfig(**SIZES, critic=critic)
    here, there = (advantages(config, *batch(offset), jnp.float32(0.4)) for offset in (0.0, 7.3))
    for one, other in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    discounted = replace(config, objective="discounted", critic="lambda")  # a discount gives the constant a price
    here, there = (advantages(discounted, *batch(offset), jnp.float32(0.4)) for offset in (0.0, 7.3))
    assert np.abs(here[0][0] - there[0][0]).max() > 0.05


def test_advantages_by_a_plain_loop() -> None:
    t, last = batch()
    rho, found = 0.4, np.zeros((6, 2))
    for n in range(2):
        trace = 0.0
        for i in reversed(range(6)):
            after = t.final_value[i, n] if t.truncated[i, n] else t.value[i + 1, n] if i < 5 else last[n]
            delta = t.reward[i, n] - rho * t.duration[i, n] + after - t.value[i, n]
            trace = delta + (0.0 if t.truncated[i, n] else 0.95 ** float(t.duration[i, n]) * trace)
            found[i, n] = trace
    (advantage, target), delta = advantages(AverageRewardConfig(**SIZES), t, last, jnp.float32(rho))
    np.testing.assert_allclose(advantage, found, atol=1e-5)
    np.testing.assert_allclose(target, found + t.value - (found + t.value).mean(), atol=1e-5)
    td0 = AverageRewardConfig(**SIZES, critic="td0", centre_targets=False)
    np.testing.assert_allclose(advantages(td0, t, last, jnp.float32(rho))[0][1], t.value + delta, atol=1e-6)


def test_a_discounted_death_costs_the_same_in_one_transition() -> None:
    """With exact values of a hazard of 0.1 and 5 empty steps at discount 0.9: delta of the death, told both ways."""
    config = AverageRewardConfig(**SIZES, objective="discounted", discount=0.9)
    alive = 1.0 / (1.0 - 0.9 * 0.9 - 0.1 * 0.9**6)  # V = 1 + 0.9 (0.9 V + 0.1 * 0.9^5 V)
    t, _ = batch()
    same = {"truncated": jnp.zeros((6, 2), bool), "final_value": jnp.zeros((6, 2))}
    chain = t._replace(
        value=jnp.array([[alive], *([alive * 0.9**k] for k in (5, 4, 3, 2, 1))]) * jnp.ones((1, 2)),
        reward=jnp.zeros((6, 2)).at[0].set(1.0),
        duration=jnp.ones((6, 2)),
        **same,
    )
    one = chain._replace(value=jnp.full((6, 2), alive), reward=jnp.ones((6, 2)), duration=jnp.ones((6, 2)).at[0].set(6))
    last = jnp.full(2, alive)
    deltas = [advantages(config, x, last, jnp.float32(0.5))[1][0] for x in (chain, one)]
    # the chain's own deltas are 0, so what the death cost is all in its first transition
    np.testing.assert_allclose(advantages(config, chain, last, jnp.float32(0.5))[1][1:], 0.0, atol=1e-5)
    np.testing.assert_allclose(deltas[0], deltas[1], atol=1e-4)
    (_, target), _ = advantages(config, one, last, jnp.float32(0.5))
    assert float(target.mean()) > 1.0  # not centred


def test_the_actor_teaches_no_critic() -> None:
    """With no weight on the value's own loss an update leaves the value's head as it was, bit for bit."""
    agent = agent_of(vf_coef=0.0, normalise_value=False)
    state = jax.jit(agent.init)(jax.random.key(0))
    after, _ = jax.jit(agent.step)(state)
    before, then = state.policy["params"], after.policy["params"]
    assert_same_bits(before["value"], then["value"])
    assert not np.array_equal(before["logits"]["kernel"], then["logits"]["kernel"])


def test_the_last_step_is_judged_by_what_follows_the_rollout() -> None:
    t, last = batch()
    config = AverageRewardConfig(**SIZES)
    found = [advantages(config, t, last + x, jnp.float32(0.4))[0][0] for x in (0.0, 1.0)]
    np.testing.assert_allclose(found[1][-1] - found[0][-1], 1.0, atol=1e-5)


def test_empty_steps_teach_the_critic_alone() -> None:
    """Where actions count for nothing, their probabilities move no loss and no metric of the policy."""
    agent = agent_of()
    state = jax.jit(agent.init)(jax.random.key(0))
    network = RecurrentActorCritic(3, 16, 1, 1, 0)
    venv = vectorise(endless(agent.config, mortal()), 8)
    after, (transitions, is_first), last, _ = rollout(network, agent.config, venv, state)
    void = transitions.weight == 0
    assert void.any() and not void.all()
    gae_, _ = advantages(agent.config, transitions, last, jnp.float32(0.5))
    noise = jax.random.normal(jax.random.key(1), void.shape)
    changed = transitions._replace(log_prob=jnp.where(void, transitions.log_prob + noise, transitions.log_prob))

    @jax.jit
    def updated(transitions: Any) -> Any:
        data = ((transitions, is_first), gae_)
        return module.ppo_rnn.update(
            network, agent.config, module.adam(agent.config, 10), agent.spec, after, state.memory, data
        )

    (one, seen), (other, _) = updated(transitions), updated(changed)
    assert_same_bits(one.policy, other.policy)
    assert float(seen["train/approx_kl"].total / seen["train/approx_kl"].count) < 0.1


def test_unchanged_parameters_give_ratio_one() -> None:
    """The memories of the rollout come back in the update: across deaths, chains and respawns."""
    agent = agent_of(lr=1e-30)
    state = jax.jit(agent.init)(jax.random.key(3))
    params = dict(state.policy["params"])
    params["logits"] = {k: 300.0 * v for k, v in params["logits"].items()}
    step = jax.jit(agent.step)
    state, _ = step(state.replace(policy=state.policy | {"params": params}))
    network = RecurrentActorCritic(3, 16, 1, 1, 0)
    venv = vectorise(endless(agent.config, mortal()), 8)
    _, (transitions, is_first), _, _ = rollout(network, agent.config, venv, state)
    obs = module.ppo_rnn.unpack(transitions.obs, agent.spec.num_binary, agent.spec.obs_shape)
    _, head, value = module.ppo_rnn.forward(network, state.policy, state.memory, obs, is_first)
    again = module.ppo_rnn.distribution(agent.spec, head, transitions.mask).log_prob(transitions.action)
    assert is_first[1:].any() and (transitions.weight == 0).any()  # respawns and empty steps are among them
    np.testing.assert_allclose(again, transitions.log_prob, atol=1e-5)
    np.testing.assert_allclose(value * 1.0, transitions.value, atol=1e-4)
    _, metrics = step(state)
    assert abs(float(metrics["train/approx_kl"].total)) < 1e-5 and float(metrics["train/clip_frac"].total) == 0


def test_a_new_life_remembers_nothing() -> None:
    agent = agent_of()
    state = jax.jit(agent.init)(jax.random.key(0)).replace(memory=jnp.ones((8, 16)))
    network = RecurrentActorCritic(3, 16, 1, 1, 0)
    venv = vectorise(endless(agent.config, mortal()), 8)
    _, (transitions, is_first), _, _ = rollout(network, agent.config, venv, state)
    ends = transitions.terminated | transitions.truncated
    np.testing.assert_array_equal(is_first, jnp.concatenate([jnp.ones((1, 8), bool), ends[:-1]]))
    obs = module.ppo_rnn.unpack(transitions.obs, agent.spec.num_binary, agent.spec.obs_shape)
    fresh = lambda o: agent.act(state.policy, o, None, agent.memory(state.policy), None)[2]["value"]
    values = jax.vmap(jax.vmap(fresh))(obs)
    assert is_first[1:].any()
    np.testing.assert_allclose(values[is_first], transitions.value[is_first], atol=1e-5)
    assert not np.allclose(values[~is_first], transitions.value[~is_first], atol=1e-4)


def test_lives_start_out_of_step() -> None:
    env = survival(chains.from_table("mortal", chains.MDP(np.ones((1, 1, 1)), np.ones((1, 1))), death=[[0.05]]), 10)
    venv = vectorise(env, 256)
    fresh = venv.init(jax.random.key(0))
    envs = jax.jit(lambda e, k: out_of_step(venv, e, k, 100))(fresh, jax.random.key(1))
    alive = float((envs.env.left == 0).mean())  # gain 1 / (1 + 0.05 * 10) = 2/3, and h(s_0) / T of the start
    assert 0.6 < alive < 0.85 and len(np.unique(envs.env.life)) > 10
    assert jax.tree.structure(envs) == jax.tree.structure(fresh)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"r_reset": -1}, "r_reset is -1; a death costs 0 steps or more"),
        ({"r_reset": 0}, "r_reset is 0, so every step pays 1 and nothing can be learned; use 50"),
        ({"lambda_": 1.0}, "lambda_ is 1.0; without a discount it must be below 1"),
        ({"objective": "mean"}, "objective is 'mean'; choose from average, centred-discounted, discounted"),
        ({"rho": "x", "critic": "y"}, "rho is 'x'; choose from .*\ncritic is 'y'; choose from lambda, td0"),
        ({"rho_beta": 0.0}, "rho_beta is 0.0; use more than 0"),
        ({"r_reset": -1, "num_envs": 0}, "r_reset is -1; .*\nnum_envs is 0; use at least 1"),
        ({"r_reset": -1, "num_envs": 6, "num_minibatches": 0}, "^r_reset is -1; [^\n]*$"),
        ({"objective": "centred-discounted", "discount": 1.0, "lambda_": 1.0}, "lambda_ is 1.0; without a discount"),
        ({"objective": "discounted", "discount": 1.0}, "with discount 1, where values have no end"),
        ({"objective": "discounted", "rho": "td"}, "holds no gain to learn; use rho 'ratio'"),
        ({"num_envs": 6}, "num_envs = 6 does not divide into num_minibatches = 4"),
    ],
)
def test_bad_input(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AverageRewardConfig(**SIZES | given).resolve()


class Wider(nn.Module):
    """A network whose memory grows."""

    @nn.compact
    def __call__(self, memory: Any, obs: Any, is_first: Any) -> Any:
        return jnp.concatenate([memory, memory[:, :4]], -1), nn.Dense(3)(obs), nn.Dense(1)(obs)[..., 0]


def test_a_network_that_changes_its_memorys_shape_is_told() -> None:
    config = AverageRewardConfig(**SIZES)
    with pytest.raises(ValueError, match=r"gives a memory \[2, 20\] for \[2, 16\]; it must keep its shape"):
        average_reward(config, endless(config, mortal()), Wider())


def test_a2c_is_one_step_down_the_whole_batch() -> None:
    left_open = SIZES | {"num_minibatches": 0, "update_epochs": 0}
    config = AverageRewardConfig(**left_open, method="a2c").resolve()
    assert (config.num_minibatches, config.update_epochs, config.lr) == (1, 1, 1e-3)
    assert config.origins["lr"] == "a2c"
    with pytest.raises(ValueError, match="leave num_minibatches and update_epochs out"):
        AverageRewardConfig(**SIZES, method="a2c").resolve()


def test_a_task_without_deaths_says_so() -> None:
    """Once enough was seen: who has not died yet in the first steps is no immortal."""
    env = survival(chains.chain("control"), 5)
    agent = average_reward(AverageRewardConfig(**SIZES | {"num_envs": 128, "total_timesteps": 20_480}), env)
    step, state, rows = jax.jit(agent.step), jax.jit(agent.init)(jax.random.key(0)), []
    for update in range(8):
        state, metrics = step(state)
        rows.append({"update": update, **{k: float(m.total / m.count) for k, m in metrics.items() if k in WATCHED}})
    assert all(row["train/rho"] == 1.0 for row in rows)
    assert [row["train/deathless"] for row in rows] == [0.0] * 4 + [1.0] * 4  # 2,048 steps an update
    assert not judge(agent.health, rows[:1])
    (words,) = judge(agent.health, rows[4:])
    assert "nobody has died for long" in words and "reward='native'" in words
    assert module.IMMORTAL not in agent_of(reward="native").health


def test_long_deaths_do_not_make_a_td_gain_swing() -> None:
    """A death of 1 + 500 steps after ten alive: the mean transition takes 51, twice what would make rho diverge."""
    mdp = chains.MDP(np.ones((1, 1, 1)), np.ones((1, 1)))
    env = survival(chains.from_table("mortal", mdp, death=[[0.1]]), 500, chain="collapsed")
    sizes = SIZES | {"num_envs": 64, "total_timesteps": 64 * 16 * 200, "phase_steps": 0, "r_reset": 500}
    agent = average_reward(AverageRewardConfig(**sizes, rho="td", chain="collapsed"), env)
    train = lambda key: jax.lax.fori_loop(0, 200, lambda _, state: agent.step(state)[0], agent.init(key))
    assert float(jax.jit(train)(jax.random.key(0)).gain.rho) == pytest.approx(10 / 510, abs=0.01)


def test_the_choices_are_those_of_the_environment() -> None:
    assert (module.CHAINS, module.REWARDS) == (survival_module.CHAINS, survival_module.REWARDS)


@pytest.mark.parametrize(
    "given",
    [
        {"rho": "td", "chain": "collapsed", "reward": "native"},
        {
            "rho": "ema",
            "objective": "centred-discounted",
            "critic": "td0",
            "method": "a2c",
            "num_minibatches": 1,
            "update_epochs": 1,
        },
        {"rho": "batch", "objective": "discounted", "recurrent": False, "normalise_value": False},
        {"num_envs": 4, "num_steps": 2, "phase_steps": 0},
    ],
)
def test_every_option_trains(given: Any) -> None:
    agent = agent_of(**given)
    state, metrics = jax.jit(lambda key: agent.step(agent.init(key)))(jax.random.key(0))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((state.policy, metrics)))
    assert {"train/rho", "train/batch_rho", "train/rho_gap"} <= set(metrics)


# ------------------------------------------------------------------------------------------- exact problems


def test_access_control() -> None:
    """Optimum 2.7476; what a sampled policy with an entropy bonus reaches in 2.5M steps."""
    found = learn(chains.access_control(), updates=600)
    assert found.gain >= 2.72 and abs(found.estimate - found.gain) <= 0.03 and found.value_error <= 0.08, found


def test_the_lesser_hazard() -> None:
    assert learn(chains.hazard(), updates=300).gain >= 0.49


@pytest.mark.slow
@pytest.mark.parametrize("rho", ["td", "ema", "batch"])
def test_access_control_with_every_estimate(rho: str) -> None:
    assert learn(chains.access_control(), updates=600, rho=rho).gain >= 2.72


@pytest.mark.slow
def test_river_swim() -> None:
    """0.857 at best, 0.005 for who never gets across; four of five seeds."""
    gains = [learn(chains.river_swim(), updates=600, seed=seed, anneal_lr=False).gain for seed in range(5)]
    assert sum(gain >= 0.84 for gain in gains) >= 4, gains


CLIPPED = (
    "    advantage = trace(delta, duration, cut)\n",
    "    advantage = trace(jnp.clip((delta - delta.mean()) / (delta.std() + 1e-8), -5.0, 5.0), duration, cut)\n",
)
CUT_AT_DEATH = (
    "    cut = t.truncated  #",
    "    cut = t.truncated | ((t.weight > 0) & (jnp.append(t.weight[1:], t.weight[-1:], 0) == 0))  #",
)
OWN_VALUE_AT_THE_EDGE = (
    "jnp.concatenate([t.value[1:], last_value[None]])",
    "jnp.concatenate([t.value[1:], t.value[-1:]])",
)


@cache
def rare_falls(bug: Any = None, chain: str = "explicit", seed: int = 0) -> Learned:
    """Safe pays 0.3; risky 0.5, with 60 empty steps after one in fifty: gains 0.3 and 0.227."""
    how = mutant(module, *bug) if bug else module
    return learn(chains.risk(), updates=400, seed=seed, env=risk_with_deaths(chain), how=how, anneal_lr=False)


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("chain", ["explicit", "collapsed"])
def test_a_rare_fall_is_worth_its_price(chain: str, seed: int) -> None:
    assert rare_falls(chain=chain, seed=seed).gain >= 0.275


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bug", [CLIPPED, CUT_AT_DEATH], ids=["clipped delta", "cut at death"])
def test_who_forgets_the_price_takes_the_risk(bug: Any, seed: int) -> None:
    assert rare_falls(bug, seed=seed).gain <= 0.25


def short_rollouts(bug: Any = None) -> Learned:
    how = mutant(module, *bug) if bug else module
    return learn(chains.access_control(), updates=1500, num_envs=256, num_steps=2, how=how)


def test_rollouts_of_two_steps_do() -> None:
    found = short_rollouts()
    assert found.gain >= 2.69 and found.value_error <= 0.12, found


def test_an_edge_judged_by_its_own_value_is_seen() -> None:
    """The policy bears it on this problem; the values do not."""
    assert short_rollouts(OWN_VALUE_AT_THE_EDGE).value_error > 0.5


@cache
def remembered(recurrent: bool = True, bug: Any = None, num_steps: int = 64) -> float:
    """The gain over the last tenth of a run on the memory loop: 1 with memory, 14/64 without."""
    how = mutant(module, *bug) if bug else module
    fields = {"num_envs": 64, "num_steps": num_steps, "hidden_dim": 32, "num_minibatches": 4, "update_epochs": 4}
    updates = 150 * 64 // num_steps
    config = how.AverageRewardConfig(
        **fields, total_timesteps=updates * 64 * num_steps, lr=3e-3, phase_steps=100, recurrent=recurrent
    )
    agent = how.average_reward(config, endless(config, chains.memory_loop()))

    @jax.jit
    def train(key: Any) -> Any:
        def one(state: Any, _: None) -> Any:
            state, metrics = agent.step(state)
            return state, metrics["train/batch_rho"].total

        return jax.lax.scan(one, agent.init(key), None, updates)[1]

    return float(train(jax.random.key(0))[-updates // 10 :].mean())


@pytest.mark.learn
def test_memory_saves_lives() -> None:
    assert remembered() >= 0.95


def test_without_memory_every_second_choice_is_the_last() -> None:
    assert remembered(recurrent=False) <= 0.24


@pytest.mark.learn
def test_a_memory_lost_between_rollouts_is_seen() -> None:
    """Rollouts of 8 steps hold cue and choice, 6 steps later, of 2 loops in 7; the rest needs what is carried."""
    forgets = ("    def step(state: State) -> tuple[State, dict[str, Any]]:\n",)
    bug = (*forgets, forgets[0] + "        state = replace(state, memory=jnp.zeros_like(state.memory))\n")
    assert remembered(bug=bug, num_steps=8) <= 0.5
    assert remembered(num_steps=8) >= 0.9

"""Dreamer's rows, losses and gradients, exactly; and the known mistakes, each put back and caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dreams
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dreams import counter, nets_of, small
from tiny import DREAMER_SIZES, TRAINED, assert_same_bits, compilations, masked, mutant, timed

import mxnb
from mxnb.agents import dreamer as dreamer_module
from mxnb.agents import world as world_module
from mxnb.agents.dreamer import DreamerConfig, dreamer
from mxnb.envs import probes
from mxnb.envs.api import Env, Spec
from mxnb.envs.gymnax_envs import gymnax_env
from mxnb.evaluate import Policy, evaluate
from mxnb.kernels import imagined as imagined_module
from mxnb.networks.world_model import decoded, observation_loss

pytestmark = pytest.mark.brief

CHECKS: tuple[Callable[..., None], ...] = (
    dreams.rows_are_right,
    dreams.playing_and_replaying_agree,
    dreams.nothing_passes_a_reset,
    dreams.the_model_is_asked_for_what_arrived,
    dreams.each_divergence_teaches_its_own_side,
    dreams.foresight_teaches_core_and_heads,
    dreams.a_dream_follows_its_actions,
    dreams.replayed_rows_meet_their_own_dreams,
    dreams.the_policy_is_scored_where_it_chose,
    dreams.each_loss_teaches_its_own_network,
    dreams.last_rows_teach_the_critic_nothing,
    dreams.small_returns_stay_small,
    dreams.weights_and_returns_are_aligned,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_as_it_is(check: Callable[..., None]) -> None:
    check()


def test_rows_of_episodes_that_are_cut_off() -> None:
    dreams.rows_are_right(truncates=True)


WORLD, DREAMER, IMAGINED = world_module, dreamer_module, imagined_module
MUTANTS = {
    "actions shifted by one": (WORLD, "coded[:1]), coded[:-1]])", "coded[:0]), coded])", "playing_and_replaying_agree"),
    "memory kept through resets": (
        WORLD,
        "blank = is_first.at[0].set(True)",
        "blank = jnp.zeros_like(is_first).at[0].set(True)",
        "nothing_passes_a_reset",
    ),
    "memory cleared a row late": (
        WORLD,
        "blank = is_first.at[0].set(True)",
        "blank = jnp.roll(is_first, 1, 0).at[0].set(True)",
        "nothing_passes_a_reset",
    ),
    "the policy's memory kept through resets": (
        DREAMER,
        "forget(stream.memory, stream.is_first)",
        "stream.memory",
        "playing_and_replaying_agree",
    ),
    "the reward of the next row": (
        WORLD,
        "rows.reward, nets.bins)",
        "jnp.roll(rows.reward, -1, 0), nets.bins)",
        "the_model_is_asked_for_what_arrived",
    ),
    "a time limit taken for a death": (
        WORLD,
        "alive = (1.0 - rows.is_terminal)",
        "alive = (1.0 - rows.is_last)",
        "the_model_is_asked_for_what_arrived",
    ),
    "a time limit stored as a death": (
        DREAMER,
        "is_terminal=seen.terminated",
        "is_terminal=seen.terminated | seen.truncated",
        "rows_are_right_truncated",
    ),
    "weights with the outcome's own continue": (
        IMAGINED,
        "jnp.cumprod(cont[:-1])",
        "jnp.cumprod(cont[1:])",
        "weights_and_returns_are_aligned",
    ),
    "bootstrap off by one": (
        IMAGINED,
        "(reward[1:], cont[1:], value[1:])",
        "(reward[1:], cont[1:], value[:-1])",
        "weights_and_returns_are_aligned",
    ),
    "divergences taught the wrong way round": (
        WORLD,
        "kl = divergence(sg(log_post), log_prior)",
        "kl = divergence(log_post, sg(log_prior))",
        "each_divergence_teaches_its_own_side",
    ),
    "foresight taught on what was seen": (
        WORLD,
        "sum(heads(guess).values())",
        "sum(heads(feature).values())",
        "the_model_is_asked_for_what_arrived",
    ),
    "a prior that draws what is easy to tell": (
        WORLD,
        "guess = jnp.concatenate([h, sg(sample_latent(log_prior, uniform))], -1)",
        "guess = jnp.concatenate([h, sample_latent(log_prior, uniform)], -1)",
        "foresight_teaches_core_and_heads",
    ),
    "the next world's observation as the last": (
        DREAMER,
        'autoreset="next_step"',
        'autoreset="same_step"',
        "rows_are_right",
    ),
    "small returns blown up": (
        IMAGINED,
        "jnp.maximum(1.0, spread.high - spread.low)",
        "spread.high - spread.low",
        "small_returns_stay_small",
    ),
    "a dream told one state late": (
        WORLD,
        "return (after, following), (h, z, action, mask)",
        "return (after, following), (after, following, action, mask)",
        "a_dream_follows_its_actions",
    ),
    "rows that meet other rows' dreams": (
        DREAMER,
        "boot = returns[0].reshape(near, batch)",
        "boot = returns[0].reshape(batch, near).T",
        "replayed_rows_meet_their_own_dreams",
    ),
    "rewards of other rows than the states": (
        DREAMER,
        "rows, (h, z) = cut(rows), world.sg(cut(states))",
        "rows, (h, z) = jax.tree.map(lambda x: x[:near], rows), world.sg(cut(states))",
        "replayed_rows_meet_their_own_dreams",
    ),
    "the policy scored where its action led": (
        WORLD,
        "nets.head(params, feature[:-1]), dream.mask)",
        "nets.head(params, feature[1:]), dream.mask)",
        "the_policy_is_scored_where_it_chose",
    ),
    "the actor's loss moves the critic": (
        WORLD,
        "advantage = sg((returns - value[:-1]) / spread_scale(spread))",
        "advantage = (returns - value[:-1]) / spread_scale(spread)",
        "each_loss_teaches_its_own_network",
    ),
    "last rows judged by the next episode": (
        WORLD,
        "weight = 1.0 - rows.is_last[:-1]",
        "weight = jnp.ones_like(returns)",
        "last_rows_teach_the_critic_nothing",
    ),
}


def run_check(name: str, source: Any, module: Any) -> None:
    if name == "rows_are_right_truncated":
        return dreams.rows_are_right(module, truncates=True)
    if name == "playing_and_replaying_agree":
        own = {"world": module} if source is WORLD else {"module": module}
        return dreams.playing_and_replaying_agree(**own)
    return getattr(dreams, name)(module)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_known_mistake_is_caught(name: str) -> None:
    source, old, new, check = MUTANTS[name]
    changed = mutant(source, old, new)
    with pytest.raises(AssertionError):
        run_check(check, source, changed)


def test_an_untrained_agent_expects_nothing_and_chooses_evenly() -> None:
    env = masked()
    agent = dreamer(small(), env)
    nets = dreamer_module.networks(agent.config, env.spec)
    params = dreamer_module.first_params(nets, jax.random.key(3))
    feature = jax.random.normal(jax.random.key(0), (50, agent.config.deter + 16))
    reward, _ = world_module.predicted(nets, params, feature)
    assert (np.asarray(reward) == 0).all() and (np.asarray(nets.judge(params["critic"], feature)[1]) == 0).all()
    probs = np.asarray(jax.nn.softmax(nets.head(params, feature)))
    np.testing.assert_allclose(probs, 0.25, rtol=0.02)
    metrics = jax.jit(agent.step)(agent.init(jax.random.key(0)))[1]
    assert float(metrics["train/kl"].total) >= 0


def test_the_replay_is_never_copied() -> None:
    """What a chunk needs beside its state does not grow with the replay: its buffers are written in place."""
    small_one, large_one = memory_of(4 * 500), memory_of(4 * 500_000)
    assert large_one.argument_size_in_bytes > 20e6
    assert large_one.temp_size_in_bytes < small_one.temp_size_in_bytes + 10_000
    assert large_one.alias_size_in_bytes > 0.99 * large_one.output_size_in_bytes


def memory_of(replay_size: int) -> Any:
    """What the compiler says that a chunk of updates needs."""
    agent = dreamer(small(replay_size=replay_size), masked())
    run = jax.jit(lambda s, n: jax.lax.fori_loop(0, n, lambda _, s: agent.step(s)[0], s), donate_argnums=0)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    return run.lower(state, jnp.int32(1)).compile().memory_analysis()


def test_one_program_for_every_chunk() -> None:
    agent = TRAINED["dreamer"]()
    run = jax.jit(lambda s, n: jax.lax.fori_loop(0, n, lambda _, s: agent.step(s)[0], s))
    state = run(agent.init(jax.random.key(0)), jnp.int32(1))
    with compilations() as names:
        for n in (2, 3):
            state = run(state, jnp.int32(n))
    assert names == [] and int(state.update) == 6


def test_steps_and_updates_are_counted() -> None:
    """8 x 16 rows an update at ratio 64 are 2 environment steps; the prefill counts; reset ticks are no actions."""
    config = DreamerConfig(
        **DREAMER_SIZES | {"batch_size": 8, "num_steps": 16, "train_ratio": 64, "num_envs": 16, "prefill": 300,
                           "total_timesteps": 1000, "starts": 16, "replay_size": 10_000}
    )  # fmt: skip
    assert config.cadence == (1, 8) and config.prefill_ticks == 19
    agent = dreamer(config, masked())
    assert (agent.steps_before, agent.steps_per_update, agent.num_updates) == (304, 16, 43)
    assert agent.timesteps(43) == 992
    sparse = DreamerConfig(**DREAMER_SIZES | {"train_ratio": 2})
    assert sparse.cadence == (4, 1)
    state = agent.init(jax.random.key(0))
    assert int(state.envs.replay.filled) == 19
    _, metrics = jax.jit(agent.step)(state)
    acted = sum(float(m.total) for name, m in metrics.items() if name.startswith("actions/"))
    assert acted == 16 - int(state.envs.vec.needs_reset.sum())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"replay_size": 16}, r"replay_size = 16 holds 4 rows of each of 4 .* use replay_size of at least 32"),
        ({"blocks": 3}, "blocks = 3 does not divide deter = 16; use 1"),
        ({"num_bins": 30}, "it must be odd, so that one bin is 0: use 31"),
        ({"starts": 9}, "starts is 9; it must be a multiple of batch_size = 4 from 8 to .* = 32: use 8"),
        ({"starts": 64}, "use 32"),
        ({"num_steps": 1}, "num_steps is 1; use at least 2"),
        ({"total_timesteps": 60}, "less than the prefill and one update; use at least 68"),
        ({"lr": 0.0}, "lr is 0.0; use more than 0"),
        ({"discount": 1.5}, "discount is 1.5; use 0 to 1"),
        ({"ent_coef": -1.0}, "ent_coef is -1.0; use 0 or more"),
        ({"warmup_steps": -1}, "warmup_steps is -1; use 0 or more"),
        ({"discount": 0.0}, "discount is 0, so nothing beyond a step counts"),
        ({"number_scale": 0.0}, "number_scale is 0.0; use more than 0"),
    ],
)
def test_sizes_that_do_not_fit(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small(**wrong).resolve()


def test_masks_need_an_environment_that_has_them() -> None:
    with pytest.raises(ValueError, match="use_mask is True, and counter-v0 has no action masks; leave use_mask out"):
        dreamer(small(use_mask=True), counter()).init(jax.random.key(0))


def test_illegal_actions_are_neither_taken_nor_imagined() -> None:
    """Action 0 alone is always legal; a model that is told the mask by its bits foresees it."""
    env, config = masked(), small(use_mask=True)
    _, _, _, rows = dreams.played(dreamer_module, env, 12, use_mask=True)
    taken = np.take_along_axis(np.asarray(rows.mask), np.asarray(rows.action)[..., None], -1)
    assert taken.all()
    nets, params = nets_of(config, env)
    feature = jax.random.normal(jax.random.key(0), (30, 32))
    legal = np.asarray(nets.legal(params, feature))
    assert legal.any(-1).all() and not legal.all()
    dream = world_module.imagine(config, nets, params, feature[:, :16], feature[:, 16:], jax.random.key(1))
    assert np.take_along_axis(np.asarray(dream.mask), np.asarray(dream.action)[..., None], -1).all()


def test_continuous_actions() -> None:
    """Two updates on Pendulum: bounded actions, finite losses, and an evaluation."""
    env = gymnax_env("Pendulum-v1")
    agent = dreamer(small(total_timesteps=200), env)
    step = jax.jit(agent.step)
    state, _ = step(agent.init(jax.random.key(0)))
    state, metrics = step(state)
    assert all(np.isfinite(m.total) for m in metrics.values())
    policy = Policy(agent.spec, state.policy, agent.memory, agent.act)
    assert np.isfinite(evaluate(policy, env, 2, jax.random.key(1), max_steps=20).returns).all()
    action = agent.act(state.policy, jnp.ones(3), None, agent.memory(state.policy), jax.random.key(0))[0]
    assert action.shape == (1,) and abs(float(action[0])) <= 2


@pytest.mark.parametrize("env", [masked(), gymnax_env("Pendulum-v1")], ids=["discrete", "continuous"])
def test_acting_remembers_what_training_does(env: Any) -> None:
    """Step by step through an episode, `act` holds the memory that the model computes from the rows."""
    config = small()
    nets, params = nets_of(config, env)
    agent = dreamer(config, env)
    obs = jax.random.normal(jax.random.key(0), (5, *env.spec.obs_shape))
    memory, actions, seen = agent.memory(None), [], []
    for t in range(5):
        _, memory, _ = agent.act({"params": params}, obs[t], None, memory, None)
        actions.append(memory.action.argmax() if env.spec.num_actions else memory.action)
        seen.append(memory.h)
    first = jnp.zeros((5, 1), bool)
    h, _, _ = world_module.observe(nets, params, obs[:, None], jnp.stack(actions)[:, None], first, None)
    np.testing.assert_allclose(jnp.stack(seen), h[:, 0], atol=1e-5)
    if not env.spec.num_actions:
        for action in actions:  # in the policy's own units, in which training knows them
            assert float(jnp.abs(action).max()) <= 1


def pictures(side: tuple[int, int]) -> Env:
    """A grey picture whose shade is the step; action 1 pays."""
    look = lambda t: jnp.full((*side, 3), 40 * t, jnp.uint8)

    def step(key: Any, t: Any, action: Any) -> Any:
        t = t + 1
        return look(t), t, (action == 1).astype(jnp.float32), t >= 3, jnp.zeros((), bool), {}

    spec = Spec("pictures-v0", (*side, 3), jnp.uint8, num_actions=2)
    return Env(spec, lambda key: (look(jnp.int32(0)), jnp.int32(0)), step)


@pytest.mark.parametrize(("side", "layers"), [pytest.param((9, 9), 1, marks=pytest.mark.slow), ((20, 15), 2)])
def test_pictures(side: tuple[int, int], layers: int) -> None:
    """Stored as they are, seen by convolutions, painted back at their size, odd or even, and judged in 0 to 1."""
    env = pictures(side)
    config = small(total_timesteps=200, depth=4)
    agent = dreamer(config, env)
    _, metrics = jax.jit(agent.step)(agent.init(jax.random.key(0)))
    assert all(np.isfinite(m.total) for m in metrics.values() if hasattr(m, "total"))
    nets, params = nets_of(config, env)
    for part in ("eye", "painter"):
        assert len([name for name in params["world"][part] if name.startswith("conv_")]) == layers
    feature = jax.random.normal(jax.random.key(0), (2, 3, 32))
    out = nets.model(params, "decode", feature)
    obs = jax.random.randint(jax.random.key(1), (2, 3, *side, 3), 0, 256).astype(jnp.uint8)
    assert out.shape == obs.shape
    wrong = (1 / (1 + np.exp(-np.asarray(out, np.float64))) - np.asarray(obs) / 255) ** 2
    np.testing.assert_allclose(observation_loss(out, obs, 3, 0), wrong.sum((-3, -2, -1)), rtol=1e-4)
    shown = np.asarray(decoded(out, 3, 0))
    assert shown.min() >= 0 and shown.max() <= 1


def test_pictures_too_small_for_a_convolution_are_refused() -> None:
    with pytest.raises(ValueError, match="a picture of 2 x 9 pixels is too small"):
        dreamer(small(), pictures((2, 9)))


def test_the_slow_critic_follows_after_each_gradient_step() -> None:
    """slow_decay of itself and the rest of the critic as it is after the step."""
    agent = dreamer(small(slow_decay=0.9, warmup_steps=0), masked())
    assert agent.config.cadence == (1, 1)
    state = agent.init(jax.random.key(0))
    after, _ = jax.jit(agent.step)(state)
    critic = after.policy["params"]["critic"]
    moved = max(float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (critic, state.slow)), strict=True))
    assert moved > 1e-4
    followed = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state.slow, critic)
    for a, b in zip(*map(jax.tree.leaves, (after.slow, followed)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)


def test_a_warm_start_judges_slowly_by_the_same_critic() -> None:
    agent = dreamer(small(), masked())
    state = agent.init(jax.random.key(0))
    policy = dreams.shaken(state.policy)
    begun = agent.begun(state.replace(policy=policy))
    assert_same_bits(begun.slow, policy["params"]["critic"])


def test_a_checkpoint_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    brief = {"total_timesteps": 64 + 4 * 2}
    mxnb.fit(dreamer(small(**brief), masked()), tmp_path / "a")
    for other in ({"deter": 32}, {"replay_size": 400}, {"save_replay": False}):
        (name,) = other
        with pytest.raises(ValueError, match=rf"holds a run of another configuration:\n.*{name}"):
            mxnb.fit(dreamer(small(**brief, **other), masked()), tmp_path / "a")
    wide = dreamer(small(**brief, deter=32), masked())
    with pytest.raises(ValueError, match="shape"):
        mxnb.fit(wide, tmp_path / "b", init_from=tmp_path / "a")


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        mxnb.fit(dreamer(small(), timed(4, reward=float("nan"))), tmp_path)


@pytest.mark.learn
def test_a_probe_is_learned_from_a_stream() -> None:
    """The action that pays is found within 1,200 steps."""
    env = probes.action()
    config = small(train_ratio=32, total_timesteps=64 + 4 * 300, lr=3e-3)
    agent = dreamer(config, env)
    train = jax.jit(lambda s: jax.lax.fori_loop(0, agent.num_updates, lambda _, s: agent.step(s)[0], s))
    policy = train(agent.init(jax.random.key(0))).policy
    probs = agent.act(policy, jnp.zeros(1), None, agent.memory(policy), jax.random.key(1))[2]["probs"]
    assert probs[1] > 0.8

"""Small Dreamers and the checks that each of the known mistakes fails: used as tests, and on mutants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tiny import DREAMER_SIZES, masked

from mxnb.agents import dreamer as dreamer_module
from mxnb.agents import world as world_module
from mxnb.agents.on_policy import choose
from mxnb.agents.replay import Row, load
from mxnb.envs.api import Env, Spec
from mxnb.envs.vector import vectorise
from mxnb.kernels import imagined as imagined_module
from mxnb.kernels.symlog import two_hot
from mxnb.networks.rssm import sample_latent

LENGTH = 3  # steps of a counter's episode


def counter(*, truncates: bool = False) -> Env:
    """obs = (steps, steps^2); arriving at step t pays t; after 3 steps it is over. No two observations are alike."""

    def look(t: Any) -> Any:
        return jnp.stack([t, t * t]).astype(jnp.float32)

    def step(key: Any, t: Any, action: Any) -> Any:
        t = t + 1
        over, never = t >= LENGTH, jnp.zeros((), bool)
        return look(t), t, t.astype(jnp.float32), *((never, over) if truncates else (over, never)), {}

    spec = Spec("counter-v0", (2,), num_actions=3, max_steps=LENGTH if truncates else 0)
    return Env(spec, lambda key: (look(jnp.int32(0)), jnp.int32(0)), step)


def small(module: Any = dreamer_module, **more: Any) -> Any:
    return module.DreamerConfig(**DREAMER_SIZES | more)


def nets_of(config: Any, env: Env, module: Any = dreamer_module) -> tuple[Any, Any]:
    """(nets, params), with random rewards and values instead of the zeros that training begins with."""
    nets = module.networks(config, env.spec)
    params = module.first_params(nets, jax.random.key(0))
    return nets, shaken(params)


def shaken(tree: Any, size: float = 0.3) -> Any:
    """The same with noise in every parameter."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [x + size * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def played(module: Any, env: Env, ticks: int, **more: Any) -> tuple[Any, Any, Any, Row]:
    """(nets, params, stream, rows [T, N, ...]) after `ticks` steps of a policy that is not trained."""
    config = small(module, prefill=0, total_timesteps=10**6, **more)
    nets, params = nets_of(config, env, module)
    venv = vectorise(env, config.num_envs, autoreset="next_step")
    stream = module.dreamer(config, env).init(jax.random.key(1)).envs
    one = jax.jit(lambda stream, key: module.tick(config, nets, venv, params, stream, key))
    stored = []
    for key in keys_of(ticks):
        stream, (row, _) = one(stream, key)
        stored.append(row)
    return nets, params, stream, load(env.spec, jnp.stack(stored), config.use_mask)


def keys_of(ticks: int) -> Any:
    return jax.random.split(jax.random.key(2), ticks)


def draws_of(nets: Any, ticks: int, num_envs: int = 4) -> Any:
    """The uniform numbers that `tick` picks latents with."""
    shape = (num_envs, nets.world.stoch)
    return jnp.stack([jax.random.uniform(jax.random.split(key)[0], shape) for key in keys_of(ticks)])


# ------------------------------------------------------------- the checks, each an AssertionError when it fails


def rows_are_right(module: Any = dreamer_module, truncates: bool = False) -> None:
    """Every field of every row of an environment that counts; n steps take n + 1 rows."""
    env = counter(truncates=truncates)
    agent = module.dreamer(small(module, prefill=4 * 11), env)
    replay = agent.init(jax.random.key(1)).envs.replay
    assert int(replay.filled) == 11
    rows = load(env.spec, jnp.moveaxis(replay.rows[:, :11], 0, 1))
    t = np.asarray(rows.obs[..., 0]).astype(int)
    np.testing.assert_array_equal(rows.obs[..., 1], t * t)
    assert (np.diff(t, axis=0) % (LENGTH + 1) == 1).all(), "0 1 2 3 0 1 2 3: the last observation is a row"
    np.testing.assert_array_equal(rows.reward, np.where(t == 0, 0, t), "paid on arriving, nothing on first rows")
    np.testing.assert_array_equal(rows.is_first, t == 0)
    np.testing.assert_array_equal(rows.is_last, t == LENGTH)
    np.testing.assert_array_equal(rows.is_terminal, (t == LENGTH) & (not truncates))
    assert (np.asarray(rows.action)[t == LENGTH] == 0).all() and len(np.unique(rows.action)) == 3


def playing_and_replaying_agree(module: Any = dreamer_module, world: Any = world_module) -> None:
    """The memory that the policy acted with is what the model computes from the rows, across resets."""
    ticks = 10
    nets, params, stream, rows = played(module, masked(limit=4), ticks, use_mask=True)
    h, z, _ = world.observe(nets, params, rows.obs, rows.action, rows.is_first, draws_of(nets, ticks))
    for n in range(4):
        # The prefill left the environments amid episodes: what follows a reset is known from these rows alone.
        assert rows.is_first[1:-1, n].any()
        np.testing.assert_allclose(stream.memory.h[n], h[-1, n], atol=1e-5)
        np.testing.assert_array_equal(stream.memory.z[n] > 0.5, z[-1, n] > 0.5)


def nothing_passes_a_reset(world: Any = world_module) -> None:
    """Rows before an is_first row change nothing after it, to the last bit, and get no gradient from it."""
    env = masked()
    nets, params = nets_of(small(), env)
    obs = jax.random.normal(jax.random.key(0), (6, 2, *env.spec.obs_shape))
    action = jax.random.randint(jax.random.key(1), (6, 2), 0, 4)
    draws = jax.random.uniform(jax.random.key(2), (6, 2, nets.world.stoch))
    first = jnp.zeros((6, 2), bool).at[3].set(True)
    see = lambda obs, action: world.observe(nets, params, obs, action, first, draws)
    other = see(obs.at[:3].add(1.0), action.at[:3].set((action[:3] + 1) % 4))
    for x, y in zip(see(obs, action), other, strict=True):
        np.testing.assert_array_equal(x[3:], y[3:])
        assert (np.asarray(x[:3]) != np.asarray(y[:3])).any()
    slope = jax.grad(lambda obs: sum((x[3:] ** 2).sum() for x in see(obs, action)))(obs)
    assert (np.asarray(slope[:3]) == 0).all() and (np.asarray(slope[3:]) != 0).any()


def some_rows(env: Env, length: int = 6, batch: int = 4) -> Row:
    """Rows with ends of both kinds; obs like the environment's."""
    keys = jax.random.split(jax.random.key(3), 4)
    obs = jax.random.normal(keys[0], (length, batch, *env.spec.obs_shape))
    bits = env.spec.num_binary
    obs = obs.at[..., :bits].set((obs[..., :bits] > 0).astype(jnp.float32))
    last = jnp.zeros((length, batch), bool).at[2].set(True)
    first = jnp.zeros((length, batch), bool).at[3].set(True)
    terminal = last & (jnp.arange(batch) % 2 == 0)[None]
    reward = jnp.where(first, 0.0, jax.random.normal(keys[1], (length, batch)))
    action = jnp.where(last, 0, jax.random.randint(keys[2], (length, batch), 0, env.spec.num_actions))
    mask = jax.random.bernoulli(keys[3], 0.5, (length, batch, env.spec.num_actions))
    return Row(obs, action, reward, first, last, terminal, mask)


def the_model_is_asked_for_what_arrived(world: Any = world_module) -> None:
    """Each loss by hand: row t's reward and whether row t is terminal, from row t's feature."""
    env, config = masked(), small(use_mask=True)
    nets, params = nets_of(config, env)
    rows = some_rows(env)
    draws = jax.random.uniform(jax.random.key(5), (6, 4, nets.world.stoch))
    _, (h, z), metrics = world.world_loss(config, nets, params, rows, draws)
    ask = lambda method: np.asarray(nets.model(params, method, jnp.concatenate([h, z], -1)), np.float64)
    logits, cont = ask("reward"), ask("cont")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    code = np.asarray(two_hot(rows.reward, nets.bins), np.float64)
    np.testing.assert_allclose(metrics["reward_loss"], -(code * log_p).sum(-1).mean(), rtol=1e-4)
    target = np.where(rows.is_terminal, 0.0, config.discount)
    p = 1 / (1 + np.exp(-cont))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    np.testing.assert_allclose(metrics["cont_loss"], expected, rtol=1e-4)
    drawn = sample_latent(nets.model(params, "prior", h), draws)
    asked = lambda method: np.asarray(nets.model(params, method, jnp.concatenate([h, drawn], -1)), np.float64)
    guess, p = asked("reward"), 1 / (1 + np.exp(-asked("cont")))
    nats = -(code * (guess - np.log(np.exp(guess).sum(-1, keepdims=True)))).sum(-1)
    nats = nats - (target * np.log(p) + (1 - target) * np.log(1 - p))
    assert np.abs(np.asarray(drawn - z)).max() > 0.5, "the prior draws what the posterior drew: the test says nothing"
    open_ = 1 / (1 + np.exp(-asked("legal")))
    wrong = -np.where(rows.mask, np.log(open_), np.log(1 - open_)).sum(-1) * ~np.asarray(rows.is_last)
    np.testing.assert_allclose(metrics["foresee_loss"], (nats + wrong).mean(), rtol=1e-4)
    out, obs, bits = ask("decode"), np.asarray(rows.obs, np.float64), env.spec.num_binary
    q = 1 / (1 + np.exp(-out[..., :bits]))
    nats = -np.where(obs[..., :bits] > 0, np.log(q), np.log(1 - q)).sum(-1)
    tens = 10 * obs[..., bits:]
    rest = (out[..., bits:] - np.sign(tens) * np.log1p(np.abs(tens))) ** 2
    np.testing.assert_allclose(metrics["obs_loss"], (nats + config.number_coef * rest.sum(-1)).mean(), rtol=1e-4)
    legal = 1 / (1 + np.exp(-ask("legal")))
    nats = -np.where(rows.mask, np.log(legal), np.log(1 - legal)).sum(-1) * ~np.asarray(rows.is_last)
    np.testing.assert_allclose(metrics["mask_loss"], nats.mean(), rtol=1e-4)


def size(tree: Any) -> float:
    return float(sum(np.abs(np.asarray(x)).sum() for x in jax.tree.leaves(tree)))


def each_divergence_teaches_its_own_side(world: Any = world_module) -> None:
    """One row: dyn moves the prior and neither posterior nor encoder, rep the other way; nothing below free_nats."""
    env = masked()
    config = small(free_nats=0.0)
    nets, params = nets_of(config, env)
    rows = jax.tree.map(lambda x: x[:1], some_rows(env))
    draws = jax.random.uniform(jax.random.key(5), (1, 4, nets.world.stoch))

    def slopes(**coefs: float) -> Any:
        one = replace(config, **coefs)
        return jax.grad(lambda p: world.world_loss(one, nets, p, rows, draws)[0])(params)["world"]

    base = slopes(dyn_coef=0.0, rep_coef=0.0)
    by = lambda **coefs: jax.tree.map(jnp.subtract, slopes(**coefs), base)
    dyn, rep = by(dyn_coef=1.0, rep_coef=0.0), by(dyn_coef=0.0, rep_coef=1.0)
    for moved, still in (("prior_net", "posterior_net"), ("prior_net", "eye")):
        assert size(dyn[moved]) > 1e-3 and size(dyn[still]) < 1e-4 * size(dyn[moved])
    for moved, still in (("posterior_net", "prior_net"), ("eye", "prior_net")):
        assert size(rep[moved]) > 1e-3 and size(rep[still]) < 1e-4 * size(rep[moved])
    assert size(by(dyn_coef=1.0, rep_coef=1.0, free_nats=1e3)) == 0


def foresight_teaches_core_and_heads(world: Any = world_module) -> None:
    """On drawn latents, which stay as they are: a prior that made rewards easy to tell would not say what comes."""
    env = masked()
    nets, params = nets_of(small(use_mask=True), env)
    rows = some_rows(env)
    draws = jax.random.uniform(jax.random.key(5), (6, 4, nets.world.stoch))
    loss = lambda params, coef: world.world_loss(small(use_mask=True, foresee_coef=coef), nets, params, rows, draws)[0]
    slopes = [jax.grad(loss)(params, coef)["world"] for coef in (1.0, 0.0)]
    moved = {name: size(jax.tree.map(jnp.subtract, *(x[name] for x in slopes))) for name in slopes[0]}
    for name in ("reward_net", "cont_net", "mask_net", "gru"):
        assert moved[name] > 1e-3, name
    for name in ("prior_net", "painter"):
        assert moved[name] == 0, name


def a_dream(world: Any, **more: Any) -> Any:
    env, config = masked(), small(**more)
    nets, params = nets_of(config, env)
    h, z, _ = world.observe(nets, params, *observed(env, nets))
    flat = lambda x: x.reshape(-1, x.shape[-1])
    return config, nets, params, world.imagine(config, nets, params, flat(h), flat(z), jax.random.key(9))


def observed(env: Env, nets: Any) -> Any:
    rows = some_rows(env)
    return rows.obs, rows.action, rows.is_first, jax.random.uniform(jax.random.key(5), (6, 4, nets.world.stoch))


def a_dream_follows_its_actions(world: Any = world_module) -> None:
    """State k + 1 is reached from state k by action k, which the policy drew at state k; state 0 is where it starts."""
    config, nets, params, dream = a_dream(world)
    h, z, _ = world.observe(nets, params, *observed(masked(), nets))
    flat = lambda x: x.reshape(-1, x.shape[-1])
    np.testing.assert_allclose(dream.h[0], flat(h), rtol=1e-5)
    np.testing.assert_allclose(dream.z[0], flat(z), rtol=1e-5)
    draw_key, action_key = jax.random.split(jax.random.key(9))
    draws = jax.random.uniform(draw_key, (config.horizon, dream.h.shape[1], nets.world.stoch))
    for k, key in enumerate(jax.random.split(action_key, config.horizon)):
        head = nets.head(params, dream.feature[k])
        np.testing.assert_array_equal(dream.action[k], choose(nets.spec, key, head, None))
        after = nets.model(params, "core", dream.h[k], dream.z[k], nets.coded(dream.action[k]))
        np.testing.assert_allclose(dream.h[k + 1], after, rtol=1e-4, atol=1e-6)
        latent = sample_latent(nets.model(params, "prior", dream.h[k + 1]), draws[k])
        np.testing.assert_allclose(dream.z[k + 1], latent, atol=1e-5)


def replayed_rows_meet_their_own_dreams(module: Any = dreamer_module) -> None:
    """The whole loss put together row by row: what was dreamt from a row bootstraps the row before it."""
    env, near, batch, length = masked(), 3, 4, 8
    config = small(module, starts=near * batch)
    nets, params = nets_of(config, env, module)
    slow, rows = shaken(params["critic"]), some_rows(env, length, batch)
    spread = imagined_module.Spread(jnp.float32(-2.0), jnp.float32(5.0))
    key = jax.random.key(4)
    loss, (_, metrics) = module.total_loss(config, nets, params, slow, spread, rows, key)
    draw_key, dream_key, start_key = jax.random.split(key, 3)
    draws = jax.random.uniform(draw_key, (length, batch, nets.world.stoch))
    model, (h, z), _ = world_module.world_loss(config, nets, params, rows, draws)
    first = int(jax.random.randint(start_key, (), 0, length - near + 1))
    assert first > 0, "another key: an offset of 0 would hide a wrong one"
    starts = [(t, b) for t in range(first, first + near) for b in range(batch)]
    begin = lambda x: jnp.stack([x[t, b] for t, b in starts])
    dream = world_module.imagine(config, nets, params, begin(h), begin(z), dream_key)
    imagined, returns, _, _ = world_module.dream_loss(config, nets, params, slow, spread, dream)
    boot = {start: returns[0, i] for i, start in enumerate(starts)}
    total = 0.0
    for b in range(batch):
        own = [(t, b) for t in range(first, first + near)]
        column = lambda x, own=own: jnp.stack([x[t, b] for t, b in own])
        futures = jnp.stack([boot[start] for start in own])
        seen = (column(rows.reward), column(rows.is_terminal), column(rows.is_last), futures)
        targets = imagined_module.replay_returns(*seen, discount=config.discount, lambda_=config.lambda_)
        for (t, _), target in zip(own[:-1], targets, strict=True):
            feature = jnp.concatenate([h[t, b], z[t, b]], -1)
            log_p = jax.nn.log_softmax(nets.judge(params["critic"], feature)[0])
            calm = nets.judge(slow, feature)[1]
            cost = -((two_hot(target, nets.bins) + two_hot(calm, nets.bins)) * log_p).sum()
            total += float(cost) * (1.0 - float(rows.is_last[t, b]))
    np.testing.assert_allclose(metrics["replay_value_loss"], total / ((near - 1) * batch), rtol=1e-3)
    whole = model + imagined + config.replay_value_coef * metrics["replay_value_loss"]
    np.testing.assert_allclose(loss, whole, rtol=1e-4)


def the_policy_is_scored_where_it_chose(world: Any = world_module) -> None:
    """Actor's and critic's losses by hand, state by state: a_k with s_k, weighed by c_0 .. c_k."""
    config, nets, params, dream = a_dream(world, ent_coef=0.01)
    slow = shaken(params["critic"])
    spread = imagined_module.Spread(jnp.float32(-2.0), jnp.float32(5.0))
    _, returns, after, metrics = world.dream_loss(config, nets, params, slow, spread, dream)
    feature = jnp.concatenate([dream.h, dream.z], -1)
    reward, cont = (np.asarray(x, np.float64) for x in world.predicted(nets, params, feature))
    logits, value = (np.asarray(x, np.float64) for x in nets.judge(params["critic"], feature))
    calm = np.asarray(nets.judge(slow, feature)[1])
    head = np.asarray(nets.head(params, feature), np.float64)
    log_pi = head - np.log(np.exp(head).sum(-1, keepdims=True))
    horizon, many = dream.action.shape
    scale = max(1.0, float(after.high - after.low))
    actor = critic = 0.0
    for m in range(many):
        target = value[horizon, m]
        targets = np.zeros(horizon)
        for k in reversed(range(horizon)):
            lam = config.lambda_
            target = reward[k + 1, m] + cont[k + 1, m] * ((1 - lam) * value[k + 1, m] + lam * target)
            targets[k] = target
        np.testing.assert_allclose(returns[:, m], targets, rtol=1e-3, atol=1e-3)
        weight = 1.0
        for k in range(horizon):
            weight *= cont[k, m]
            entropy = -(np.exp(log_pi[k, m]) * log_pi[k, m]).sum()
            advantage = (targets[k] - value[k, m]) / scale
            actor -= weight * (log_pi[k, m, dream.action[k, m]] * advantage + config.ent_coef * entropy)
            log_p = logits[k, m] - np.log(np.exp(logits[k, m]).sum())
            for aim in (targets[k], calm[k, m]):
                critic -= weight * (np.asarray(two_hot(jnp.float32(aim), nets.bins)) * log_p).sum()
    np.testing.assert_allclose(metrics["actor_loss"], actor / (horizon * many), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(metrics["critic_loss"], critic / (horizon * many), rtol=1e-3)


def each_loss_teaches_its_own_network(world: Any = world_module) -> None:
    """The actor's loss moves the actor alone, the critic's the critic alone, nothing the slow critic."""
    config, nets, params, dream = a_dream(world)
    slow, spread = shaken(params["critic"]), imagined_module.no_spread()

    def by(name: str) -> Any:
        return jax.grad(lambda p: world.dream_loss(config, nets, p, slow, spread, dream)[3][name])(params)

    actor, critic = by("actor_loss"), by("critic_loss")
    assert size(actor["actor"]) > 1e-4 and size((actor["world"], actor["critic"])) == 0
    assert size(critic["critic"]) > 1e-4 and size((critic["world"], critic["actor"])) == 0
    whole = jax.grad(lambda s: world.dream_loss(config, nets, params, s, spread, dream)[0])(slow)
    assert size(whole) == 0
    rows = some_rows(masked())
    feature = jax.random.normal(jax.random.key(0), (6, 4, dream.feature.shape[-1]))
    replayed = lambda p, s, f: world.replay_value_loss(config, nets, p, s, rows, f, jnp.ones((6, 4)))
    slopes = jax.grad(replayed, (0, 1, 2))(params, slow, feature)
    assert size(slopes[0]["critic"]) > 1e-4
    assert size((slopes[0]["world"], slopes[0]["actor"], slopes[1], slopes[2])) == 0


def last_rows_teach_the_critic_nothing(world: Any = world_module) -> None:
    """What follows a last row is another episode: its target must not count."""
    config, nets, params, _ = a_dream(world)
    rows = some_rows(masked())
    feature = jax.random.normal(jax.random.key(0), (6, 4, nets.world.deter + nets.world.stoch * nets.world.classes))
    value = lambda boot: world.replay_value_loss(config, nets, params, params["critic"], rows, feature, boot)
    ones = jnp.ones((6, 4))
    assert float(value(2 * ones)) != float(value(ones)), "what dreams promise counts"
    # Row 2 is last, so only it sees row 3 as its future; a change of row 3's own reward must change nothing.
    moved = rows._replace(reward=rows.reward.at[3].add(50.0))
    other = world.replay_value_loss(config, nets, params, params["critic"], moved, feature, ones)
    assert float(other) == float(value(ones))


def small_returns_stay_small(imagined: Any = imagined_module) -> None:
    assert float(imagined.spread_scale(imagined.Spread(jnp.float32(0.0), jnp.float32(0.1)))) == 1.0


def weights_and_returns_are_aligned(imagined: Any = imagined_module) -> None:
    cont = jnp.array([0.9, 0.8, 0.5, 0.1])
    np.testing.assert_allclose(imagined.alive_weights(cont), [0.9, 0.72, 0.36], rtol=1e-6)
    reward, value = jnp.array([9.0, 1.0, 2.0, 3.0]), jnp.array([5.0, 6.0, 7.0, 8.0])
    found = imagined.lambda_returns(reward, cont, value, lambda_=0.0)
    np.testing.assert_allclose(found, [1 + 0.8 * 6, 2 + 0.5 * 7, 3 + 0.1 * 8], rtol=1e-6)

r"""What Dreamer learns from: rows seen again through the world model, and futures imagined from them.

Shapes: T rows of B sequences; imagination takes H actions from M states, so it holds S = H + 1 states. Features are
[h, z], flat. Every loss is a mean over rows or states; gradients flow only where the loss's docstring says so.
Source: Hafner et al. 2023, arXiv:2301.04104.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mxnb.agents.on_policy import choose, distribution
from mxnb.agents.replay import Row
from mxnb.envs.api import Spec
from mxnb.kernels.imagined import (
    alive_weights,
    lambda_returns,
    learn_spread,
    replay_returns,
    spread_scale,
)
from mxnb.kernels.symlog import expected, two_hot_loss
from mxnb.networks.rssm import divergence, latent_entropy, sample_latent, unimix
from mxnb.networks.world_model import bit_loss, observation_loss

sg = jax.lax.stop_gradient


class Nets(NamedTuple):
    """The three networks, their Spec and the bins of rewards and values; params has `world`, `actor`, `critic`."""

    world: Any  # WorldModel
    actor: Any  # MLP
    critic: Any  # MLP
    spec: Spec
    bins: Any  # float32[K]

    def model(self, params: Any, method: str, *args: Any) -> Any:
        """One of the world model's methods."""
        return self.world.apply({"params": params["world"]}, *args, method=method)

    def head(self, params: Any, feature: Any) -> Any:
        """The policy's head, as `mxnb.agents.on_policy.distribution` reads it: with 1 % uniform, or bounded."""
        out = self.actor.apply({"params": params["actor"]}, feature)
        if self.spec.num_actions:
            return unimix(out)
        mean, spread = jnp.split(out, 2, axis=-1)
        return jnp.concatenate([jnp.tanh(mean), jnp.log(0.1 + 0.9 * jax.nn.sigmoid(spread + 2.0))], -1)

    def judge(self, critic: Any, feature: Any) -> Any:
        """(logits, value) of a critic's params."""
        logits = self.critic.apply({"params": critic}, feature)
        return logits, expected(logits, self.bins)

    def legal(self, params: Any, feature: Any) -> Any:
        """The actions that the model holds legal, all where it finds none; None where it does not predict them."""
        if not self.world.predicts_mask:
            return None
        mask = self.model(params, "legal", feature) > 0
        return mask | ~mask.any(-1, keepdims=True)

    def coded(self, action: Any) -> Any:
        """Actions as the core reads them: one-hot, or their numbers."""
        n = self.spec.num_actions
        return jax.nn.one_hot(action, n) if n else action


class Memory(NamedTuple):
    """What is carried from row to row while playing: nothing but zeros where an episode begins."""

    h: Any  # float32[*L, D]
    z: Any  # float32[*L, Z]
    action: Any  # float32[*L, A]: the last one, as the core reads it


def no_memory(nets: Nets, *lead: int) -> Memory:
    """Memory before anything was seen."""
    w, a = nets.world, nets.world.num_actions
    zeros = lambda n: jnp.zeros((*lead, n))
    return Memory(zeros(w.deter), zeros(w.stoch * w.classes), zeros(a))


def forget(memory: Memory, is_first: Any) -> Memory:
    """The same, with zeros where is_first."""
    return jax.tree.map(lambda x: jnp.where(is_first[..., None], 0.0, x), memory)


def look(nets: Nets, params: Any, memory: Memory, obs: Any, uniform: Any) -> Any:
    """(h, z) at observations [N, *o] after `memory`; uniform [N, S] picks the latents, None the likeliest."""
    h = nets.model(params, "core", *memory)
    log_post = nets.model(params, "posterior", h, nets.model(params, "encode", obs))
    return h, sg(sample_latent(log_post, uniform))


def observe(nets: Nets, params: Any, obs: Any, action: Any, is_first: Any, uniform: Any, remat: bool = False) -> Any:
    """(h [T, B, D], z [T, B, Z], log posterior [T, B, S, C]) of rows seen in order.

    obs [T, B, *o], action [T, B, ...] chosen at each row, is_first [T, B], uniform [T, B, S]. Row t is reached by the
    action of row t - 1; first rows, and row 0, begin with zeros. Only the core and the posterior are in the scan; with
    remat the way back computes them again.
    """
    embedded = nets.model(params, "encode", obs)
    coded = nets.coded(action)
    before = jnp.concatenate([jnp.zeros_like(coded[:1]), coded[:-1]])
    blank = is_first.at[0].set(True)

    def tick(carry: Any, now: Any) -> Any:
        h, z = carry
        seen, taken, first, draw = now
        h = nets.model(params, "core", *forget(Memory(h, z, taken), first))
        log_post = nets.model(params, "posterior", h, seen)
        z = sample_latent(log_post, draw)
        return (h, z), (h, z, log_post)

    start = no_memory(nets, obs.shape[1])
    step = jax.checkpoint(tick) if remat else tick
    return jax.lax.scan(step, (start.h, start.z), (embedded, before, blank, uniform))[1]


def heads_loss(config: Any, nets: Nets, params: Any, rows: Row, feature: Any) -> dict[str, Any]:
    """What the heads of reward, continue and (where there is one) mask lose on each row [T, B], at its features."""
    alive = (1.0 - rows.is_terminal) * config.discount
    losses = {
        "reward": two_hot_loss(nets.model(params, "reward", feature), rows.reward, nets.bins),
        "cont": bit_loss(nets.model(params, "cont", feature), alive),
    }
    if nets.world.predicts_mask:
        wrong = bit_loss(nets.model(params, "legal", feature), rows.mask.astype(jnp.float32)).sum(-1)
        losses["mask"] = wrong * (1.0 - rows.is_last)  # nothing is chosen there, so nobody said what is legal
    return losses


def world_loss(config: Any, nets: Nets, params: Any, rows: Row, uniform: Any) -> Any:
    """(loss, (h, z), metrics) of the world model on rows [T, B, ...].

    L_obs + L_reward + L_cont + foresee_coef L_foresee + dyn_coef L_dyn + rep_coef L_rep, with L_dyn = max(free,
    KL(sg post || prior)) and L_rep = max(free, KL(post || sg prior)) for each row. The continue target is
    (1 - terminal) discount: a time limit goes on. L_foresee is the heads' loss at [h, sg(z' ~ prior)]: groups drawn
    independently, as in dreams, make latents that no observation makes, for which heads taught on z alone
    expect too little. (DreamerV3 has no such term.)
    """
    spec = nets.spec
    h, z, log_post = observe(nets, params, rows.obs, rows.action, rows.is_first, uniform, config.remat)
    feature = jnp.concatenate([h, z], -1)
    log_prior = nets.model(params, "prior", h)
    out = nets.model(params, "decode", feature)
    kl = divergence(sg(log_post), log_prior)
    # The draws that picked z serve again: what was seen does not depend on them, so neither does this guess.
    guess = jnp.concatenate([h, sg(sample_latent(log_prior, uniform))], -1)
    heads = lambda at: heads_loss(config, nets, params, rows, at)
    coef = config.number_coef if spec.num_binary else 1.0
    losses = {
        "obs": observation_loss(out, rows.obs, len(spec.obs_shape), spec.num_binary, nets.world.scale, coef),
        **heads(feature),
        "foresee": sum(heads(guess).values()),
        "dyn": jnp.maximum(kl, config.free_nats),
        "rep": jnp.maximum(divergence(log_post, sg(log_prior)), config.free_nats),
    }
    means = {name: x.mean() for name, x in losses.items()}
    weights = {"foresee": config.foresee_coef, "dyn": config.dyn_coef, "rep": config.rep_coef}
    loss = sum(weights.get(name, 1.0) * x for name, x in means.items())
    metrics = {f"{name}_loss": x for name, x in means.items() if name not in ("dyn", "rep")}
    metrics |= {
        "kl": kl.mean(),
        "free_share": (kl <= config.free_nats).mean(),
        "posterior_entropy": latent_entropy(log_post).mean(),
        "prior_entropy": latent_entropy(log_prior).mean(),
    }
    return loss, (h, z), metrics


class Dream(NamedTuple):
    """A future that was imagined, without gradients: S states and the H actions between them."""

    h: Any  # float32[S, M, D]
    z: Any  # float32[S, M, Z]
    action: Any  # int32[H, M] or float32[H, M, A]: chosen at the state of the same index
    mask: Any  # bool[H, M, A] or None: what was held legal there

    @property
    def feature(self) -> Any:
        """float32[S, M, F]."""
        return jnp.concatenate([self.h, self.z], -1)


def imagine(config: Any, nets: Nets, params: Any, h: Any, z: Any, key: Any) -> Dream:
    """`horizon` actions of the policy from states h [M, D], z [M, Z], with latents drawn from the prior."""
    params = sg(params)
    draw_key, action_key = jax.random.split(key)
    draws = jax.random.uniform(draw_key, (config.horizon, h.shape[0], nets.world.stoch))

    def tick(carry: Any, now: Any) -> Any:
        h, z = carry
        draw, key = now
        feature = jnp.concatenate([h, z], -1)
        mask = nets.legal(params, feature)
        action = choose(nets.spec, key, nets.head(params, feature), mask)
        after = nets.model(params, "core", h, z, nets.coded(action))
        following = sample_latent(nets.model(params, "prior", after), draw)
        return (after, following), (h, z, action, mask)

    keys = jax.random.split(action_key, config.horizon)
    last, (hs, zs, actions, masks) = jax.lax.scan(tick, (sg(h), sg(z)), (draws, keys))
    add = lambda xs, x: jnp.concatenate([xs, x[None]])
    return Dream(*sg((add(hs, last[0]), add(zs, last[1]), actions, masks)))


def predicted(nets: Nets, params: Any, feature: Any) -> Any:
    """(reward, cont): what the model expects on arriving at features [*L, F], and the discounted chance to go on."""
    reward = expected(nets.model(params, "reward", feature), nets.bins)
    return reward, jax.nn.sigmoid(nets.model(params, "cont", feature))


def dream_loss(config: Any, nets: Nets, params: Any, slow: Any, spread: Any, dream: Dream) -> Any:
    """(loss, returns [H, M], spread, metrics) of actor and critic on one dream; no gradient to the world model.

    Actor: -w_k (ln pi(a_k | s_k) sg((R_k - v_k) / scale) + ent_coef H(pi(. | s_k))). Critic: w_k times the cross
    entropy to R_k, plus slow_coef times that to the slow critic's value; w_k as in `alive_weights`.
    slow: the slow critic's params. spread: what the scale is made of, learned from these returns first.
    """
    spec = nets.spec
    feature = sg(dream.feature)
    reward, cont = predicted(nets, sg(params), feature)
    logits, value = nets.judge(params["critic"], feature)
    _, slow_value = nets.judge(sg(slow), feature[:-1])
    futures = jax.vmap(lambda r, c, v: lambda_returns(r, c, v, lambda_=config.lambda_), 1, 1)
    returns = sg(futures(reward, cont, value))
    weight = sg(jax.vmap(alive_weights, 1, 1)(cont))
    spread = learn_spread(spread, returns)
    advantage = sg((returns - value[:-1]) / spread_scale(spread))
    dist = distribution(spec, nets.head(params, feature[:-1]), dream.mask)
    entropy = dist.entropy()
    actor = -(weight * (dist.log_prob(dream.action) * advantage + config.ent_coef * entropy)).mean()
    critic = weight * critic_loss(config, nets, logits[:-1], returns, slow_value)
    metrics = {
        "actor_loss": actor,
        "critic_loss": critic.mean(),
        "entropy": entropy.mean(),
        "imagined_return": returns[0].mean(),
        "imagined_reward": reward[1:].mean(),
        "imagined_cont": cont[1:].mean() / config.discount,
        "return_scale": spread_scale(spread),
        "mean_value": value.mean(),
    }
    if spec.num_actions:
        legal = jnp.float32(spec.num_actions) if dream.mask is None else dream.mask.sum(-1).astype(jnp.float32)
        most = jnp.broadcast_to(jnp.log(legal), entropy.shape)
        metrics["entropy_frac"] = jnp.where(most > 0, entropy, 0.0).sum() / jnp.maximum(most.sum(), 1e-8)
    return actor + critic.mean(), returns, spread, metrics


def critic_loss(config: Any, nets: Nets, logits: Any, returns: Any, slow_value: Any) -> Any:
    """Cross entropy to the returns plus slow_coef times that to the slow critic, for each state."""
    own = two_hot_loss(logits, returns, nets.bins)
    return own + config.slow_coef * two_hot_loss(logits, slow_value, nets.bins)


def replay_value_loss(config: Any, nets: Nets, params: Any, slow: Any, rows: Row, feature: Any, boot: Any) -> Any:
    """The critic's loss on rows [K, B] that were really seen, with features [K, B, F]; gradients to the critic alone.

    boot [K, B]: the return imagined from each row. Row t's target is `replay_returns`; last rows have no future of
    their own and do not count. (DreamerV3 lets this loss move the world model too.)
    """
    streams = jax.vmap(
        lambda *row: replay_returns(*row, discount=config.discount, lambda_=config.lambda_), in_axes=1, out_axes=1
    )
    returns = sg(streams(rows.reward, rows.is_terminal, rows.is_last, boot))
    logits, _ = nets.judge(params["critic"], sg(feature[:-1]))
    _, slow_value = nets.judge(sg(slow), sg(feature[:-1]))
    weight = 1.0 - rows.is_last[:-1]
    return (weight * critic_loss(config, nets, logits, returns, slow_value)).mean()

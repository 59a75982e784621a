# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     gpuType: T4
#     provenance: []
#     toc_visible: true
#   jupytext:
#     cell_metadata_filter: tags,cellView,nbmake,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,accelerator,colab,mxnb,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   mxnb:
#     agent: ppo
# ---

# %% [markdown]
# # Masked PPO on Craftax-Classic
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mxnb/blob/main/notebooks/02_masked_ppo.ipynb)
#
# Press **Run all**. You get an agent that trains in one compiled program, a learning curve, a table that
# says in plain words whether the run is healthy, and the agent's own episode in pictures.
#
# Craftax-Classic pays 1 for each of 22 achievements, once an episode, and a tenth of every health point won or
# lost. So a return of 9 means about ten achievements before death.
#
# Stopped half-way? Run all again: it goes on where it was. In Colab, mount Drive first (the folder symbol on the
# left, then Mount Drive), and it goes on even when Colab has taken the machine away.

# %% cellView="form" tags=["setup"]
# @title Setup (installs mxnb where it is missing, about a minute in Colab)
import importlib.util
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

needed = ("mxnb", "mxnb.config", "craftax", "distrax", "gymnax", "jaxtyping")
if not all(importlib.util.find_spec(name) for name in needed):  # this imports none of them
    sys.modules.pop("mxnb", None)  # a folder of that name imports as an empty package
    repository = ""
    folders = [folder for folder in ("..", ".", "./mxnb") if os.path.exists(f"{folder}/mxnb/build.py")]
    source = os.environ.get("MXNB_SOURCE") or next(iter(folders), repository and f"git+https://github.com/{repository}")
    assert source, "mxnb is not here: clone its repository beside this notebook, then run this cell again"
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:  # pip shall fail rather than replace jax
        for name in ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt", "libtpu", "numpy", "flax", "optax",
                     "orbax-checkpoint", "ipywidgets", "ipython", "ipykernel"):  # fmt: skip
            with suppress(PackageNotFoundError):
                print(f"{name}=={version(name)}", file=constraints, flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-c", constraints.name, source], check=True)
    importlib.invalidate_caches()

# %% cellView="form" tags=["parameters"]
preset = "auto"  # @param ["auto", "smoke", "cpu", "colab_t4", "colab_t4_small", "gpu", "tpu"]
seed = 0  # @param {type:"integer"}
env_id = "craftax-classic-v1"  # @param {type:"string"}
total_timesteps = 0  # @param {type:"integer"}
compare_timesteps = 0  # @param {type:"integer"}
run_dir = ""  # @param {type:"string"}
resume = True  # @param {type:"boolean"}
overrides = {}  # any PPOConfig field, for example {"ent_coef": 0.03}

# %% [markdown]
# A 0 or an empty text leaves the choice to the preset, and `auto` chooses the preset by looking at the
# hardware. The next cell checks every value and prints where it came from. A misspelt name stops here,
# before anything is trained.

# %%
from dataclasses import replace

import jax
import numpy as np

import mxnb
from mxnb.agents.ppo import PPOConfig

p = mxnb.parameters(PPOConfig, notebook="02_masked_ppo", extra=["compare_timesteps"])

# %% [markdown]
# Does it fit? Below, the run's programs are compiled before anything is allocated, and asked how much memory they need. Where
# preset `auto` would need too much of the device, something is made smaller until it fits, and every change is printed.

# %%
plan = mxnb.plan(p)
p, agent, env = plan.parameters, plan.agent, plan.env
rival = replace(p.config, total_timesteps=p.compare_timesteps).resolve()  # for the comparison further down
mxnb.show.budget(plan)

# %% [markdown]
# ## What a mask is
#
# Craftax-Classic has 17 actions, and in most states most of them do nothing: there is no table to craft at,
# no stone to place, nothing to drink. A **mask** says which actions can have an effect right now: those are legal.
# Of a random walk of 300 steps, here is the state in which the rarest actions were legal.

# %%
from mxnb.evaluate import evaluate, random_policy, record

wandering = record(random_policy(env.spec, use_mask=True), env, jax.random.key(p.seed), max_steps=300)
rarity = None if wandering.masks is None else 1 / np.maximum(wandering.masks.mean(0), 1e-3)
step = 0 if wandering.masks is None else int((wandering.masks @ rarity).argmax())
mask = None if wandering.masks is None else wandering.masks[step]
frame = None if wandering.frames is None else wandering.frames[step]
names = env.spec.action_names or [str(action) for action in range(env.spec.num_actions)]
mxnb.show.mask_picture(frame, mask, names)

# %% [markdown]
# The rule behind the picture is strict: an action is masked exactly when it would do what NOOP does, for every
# roll of the dice. So masking takes nothing away from the agent. It only spares it from finding out, one
# useless try at a time, that a pickaxe needs a table.
#
# How much is that worth before any learning? Let two policies play that choose at random, one among all
# actions, one among the legal ones.

# %%
episodes = 64
key = jax.random.key(p.seed)
unmasked_random = evaluate(random_policy(env.spec), env, episodes, key).summary()
masked_random = evaluate(random_policy(env.spec, use_mask=True), env, episodes, key).summary()
for name, s in (("all actions", unmasked_random), ("legal actions", masked_random)):
    print(
        f"random over {name:<13} return {s['return']:.2f} ± {s['return_standard_error']:.2f} "
        f"(mean ± standard error of {episodes} episodes), {s['length']:.0f} steps long"
    )

# %% [markdown]
# ## How a mask enters the policy
#
# The network gives a logit $\ell_a$ for each action. With the mask $m_a \in \{0, 1\}$ the policy is
#
# $$\pi(a \mid s) = \frac{m_a \, e^{\ell_a}}{\sum_b m_b \, e^{\ell_b}}.$$
#
# A masked action has probability exactly 0, is never sampled, and sends no gradient to its logit. The same
# mask must be used when the action is sampled and when the update computes its probability again; mxnb stores
# it beside the observation.

# %%
from mxnb.kernels.masked import mask_logits

mxnb.show.source(mask_logits)

# %% [markdown]
# ## The update
#
# **Advantages.** The one-step error of the critic is
#
# $$\delta_t = r_t + \gamma \, (1 - \text{terminated}_t) \, V(s_{t+1}) - V(s_t),$$
#
# and generalised advantage estimation adds up the later ones with weight $\gamma\lambda$ until the episode ends:
#
# $$A_t = \delta_t + \gamma\lambda \, \big(1 - (\text{terminated}_t \lor \text{truncated}_t)\big) \, A_{t+1}.$$
#
# Death ends the future, so its value is 0. A time limit does not: there $V(s_{t+1})$ is the value of the last
# observation before the reset. Many implementations treat both as death and teach the agent that time is deadly.

# %%
from mxnb.kernels.returns import gae

mxnb.show.source(gae)

# %% [markdown]
# **Policy.** With $\text{ratio}_t = \pi(a_t \mid s_t) / \pi_{\text{old}}(a_t \mid s_t)$, PPO minimises
#
# $$-\,\mathbb{E}\left[\min\big(\text{ratio}_t \, A_t,\; \text{clip}(\text{ratio}_t, 1 - \epsilon, 1 + \epsilon) \, A_t\big)\right].$$
#
# Once a sample's ratio has left the interval in the direction its advantage asks for, it earns no more gradient.
# That is what allows several passes over the same data.

# %%
from mxnb.kernels.losses import ppo_policy_loss

mxnb.show.source(ppo_policy_loss)

# %% [markdown]
# The critic minimises $\tfrac12 (V - (A + V_{\text{old}}))^2$, and an entropy bonus keeps the policy from making
# up its mind too early. The whole update, shuffling included, is one function.

# %%
from mxnb.agents import ppo

mxnb.show.source(ppo.update)

# %% [markdown]
# ## Train
#
# The rollout and the update are compiled into one program that runs many updates before it comes back.
# The first line tells how long compiling took; after that, watch the steps per second.

# %%
live = mxnb.show.live_curves()
result = mxnb.fit(agent, p.run_dir, seed=p.seed, resume=p.resume, save_minutes=1, hooks=[live])
if result.status != "done":
    raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")

# %% [markdown]
# ## Did it learn?
#
# The return should climb and flatten; the entropy should fall and then flatten, well above its line; KL and clip
# fraction should stay under theirs. Faint lines are single updates, bold ones their moving mean. The table
# judges the last tenth of the run.

# %%
curve = mxnb.show.curves(result.run_dir)
mxnb.show.save(curve, result.run_dir / "figures" / "curves.png")
curve

# %%
mxnb.show.health(result.run_dir)

# %% [markdown]
# Was it healthy all along? The same rules over the whole run, with the healthy ranges shaded.

# %%
watched_rules = mxnb.show.health_curves(result)
mxnb.show.save(watched_rules, result.run_dir / "figures" / "health.png")
watched_rules

# %% [markdown]
# The curve is of training, where the policy changes all the time. For the agent as it is now, let it play whole
# episodes, as the random policies did above.

# %%
policy = mxnb.load_policy(result.run_dir)
trained = evaluate(policy, env, episodes, key).summary()
for name, s in (
    ("random, all actions", unmasked_random),
    ("random, legal actions", masked_random),
    ("trained", trained),
):
    print(f"{name:<22} return {s['return']:.2f} ± {s['return_standard_error']:.2f}, {s['length']:.0f} steps long")

# %% [markdown]
# A single number hides what an agent can do. Craftax-Classic counts 22 achievements; the bars show in how many of
# these episodes each was reached, beside the random policy. One bar may point the other way: random play lies
# down to sleep all the time, so it wakes up in nearly every episode.

# %%
if env.spec.info:
    rates, baseline = ({name: s[name] for name in env.spec.info} for s in (trained, unmasked_random))
    bars = mxnb.show.achievements(rates, baseline, labels=("trained", "random"))
    mxnb.show.save(bars, result.run_dir / "figures" / "achievements.png")
    display(bars)

# %% [markdown]
# When was each learned? Easy ones first; each number is the share, in percent, of the episodes that ended in that part.

# %%
try:
    learned = mxnb.show.achievements_over_time(result)
    mxnb.show.save(learned, result.run_dir / "figures" / "learned.png")
    display(learned)
except ValueError as problem:  # no achievements here, or no episode that ended
    print(f"no picture: {problem}")

# %% [markdown]
# ## One update, taken apart
#
# What does an update do? Take the newest checkpoint, let it play one more rollout and learn from it, and look at one
# minibatch before and after. (At the end of its own run the step size has fallen to 0, so the run is taken to be twice as
# long.)
#
# The **ratio** is how much more probable the update made the action that was taken. Samples with a positive **advantage**
# should move up and the others down. Orange ones left the band in the direction that their advantage asks for: they give no
# more gradient themselves, though others may carry them on. Blue ones outside it went the wrong way, and are still pulled
# back. Below, the critic: the closer to the dashed line, the better it knew the return.

# %%
from mxnb.agents.explain import explain_update
from mxnb.run.checkpoint import kept_updates, restore_at

saved, update = kept_updates(result.run_dir), None
if saved:
    state = restore_at(result.run_dir, saved[-1], agent.kept_shapes())
    longer = replace(p.config, total_timesteps=2 * p.config.total_timesteps)
    update = explain_update(longer, env, state)
    apart = mxnb.show.explained(update, clip_eps=p.config.clip_eps)
    mxnb.show.save(apart, result.run_dir / "figures" / "update.png")
    display(apart)
else:
    print("the run's checkpoints are gone; `resume = False` trains it anew")

# %% [markdown]
# The state of that minibatch whose policy moved most: the outlines are the policy before the update, the bars after it. What
# is masked has probability 0 in both. The sample's own action was pushed by its own advantage, the others by whatever
# other samples share with this state.

# %%
if update is not None:
    moved = int(np.abs(update.probs_after - update.probs).sum(-1).argmax())
    legal = None if update.mask is None else update.mask[moved]
    print(
        f"taken: {names[int(update.action[moved])]}, advantage {update.advantage[moved]:+.2f}, ratio {update.ratio[moved]:.2f}"
    )
    display(mxnb.show.mask_picture(None, legal, names, update.probs_after[moved], before=update.probs[moved]))

# %% [markdown]
# ## What the mask was worth
#
# The same agent, the same seeds, with and without the mask, for a smaller budget. The lines are means over two
# seeds, the bands reach from the lower to the higher. The learning rate falls to 0 within this budget, so these
# are runs of their own and not the first part of the long one.

# %%
sides = {"masked": [], "unmasked": []} if mask is not None else {}
if not sides:
    print(f"{env.spec.id} has no mask: both sides would be the same, so nothing is compared")
for label, folders in sides.items():
    contender, _ = mxnb.build(replace(rival, use_mask=label == "masked"))
    for s in (p.seed, p.seed + 1):
        print(f"\n{label}, seed {s}")
        folder = result.run_dir / "compare" / f"{label}-s{s}"
        side = mxnb.fit(contender, folder, seed=s, resume=p.resume)
        if side.status != "done":
            raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")
        folders.append(side.run_dir)

# %%
import json

for label, folders in sides.items():
    finals = [json.loads((f / "result.json").read_text())["metrics"].get("train/mean_episode_return") for f in folders]
    shown = " and ".join("no episode ended" if x is None else f"{x:.2f}" for x in finals)
    print(f"{label:<9} return over the last tenth, seed by seed: {shown}")
if sides:
    comparison = mxnb.show.curves(sides)
    mxnb.show.save(comparison, result.run_dir / "figures" / "masked_unmasked.png")
    display(comparison)

# %% [markdown]
# Any two runs can be laid side by side. First comes what they were told differently (here one thing), then their curves.

# %%
if sides:
    display(mxnb.show.compare(sides["masked"][0], sides["unmasked"][0], labels=list(sides)))

# %% [markdown]
# If the masked side is ahead, that is the tries it was spared: an agent can learn which actions do nothing, but
# with a mask it never has to.
#
# ## Watch it play
#
# An episode of the trained agent (its first 500 steps, if it lives longer), drawing actions as it did in training.
# Below each frame: the step, the action it is about to take, and V, its estimate of the reward still to come. V
# counts a reward in $k$ steps as $\gamma^k$ of it, so it lies below the return. An orange rim marks an action that
# earned at least half a point.

# %%
episode = record(policy, env, jax.random.key(p.seed + 1), max_steps=500)
print(f"the recorded episode: {len(episode.actions)} steps, return {episode.rewards.sum():.1f}")
if episode.frames is not None:
    strip = mxnb.show.filmstrip(episode)
    mxnb.show.save(strip, result.run_dir / "figures" / "episode.png")
    display(strip)

# %% [markdown]
# The same, playing: press ▶, or click into it and use the arrow keys. Its frames lie in the page, so it needs no kernel: it
# plays on while a cell is running, and in exported HTML. Beside the frame, or below it on a phone, are reward, value and
# entropy of every step; click there to go to one.

# %%
watched = None if episode.frames is None else mxnb.show.Playback((episode,), "An episode of masked PPO")
watched

# %% [markdown]
# ## Your turn
#
# With a live kernel there is more. First a player that rolls out new episodes: choose a checkpoint and a seed, and press
# "roll out". Then the game itself: play by buttons or keys, and hand the world over to the agent whenever you like. How
# far do you get? (A notebook that ran without anybody watching shows nothing here.)

# %%
if mxnb.show.in_notebook() and episode.frames is not None:
    display(mxnb.show.player(result), mxnb.show.take_over(result))

# %% [markdown]
# ## Three exercises
#
# Write the missing lines, run the cell, then run the check below it. The checks compare yours with the library's
# kernels on random numbers. An exercise left open says so and harms nothing.
#
# **1. Probabilities under a mask.** Return the policy's probabilities for logits `[A]` and a mask `[A]`. Do it so
# that logits of 1000 do not overflow.

# %%
import jax.numpy as jnp


def masked_probabilities(logits, mask):
    return None  # your lines


# %% [markdown]
# **2. Time limits.** Return the one-step error $\delta_t$ for arrays `[T]`. `next_value` already is the value of
# the observation each step led to, before any reset.


# %%
def td_error(reward, value, next_value, terminated, truncated, discount):
    return None  # your lines


# %% [markdown]
# **3. Who still earns gradient?** For a ratio and an advantage, return True where the clipped objective still has
# a gradient with respect to the ratio. There are four cases; two of them surprise most people.


# %%
def earns_gradient(ratio, advantage, clip_eps):
    return None  # your lines


# %% cellView="form" tags=["checks"]
# @title Check the exercises
import numpy as np

from mxnb.kernels.masked import masked_categorical


def check(number, answer, truth, hint):
    if answer is None:
        print(f"exercise {number}: still open, for you to solve")
    elif np.shape(answer) == np.shape(truth) and np.allclose(answer, truth, atol=1e-5):
        print(f"exercise {number}: right")
    else:
        print(f"exercise {number}: not yet. {hint}")


draw = np.random.default_rng(0)
logits = jnp.asarray(1000 * draw.normal(size=8), jnp.float32)
legal = jnp.array([True, False, True, True, False, True, False, True])
check(
    1,
    masked_probabilities(logits, legal),
    masked_categorical(logits, legal).probs,
    "Subtract the largest legal logit before exp, and set what is masked to 0 before you divide.",
)
reward, value, next_value = (jnp.asarray(draw.normal(size=16), jnp.float32) for _ in range(3))
terminated, truncated = jnp.arange(16) % 5 == 4, jnp.arange(16) % 7 == 3
check(
    2,
    td_error(reward, value, next_value, terminated, truncated, 0.9),
    gae(reward, value, next_value, terminated, truncated, discount=0.9, lambda_=0.0)[0],
    "Only one of the two flags removes the next value.",
)
ratio = jnp.array([0.5, 0.5, 0.9, 0.9, 1.1, 1.1, 1.5, 1.5])
advantage = jnp.array([1.0, -1.0] * 4)


def objective(r, a):
    return ppo_policy_loss(jnp.log(r)[None], jnp.zeros(1), a[None], clip_eps=0.2).loss


check(
    3,
    earns_gradient(ratio, advantage, 0.2),
    jax.vmap(jax.grad(objective))(ratio, advantage) != 0,
    "The minimum picks the clipped branch only where that is the smaller one.",
)

# %% [markdown]
# ## What the numbers mean
#
# The names in `metrics.jsonl`, in the curves and in the health table. Each row is one update; `timesteps` counts
# environment steps so far.
#
# | metric | what it is | healthy |
# |---|---|---|
# | `train/mean_episode_return`, `…_length` | means over the episodes that ended in this update | rising |
# | `train/mean_reward` | per step and environment | rising |
# | `train/num_episodes` | episodes that ended in this update | more than a few |
# | `train/total_loss` | the sum that is minimised | a number |
# | `train/pg_loss` | the clipped objective, negated | near 0, any sign |
# | `train/vf_loss` | half the critic's mean squared error | small against the returns' spread |
# | `train/explained_variance` | 1 − Var(target − V) / Var(target): 1 is a perfect critic, 0 a constant one | rising to 0.5 and more |
# | `train/entropy` | mean entropy of the policy, in nats | falling slowly |
# | `train/entropy_frac` | the same as a share of ln(number of legal actions) | above 0.1 |
# | `train/approx_kl` | how far an update moved the policy, in nats | below 0.06 |
# | `train/clip_frac` | samples whose ratio left 1 ± clip_eps | below 0.3 |
# | `train/grad_norm` | the gradient's length before it is clipped | no sudden peaks |
# | `train/no_legal_action` | 1 if a state had no legal action | 0 |
# | `actions/<name>` | share of steps with that action | |
# | `stats/<name>` | share of ended episodes with that achievement, or `cause/…`: that ended so | achievements rise |
# | `eval/<name>` | the same from whole episodes of the policy of that moment, where evaluation was asked for | rising |
# | `time/steps_per_second`, `time/wall_seconds` | speed, and seconds trained so far | |
#
# ## Details that decide
#
# PPO's paper leaves many choices to the code, and some of them decide whether it learns. Here are this one's, each
# with its line.
#
# | choice | the line | where |
# |---|---|---|
# | Only death makes the future worth nothing; a time limit bootstraps | `delta = reward + discount * alive * next_value - value` | [returns.py, line 35](../mxnb/kernels/returns.py#L35) |
# | A cut episode's last observation is judged itself, not the next episode's first | `next_value = jnp.where(done, t.final_value, next_value)` | [ppo.py, line 324](../mxnb/agents/ppo.py#L324) |
# | What is stored is what the action was drawn from | `obs=pack(envs.obs, spec.num_binary, spec.obs_shape),` | [ppo.py, line 298](../mxnb/agents/ppo.py#L298) |
# | The same mask in the rollout and in the loss | `dist = distribution(spec, head, batch.mask)` | [ppo.py, line 246](../mxnb/agents/ppo.py#L246) |
# | Advantages are normalised in each minibatch | `advantage = normalise(advantage, batch.weight)` | [ppo.py, line 249](../mxnb/agents/ppo.py#L249) |
# | The gradient is clipped by its global norm, and keeps its direction | `return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(lr, eps=1e-5))` | [on_policy.py, line 159](../mxnb/agents/on_policy.py#L159) |
# | Adam's epsilon is 1e-5; the step size falls linearly to 0 | `lr = optax.linear_schedule(config.lr, 0.0, max(1, num_updates * per_update - warm))` | [on_policy.py, line 155](../mxnb/agents/on_policy.py#L155) |
# | Every epoch shuffles anew | `rows = jnp.argsort(jax.random.bits(key, (size,))).reshape(config.num_minibatches, -1)` | [ppo.py, line 352](../mxnb/agents/ppo.py#L352) |
# | A nearly uniform first policy | `head = nn.Dense(module.num_outputs, kernel_init=init.orthogonal(0.01), name="logits")(actor)` | [actor_critic.py, line 72](../mxnb/networks/actor_critic.py#L72) |
# | Values are not clipped unless asked for | `if config.vf_clip_eps:` | [ppo.py, line 253](../mxnb/agents/ppo.py#L253) |
# | A memory is cleared where an episode begins, inside the scan | `carry = jnp.where(first[:, None], 0.0, carry)` | [recurrent.py, line 47](../mxnb/networks/recurrent.py#L47) |
# | Finished environments take fresh worlds, each used once | `worlds, queue, head, key = _take_worlds(env, (obs, state), starts, vec.queue, vec.head, key)` | [vector.py, line 152](../mxnb/envs/vector.py#L152) |

# %% [markdown]
# ## A page to share
#
# The run in one file: player, curves, health, parameters and where each came from. It opens anywhere and asks no server.

# %%
from mxnb.run.folder import shown

print("open", shown(mxnb.show.page(result, watched)))

# %% [markdown]
# ## What to try next
#
# - `overrides = {"ent_coef": 0.1}`: more exploration. Look at the entropy panel, then at the return.
# - `overrides = {"lambda_": 0.95}`: trust observed returns more than the critic.
# - `env_id = "cartpole-v1"`, `overrides = {"num_envs": 8, "num_steps": 128, "lambda_": 0.95, "normalise_value": True}`:
#   two actions and no mask. Values reach 100 there: leave out `normalise_value` and see what the critic makes of that.
# - `mxnb.agents.ppo_rnn`: the same with a memory. `python -m mxnb train --agent ppo_rnn --preset cpu` trains it.
# - Another `seed`: how much of a difference between two curves is luck?
# - Headless: `papermill notebooks/02_masked_ppo.ipynb out.ipynb -p preset cpu -p seed 3`. A misspelt parameter is refused.

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
# ---

# %% [markdown]
# # Dreamer: learning inside one's own imagination
#
# Press **Run all**. You get an agent that learns a model of Craftax-Classic from what it has seen, dreams with it, and
# learns what to do from its dreams alone. And you get to see the dreams, beside what really came.
#
# PPO throws every step away after a few passes. Dreamer keeps all of them, replays each many times, and turns every
# replayed moment into a dozen imagined ones. That costs arithmetic and saves steps of the game.
#
# Stopped half-way? Run all again: it goes on where it was, replay included. In Colab, mount Drive first (the folder
# symbol on the left, then Mount Drive), and it goes on even when Colab has taken the machine away.

# %% cellView="form"
# @title Setup (installs mxnb where it is missing, about a minute in Colab)
import importlib
import os
import subprocess
import sys

try:
    importlib.import_module("mxnb.build")
except ImportError:
    sys.modules.pop("mxnb", None)  # a folder of that name imports as an empty package
    folders = [folder for folder in ("..", ".", "mxnb") if os.path.exists(f"{folder}/mxnb/build.py")]
    source = os.environ.get("MXNB_SOURCE") or (folders[0] if folders else "")
    assert source, "mxnb is not here: clone its repository beside this notebook, then run this cell again"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)
    importlib.invalidate_caches()

# %% cellView="form" tags=["parameters"]
preset = "auto"  # @param ["auto", "smoke", "cpu", "colab_t4", "colab_t4_small", "gpu", "tpu"]
seed = 0  # @param {type:"integer"}
env_id = "craftax-classic-v1"  # @param {type:"string"}
total_timesteps = 0  # @param {type:"integer"}
compare_timesteps = 0  # @param {type:"integer"}
run_dir = ""  # @param {type:"string"}
resume = True  # @param {type:"boolean"}
overrides = {}  # any DreamerConfig field, for example {"train_ratio": 16}

# %% [markdown]
# A 0 or an empty text leaves the choice to the preset. The next cell checks every value and prints where it came from.

# %%
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import mxnb
from mxnb.agents import foresight, world
from mxnb.agents.dreamer import DreamerConfig, first_params, networks
from mxnb.agents.ppo import PPOConfig
from mxnb.kernels import imagined, symlog

p = mxnb.parameters(DreamerConfig, notebook="04_dreamer", extra=["compare_timesteps"])
agent, env = mxnb.build(p.config)

# %% [markdown]
# ## Rows: what is written down
#
# Everything is learned from **rows**. A row holds an observation, what *arriving* there paid, whether an episode begins or
# ends there, and the action chosen there:
#
# | row | obs | reward | is_first | is_last | is_terminal | action |
# |---|---|---|---|---|---|---|
# | 0 | $o_0$ | 0 | yes | | | $a_0$ |
# | 1 | $o_1$ | $r(a_0)$ | | | | $a_1$ |
# | 2 | $o_2$ | $r(a_1)$ | | | | $a_2$ |
# | 3 | $o_3$ | $r(a_2)$ | | yes | yes | none |
# | 4 | $o'_0$ | 0 | yes | | | $a'_0$ |
#
# An episode of $n$ steps takes $n + 1$ rows, for its last observation is a row too. Most public code that resets its
# environments by itself loses that row: the last reward is then pinned to the first picture of the next world, and the
# model never sees an end. `is_terminal` is not `is_last`: a time limit ends the episode, and the future stays worth
# something.
#
# Here are rows of Catch, where a ball falls for nine steps, played at random.

# %%
catch = mxnb.make("catch")
tiny = DreamerConfig(
    num_envs=2, deter=16, hidden_dim=8, stoch=4, classes=4, blocks=2, units=8, num_layers=1, num_bins=31
)
fresh = first_params(networks(tiny, catch.spec), jax.random.key(0))
seen = foresight.held_out(tiny, catch, fresh, jax.random.key(p.seed), num_envs=1, steps=13)
print("row  ball at  reward  first  last  terminal  action")
for t in range(13):
    rows_, columns = np.nonzero(np.asarray(seen.obs[t, 0]))
    flags = ("yes" if flag[t, 0] else "" for flag in (seen.is_first, seen.is_last, seen.is_terminal))
    first, last, terminal = flags
    action = "none" if seen.is_last[t, 0] else int(seen.action[t, 0])
    print(f"{t:>3}  row {rows_.min():<3} {seen.reward[t, 0]:>8.0f}  {first:>5}  {last:>4}  {terminal:>8}  {action:>6}")

# %% [markdown]
# ## The world model
#
# Its memory is a deterministic state $h_t$ and a sampled one $z_t$: `stoch` groups of `classes` classes each.
#
# $$h_t = \mathrm{GRU}(h_{t-1}, z_{t-1}, a_{t-1}), \qquad z_t \sim q(z \mid h_t, o_t), \qquad \hat z_t \sim p(z \mid h_t).$$
#
# The **posterior** $q$ has seen the observation, the **prior** $p$ has not. Everything else is predicted from $(h_t, z_t)$:
# the observation, the reward, and whether the episode goes on. Where the prior is as good as the posterior, the model can
# do without observations: it can dream.
#
# $$L = L_\text{obs} + L_\text{reward} + L_\text{cont}
#  + \max(1, \mathrm{KL}(\mathrm{sg}\,q \,\|\, p)) + 0.1\,\max(1, \mathrm{KL}(q \,\|\, \mathrm{sg}\,p))$$
#
# The same divergence stands there twice: the first teaches the prior to foresee the posterior, the second, gently, teaches
# the posterior to be foreseeable ($\mathrm{sg}$ stops the gradient). Below one nat both are left alone.

# %%
mxnb.show.source(world.world_loss)

# %% [markdown]
# ## Numbers of any size
#
# Rewards and values are not regressed. They are **classes**: `num_bins` bins whose distances grow with their size, and a
# target becomes weights on the two bins around it. One network can then learn rewards of 0.1 and returns of 1,000, and the
# mean over bins is still the mean: a reward of 10 in three of ten cases is worth 3, where the mean of logarithms would be
# about 1.

# %%
bins = symlog.make_bins(63)
x = jnp.linspace(-20, 20, 401)
plain = mxnb.show.lines(
    {"symlog(x)": (x, symlog.symlog(x)), "x": (x[160:241], x[160:241])},
    title="Small numbers as they are, large ones by their logarithm",
    xlabel="x",
)
code = symlog.two_hot(jnp.float32(3.0), bins)
used = np.flatnonzero(code)
words = " and ".join(f"{float(code[i]):.2f} on the bin {float(bins[i]):.2f}" for i in used)
print(f"3.0 is {words}; back again: {float(code @ bins):.4f}")
lottery = jnp.log(0.7 * symlog.two_hot(jnp.float32(0.0), bins) + 0.3 * symlog.two_hot(jnp.float32(10.0), bins) + 1e-12)
print(f"10 with chance 0.3 is expected to pay {float(symlog.expected(lottery, bins)):.3f}")
plain

# %% [markdown]
# ## Dreaming
#
# From replayed moments the policy acts in the model for `horizon` steps, without any observation: each next latent is
# drawn from the prior. Rewards $r_k$ on arriving at the dreamt state $s_k$, chances $c_k$ to go on from it (times the
# discount) and the critic's values $v_k$ give the return of every dreamt step,
#
# $$R_k = r_{k+1} + c_{k+1} \big((1 - \lambda)\, v_{k+1} + \lambda R_{k+1}\big), \qquad R_H = v_H,$$
#
# and a weight $w_k = c_0 c_1 \cdots c_k$: what is dreamt after a likely end counts for little. The actor is told
#
# $$-\,w_k \big(\ln \pi(a_k \mid s_k)\,(R_k - v_k) / \max(1, S) + \eta\,\mathcal{H}\big),$$
#
# where $S$ is the running range of returns, from their 5th to their 95th percentile. Large returns are scaled down; small
# ones, which may be noise, are not scaled up.

# %%
mxnb.show.source(imagined.lambda_returns)

# %% [markdown]
# ## Train
#
# One compiled program plays, writes rows (216 bytes each: Craftax's bits stay bits), draws batches and learns.

# %%
live = mxnb.show.live_curves()
result = mxnb.fit(agent, p.run_dir, seed=p.seed, resume=p.resume, save_minutes=2, hooks=[live])
if result.status != "done":
    raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")

# %% [markdown]
# The return is that of the game. The loss of observations falls while the model learns what the world looks like; surprise
# is the divergence above. It does not go to 0, for nobody knows what lies beyond the edge of the map.

# %%
curve = mxnb.show.curves(result.run_dir)
mxnb.show.save(curve, result.run_dir / "figures" / "curves.png")
curve

# %%
mxnb.show.health(result.run_dir)

# %% [markdown]
# What the policy hears of in its dreams, beside what the critic believes:

# %%
logged = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
width = max(1, len(logged) // 60)


def told(name):
    """Steps (thousands) and means of a metric, about 60 points."""
    kept = [row for row in logged if row.get(name) is not None]
    parts = [kept[i : i + width] for i in range(0, len(kept), width)]
    mean = lambda key: np.array([np.mean([row[key] for row in part]) for part in parts])
    return mean("timesteps") / 1e3, mean(name)


dreams = mxnb.show.lines(
    {"return of dreams": told("train/imagined_return"), "value": told("train/mean_value")},
    title="What dreams promise",
    xlabel="environment steps (thousands)",
    ylabel="discounted reward",
)
mxnb.show.save(dreams, result.run_dir / "figures" / "dreams.png")
dreams

# %% [markdown]
# ## Does the model foresee?
#
# Losses fall in every wrong Dreamer too: neighbouring moments look alike, so a model that merely repeats what it saw scores
# well. So we play fresh episodes, which it has not been trained on, and let it **see 16 rows, then foresee the next ones from the
# actions alone**.

# %%
policy = mxnb.load_policy(result.run_dir)
params = policy.params["params"]
rows = foresight.held_out(p.config, env, params, jax.random.key(p.seed + 100), steps=512)
try:
    foreseen = foresight.open_loop(p.config, env, params, rows, jax.random.key(p.seed))
except ValueError as problem:
    foreseen = None
    print(f"no open loop here: {problem}")

# %% [markdown]
# Above what came, below what one dream made of it. Terrain that it has seen should stay where it was and move as the player
# walks; what comes in from the edge is a guess. (A tile is black where the model holds no block likely.)

# %%
if foreseen is not None and env.spec.id == "craftax-classic-symbolic-v1":
    from mxnb.envs.craftax_tiles import picture

    walked = np.abs(np.diff(np.asarray(foreseen.truth.obs), axis=0)).sum((0, 2))
    window = int(np.argsort(walked)[len(walked) * 3 // 4])  # one with more going on than in most
    steps = [0, 1, 2, 3, 5, 7, 11, 15]
    shown = [[picture(obs[k, window]) for k in steps] for obs in (foreseen.truth.obs, foreseen.obs)]
    film = mxnb.show.open_loop(*shown, [f"step {k + 1}" for k in steps])
    mxnb.show.save(film, result.run_dir / "figures" / "open_loop.png")
    display(film)

# %% [markdown]
# One dream proves little. Over all windows: how many nats the real bits cost under the mean of 16 dreams, beside two simple
# predictors. One knows how often each bit is set and nothing else; the other repeats the last observation seen, and knows
# how often bits flip.

# %%
if foreseen is not None and env.spec.num_binary:
    nats = foresight.nats_of_bits(foreseen, env.spec.num_binary, rows)
    ahead = np.arange(1, len(nats["model"]) + 1)
    names = {"model": "the model", "marginal": "how often each bit is set", "repeat": "the last observation"}
    bits = mxnb.show.lines(
        {words: (ahead, nats[name]) for name, words in names.items()},
        title="Foreseeing the map",
        xlabel="steps ahead",
        ylabel="nats an observation",
    )
    mxnb.show.save(bits, result.run_dir / "figures" / "nats.png")
    display(bits)

# %% [markdown]
# ## Can its numbers be believed?
#
# A reward head may know every reward it *sees* and foresee none: then dreams hold no reward, and nothing is learned from
# them. So the table asks after seeing a row (posterior) and one step ahead (prior). AUC is the chance that a row with a
# reward gets the higher number; 0.5 is a coin.

# %%
judged = foresight.judge_model(p.config, env, params, rows, jax.random.key(p.seed + 1))
wanted = {
    "reward_auc": ("reward, after seeing it", 0.8, np.inf),
    "reward_before_auc": ("reward, one step ahead", 0.7, np.inf),
    "reward_share": ("mean reward expected / real", 0.7, 1.4),
    "cont_auc": ("end of the episode, after seeing it", 0.8, np.inf),
    "cont_gap": ("chance to go on, expected - real", -0.002, 0.002),
    "kl": ("surprise a row (nats)", 1.0, 30.0),
    "free_share": ("rows below one nat", 0.0, 0.8),
    "dream_rank": ("return dreamt and real, rank correlation", 0.3, np.inf),
    "dream_slope": ("real return for each unit dreamt", 0.5, 2.0),
}
print(f"{'':<42} {'found':>8}   wanted")
for name, (words, low, high) in wanted.items():
    number = judged.get(name, np.nan)
    need = f"at least {low:g}" if high == np.inf else f"{low:g} to {high:g}"
    verdict = "yes" if low <= number <= high else "too few cases" if np.isnan(number) else "no"
    print(f"{words:<42} {number:>8.3f}   {need:<16} {verdict}")

# %% [markdown]
# Calibration says how far off: for each tenth of the rows, by what was expected one step ahead, the reward that came.

# %%
expected = foresight.expect(p.config, env, params, rows, jax.random.key(p.seed + 2))
ahead_of = mxnb.show.calibration(
    expected.reward_before,
    rows.reward,
    title="Reward, one step ahead",
    xlabel="expected (mean of a tenth of the rows)",
    ylabel="reward that came",
)
mxnb.show.save(ahead_of, result.run_dir / "figures" / "rewards.png")
ahead_of

# %%
came = expected.reached
returns = mxnb.show.calibration(
    expected.value[: len(came)],
    came,
    title=f"Reward of the next {p.config.horizon} steps",
    xlabel="dreamt (mean of a tenth of the rows)",
    ylabel="discounted reward that came",
)
mxnb.show.save(returns, result.run_dir / "figures" / "returns.png")
returns

# %% [markdown]
# ## Is it any good?
#
# Whole episodes, with draws, beside random play and PPO after `compare_timesteps` steps, which is Dreamer's own budget in
# every preset. Neither sees the action mask here unless `use_mask` says so: knowing which actions are legal is worth more
# than tens of thousands of steps, and published Dreamers do not know it.

# %%
from mxnb.evaluate import evaluate, random_policy

budget = max(p.compare_timesteps, 512)
rival, _ = mxnb.build(
    PPOConfig(
        env_id=p.config.env_id,
        total_timesteps=budget,
        num_envs=8,
        num_steps=64,
        hidden_dim=p.config.units,
        use_mask=p.config.use_mask,
    ).resolve()
)
side = mxnb.fit(rival, result.run_dir / "compare" / "ppo", seed=p.seed, resume=p.resume)
if side.status != "done":
    raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")

# %%
players = {
    "Dreamer": policy,
    f"PPO, {budget:,} steps": mxnb.load_policy(side.run_dir),
    "random": random_policy(env.spec),
}
played = {name: evaluate(player, env, 128, jax.random.key(p.seed + 7)) for name, player in players.items()}
print(f"{'':<24} {'return':>7} {'95 % interval':>17} {'length':>7} {'score, %':>9}")
for name, episodes in played.items():
    report = episodes.report()
    r, score = report["return"], report.get("crafter_score")
    score = "-" if score is None else f"{score:.2f}"
    print(f"{name:<24} {r['mean']:7.2f} {r['low']:8.2f} - {r['high']:6.2f} {report['length']['mean']:7.0f} {score:>9}")

# %% [markdown]
# By luck? The chance that two equal players differ this much, by ranks (one-sided Mann-Whitney test):

# %%
from scipy.stats import mannwhitneyu

chance = mannwhitneyu(played["Dreamer"].returns, played["random"].returns, alternative="greater").pvalue
print(f"Dreamer against random: p = {chance:.2g} over {len(played['random'].returns)} episodes each, one training seed")
rates = [{name: rate["mean"] for name, rate in played[who].report()["rates"].items()} for who in ("Dreamer", "random")]
if any("/" not in name for name in rates[0]):
    unlocked = mxnb.show.achievements(*rates, labels=("Dreamer", "random"))
    mxnb.show.save(unlocked, result.run_dir / "figures" / "achievements.png")
    display(unlocked)

# %% [markdown]
# ## What the train ratio buys
#
# `train_ratio` says how many rows are replayed for each step of the game. The same agent with a quarter of it sees as many
# steps and learns a quarter as often.

# %%
least = p.config.prefill_ticks * p.config.num_envs
lazy = replace(p.config, train_ratio=max(1, p.config.train_ratio // 4))
lazy = replace(lazy, total_timesteps=max(p.compare_timesteps, least + lazy.cadence[0] * lazy.num_envs))
slow, _ = mxnb.build(lazy.resolve())
lazy_side = mxnb.fit(slow, result.run_dir / "compare" / "lazy", seed=p.seed, resume=p.resume)
if lazy_side.status != "done":
    raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")

# %%
lazy_policy = mxnb.load_policy(lazy_side.run_dir)
lazy_rows = foresight.held_out(lazy, env, lazy_policy.params["params"], jax.random.key(p.seed + 100), steps=512)
lazy_judged = foresight.judge_model(lazy, env, lazy_policy.params["params"], lazy_rows, jax.random.key(p.seed + 1))
lazy_played = evaluate(lazy_policy, env, 128, jax.random.key(p.seed + 7))
print(f"{'train ratio':>11} {'gradient steps':>15} {'return':>7} {'reward AUC, one step ahead':>27}")
for config, episodes, numbers in ((lazy, lazy_played, lazy_judged), (p.config, played["Dreamer"], judged)):
    steps = config.num_updates * config.cadence[1]
    print(f"{config.train_ratio:>11} {steps:>15,} {episodes.returns.mean():7.2f} {numbers['reward_before_auc']:>27.3f}")

# %% [markdown]
# More is not always better: with few steps and many replays the model learns its few episodes by heart, and dreams of
# nothing else.

# %% [markdown]
# ## Watch it play

# %%
from mxnb.evaluate import record

episode = record(policy, env, jax.random.key(p.seed + 1), max_steps=300)
print(f"the recorded episode: {len(episode.actions)} steps, return {episode.rewards.sum():.1f}")
if episode.frames is not None:
    strip = mxnb.show.filmstrip(episode)
    mxnb.show.save(strip, result.run_dir / "figures" / "episode.png")
    display(strip)

# %% [markdown]
# ## Three exercises
#
# Write the missing lines, run the cell, then run the check below them. An exercise left open says so and harms nothing.
#
# **1. Returns of a dream.** `r`, `c`, `v` hold rewards, chances to go on and values of the states $s_0 \ldots s_H$. Return
# $R_0 \ldots R_{H-1}$ for a given `lam`.


# %%
def dream_returns(r, c, v, lam):
    return None  # your lines


# %% [markdown]
# **2. Weights.** Return $w_0 \ldots w_{H-1}$ from `c`: how much of the future is left when the k-th action is chosen.


# %%
def weights(c):
    return None  # your lines


# %% [markdown]
# **3. Two bins.** Return the weights `[K]` that say `x` by the two of the rising `bins` around it.


# %%
def two_bins(x, bins):
    return None  # your lines


# %% cellView="form" tags=["checks"]
# @title Check the exercises
import numpy as np

from mxnb.kernels import imagined, symlog


def check(number, answer, truth, hint):
    if answer is None:
        print(f"exercise {number}: still open, for you to solve")
    elif np.shape(answer) == np.shape(truth) and np.allclose(answer, truth, atol=1e-4):
        print(f"exercise {number}: right")
    else:
        print(f"exercise {number}: not yet. {hint}")


rng = np.random.default_rng(0)
r, c, v = (jnp.asarray(rng.uniform(size=6), jnp.float32) for _ in range(3))
check(
    1,
    dream_returns(r, c, v, 0.9),
    imagined.lambda_returns(r, c, v, lambda_=0.9),
    "R_k takes reward, chance and value of the state that the action leads to: index k + 1.",
)
check(
    2,
    weights(c),
    imagined.alive_weights(c),
    "The state where the action is chosen counts, and what the action leads to does not.",
)
check(
    3,
    two_bins(2.2, np.asarray(symlog.make_bins(31))),
    symlog.two_hot(jnp.float32(2.2), symlog.make_bins(31)),
    "The weights add up to 1, and the mean of the bins under them is x itself.",
)

# %% [markdown]
# ## What to try next
#
# - `overrides = {"train_ratio": 256}`: four times as many gradient steps at equal steps. Does it help, and does the open loop?
# - `overrides = {"horizon": 5}`: shorter dreams. The critic must then know more.
# - `overrides = {"use_mask": True}`: the policy sees which actions do something, and the model learns to foresee it.
# - `overrides = {"free_nats": 0.0}`: the posterior is pulled towards the prior even where they nearly agree.
# - `preset = "probe"`, `env_id = "catch"`: a game that is solved within minutes on a CPU, for trying changes.
# - Headless: `papermill notebooks/04_dreamer.ipynb out.ipynb -p preset cpu -p seed 3`.

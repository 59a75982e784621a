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
#     agent: dreamer
# ---

# %% [markdown]
# # Dreamer: learning inside one's own imagination
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mxnb/blob/main/notebooks/04_dreamer.ipynb)
#
# Press **Run all**. You get an agent that learns a model of Craftax-Classic from what it has seen, dreams with it, and
# chooses what to do by its dreams. And you get to see the dreams, beside what really came.
#
# PPO throws every step away after a few passes. Dreamer keeps them, replays each many times, and dreams on from some of
# the replayed moments, `horizon` steps each time. That costs arithmetic, and is meant to save steps of the game.
#
# Craftax-Classic pays 1 for each of 22 achievements, once an episode, and a tenth of every health point won or lost.
#
# Stopped half-way? Run all again: it goes on where it was, replay included. In Colab, mount Drive first (the folder
# symbol on the left, then Mount Drive), and it goes on even when Colab has taken the machine away.

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
overrides = {}  # any DreamerConfig field, for example {"horizon": 5}

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

# %% [markdown]
# Does it fit? Below, the run's programs are compiled before anything is allocated, and asked how much memory they need. Where
# preset `auto` would need too much of the device, something is made smaller until it fits, and every change is printed.

# %%
plan = mxnb.plan(p)
p, agent, env = plan.parameters, plan.agent, plan.env
mxnb.show.budget(plan)

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
#     o_0 --a_0--> r, o_1 --a_1--> r, o_2 --a_2--> r, o_3 (end) | o'_0 --a'_0--> ...
#
# An episode of $n$ steps takes $n + 1$ rows, for its last observation is a row too. Code whose environments reset
# themselves easily loses that row: the last reward is then pinned to the first picture of the next world, and the model
# never sees an end. `is_terminal` is not `is_last`: a time limit ends the episode, and the future stays worth
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
# The **posterior** $q$ has seen the observation, the **prior** $p$ has not. Given $h_t$ the groups are independent, and each
# distribution is mixed with 1 % of the uniform one, so that nothing is ever impossible. A draw has no gradient; $z$ passes on
# that of its probabilities (straight-through). Everything else is predicted from $(h_t, z_t)$:
# the observation, the reward, and whether the episode goes on. Where the prior is as good as the posterior, the model can
# do without observations: it can dream. ($z$ is called latent, since nobody says what its classes mean.) Below,
# $\mathrm{sg}$ stops the gradient, and a nat is $1 / \ln 2$ bits.
#
# $$L = L_\text{obs} + L_\text{reward} + L_\text{cont} + L_\text{foresee}
#  + \max(1, \mathrm{KL}(\mathrm{sg}\,q \,\|\, p)) + 0.1\,\max(1, \mathrm{KL}(q \,\|\, \mathrm{sg}\,p))$$
#
# - $L_\text{obs}$: cross entropy of the map's 1,323 bits, plus `number_coef` = 10 times the squared errors of the 22 other
#   numbers (inventory, health, direction, light), each as the symlog (further down) of ten times itself.
# - $L_\text{reward}$: cross entropy over the bins below.
# - $L_\text{cont}$: cross entropy of the chance to go on; its target is the discount, or 0 on a terminal row.
# - $L_\text{foresee}$: the last two once more, asked at $(h_t, \mathrm{sg}\,\hat z_t)$: before the row was seen. Dreams are
#   made of such $\hat z$. Their groups are drawn independently, so many go together as no observation's ever do, and heads
#   that never met them expect too little. DreamerV3 has no such term; `foresee_coef=0` takes it away.
#
# The same divergence stands there twice: the first teaches the prior to foresee the posterior, the second, gently (0.1 is
# `rep_coef`), teaches the posterior to be foreseeable. Below one nat (`free_nats`) both are left alone.

# %%
mxnb.show.source(world.world_loss)

# %% [markdown]
# ## Numbers of any size
#
# Rewards and values are not regressed. They are **classes**: `num_bins` bins at equal steps of
#
# $$\mathrm{symlog}(x) = \mathrm{sign}(x) \ln(1 + |x|),$$
#
# close together near 0 and far apart for large numbers. A target between two bins is shared between them. One network can
# then learn rewards of 0.1 and returns of 1,000, and the mean over bins is still the mean: a reward of 10 in three of ten
# cases is worth 3, where the mean of logarithms would be about 1.

# %%
bins = symlog.make_bins(63)
x = jnp.linspace(-20, 20, 401)
plain = mxnb.show.lines(
    {"symlog(x)": (x, symlog.symlog(x)), "x, near 0": (x[160:241], x[160:241])},
    title="Small numbers as they are, large ones by their logarithm",
    xlabel="x",
    ylabel="symlog(x)",
)
code = symlog.two_hot(jnp.float32(3.0), bins)
used = np.flatnonzero(code)
words = " and ".join(f"{float(code[i]):.2f} on the bin {float(bins[i]):.2f}" for i in used)
print(f"3.0 is {words}; back again: {float(code @ bins):.4f}")
lottery = jnp.log(0.7 * symlog.two_hot(jnp.float32(0.0), bins) + 0.3 * symlog.two_hot(jnp.float32(10.0), bins) + 1e-12)
by_logarithm = float(symlog.symexp(0.3 * symlog.symlog(jnp.float32(10.0))))
print(
    f"10 with chance 0.3 is expected to pay {float(symlog.expected(lottery, bins)):.3f}; a mean of symlogs: {by_logarithm:.3f}"
)
plain

# %% [markdown]
# ## Dreaming
#
# Two more networks read $s = (h, z)$: the **actor** $\pi$ and the **critic** $v$. From replayed moments the actor acts in
# the model for `horizon` steps, without any observation: each next latent is drawn from the prior. Rewards $r_k$ on
# arriving at the dreamt state $s_k$, chances $c_k$ to go on from it (times the discount) and the critic's values $v_k$ give
# the return of every dreamt step,
#
# $$R_k = r_{k+1} + c_{k+1} \big((1 - \lambda)\, v_{k+1} + \lambda R_{k+1}\big), \qquad R_H = v_H,$$
#
# and a weight $w_k = c_0 c_1 \cdots c_k$: what is dreamt after a likely end counts for little. The actor minimises
#
# $$-\,w_k \big(\ln \pi(a_k \mid s_k)\;\mathrm{sg}(R_k - v_k) / \max(1, S) + \eta\,\text{entropy}\big),$$
#
# where $S$ is the running range of returns, from their 5th to their 95th percentile. Large returns are scaled down; small
# ones, which may be noise, are not scaled up. $\lambda$ is `lambda_`, $\eta$ is `ent_coef`.
#
# The critic learns $R_k$ as classes, $w_k\,(\mathrm{CE}(R_k) + \mathrm{CE}(\bar v_k))$ with $\bar v$ the value of a slow copy
# of itself. With weight 0.3 (`replay_value_coef`) it also learns from the replayed rows that dreams started at: the same
# equation along them, with the rewards that came, and the return dreamt from each row in the place of $v$.

# %%
mxnb.show.source(imagined.lambda_returns)

# %%
mxnb.show.source(world.dream_loss)

# %% [markdown]
# ## Train
#
# One compiled program plays, writes rows, draws batches and learns. The first `prefill` steps are played at random. Two
# quicker trainings follow further down, to compare with: PPO, and a Dreamer that replays less.

# %%
from mxnb.agents.replay import row_bytes

print(f"a row takes {row_bytes(env.spec, p.config.use_mask):,} bytes in the replay")
live = mxnb.show.live_curves()
result = mxnb.fit(agent, p.run_dir, seed=p.seed, resume=p.resume, save_minutes=2, hooks=[live])
if result.status != "done":
    raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")

# %% [markdown]
# The return is the game's own, not a dreamt one. The loss of observations is $L_\text{obs}$ above. Surprise, the divergence
# above, does not go to 0: neither a cow's next step nor the land beyond the edge can be known. It may rise while the model
# improves, as the latents come to say more.

# %%
curve = mxnb.show.curves(result.run_dir)
mxnb.show.save(curve, result.run_dir / "figures" / "curves.png")
curve

# %%
mxnb.show.health(result.run_dir)

# %% [markdown]
# What dreams promise at their start, what the critic holds their states worth, and what whole episodes of the game pay.
# The first two start at replayed moments, in the middle of episodes and mostly of older play, so they should lie below what a
# whole one pays now. Where they rise above it, the policy chases rewards that exist in dreams alone.

# %%
logged = mxnb.show.read_metrics(result)
width = max(1, len(logged) // 60)


def told(name):
    """Steps (thousands) and means of a metric, about 60 points."""
    kept = [row for row in logged if row.get(name) is not None] or [{"timesteps": np.nan, name: np.nan}]
    parts = [kept[i : i + width] for i in range(0, len(kept), width)]
    mean = lambda key: np.array([np.mean([row[key] for row in part]) for part in parts])
    return mean("timesteps") / 1e3, mean(name)


dreams = mxnb.show.lines(
    {
        "return of dreams": told("train/imagined_return"),
        "value": told("train/mean_value"),
        "whole episodes of the game": told("train/mean_episode_return"),
    },
    title="What dreams promise",
    xlabel="environment steps (thousands)",
    ylabel="return (dreams: discounted)",
)
mxnb.show.save(dreams, result.run_dir / "figures" / "dreams.png")
dreams

# %% [markdown]
# The two small heads, on replayed rows:

# %%
heads = mxnb.show.lines(
    {
        "reward": told("train/reward_loss"),
        "continue": told("train/cont_loss"),
        "both, before seeing the row": told("train/foresee_loss"),
    },
    title="Losses of reward and continue",
    xlabel="environment steps (thousands)",
    ylabel="nats a row",
)
mxnb.show.save(heads, result.run_dir / "figures" / "heads.png")
heads

# %% [markdown]
# ## Does the model foresee?
#
# Losses fall in a broken Dreamer too: neighbouring moments look alike, so a model that merely repeats what it saw scores
# well. So we play fresh episodes, which it has not been trained on, and let it **see 16 rows, then foresee the next 16 from
# the actions alone**. (Only moments that lie 16 rows before any end are asked about.)

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
# Above what came, below what one dream made of it, first right after the last row that was seen. Terrain should stay where
# it was and move as the player walks; what comes in from the edge is a guess. A small model keeps grass and stone, and loses
# what is rare: trees, ores, even lava, which kills. (Each tile shows its likeliest block, black where none has a chance above a half.)

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
else:
    print("no film: only observations of Craftax-Classic's symbols can be drawn here")

# %% [markdown]
# One dream proves little. How surprising were the real maps, in nats, to the mean of 16 dreams each? Two yardsticks: how
# often each bit is set at all; and the last map seen, where each bit changes as often as it did in these very windows,
# which flatters it. Below both, the model foresees *this* place. Below the first alone, it knows the place roughly. Above
# the first, it is sure of things that do not come.

# %%
if foreseen is not None and env.spec.num_binary:
    nats = foresight.nats_of_bits(foreseen, env.spec.num_binary, rows)
    ahead = np.arange(1, len(nats["model"]) + 1)
    names = {
        "model": "the model",
        "marginal": "how often each bit is set",
        "repeat": "the last observation (flattered)",
    }
    bits = mxnb.show.lines(
        {words: (ahead, nats[name]) for name, words in names.items()},
        title="Foreseeing the map",
        xlabel="steps ahead",
        ylabel="nats an observation",
    )
    mxnb.show.save(bits, result.run_dir / "figures" / "nats.png")
    display(bits)
    print("steps ahead" + "".join(f"{k:>8}" for k in (1, 5, 15)))
    for name, words in names.items():
        print(f"{words}: " + "  ".join(f"{nats[name][k - 1]:.1f}" for k in (1, 5, 15)))

# %% [markdown]
# ## Can its numbers be believed?
#
# A reward head may know every reward it *sees* and foresee none: then dreams hold no reward, and nothing is learned from
# them. So the table asks after seeing a row (posterior) and one step ahead (prior). Lines 1 and 2 are AUCs: the chance
# that a row which paid at least 0.5 (an achievement) gets a higher number than one which did not; 0.5 is a coin. Lines 3
# and 4 compare mean rewards. Lines 5 and 6 are AUCs of the rows where an episode ends; line 7 compares mean chances after
# seeing a row, beside ends that are rarer than one row in a hundred. Line 8 is the divergence of the loss. The last two
# set what a dream of `horizon` steps expects to earn beside what was then earned: rank correlation, and the slope of a line.
#
# The bounds are rules of thumb, not the paper's. Each *no* says where dreams mislead the policy.

# %%
judged = foresight.judge_model(p.config, env, params, rows, jax.random.key(p.seed + 1))
wanted = {
    "reward_auc": ("reward, after seeing it", 0.8, np.inf),
    "reward_before_auc": ("reward, one step ahead", 0.7, np.inf),
    "reward_share": ("reward expected / real, after seeing it", 0.7, 1.4),
    "reward_before_share": ("reward expected / real, one step ahead", 0.7, 1.4),
    "cont_auc": ("end of the episode, after seeing it", 0.8, np.inf),
    "cont_before_auc": ("end of the episode, one step ahead", 0.7, np.inf),
    "cont_gap": ("chance to go on after seeing, expected - real", -0.002, 0.002),
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
    print(f"{words:<42} {number:>8.4f}   {need:<16} {verdict}")

# %% [markdown]
# Calibration says how far off: for each tenth of the rows, by what was expected one step ahead, what came in the mean. On
# the dashed line expectations are right; below it they promise too much. Bars are 95 % intervals.

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
ends = mxnb.show.calibration(
    100 * np.maximum(0, 1 - expected.cont_before),  # the discount in it may be overshot
    100 * np.asarray(rows.is_terminal),
    title="The end of the episode, one step ahead",
    xlabel="expected chance (%, mean of a tenth of the rows)",
    ylabel="rows that were the end (%)",
)
mxnb.show.save(ends, result.run_dir / "figures" / "ends.png")
ends

# %% [markdown]
# The same for what a dream promises within its horizon, without the critic's value at its end. A flat line says that dreams
# do not tell good moments from bad ones. (Neighbouring moments share most of their rewards, so these bars are too short.)

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
# Whole episodes, with draws, beside random play and PPO after `compare_timesteps` steps, which presets set to Dreamer's own
# budget. PPO runs 8 environments x 64 steps, with layers as wide as Dreamer's and else its defaults; nobody tuned it for so
# short a run. Neither sees the mask, which says what actions do something, unless `use_mask` says so, as in published
# Dreamers (notebook 02 measures what it is worth).
#
# The score is Crafter's, $\exp(\text{mean} \ln(1 + s_i)) - 1$ of the 22 success rates $s_i$ in percent: nearly a geometric
# mean, in which rare achievements count.

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
    f"PPO, {rival.timesteps(rival.num_updates):,} steps": mxnb.load_policy(side.run_dir),
    "random": random_policy(env.spec),
}
played = {name: evaluate(player, env, 128, jax.random.key(p.seed + 7)) for name, player in players.items()}
minutes = lambda run: json.loads((run.run_dir / "result.json").read_text())["wall_seconds"] / 60
for name, trained, run in (("Dreamer", agent, result), ("PPO", rival, side)):
    print(f"{name} took {trained.timesteps(trained.num_updates):,} steps in {minutes(run):.1f} minutes")
print(f"{'':<24} {'return':>7} {'95 % interval':>17} {'length':>7} {'score, %':>9}")
for name, episodes in played.items():
    report = episodes.report()
    r, score = report["return"], report.get("crafter_score")
    score = "-" if score is None else f"{score:.2f}"
    print(f"{name:<24} {r['mean']:7.2f} {r['low']:8.2f} - {r['high']:6.2f} {report['length']['mean']:7.0f} {score:>9}")

# %% [markdown]
# The same while they learned, over the steps of the game. A world model is meant to save those: does it, at this size?


# %%
def climb(folder, points=15):
    """Steps (thousands), and the mean return of the episodes that ended in each part of a run."""
    lines = mxnb.show.read_metrics(folder)
    ended = [line for line in lines if line.get("train/num_episodes")]
    size = max(1, len(ended) // points)
    parts = [ended[i : i + size] for i in range(0, len(ended), size)]
    x = [np.mean([line["timesteps"] for line in part]) / 1e3 for part in parts]
    episodes = [[line["train/num_episodes"] for line in part] for part in parts]
    returns = [[line["train/mean_episode_return"] for line in part] for part in parts]
    return np.array(x), np.array([np.average(r, weights=n) for r, n in zip(returns, episodes, strict=True)])


race = mxnb.show.lines(
    {"Dreamer": climb(result.run_dir), "PPO": climb(side.run_dir)},
    title="Equal steps of the game",
    xlabel="environment steps (thousands)",
    ylabel="return of ended episodes",
    levels={"random play": float(played["random"].returns.mean())},
)
mxnb.show.save(race, result.run_dir / "figures" / "race.png")
race

# %% [markdown]
# By luck? The chance that an equally good player comes out this far ahead, by ranks (one-sided Mann-Whitney test):

# %%
from scipy.stats import mannwhitneyu

for name in list(played)[1:]:
    chance = mannwhitneyu(played["Dreamer"].returns, played[name].returns, alternative="greater").pvalue
    print(
        f"Dreamer ahead of {name}: p = {chance:.2g} over {len(played[name].returns)} episodes each, one training seed"
    )
rates = [{name: rate["mean"] for name, rate in played[who].report()["rates"].items()} for who in ("Dreamer", "random")]
if any("/" not in name for name in rates[0]):
    unlocked = mxnb.show.achievements(*rates, labels=("Dreamer", "random"))
    mxnb.show.save(unlocked, result.run_dir / "figures" / "achievements.png")
    display(unlocked)

# %% [markdown]
# ## What the train ratio buys
#
# `train_ratio` says how many rows are replayed for each step of the game. The same agent with a quarter of it takes
# `compare_timesteps` steps too, and learns a quarter as often. Both models are judged on the same fresh episodes, half of
# them played by each policy: a model knows best what its own policy does.

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
models = {"lazy": (lazy, lazy_policy.params["params"]), "full": (p.config, params)}
halves = [
    foresight.held_out(config, env, weights, jax.random.key(p.seed + 200), num_envs=16, steps=512)
    for config, weights in models.values()
]
shared = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *halves)
numbers = {
    name: foresight.judge_model(config, env, weights, shared, jax.random.key(p.seed + 1))
    for name, (config, weights) in models.items()
}
lazy_played = evaluate(lazy_policy, env, 128, jax.random.key(p.seed + 7))
print(
    f"{'ratio':>5} {'gradient steps':>15} {'minutes':>8} {'return':>7} {'95 % interval':>15} "
    f"{'reward AUC, ahead':>18} {'nats, 5 ahead':>14}"
)
trained = (
    (lazy, lazy_side, lazy_played, numbers["lazy"]),
    (p.config, result, played["Dreamer"], numbers["full"]),
)
for config, run, episodes, found in trained:
    r, count = episodes.report()["return"], config.num_updates * config.cadence[1]
    interval = f"{r['low']:.2f} - {r['high']:.2f}"
    print(
        f"{config.train_ratio:>5} {count:>15,} {minutes(run):>8.1f} {r['mean']:7.2f} {interval:>15} "
        f"{found['reward_before_auc']:>18.3f} {found.get('bits_model_5', np.nan):>14.1f}"
    )

# %% [markdown]
# One training seed each, and the intervals are over episodes alone: even a difference beyond them may be luck. (The rows are
# shared by both, so these numbers differ from those above.) Many replays of *few* steps may be learned by heart instead:
# the first thing to try next asks whether they are.

# %% [markdown]
# ## Watch it play
#
# One episode with draws. V is the critic's value; an orange rim marks an action that earned a reward.

# %%
from mxnb.evaluate import record

episode = record(policy, env, jax.random.key(p.seed + 1), max_steps=300)
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
watched = None if episode.frames is None else mxnb.show.Playback((episode,), "An episode of Dreamer")
watched

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
# ## A page to share
#
# The run in one file: player, curves, health, parameters and where each came from. It opens anywhere and asks no server.

# %%
from mxnb.run.folder import shown

print("open", shown(mxnb.show.page(result, watched)))

# %% [markdown]
# ## What to try next
#
# - Fewer steps, each replayed four times as often: `total_timesteps = 60000`, `compare_timesteps = 60000` and
#   `overrides = {"train_ratio": 64}` instead of the `cpu` preset's 200,000 and 16. It takes about as long. Does the model
#   foresee fresh episodes better, or worse?
# - `overrides = {"foresee_coef": 0.0}`: as DreamerV3 has it. What do lines 2, 4 and 6 of the table say then?
# - `overrides = {"horizon": 5}`: shorter dreams. The critic must then know more.
# - `overrides = {"use_mask": True}`: the policy sees which actions do something, and the model learns to foresee it.
# - `overrides = {"rep_coef": 0.5}`: the posterior is pulled harder towards what the prior can foresee.
# - `preset = "probe"`, `env_id = "catch"`: a game that is solved within minutes on a CPU, for trying changes.
# - Headless: `papermill notebooks/04_dreamer.ipynb out.ipynb -p preset cpu -p seed 3`.

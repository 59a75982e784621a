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
# # HackMatrix: a strategy game, its masks, its 15 rewards
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mxnb/blob/main/notebooks/06_hackmatrix.ipynb)
#
# Press **Run all**. You get a hacking game on a 6 × 6 board, an agent that learns it from nothing, what its reward was
# made of while it learned, how far it comes beside a scripted player, and a board on which you can play yourself.
#
# The game is written in JAX from end to end: hundreds or thousands of boards advance in one compiled program, and the whole of
# training is a few calls. Stopped half-way? Run all again: it goes on where it was.

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
env_id = "hackmatrix-v1"  # @param {type:"string"}
total_timesteps = 0  # @param {type:"integer"}
num_seeds = 0  # @param {type:"integer"}
run_dir = ""  # @param {type:"string"}
resume = True  # @param {type:"boolean"}
overrides = {}  # any PPOConfig field, for example {"ent_coef": 0.03}

# %% [markdown]
# A 0 or an empty text leaves the choice to the preset. Look at the last column below: besides the preset's sizes there is a
# **recipe**, the options that this game needs. The section "The recipe" tells what each of them is for.

# %%
import jax
import numpy as np

import mxnb
from mxnb.agents.ppo import PPOConfig

p = mxnb.parameters(PPOConfig, notebook="06_hackmatrix", extra=["num_seeds"])

# %%
plan = mxnb.plan(p)
p, agent, env = plan.parameters, plan.agent, plan.env
mxnb.show.budget(plan)

# %% [markdown]
# ## The game in one page
#
# You are the **@**. Reach the exit of eight stages with three health points. Here is a board that was built by hand.

# %%
from mxnb.envs.hackmatrix import make_state

board = make_state(
    player=(2, 2), data_siphons=1, credits=4, energy=4, owned=[0, 2, 7, 8, 11, 19],
    enemies=[{"type": 0, "row": 2, "col": 5, "hp": 2}, {"type": 1, "row": 5, "col": 0, "hp": 3}],
    blocks=[
        {"row": 3, "col": 2, "kind": 1, "points": 2, "spawn_count": 2},
        {"row": 2, "col": 1, "kind": 2, "program": 14, "spawn_count": 2},
        {"row": 4, "col": 4, "kind": 3, "points": 2, "spawn_count": 2},
    ],
    resources=[{"row": 1, "col": 2, "credits": 2}, {"row": 2, "col": 3, "energy": 3}, {"row": 0, "col": 0, "data_siphon": 1}],
)  # fmt: skip
first = mxnb.show.pictures([env.render(board)], columns=1)
mxnb.show.save(first, p.run_dir / "figures" / "board.png")
first

# %% [markdown]
# - **Blocks** are walls that hold something: **data** (blue, its points), a **program** (violet, its name) or a question mark
#   that hides which of the two. The small number is the price: how many enemies come when it is drained.
# - On the floor lie **credits** (c) and **energy** (e), with which programs are paid, and **data siphons** in the corners.
#   Walking collects the siphons only; everything else takes a siphon to collect.
# - **Enemies** are coloured shapes with their health in dots: the *virus* (moves twice), the *daemon* (three health points), the
#   *glitch* (walks through walls) and the *cryptog* (seen only in line with you).
# - Walking towards an enemy in your row or column with nothing between is an **attack**. Theirs, from the cell beside you,
#   costs one health point.
# - Who survives your hit is **stunned** and misses its next turn: one enemy alone can be fought without losing health.
# - Every few turns a **scheduled task** brings one more enemy, so waiting does not help. After 1,000 steps the game is cut off.
#
# A **siphon** drains the cross of five cells around you. Below, the same player siphons: two points, the program RESET, five
# credits and energy, and four *transmissions* that turn into enemies in the next turn. Was it worth it? That is the game.

# %%
play = jax.jit(env.step)
key, state, boards, words = jax.random.key(p.seed), board, [env.render(board)], ["before"]
for action in ("siphon", "down"):
    _, state, reward, _, _, told = play(key, state, env.spec.action_names.index(action))
    parts = {name: float(told[name]) for metric, name in env.spec.step_means if "reward/" in metric}
    boards.append(env.render(state))
    words.append(f"after {action}: reward {float(reward):+.2f}")
    print(
        f"{action:<7} {float(reward):+.2f} = "
        + " ".join(f"{value:+.2f} {name}" for name, value in parts.items() if abs(value) > 1e-6)
    )
siphoned = mxnb.show.pictures(boards, words, columns=1)
mxnb.show.save(siphoned, p.run_dir / "figures" / "siphon.png")
siphoned

# %% [markdown]
# ## The 23 programs
#
# A program that was siphoned is kept for the whole game, and costs credits (c) and energy (e) each time. A move, a siphon or
# WAIT ends the turn and the enemies act; **every other program is free**: cast as many as you can pay, then move. "+" is how
# many enemies its block releases.
#
# | program | price | + | what it does |
# |---|---|---|---|
# | PUSH | 2e | 4 | enemies take a step away from you |
# | PULL | 2e | 4 | enemies take a step towards you |
# | CRASH | 3c 2e | 6 | clears the eight cells around you: enemies, transmissions, blocks |
# | WARP | 2c 2e | 5 | jump onto a random enemy or transmission and destroy it |
# | POLY | 1c 1e | 3 | every enemy changes its type |
# | WAIT | 1e | 1 | the turn ends |
# | DEBUG | 3c | 4 | hits enemies that stand on blocks |
# | ROW | 3c 1e | 2 | hits every enemy in your row |
# | COL | 3c 1e | 2 | hits every enemy in your column |
# | UNDO | 1c | 3 | back to before your last turn, and its reward is taken back |
# | STEP | 3e | 4 | the enemies miss the next turn |
# | SIPH+ | 5c | 7 | one more data siphon |
# | EXCH | 4c | 3 | 4 energy |
# | SHOW | 2c | 2 | cryptogs are seen for this stage |
# | RESET | 4e | 2 | full health |
# | CALM | 2c 4e | 6 | no scheduled tasks on this stage |
# | D_BOM | 3c | 4 | kills the nearest daemon, and hits those around it |
# | DELAY | 1c 2e | 4 | transmissions hatch three turns later |
# | ANTI-V | 3c | 4 | hits all viruses |
# | SCORE | 5e | 5 | points: 8 less the stage |
# | REDUC | 2c 1e | 3 | every block left releases one enemy fewer |
# | ATK+ | 4c 4e | 8 | your attacks take one health point more, twice a stage at most |
# | HACK | 2c 2e | 4 | hits enemies on siphoned cells, and removes siphoned blocks |

# %% [markdown]
# ## Masks on the board
#
# There are 28 actions: four moves, the siphon, and 23 programs. Most of them are illegal most of the time: a program must
# be owned, paid for, and have something to act on. The **mask** says which are legal now. On the first board the player owns
# six: PUSH, CRASH and ROW are legal, COL has nobody in its column, and the others cost too much.

# %%
names = env.spec.action_names
mask = np.asarray(env.action_mask(board))
why = dict.fromkeys(names[5:], "not owned") | {"up": "a wall", "left": "a wall"}
why |= {"COL": "nobody in the column", "SIPH+": "costs 5 credits", "SCORE": "costs 5 energy"}
masked = mxnb.show.mask_picture(np.asarray(env.render(board))[:, :304], mask, names, reasons=why)
mxnb.show.save(masked, p.run_dir / "figures" / "mask.png")
masked

# %% [markdown]
# An illegal action is no disaster: it changes nothing and costs one step's penalty of 0.01. But a policy that knows the mask
# never spends a step on one, and never has to learn that SIPH+ without five credits does nothing.

# %% [markdown]
# ## What to beat
#
# Three players that learn nothing: one draws among all actions, one among the legal ones, and the **walker** goes the
# shortest way to the exit, attacks whoever stands in it, and never siphons. How far do they come? The **stage** is where an
# episode ended; 9 would be won.

# %%
from mxnb.envs.hackmatrix import walk
from mxnb.evaluate import evaluate, random_policy, record, rule_policy

episodes, key = (512 if p.preset != "smoke" else 64), jax.random.key(p.seed)
players = {
    "random, all": random_policy(env.spec),
    "random, legal": random_policy(env.spec, use_mask=True),
    "walker": rule_policy(env.spec, walk),
}
played = {name: evaluate(policy, env, episodes, key) for name, policy in players.items()}


def stage_of(episodes):
    stage = episodes.info["stage"]
    return stage.mean(), 1.96 * stage.std(ddof=1) / len(stage) ** 0.5


for name, seen in played.items():
    mean, error = stage_of(seen)
    print(
        f"{name:<14} stage {mean:.2f} ± {error:.2f}, return {seen.returns.mean():+.2f}, {seen.lengths.mean():.0f} steps"
    )

# %% [markdown]
# The walker is a good yardstick because it is a trap: walking is most of what an agent can learn quickly, and agents have
# stopped there.
#
# ## Fifteen rewards
#
# The reward is a sum of fifteen parts, so that no part hides. The largest are
#
# | part | pays |
# |---|---|
# | `stage_completion` | 1, 2, 4, 8, 16, 32, 64, 100 for the stages in turn |
# | `victory` | 500 + 100 × score, once |
# | `score_gain` | 0.5 a point of data |
# | `data_siphon` | 1 for each one picked up |
# | `damage_penalty`, `hp_recovery` | −1 and +1 a health point |
# | `death_penalty` | −½ of what the completed stages paid |
# | `siphon_death_penalty` | −10 for dying beside an enemy that a siphon called |
# | `distance_shaping` | 0.05 a step closer to the exit, nothing for steps away |
# | `kills` | 0.3 |
# | `step_penalty` | −0.01 |
#
# Read it as an agent that knows nothing would. Random play dies, and dying beside what one's own siphon called costs ten:
# more than anything else that random play ever meets. So the lesson that is nearest is never to siphon. An agent that does
# not siphon owns no program, and so never finds out what they are good for.
#
# ## The recipe
#
# The options that PPO needs here are printed above with the origin "recipe". They do six things.
#
# 1. **A network that sees a board.** The observation is one row of 1,545 numbers; a plain network must learn anew for each
#    of 36 cells what an enemy next to it means. Here one small layer reads every cell in the same way, and the 25 cells
#    around the player are shown once more, by where they lie *from it* (`cell_dim`).
# 2. **Parts of the reward on one scale** (`reward_scale`). The −10 of a siphon's enemies and the 500 of a victory outweigh
#    everything else that an episode pays, so they count for a small part in learning. Health lost and won counts half, both
#    alike. The metrics, the curves and the evaluations below show what the game pays.
# 3. **What a siphon is for** (`score_gain` 0, `new_programs` 2). A block of nine points pays 4.5 at once and releases nine
#    enemies; a program pays nothing at once and helps for the rest of the game. So an agent that learns from the score
#    drains data and never finds out about programs. But points count only for who wins. Here learning leaves them
#    out and is paid 2 for each new program instead, which UNDO takes back.
# 4. **Entropy.** An entropy bonus of 0.1 is ten times the usual. It keeps the policy trying until it lives long enough to
#    see what pays, and falls to 0 over the run.
# 5. **A longer trace** (`lambda_` 0.95) and values on their own scale (`normalise_value`).
# 6. **Two epochs** instead of four (`update_epochs`): half the work for each sample, so more of the game is seen in a minute.
#
# Why not simply clip the reward, as is often done? Because of UNDO. It takes back what the last turn paid, so that nobody
# earns by doing and undoing. Clip rewards at −0.2 and +2, say, and a siphon that paid 2.5 pays 2, but its UNDO costs only
# 0.2: a money press, and an agent will find it. Weights on the parts are linear: what is taken back still sums to nothing.

# %%
from mxnb.agents.on_policy import learned_reward
from mxnb.networks.board import BoardReader

mxnb.show.source(BoardReader)

# %%
mxnb.show.source(learned_reward)

# %% [markdown]
# ## Train
#
# Each seed is a run of its own, with its own folder; the first is the one that the pictures below show.

# %%
runs = []
for s in range(p.seed, p.seed + max(1, p.num_seeds)):
    print(f"\nseed {s}")
    folder = p.run_dir if s == p.seed else p.run_dir / "seeds" / f"s{s}"
    live = mxnb.show.live_curves()
    result = mxnb.fit(agent, folder, seed=s, resume=p.resume, save_minutes=2, hooks=[live])
    if result.status != "done":
        raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")
    runs.append(result)
result = runs[0]

# %% [markdown]
# ## How far does it come?
#
# Whole episodes of each seed's final policy, drawn as in training, beside the players from above. The shares of siphons and
# programs are of the last tenth of training. An agent that only walks has zeros there.

# %%
import json

rows, groups = [], {name: played[name].info["stage"] for name in ("random, legal", "walker")}
for run in runs:
    seen = evaluate(mxnb.load_policy(run.run_dir, agent=agent), env, episodes, jax.random.key(1000))
    final = json.loads((run.run_dir / "result.json").read_text())
    mean, error = stage_of(seen)
    shares = {name: final["metrics"][f"actions/{name}_frac"] for name in ("siphon", "program")}
    cast = {name: final["metrics"][f"actions/{name}"] for name in env.spec.action_names[5:]}
    rows.append((run, mean, error, seen, shares, final["wall_seconds"] / 60, cast))
    groups[f"seed {p.seed + len(rows) - 1}"] = seen.info["stage"]
walked, margin = stage_of(played["walker"])
print(f"{episodes} episodes each; ± is half a 95 % interval\n")
print("player          stage          return   siphons   programs   minutes")
for name in ("random, legal", "walker"):
    mean, error = stage_of(played[name])
    print(f"{name:<14}  {mean:.2f} ± {error:.2f}    {played[name].returns.mean():+6.2f}")
for number, (_, mean, error, seen, shares, minutes, _) in enumerate(rows, p.seed):
    print(
        f"seed {number:<9}  {mean:.2f} ± {error:.2f}    {seen.returns.mean():+6.2f}   {100 * shares['siphon']:5.2f} %"
        f"   {100 * shares['program']:6.2f} %   {minutes:7.1f}"
    )
above = sum(mean - error > walked + margin for _, mean, error, *_ in rows)
print(f"\nabove the walker, intervals apart: {above} of {len(rows)} seeds")
rare = [name for name in ("siphon", "program") if min(shares[name] for *_, shares, _, _ in rows) < 0.01]
print("".join(f"{name}s are less than 1 % of the actions: what they buy is not learned here\n" for name in rare))

# %% [markdown]
# Which programs does it cast? Those whose blocks release few enemies are the ones that it can afford to get.

# %%
mean_cast = {name: 100 * np.mean([cast[name] for *_, cast in rows]) for name in env.spec.action_names[5:]}
for name, share in sorted(mean_cast.items(), key=lambda item: -item[1])[:8]:
    print(f"{name:<7} {share:5.2f} % of all actions")

# %%
histogram = mxnb.show.counts(groups, title="Where episodes ended", xlabel="stage (9: won)", ylabel="episodes (%)")
mxnb.show.save(histogram, result.run_dir / "figures" / "stages.png")
histogram

# %% [markdown]
# ## While it learned
#
# The return should climb, the entropy fall slowly, and KL and clip fraction stay under their lines.

# %%
curve = mxnb.show.curves({f"{len(runs)} seeds" if len(runs) > 1 else "this run": [run.run_dir for run in runs]})
mxnb.show.save(curve, result.run_dir / "figures" / "curves.png")
curve

# %%
mxnb.show.health(result.run_dir)

# %% [markdown]
# What was an episode's reward made of? Gains are stacked upwards and losses downwards; the black line is their sum, the
# return. Look for the order in which things are learned: when does the price of siphons shrink (death beside the enemies
# that they called), and when do the stages begin to pay, each twice as much as the one before?

# %%
parts = mxnb.show.reward_parts(result)
mxnb.show.save(parts, result.run_dir / "figures" / "reward_parts.png")
parts

# %% [markdown]
# And what does it do? The moves are left out: they are most of it.

# %%
lines = {}
log = mxnb.show.read_metrics(result.run_dir)
for name in ("siphon", "program"):
    share = np.array([row[f"actions/{name}_frac"] for row in log])
    width = max(1, len(share) // 50)
    smooth = np.convolve(100 * share, np.ones(width) / width, mode="valid")
    lines[f"{name}s"] = ([row["timesteps"] for row in log][: len(smooth)], smooth)
shares = mxnb.show.lines(
    lines, title="Siphons and programs", xlabel="environment steps", ylabel="of all actions (%)", levels={"1 %": 1}
)
mxnb.show.save(shares, result.run_dir / "figures" / "shares.png")
shares

# %% [markdown]
# ## Watch it play
#
# An episode of the trained agent, drawing actions as it did in training.

# %%
policy = mxnb.load_policy(result.run_dir, agent=agent)
episode = record(policy, env, jax.random.key(p.seed + 1), max_steps=300)
print(f"{len(episode.actions)} steps, stage {episode.info['stage']:.0f}, return {episode.rewards.sum():.1f}")
strip = mxnb.show.filmstrip(episode, columns=2, frames=6)
mxnb.show.save(strip, result.run_dir / "figures" / "episode.png")
strip

# %%
watched = mxnb.show.Playback((episode,), "An episode of HackMatrix")
watched

# %% [markdown]
# ## Your turn
#
# Play it yourself: buttons and keys, illegal actions greyed out, and the agent takes over when you like. Do you get further
# than it does? (A notebook that ran without anybody watching shows nothing here.)

# %%
if mxnb.show.in_notebook():
    display(mxnb.show.take_over(result), mxnb.show.player(result))

# %%
from mxnb.run.folder import shown

print("open", shown(mxnb.show.page(result, watched)))

# %% [markdown]
# ## What to try next
#
# - `overrides = {"cell_dim": 0}`: the plain network, everything else the same.
# - `overrides = {"reward_scale": {}}`: the game's own rewards. How long until the agent siphons?
# - The recipe's weights with `"new_programs": 4.0`, or with `"score_gain": 1.0`: give all of them, since an override replaces
#   the whole of `reward_scale`. How does the stage fare, and how the programs?
# - `overrides = {"ent_coef": 0.01}`: how early does it make up its mind, and for what?
# - Longer: `total_timesteps = 30_000_000` takes three times as long.
# - A board of your own: `make_state(...)` from above, then `mxnb.show.mask_picture` with the probabilities of your policy.
# - Headless: `papermill notebooks/06_hackmatrix.ipynb out.ipynb -p preset cpu` prints the table above again.

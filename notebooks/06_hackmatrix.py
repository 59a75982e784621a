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
# A 0 or an empty text leaves the choice to the preset (a `seed` of 0 is a seed). Look at the last column below: "recipe" marks
# the options and sizes that were chosen for this game. The section "The recipe" tells what each option is for.

# %%
import jax
import numpy as np

import mxnb
from mxnb.agents.ppo import PPOConfig

p = mxnb.parameters(PPOConfig, notebook="06_hackmatrix", extra=["num_seeds"])

# %%
plan = mxnb.plan(p)
p, agent, env = plan.parameters, plan.agent, plan.env
if env.spec.id != "hackmatrix-v1":
    raise ValueError(f"this notebook is about hackmatrix-v1, not {env.spec.id}; 02_masked_ppo takes any environment")
mxnb.show.budget(plan)

# %% [markdown]
# ## The game in one page
#
# You are the **@**. Eight stages, each with an **EXIT** in a corner, and three health points to reach them with. Here is a
# board that was built by hand.

# %%
from mxnb.envs.hackmatrix import make_state

board = make_state(
    player=(2, 2), data_siphons=1, credits=4, energy=4, owned=[0, 2, 7, 8, 11, 19],
    enemies=[
        {"type": 0, "row": 2, "col": 5, "hp": 2}, {"type": 1, "row": 5, "col": 0, "hp": 3},
        {"type": 2, "row": 4, "col": 4, "hp": 2}, {"type": 3, "row": 0, "col": 4, "hp": 1},
    ],
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
#   that hides which of the two. The number with a + is how many enemies come when it is drained; a question hides that too.
# - On the floor lie **credits** (c) and **energy** (e), with which programs are paid, and in corners **data siphons** (the
#   diamond). Walking picks up the siphons only; everything else takes a siphon to collect.
# - **Enemies** have their health in dots: the *virus* (triangle, moves twice), the *daemon* (square, three health points where
#   the others have two), the *glitch* (zigzag, walks through blocks) and the *cryptog* (eye; hollow while the agent cannot see
#   it, which is whenever it is not in the player's row or column).
# - Each turn every enemy takes a step towards you, or bites for one health point if it stands above, below, left or right of
#   you. Nobody moves or bites diagonally.
# - Enemies come as **transmissions**, rings with the turns until they hatch; whoever hatches acts from the turn after. Stage 1
#   begins with one, stage 2 with two, and so on.
# - A move towards somebody in your row or column with nothing between is an **attack**, from any distance: you stay where you
#   are, and the nearest loses a health point. A transmission is gone at the first hit.
# - An enemy that survives your attack is **stunned** (z) and misses its next turn. So one enemy in line with you never gets
#   to bite while you keep hitting it.
# - Every few turns, 12 at first and fewer on later stages, a **scheduled task** brings one more enemy, so waiting does not help.
#   Each siphon puts the next one off by five turns, and makes those after it come sooner.
# - Stepping on the exit ends the stage at once and heals one health point. What you own comes with you; so do the enemies.
# - Marks: a small enemy stands on something; one with a teal rim was called by a siphon; a small ring on teal floor is where a
#   siphon was used. In the panel a dot is before what you own, and bright is what you can cast now.
# - A game begins in a random corner with 10 credits, 11 energy or one data siphon, and is cut off after 1,000 steps.
#
# The action **siphon** spends one data siphon and drains the cross of five cells around you. Below, the player siphons: two
# points, the program RESET, two credits and three energy. The price is four transmissions, who hatch next turn and can be
# destroyed before. The cells turn teal, the blocks hollow: they are drained, but still walls. Then the player attacks the
# virus, which came near in the meantime, and the four hatch.

# %%
play = jax.jit(env.step)
state, boards, words = board, [env.render(board)], ["before"]
for step_key, action in zip(jax.random.split(jax.random.key(0)), ("siphon", "right"), strict=True):
    _, state, reward, _, _, told = play(step_key, state, env.spec.action_names.index(action))
    paid = {name: float(told[name]) for metric, name in env.spec.step_means if "reward/" in metric}
    boards.append(env.render(state))
    words.append(f"after {action}: reward {float(reward):+.2f}")
    print(
        f"{action:<7} {float(reward):+.2f} = "
        + " ".join(f"{value:+.2f} {name}" for name, value in paid.items() if abs(value) > 1e-6)
    )
siphoned = mxnb.show.pictures(boards, words)
mxnb.show.save(siphoned, p.run_dir / "figures" / "siphon.png")
siphoned

# %% [markdown]
# Was it worth it? That is the game.

# %% [markdown]
# ## The 23 programs
#
# A program that was siphoned is kept for the whole game, and each cast costs credits (c) and energy (e). A move, a siphon or
# WAIT ends the turn and the enemies act; **every other program takes no turn**: cast as many as you can pay, then move. "+" is
# how many enemies its block releases, and "hits" means what your attack means: a health point (more with ATK+), and a stun for
# those who survive.
#
# | program | price | + | what it does |
# |---|---|---|---|
# | PUSH | 2e | 4 | enemies take a step away from you |
# | PULL | 2e | 4 | enemies take a step towards you |
# | CRASH | 3c 2e | 6 | clears the eight cells around you: enemies, transmissions, blocks with what they hold |
# | WARP | 2c 2e | 5 | jump onto a random enemy or transmission and destroy it |
# | POLY | 1c 1e | 3 | every enemy changes its type |
# | WAIT | 1e | 1 | the turn ends |
# | DEBUG | 3c | 4 | hits enemies that stand on blocks |
# | ROW | 3c 1e | 2 | hits every enemy in your row |
# | COL | 3c 1e | 2 | hits every enemy in your column |
# | UNDO | 1c | 3 | back to before your last turn, and its reward is taken back; not across stages |
# | STEP | 3e | 4 | the enemies miss the next turn |
# | SIPH+ | 5c | 7 | one more data siphon |
# | EXCH | 4c | 3 | 4 energy |
# | SHOW | 2c | 2 | cryptogs are seen for this stage |
# | RESET | 4e | 2 | full health again |
# | CALM | 2c 4e | 6 | no scheduled tasks on this stage |
# | D_BOM | 3c | 4 | kills the nearest daemon, and hits those around it for one health point |
# | DELAY | 1c 2e | 4 | transmissions hatch three turns later |
# | ANTI-V | 3c | 4 | hits every virus for one health point |
# | SCORE | 5e | 5 | points: 8 less the stage |
# | REDUC | 2c 1e | 3 | every block left releases one enemy fewer |
# | ATK+ | 4c 4e | 8 | your attacks take one health point more from now on: three at most, and twice a stage at most |
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
masked = mxnb.show.mask_picture(env.render(board), mask, names, reasons=why)
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

count, test_key = (512 if p.preset != "smoke" else 64), jax.random.key(1000)
players = {
    "random, all": random_policy(env.spec),
    "random, legal": random_policy(env.spec, use_mask=True),
    "walker": rule_policy(env.spec, walk),
}
played = {name: evaluate(policy, env, count, test_key) for name, policy in players.items()}


def stage_of(games):
    stage = games.info["stage"]
    return stage.mean(), 1.96 * stage.std(ddof=1) / len(stage) ** 0.5


for name, games in played.items():
    mean, error = stage_of(games)
    print(
        f"{name:<14} stage {mean:.2f} ± {error:.2f}, return {games.returns.mean():+.2f}, {games.lengths.mean():.0f} steps"
    )

# %% [markdown]
# Both random players end on about the same stage: what is illegal changes nothing, so without the mask a random player loses
# steps, not lives.
#
# The walker is a good yardstick because it is a trap: one can come so far without ever using what the game is about.
#
# ## Fifteen rewards
#
# The reward is a sum of fifteen parts, each reported by name:
#
# | part | pays |
# |---|---|
# | `stage_completion` | 1, 2, 4, 8, 16, 32, 64, 100 for the stages in turn |
# | `victory` | 500 + 100 × score, once |
# | `score_gain` | 0.5 a point of data |
# | `data_siphon` | 1 for each one picked up, or made by SIPH+ |
# | `damage_penalty`, `hp_recovery` | −1 and +1 a health point; a finished stage heals one |
# | `death_penalty` | −½ of what the completed stages paid |
# | `siphon_death_penalty` | −10 for dying beside an enemy that a siphon called |
# | `distance_shaping` | 0.05 a step closer to the exit, nothing for steps away |
# | `kills` | 0.3 an enemy or transmission, but for those of scheduled tasks |
# | `resource_gain`, `resource_holding` | 0.05 a credit or energy gained, the same lost when it is spent; 0.01 a unit at a stage's end |
# | `siphon_quality`, `program_waste` | at most a few tenths lost: a siphon where a cell nearby has more; RESET at two health points |
# | `step_penalty` | −0.01 |
#
# Read it as an agent that knows nothing would. Random play dies, and dying beside what one's own siphon called costs ten.
# The lesson that is nearest is never to siphon. An agent that does not siphon owns no program, and cannot find out what they
# are good for.
#
# ## The recipe
#
# The options that were chosen for PPO here are printed above with the origin "recipe". They do six things.
#
# 1. **A network that sees a board.** The observation is one row of 1,545 numbers; a plain network must learn anew for each
#    of 36 cells what an enemy next to it means. Here one small layer reads every cell in the same way, and the 25 cells
#    around the player are shown once more, by where they lie *from it* (`cell_dim`).
# 2. **Parts of the reward on one scale** (`reward_scale`). The −10 of a siphon's enemies and the 500 of a victory outweigh
#    everything else that an episode pays, so they count for a small part in learning, and the price of a death for a quarter.
#    Health lost and won counts half, both alike: a wound and its cure shall sum to nothing. The metrics, the curves and the
#    evaluations below show what the game pays.
# 3. **What a siphon is for** (`score_gain` 0, `new_programs` 2). A block of nine points pays 4.5 at once and releases nine
#    enemies; a program pays nothing at once and helps for the rest of the game. How far one comes does not depend on points, and it may
#    on programs; so learning leaves `score_gain` out and is paid 2 for each new program, which UNDO takes back. This is a
#    change of the aim, not only of its scale; stage and return, as paid, judge whether it was a good one.
# 4. **Entropy.** An entropy bonus of 0.1 is ten times the usual, and falls to 0 over the run: try first, decide later.
# 5. **λ = 0.95** instead of 0.8 (`lambda_`): credit reaches further back; and values on their own scale (`normalise_value`).
# 6. **Two epochs** instead of four (`update_epochs`): half the work for each sample, so more of the game is seen in a minute.
#    By PPO's rule here, half the gradient steps go with twice the step size.
#
# ### What was tried
#
# Each row changes one thing in the recipe: 4 million steps, the mean stage of seeds 0 and 1 over 512 episodes each (half a 95 %
# interval is 0.06 to 0.10), and the shares of siphons and programs among all actions in the last tenth of training. The walker
# reaches 2.70 there. `python benchmarks/learning.py hackmatrix` makes it; this one is of commit e8aa975. The row of 0.3 is of
# commit 84a168a, at which the recipe came to the same stages again.
#
# | what | stage, seeds 0 and 1 | siphons | programs |
# |---|---|---|---|
# | the recipe | 3.22, 3.18 | 2.7 % | 1.3 % |
# | a plain network | 1.63, 1.61 | 2.1 % | 0.5 % |
# | rewards as they are paid | 3.05, 2.95 | 0.0 % | 0.0 % |
# | entropy bonus 0.01 | 3.21, 3.15 | 2.8 % | 0.8 % |
# | entropy bonus 0.3 | 2.96, 3.01 | 2.7 % | 1.6 % |
# | entropy bonus stays at 0.1 | 2.95, 2.87 | 2.4 % | 1.4 % |
# | lambda 0.8 | 3.28, 3.28 | 2.3 % | 1.4 % |
# | values as they are | 3.24, 3.28 | 2.6 % | 0.9 % |
# | 4 epochs an update, half the step size | 3.24, 3.27 | 2.6 % | 1.4 % |
# | the score counted as paid | 1.77, 1.73 | 2.4 % | 0.9 % |
# | nothing for new programs | 3.32, 3.16 | 1.5 % | 0.0 % |
# | 1 for each new program | 3.28, 3.25 | 2.9 % | 0.3 % |
# | 4 for each new program | 2.25, 1.95 | 2.6 % | 2.7 % |
#
# - **Three things decide how far it comes**: a network that sees a board, the score left out, an entropy bonus that falls
#   and is not too large. At 0.3 a run of this length comes less far: perhaps it is small for too short a time.
#   Counting the score probably hurts because the −10 counts little here: data pay at once for siphons that kill later.
# - **Programs are used because they are paid for**: 0, 1, 2 and 4 for a new one make 0.0, 0.3, 1.3 and 2.7 % of the actions. At 4
#   the agent collects them instead of walking. At 2 they cost no stages, and bring none yet.
# - **As the game pays it**, without weights, the agent never siphons, probably for fear of the −10: it is a good walker.
# - **Not told apart** by stages are λ, the scale of values, the number of epochs (twice the work, though) and a small entropy
#   bonus that falls as well. It and values as they are find fewer programs; λ = 0.8 would have done as well.
#
# Why not simply clip the reward, as is often done? Because of UNDO. It takes back what the last turn paid, so that nobody
# earns by doing and undoing. Clip rewards at −0.2 and +2, say, and a siphon that paid 2.5 pays 2, but its UNDO costs only
# 0.2: a money press, as long as the credits for UNDO last. A symmetric clip leaks too where one UNDO takes back the rewards of
# several actions. Weights on the parts are linear, so what is taken back sums to nothing but UNDO's own price.

# %%
from mxnb.agents.on_policy import learned_reward
from mxnb.networks.board import BoardReader

mxnb.show.source(BoardReader)

# %%
mxnb.show.source(learned_reward)

# %% [markdown]
# ## Train
#
# Each seed is a run of its own, with its own folder. The first is the one whose rewards, actions and episode are shown below.

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
# Whole episodes of each seed's final policy, drawn as in training, from the same first boards as the players above. ± is half a
# 95 % interval over episodes; how much seeds differ is seen from row to row. Siphons and programs are shares of all actions in the
# last tenth of training, "new" counts the programs that an episode wins. An agent that only walks has zeros in all three.

# %%
import json

rows = []
for number, run in enumerate(runs, p.seed):
    games = evaluate(mxnb.load_policy(run.run_dir, agent=agent), env, count, test_key)
    final = json.loads((run.run_dir / "result.json").read_text())
    rows.append({"name": f"seed {number}", "games": games, "minutes": final["wall_seconds"] / 60, **final["metrics"]})
print(f"{count} episodes each\n\nplayer          stage          return   siphons   programs    new   minutes")
for name in ("random, legal", "walker"):
    mean, error = stage_of(played[name])
    print(f"{name:<14}  {mean:.2f} ± {error:.2f}    {played[name].returns.mean():+6.2f}")
for row in rows:
    mean, error = stage_of(row["games"])
    new = row["train/new_programs"] * row["train/mean_episode_length"]
    print(
        f"{row['name']:<14}  {mean:.2f} ± {error:.2f}    {row['games'].returns.mean():+6.2f}"
        f"   {100 * row['actions/siphon_frac']:5.2f} %    {100 * row['actions/program_frac']:5.2f} %"
        f"   {new:4.2f}   {row['minutes']:7.1f}"
    )
walked, margin = stage_of(played["walker"])
above = sum(mean - error > walked + margin for mean, error in (stage_of(row["games"]) for row in rows))
print(f"\nabove the walker, intervals apart: {above} of {len(rows)} seeds")
for name in ("siphon", "program"):
    seldom = sum(row[f"actions/{name}_frac"] < 0.01 for row in rows)
    if seldom:
        print(f"{name}s are less than 1 % of the actions in {seldom} of {len(rows)} seeds: not learned there")

# %% [markdown]
# Which programs does it cast? Are they the ones whose blocks release few enemies?

# %%
cast = {name: 100 * np.mean([row[f"actions/{name}"] for row in rows]) for name in env.spec.action_names[5:]}
for name, share in sorted(cast.items(), key=lambda item: -item[1])[:8]:
    print(f"{name:<7} {share:5.2f} % of all actions")

# %%
groups = {name: played[name].info["stage"] for name in ("random, legal", "walker")}
groups |= {row["name"]: row["games"].info["stage"] for row in rows}
histogram = mxnb.show.counts(groups, title="Where episodes ended", xlabel="stage (9: won)", ylabel="episodes (%)")
mxnb.show.save(histogram, result.run_dir / "figures" / "stages.png")
histogram

# %% [markdown]
# ## While it learned
#
# The return should climb, the entropy fall slowly, and KL and clip fraction stay under their lines.

# %%
curve = mxnb.show.curves({"ppo with the recipe": [run.run_dir for run in runs]})
mxnb.show.save(curve, result.run_dir / "figures" / "curves.png")
curve

# %%
mxnb.show.health(result.run_dir)

# %% [markdown]
# What was an episode's reward made of? Gains are stacked upwards and losses downwards; the black line is their sum, the
# return, as the game pays it. Look for the order in which things are learned: when does the price of siphons shrink (death
# beside the enemies that they called), and when do the stages begin to pay?

# %%
part_figure = mxnb.show.reward_parts(result)
mxnb.show.save(part_figure, result.run_dir / "figures" / "reward_parts.png")
part_figure

# %% [markdown]
# And what does it do? The moves are left out: they are most of it. The line at 1 % is what we ask of both: less looks like
# accidents.

# %%
log = mxnb.show.read_metrics(result.run_dir)
width = max(1, len(log) // 50)
at = np.array([row["timesteps"] for row in log]) / 1e6
smooth = lambda values: np.convolve(values, np.ones(width) / width, mode="valid")
used = {
    f"{name}s": (smooth(at), smooth([100 * row[f"actions/{name}_frac"] for row in log]))
    for name in ("siphon", "program")
}
use_figure = mxnb.show.lines(
    used,
    title="Siphons and programs",
    xlabel="environment steps (millions)",
    ylabel="of all actions (%)",
    levels={"1 %": 1},
)
mxnb.show.save(use_figure, result.run_dir / "figures" / "shares.png")
use_figure

# %% [markdown]
# ## Watch it play
#
# The trained agent, drawing actions as it did in training: of up to twenty episodes the first in which it casts a program
# other than WAIT. So it was chosen, and how far it comes here says nothing; the table above does.

# %%
from mxnb.envs.hackmatrix.tables import CREDITS, ENERGY, PROGRAMS

policy = mxnb.load_policy(result.run_dir, agent=agent)
for number in range(1, 21):
    episode = record(policy, env, jax.random.key(p.seed + number), max_steps=300)
    taken = [env.spec.action_names[action] for action in episode.actions]
    casts = [(t, name) for t, name in enumerate(taken) if name in PROGRAMS]
    told = [cast for cast in casts if cast[1] != "WAIT"]
    if told:
        break
ended = "" if episode.terminated or episode.truncated else ", cut here"
print(f"episode {number}: {len(episode.actions)} steps{ended}, stage {episode.info['stage']:.0f}, ", end="")
print(f"return {episode.rewards.sum():.1f}; programs: {', '.join(name for _, name in casts) or 'none'}")
strip = mxnb.show.filmstrip(episode, frames=4)
mxnb.show.save(strip, result.run_dir / "figures" / "episode.png")
strip

# %% [markdown]
# And the program itself: the board before it is cast, and after. What did it change, and was it worth its price? Some change
# only numbers: ATK+ the attack, CALM and DELAY what is still to come.

# %%
if told:
    t, name = told[0]
    price = f"{CREDITS[PROGRAMS.index(name)]} credits, {ENERGY[PROGRAMS.index(name)]} energy"
    words = [f"step {t}: {name}, {price}", f"after it: reward {episode.rewards[t]:+.2f}"]
    both = mxnb.show.pictures(episode.frames[t : t + 2], words)
    mxnb.show.save(both, result.run_dir / "figures" / "program.png")
    display(both)
else:
    print("no program but WAIT in twenty episodes")

# %% [markdown]
# The whole episode, step by step:

# %%
watched = mxnb.show.Playback((episode,), "An episode of HackMatrix")
watched

# %% [markdown]
# ## What would it do there?
#
# Back to the first board, the one built by hand. The policy gives each legal action a probability, and exactly none to the
# others. Move a piece above, run that cell, the one of the mask and this one again: does it change its mind?

# %%
from mxnb.envs.hackmatrix import flatten, observe

_, _, thought = jax.jit(policy.act)(policy.params, flatten(observe(board)), mask, policy.memory(policy.params), None)
minded = mxnb.show.mask_picture(env.render(board), mask, names, probs=thought["probs"], reasons=why)
mxnb.show.save(minded, p.run_dir / "figures" / "thought.png")
minded

# %% [markdown]
# ## Your turn
#
# Play it yourself: buttons and keys, illegal actions greyed out, and the agent takes over when you like. Do you get further
# than it does? (This needs a live kernel: an executed page shows nothing here.)

# %%
if mxnb.show.in_notebook():
    display(mxnb.show.take_over(result), mxnb.show.player(result))

# %%
from mxnb.run.folder import shown

print("open", shown(mxnb.show.page(result, watched)))

# %% [markdown]
# ## What to try next
#
# - Do programs pay in the long run? Nothing for a new one, everything else the same, and all the steps: `overrides =
#   {"reward_scale": {"new_programs": 0.0, "score_gain": 0.0, "damage_penalty": 0.5, "hp_recovery": 0.5, "death_penalty": 0.25,
#   "siphon_death_penalty": 0.05, "victory": 0.01}}`. The table above says "no difference" after 4 million steps; and after 10?
# - Pay for something else: any of the 15 parts of the reward has a weight. What of `kills`, or `siphon_quality`? A
#   `reward_scale` of yours replaces the recipe's, so add to the one above, and let `new_programs` be 2 again.
# - `overrides = {"lambda_": 0.8}`: as good after 4 million steps, and after 10?
# - Longer: `total_timesteps = 30_000_000` is three times what the presets `cpu` and `colab_t4_small` take.
# - A board of your own: `help(make_state)` tells the numbers of blocks, enemies and programs; row 0 is the bottom row.
# - Headless: `papermill notebooks/06_hackmatrix.ipynb out.ipynb -p preset cpu` makes the table of "How far does it come?"
#   again, in 35 to 40 minutes on two cores.

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
# # Average reward: acting where nothing ends
#
# Press **Run all**. You get an agent that learns to stay alive on Craftax-Classic without any discount, the exact answers
# of four small problems beside what is learned there, and a picture of a bug that is easily made.
#
# Episodes are a habit of ours, not of the world. Here life is one endless stream, and the agent maximises the
# **gain**: the mean reward a step, for ever.
#
# Stopped half-way? Run all again: it goes on where it was.

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
overrides = {}  # any AverageRewardConfig field, for example {"r_reset": 500}

# %% [markdown]
# A 0 or an empty text leaves the choice to the preset. The next cell checks every value and prints where it came from.

# %%
import json
from dataclasses import replace
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import mxnb
from mxnb.agents import average_reward as algorithm
from mxnb.agents.average_reward import AverageRewardConfig
from mxnb.envs import chains
from mxnb.envs.survival import survival
from mxnb.kernels import tabular

p = mxnb.parameters(AverageRewardConfig, notebook="03_average_reward", extra=["compare_timesteps"])
agent, env = mxnb.build(p.config)

# %% [markdown]
# ## Gain and bias, by hand
#
# Two states and no choice. State 0 pays 1 and is left with probability 0.3; state 1 pays nothing and is left with
# probability 0.1. In the long run the stream is in state 0 for a quarter of the time, so the gain is
#
# $$\rho = \frac{0.1}{0.3 + 0.1} \cdot 1 = 0.25.$$
#
# Both states have the same gain, yet who stands in state 0 is better off: it will be paid sooner. How much better is
# the **bias** $h$, the reward beyond $\rho$ a step that is still to come. It obeys
#
# $$h(s) = r(s) - \rho + \mathbb{E}\,h(s').$$
#
# Subtract the equations of the two states: $h(0) - h(1) = 1 / (0.3 + 0.1) = 2.5$. Only differences are fixed: add a
# constant to $h$ and the equation still holds. Remember that constant. It is what the bug further down trips over.

# %%
two = chains.two_states()
exact = tabular.evaluate_policy(two, np.ones((2, 1)))
print(f"by solver: gain {exact.gain:.4f}, h(0) - h(1) = {exact.bias[0] - exact.bias[1]:.4f}")

# %% [markdown]
# The solver is two linear systems. Learning needs no model: **differential TD** walks along and moves both numbers by
# the same surprise,
#
# $$\delta = r - \rho + V(s') - V(s), \qquad V(s) \mathrel{+}= \alpha\,\delta, \qquad \rho \mathrel{+}= \eta\,\alpha\,\delta.$$

# %%
mxnb.show.source(tabular.differential_td)

# %%
marks = np.arange(500, 20_001, 1500)
walks = [
    tabular.differential_td(two, np.ones((2, 1)), np.random.default_rng(p.seed), steps=int(n), lr=0.005, eta=0.5)
    for n in marks
]
learned = mxnb.show.lines(
    {"rho": (marks, [rho for rho, _ in walks]), "V(0) - V(1)": (marks, [v[0] - v[1] for _, v in walks])},
    title="Differential TD on two states",
    xlabel="steps walked",
    ylabel="reward",
    levels={"exact gain 0.25": 0.25, "exact difference 2.5": 2.5},
)
learned

# %% [markdown]
# ## The price of a death
#
# Now something worth surviving for. Alive, a step pays 1. After a death come $R$ empty steps that pay nothing, then a
# new life. With lives of $L$ steps the gain is
#
# $$\rho = \frac{\mathbb{E} L}{\mathbb{E} L + R},$$
#
# so the policy with the longest life is the best one, whatever $R$ is. And what does a death cost? With $k$ empty steps
# left, $h = \mathbb{E}\,h(\text{new life}) - \rho k$: a death costs $\rho R$. Nothing had to be tuned for that.
#
# A small problem with a choice shows what happens to code that gets this wrong. **Safe** pays 0.3 a step. **Risky** pays
# 0.5, but once in fifty times it falls into 60 empty steps: on average $0.5 \cdot 50 / 110 = 0.227$. Safe is right.

# %%
risk = chains.risk()
right = tabular.evaluate_policy(risk, np.eye(2)[np.zeros(61, int)])
gap = np.diff(tabular.advantages(risk, right)[0])[0]
print(
    f"gain of safe {right.gain:.3f}; a risky step gains 0.2 and risks {right.bias[0] - right.bias[1]:.1f} in one of 50"
)
print(f"advantage of risky over safe: {gap:+.3f}")

# %% [markdown]
# ## The bug: cutting at death
#
# Episodic code says: a death ends the episode, so the value after it is 0. With a discount that is right. Here it is
# meaningless, because the constant of $V$ is free: "0" is a number on a scale without an origin. The price of the fall
# becomes $V(\text{alive}) + c$ instead of $\rho R = 18$.
#
# Below, what the risky step looks worth for every constant $c$: once with the fall's true value, once with 0 after it.

# %%
constants = np.linspace(-20, 30, 51)
true_gap = np.full(51, gap)
cut_gap = 0.2 - 0.02 * (right.bias[0] + constants)
shifted = mxnb.show.lines(
    {"death bootstraps (right)": (constants, true_gap), "death is worth 0 (bug)": (constants, cut_gap)},
    title="Is the risk worth it?",
    xlabel="constant added to V",
    ylabel="advantage of risky over safe",
    levels={"above this line the agent takes the risk": 0.0},
)
shifted

# %% [markdown]
# An agent with the bug decides by an accident of its critic. Let two agents learn it: ours, and ours with the bug put
# back in by the six lines below. The network is a table, a number for each state, so that nothing but the
# advantages can be to blame.


# %%
class Table(nn.Module):
    """A logit for each state and action, and a value for each state."""

    actions: int

    @nn.compact
    def __call__(self, memory, obs, is_first):
        head = nn.Dense(self.actions, use_bias=False, kernel_init=nn.initializers.zeros, name="logits")(obs)
        return memory, head, nn.Dense(1, kernel_init=nn.initializers.zeros, name="value")(obs)[..., 0]


def learn(world, actions, updates, **fields):
    """The state of a tabular agent after training, and its gain at every update."""
    sizes = {"num_envs": 64, "num_steps": 64, "num_minibatches": 1, "update_epochs": 4, "hidden_dim": 1}
    config = AverageRewardConfig(total_timesteps=64 * 64 * updates, lr=1e-2, phase_steps=0, **sizes, **fields)
    learner = algorithm.average_reward(config, world, Table(actions))

    def one(state, _):
        state, metrics = learner.step(state)
        return state, metrics["train/batch_rho"].total

    return jax.jit(lambda key: jax.lax.scan(one, learner.init(key), None, updates))(jax.random.key(p.seed))


def cut_at_death(config, transitions, last_value, rho):
    """The bug: the step into the first empty one ends the stream."""
    t = transitions
    died = (t.weight > 0) & (jnp.append(t.weight[1:], t.weight[-1:], 0) == 0)
    return whole(config, t._replace(truncated=t.truncated | died), last_value, rho)


whole = algorithm.advantages
fall = chains.from_table("risk", chains.MDP(np.ones((1, 2, 1)), np.array([[0.3, 0.5]])), death=[[0.0, 0.02]])
task = survival(fall, 60, reward="native")
updates = 300
_, ours = learn(task, 2, updates, anneal_lr=False)
with patch.object(algorithm, "advantages", cut_at_death):
    _, bug = learn(task, 2, updates, anneal_lr=False)
blocks = lambda gains: np.asarray(gains).reshape(-1, 10).mean(1)  # a point for every ten updates
falls = mxnb.show.lines(
    {name: (np.arange(0, updates, 10) + 5, blocks(gains)) for name, gains in (("ours", ours), ("cut at death", bug))},
    title="Safe or risky",
    xlabel="updates",
    ylabel="reward per step",
    levels={"always safe 0.3": 0.3, "always risky 0.227": 0.5 * 50 / 110},
)
falls

# %% [markdown]
# ## What the agent does
#
# One step's surprise takes the gain into account, and a transition of $\tau$ steps pays it $\tau$ times:
#
# $$\delta_t = r_t - \rho\,\tau_t + V(s_{t+1}) - V(s_t), \qquad A_t = \delta_t + \lambda^{\tau_t} A_{t+1}.$$
#
# A death cuts nothing: $s_{t+1}$ is what follows it. A time limit or a win does cut, for the jump to a new world is no
# transition of the task; there $V$ is that of the last observation. $\rho$ is a moving average of rewards over one of
# steps, brought up to date before the surprises are computed. Targets of the critic are shifted to mean 0, which holds
# the free constant in place.

# %%
mxnb.show.source(algorithm.advantages)

# %% [markdown]
# ## Two problems with known answers
#
# **Access control.** Ten servers; customers pay 1, 2, 4 or 8; a busy server is free again with probability 0.06 a step.
# Whom to let in? The best policy earns 2.7476 a step, letting everybody in 2.1814. **River swim.** Six states in a
# row; the current pays 0.005 at one end for nothing, swimming against it pays 1 at the other end. Best 0.8572, drifting
# 0.0050.
#
# Both have exact answers by **relative value iteration**: sweep $h \leftarrow \max_a (r + P h)$, subtract what one state
# gained, until all states gain the same: that is $\rho$.

# %%
problems = {"access control": chains.access_control(), "river swim": chains.river_swim()}
print(f"{'problem':<16} {'best gain':>9} {'learned':>9} {'estimate':>9}")
policies, shares = {}, {}
for name, table in problems.items():
    best, _, _ = tabular.relative_value_iteration(table)
    state, gains = learn(chains.from_table(name, table), 2, updates, anneal_lr=False)
    shares[name] = (np.arange(0, updates, 10) + 5, 100 * blocks(gains) / best)
    logits = np.asarray(state.policy["params"]["logits"]["kernel"], float)
    policies[name] = tabular.softmax(logits)
    found = tabular.evaluate_policy(table, policies[name]).gain
    print(f"{name:<16} {best:9.4f} {found:9.4f} {float(state.gain.rho):9.4f}")

# %% [markdown]
# "Learned" is the exact gain of the policy as it is sampled; "estimate" is what the agent believes it earns. On the way
# there, the river is the harder one: nothing but the small pay is found until somebody swims all the way up.

# %%
ways = mxnb.show.lines(
    shares,
    title="Learning two problems with known answers",
    xlabel="updates",
    ylabel="reward per step, % of the best",
    levels={"the best policy": 100.0},
)
ways

# %%
swims = policies["river swim"][:, 1][None]
river = mxnb.show.grid(
    swims, ["upstream"], range(1, 7), title="Swims against the river, in percent of the cases", xlabel="state"
)
river

# %% [markdown]
# And here is whom it lets in. The best policy always turns away who pays 1, for the server may earn 8 tomorrow. The learned one does so
# where it matters: the more servers are free, the rarer the state, and cells near 50 were hardly ever visited.

# %%
names = [f"pays {pay:.0f}" for pay in chains.PRIORITIES]
accepted = policies["access control"][:, 1].reshape(chains.SERVERS + 1, 4).T[:, 1:]
door = mxnb.show.grid(
    accepted, names, range(1, chains.SERVERS + 1), title="Let in, in percent of the cases", xlabel="free servers"
)
door

# %% [markdown]
# ## Stay alive on Craftax
#
# The same agent with a memory (a gated recurrent unit) on Craftax-Classic: each step alive pays 1, a death costs
# `r_reset` empty steps, and the game's own rewards are ignored. Lives start out of step: each environment first takes a
# random number of random steps.

# %%
live = mxnb.show.live_curves()
result = mxnb.fit(agent, p.run_dir, seed=p.seed, resume=p.resume, save_minutes=1, hooks=[live])
if result.status != "done":
    raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")

# %%
curve = mxnb.show.curves(result.run_dir)
mxnb.show.save(curve, result.run_dir / "figures" / "curves.png")
curve

# %%
mxnb.show.health(result.run_dir)

# %% [markdown]
# What the agent believes it earns, beside what each batch really paid:

# %%
rows = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
told = lambda name: (np.array([row["timesteps"] for row in rows]) / 1e6, [row[name] for row in rows])
belief = mxnb.show.lines(
    {"a batch": told("train/batch_rho"), "estimate": told("train/rho")},
    title="The gain",
    xlabel="million steps",
    ylabel="steps alive per step",
)
mxnb.show.save(belief, result.run_dir / "figures" / "gain.png")
belief

# %% [markdown]
# The return in the first panel is the mean length of the lives that ended. It says little of those that go on, so let us
# measure lives from their first step to their last.
#
# For comparison: random play, doing nothing at all (in Craftax that is better than random play), and the same agent with
# a discount of 0.99 instead of the gain. It trains for `compare_timesteps`, which is as long in every preset.

# %%
from mxnb.evaluate import evaluate, noop_policy, random_policy

rival = replace(p.config, objective="discounted", centre_targets=False, total_timesteps=p.compare_timesteps).resolve()
contender, _ = mxnb.build(rival)
side = mxnb.fit(contender, result.run_dir / "compare" / "discounted", seed=p.seed, resume=p.resume)
if side.status != "done":
    raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")

# %%
lives = 64
one_step_deaths = survival(mxnb.make(p.config.env_id), p.config.r_reset, chain="collapsed")
players = {
    "average reward": mxnb.load_policy(result.run_dir),
    "discounted": mxnb.load_policy(side.run_dir),
    "noop": noop_policy(env.spec),
    "random": random_policy(env.spec),
}
played = {name: evaluate(policy, one_step_deaths, lives, jax.random.key(p.seed)) for name, policy in players.items()}
print(f"{'':<16} {'gain':>6} {'95 % interval':>17} {'life, steps':>12} {'95 % interval':>17} {'median':>7} deaths")
for name, episodes in played.items():
    s = episodes.survival(p.config.r_reset)
    gain, life = s["gain"], s["life"]
    show = lambda x: "      -" if x is None else f"{x:7.0f}"
    print(
        f"{name:<16} {gain['mean']:6.3f} {gain['low']:8.3f} - {gain['high']:5.3f}  {show(life['mean']):>12} "
        f"{show(life['low'])} - {show(life['high'])} {show(s['median_life'])} {s['deaths']:>6}"
    )

# %% [markdown]
# The gain's interval comes from renewal theory: lives are independent, so $z_i = L_i - g\,(L_i + R)$ have mean 0, and
# their spread is the error. Lives that the clock cut off are counted too; without them, the longest would be missing.

# %%
curves = mxnb.show.survival(played)
mxnb.show.save(curves, result.run_dir / "figures" / "survival.png")
curves

# %% [markdown]
# ## Watch it live

# %%
from mxnb.evaluate import record

episode = record(players["average reward"], env, jax.random.key(p.seed + 1), max_steps=300)
print(f"the recorded life: {episode.rewards.sum():.0f} steps alive of the first {len(episode.actions)}")
if episode.frames is not None:
    strip = mxnb.show.filmstrip(episode)
    mxnb.show.save(strip, result.run_dir / "figures" / "episode.png")
    display(strip)

# %% [markdown]
# ## Two exercises
#
# Write the missing lines, run the cell, then run the check below it. An exercise left open says so and harms nothing.
#
# **1. The price of a death.** Alive, a step pays 1 and the hazard is `p`; a death costs `R` empty steps. Return the gain,
# and what a death costs in reward.


# %%
def gain_and_price(p, R):
    return None  # your lines


# %% [markdown]
# **2. The surprise.** Return $\delta_t$ for arrays `[T]`: rewards, values, the values of what follows, and the steps that
# each transition takes.


# %%
def surprise(reward, value, next_value, duration, rho):
    return None  # your lines


# %% cellView="form" tags=["checks"]
# @title Check the exercises
import numpy as np

from mxnb.envs import chains
from mxnb.kernels import tabular
from mxnb.kernels.average_reward import differential_td


def check(number, answer, truth, hint):
    if answer is None:
        print(f"exercise {number}: still open, for you to solve")
    elif np.shape(answer) == np.shape(truth) and np.allclose(answer, truth, atol=1e-5):
        print(f"exercise {number}: right")
    else:
        print(f"exercise {number}: not yet. {hint}")


table = tabular.evaluate_policy(chains.hazard((0.05,), 20), np.ones((21, 1)))
check(
    1,
    gain_and_price(0.05, 20),
    (table.gain, table.bias[0] - table.bias[1]),
    "A life takes 1 / p steps; and the price follows from the gain.",
)
draw = np.random.default_rng(0)
arrays = [jnp.asarray(draw.normal(size=8), jnp.float32) for _ in range(3)]
taken = jnp.array([1.0, 1.0, 51.0, 1.0, 1.0, 51.0, 1.0, 1.0])
check(
    2,
    surprise(*arrays, taken, 0.7),
    differential_td(*arrays, taken, jnp.float32(0.7)),
    "A transition that takes 51 steps owes the gain 51 times.",
)

# %% [markdown]
# ## What to try next
#
# - `overrides = {"r_reset": 500}`: deaths cost ten times as much. The best policy is the same; is it learned as fast?
# - `overrides = {"chain": "collapsed"}`: the empty steps are not played. The same gain, and more lives in the same time.
# - `overrides = {"recurrent": False}`: how much does memory matter for staying alive?
# - `overrides = {"rho": "td"}`: the gain learned from the surprises instead of from the rewards.
# - `env_id = "cartpole-v1"`: a pole that falls is a death. How long does it stand?
# - Headless: `papermill notebooks/03_average_reward.ipynb out.ipynb -p preset cpu -p seed 3`.

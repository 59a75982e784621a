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
#     agent: average_reward
# ---

# %% [markdown]
# # Average reward: acting where nothing ends
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mxnb/blob/main/notebooks/03_average_reward.ipynb)
#
# Press **Run all**. You get an agent that learns to stay alive on Craftax-Classic without any discount, the exact answers
# of four small problems beside what is learned there, and a picture of a bug that is easily made.
#
# Episodes are a habit of ours, not of the world. Here life is one endless stream, and the agent maximises the
# **gain**: the mean reward a step, for ever.
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
overrides = {}  # any AverageRewardConfig field, for example {"r_reset": 500}

# %% [markdown]
# A 0 or an empty text leaves the choice to the preset. The next cell checks every value and prints where it came from.

# %%
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
from mxnb.kernels.average_reward import differential_gae

p = mxnb.parameters(AverageRewardConfig, notebook="03_average_reward", extra=["compare_timesteps"])

# %% [markdown]
# Does it fit? Below, the run's programs are compiled before anything is allocated, and asked how much memory they need. Where
# preset `auto` would need too much of the device, something is made smaller until it fits, and every change is printed.

# %%
plan = mxnb.plan(p)
p, agent, env = plan.parameters, plan.agent, plan.env
rival = replace(p.config, objective="discounted", rho="ratio", total_timesteps=p.compare_timesteps).resolve()
mxnb.show.budget(plan)

# %% [markdown]
# ## From a discount to a gain
#
# PPO adds up discounted rewards. On a stream that never ends, the plain sum of rewards has no limit, and the discount
# $\gamma$ is what keeps it finite. There is another way: subtract the gain $\rho$ from every reward. What is left sums
# to something finite, the **bias**
#
# $$h(s) = \mathbb{E}\Big[\sum_{t=0}^{\infty} (r_t - \rho)\Big].$$
#
# It says how much more than $\rho$ a step is still to come. With $\gamma$ near 1 the discounted value is
# $\rho / (1 - \gamma) + h(s)$, nearly: one large number that is the same everywhere, and on top of it $h$, which alone
# decides what to do.

# %% [markdown]
# ## Gain and bias, by hand
#
# Two states and no choice. State 0 pays 1 and is left with probability 0.3; state 1 pays nothing and is left with
# probability 0.1. In the long run as many steps lead out of state 0 as into it, $0.3\,\mu_0 = 0.1\,\mu_1$, so the stream
# is in state 0 for a quarter of the time: $\rho = 0.25$.
#
# The bias obeys
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
# ## ... and by learning
#
# The solver needs the table. **Differential TD** only walks along. At each step it compares what came with what $\rho$
# and $V$ expected,
#
# $$\delta = r - \rho + V(s') - V(s).$$
#
# A positive surprise says that both were too low, so both are raised: $V(s)$ by $\alpha\,\delta$, and $\rho$ by
# $\eta\,\alpha\,\delta$, where $\alpha$ is the step size and $\eta$ says how fast $\rho$ moves beside $V$.

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
# Both arrive and then wobble, because the step size stays the same. A smaller one wobbles less and arrives later.

# %% [markdown]
# ## The price of a death
#
# Now something worth surviving for. Alive, a step pays 1. After a death come $R$ empty steps that pay nothing, then a
# new life. With lives of $L$ steps the gain is
#
# $$\rho = \frac{\mathbb{E} L}{\mathbb{E} L + R},$$
#
# so for every $R > 0$ the policy with the longest mean life is the best one. And what does a death cost? With $k$ empty
# steps left, $h = \mathbb{E}\,h(\text{new life}) - \rho k$: a death costs $\rho R$ more than a new life at once. We
# choose $R$; its price follows.
#
# A small problem with a choice. **Safe** pays 0.3 a step. **Risky** pays 0.5, but once in fifty times it falls into 60
# empty steps: on average $0.5 \cdot 50 / 110 = 0.227$. Safe is right.

# %%
risk = chains.risk()
always_safe = np.eye(2)[np.zeros(61, int)]
right = tabular.evaluate_policy(risk, always_safe)
gap = np.diff(tabular.advantages(risk, right)[0])[0]
price = right.bias[0] - right.bias[1]
print(f"gain of safe {right.gain:.3f}; a risky step pays 0.2 more and risks {price:.1f} in one of 50")
print(f"advantage of risky over safe: {gap:+.3f}")

# %% [markdown]
# ## How the agent learns it
#
# It is PPO, and one thing is different: how advantages are made. A step's surprise takes the gain into account, and a
# transition of $\tau$ steps owes it $\tau$ times ($\tau$ is 1, unless a death and its empty steps are told as one
# transition):
#
# $$\delta_t = r_t - \rho\,\tau_t + V(s_{t+1}) - V(s_t), \qquad A_t = \delta_t + \lambda^{\tau_t} (1 - c_t) A_{t+1}.$$
#
# A death is a step like any other: $s_{t+1}$ is what follows it. A time limit or a win does cut ($c_t = 1$), for the jump
# to a new world is no transition of the task; there $V(s_{t+1})$ is that of the last observation. Without a discount,
# $\lambda$ alone sets how far credit reaches: about $1 / (1 - \lambda)$ steps.

# %%
mxnb.show.source(differential_gae)

# %% [markdown]
# Two things keep it in place. $\rho$ is a moving average of rewards over one of steps, brought up to date *before* the
# surprises are computed: an error $e$ in it would move every target of the critic by $e$ at each step. And the targets
# are shifted to mean 0, since nothing else holds the free constant of $V$.

# %% [markdown]
# ## The bug: cutting at death
#
# Episodic code says: a death ends the episode, so the value after it is 0. Where the task does end there, that is right,
# with a discount or without. This stream goes on, and 0 is a number on a scale without an origin: the price of the fall
# becomes $V(\text{alive})$, whatever constant the critic holds there, instead of $\rho R = 18$.
#
# Below, what the risky step looks worth for every constant: once with the fall's true value, once with 0 after it.

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
# With the bug, a critic whose values lie left of the crossing takes the risk, and one whose values lie right of it does
# not: an accident decides. Let two agents learn it, ours and ours with the bug put back in.
#
# The network is a table: linear in what is seen, which is whether one is alive, and the share of empty steps left. It can
# hold the exact values, so nothing but the advantages is to blame.


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


# %% [markdown]
# The bug in three lines: the step that dies (the next one is empty) is cut, and what follows it is worth 0. (A death on the
# last step of a rollout escapes it; there are few.)

# %%
ours = algorithm.advantages


def cut_at_death(config, transitions, last_value, rho):
    t = transitions
    died = (t.weight > 0) & (jnp.append(t.weight[1:], t.weight[-1:], 0) == 0)
    return ours(config, t._replace(truncated=t.truncated | died), last_value, rho)


# %%
fall = chains.from_table("risk", chains.MDP(np.ones((1, 2, 1)), np.array([[0.3, 0.5]])), death=[[0.0, 0.02]])
task = survival(fall, 60, reward="native")
updates = 300
_, gains_of_ours = learn(task, 2, updates, anneal_lr=False)
with patch.object(algorithm, "advantages", cut_at_death):
    _, gains_of_bug = learn(task, 2, updates, anneal_lr=False)


def by_tens(gains):
    """Updates and mean gains, a point for every ten updates."""
    return np.arange(0, updates, 10) + 5, np.asarray(gains).reshape(-1, 10).mean(1)


falls = mxnb.show.lines(
    {"ours": by_tens(gains_of_ours), "cut at death": by_tens(gains_of_bug)},
    title="Safe or risky",
    xlabel="updates",
    ylabel="reward per step",
    levels={"always safe 0.3": 0.3, "always risky 0.227": 0.5 * 50 / 110},
)
falls

# %% [markdown]
# Both begin by liking the risk, for it pays at once. Then the critic of one finds out what a fall costs.

# %% [markdown]
# ## Two problems with known answers
#
# **Access control.** Ten servers; customers pay 1, 2, 4 or 8; a busy server is free again with probability 0.06 a step.
# Whom to let in? **River swim.** Six states in a row; drifting pays 0.005 at one end, and swimming against the current
# pays 1 at the other.
#
# Both have exact answers by **relative value iteration**: sweep $h \leftarrow \max_a (r + P h)$ and subtract what one state
# gained, until all states gain the same: that is $\rho$. (Half steps keep it from swinging where a chain is periodic.)

# %%
mxnb.show.source(tabular.relative_value_iteration)

# %%
problems = {"access control": chains.access_control(), "river swim": chains.river_swim()}
simple = {"access control": ("lets all in", 1), "river swim": ("drifts", 0)}
best = {name: tabular.relative_value_iteration(table) for name, table in problems.items()}
states, gains = {}, {}
for name, table in problems.items():
    states[name], gains[name] = learn(chains.from_table(name, table), 2, updates, anneal_lr=False)

# %%
policies, found = {}, {}
print(f"{'problem':<16} {'best':>8} {'learned':>8} {'estimate':>9} {'uniform':>8}   one who ...")
for name, table in problems.items():
    logits = np.asarray(states[name].policy["params"]["logits"]["kernel"], float)
    policies[name] = tabular.softmax(logits)
    found[name] = tabular.evaluate_policy(table, policies[name])
    words, action = simple[name]
    uniform, one = np.full((len(logits), 2), 0.5), np.eye(2)[np.full(len(logits), action)]
    rest = [tabular.evaluate_policy(table, policy).gain for policy in (uniform, one)]
    numbers = (best[name][0], found[name].gain, float(states[name].gain.rho), rest[0])
    print(f"{name:<16} " + " ".join(f"{number:8.4f}" for number in numbers) + f"    {words}: {rest[1]:.4f}")

# %% [markdown]
# "Learned" is the exact gain of the policy as it is sampled, "estimate" what the agent believes it earns.

# %%
ways = mxnb.show.lines(
    {name: (by_tens(g)[0], 100 * by_tens(g)[1] / best[name][0]) for name, g in gains.items()},
    title="Learning two problems with known answers",
    xlabel="updates",
    ylabel="reward per step, % of the best",
    levels={"the best policy": 100.0},
)
ways

# %% [markdown]
# The river begins near nothing: who swims at random hardly ever gets to the top. Once it was there a few times, the agent
# knows where to go. The second row says where it then spends its time; choices in states that it never sees are free.

# %%
swims = np.stack([policies["river swim"][:, 1], found["river swim"].stationary])
river = mxnb.show.grid(
    swims, ["swims upstream", "time spent here"], range(1, 7), title="The river, in percent", xlabel="state"
)
river

# %% [markdown]
# And here is whom it lets in, beside the best policy. Who pays 1 is turned away: the server may earn 8 tomorrow.

# %%
names = [f"pays {pay:.0f}{who}" for pay in chains.PRIORITIES for who in ("", ", best")]
doors = [policies["access control"], tabular.greedy(best["access control"][2])]
accepted = np.stack([d[:, 1].reshape(chains.SERVERS + 1, 4).T[:, 1:] for d in doors], 1).reshape(8, chains.SERVERS)
door = mxnb.show.grid(
    accepted, names, range(1, chains.SERVERS + 1), title="Let in, in percent of the cases", xlabel="free servers"
)
print(f"time spent with 6 free servers or more: {found['access control'].stationary[24:].sum():.1%}")
door

# %% [markdown]
# With many free servers it still lets some in whom the best policy refuses. It is hardly ever there, so it has seen little
# of it, and loses little by it.

# %% [markdown]
# ## Stay alive on Craftax
#
# The same agent with a memory (a gated recurrent unit) on Craftax-Classic: each step alive pays 1, a death costs
# `r_reset` empty steps, and the game's own rewards are ignored. Lives start out of step: each environment first takes a
# random number of random steps. Otherwise all would be young at once, and the first gains too high.

# %%
live = mxnb.show.live_curves()
result = mxnb.fit(agent, p.run_dir, seed=p.seed, resume=p.resume, save_minutes=1, hooks=[live])
if result.status != "done":
    raise KeyboardInterrupt("interrupted and saved; run all cells again to go on")

# %% [markdown]
# The return is now the mean length of the lives that ended: it should rise. Entropy falls as the agent makes up its mind;
# below the dashed line it would have stopped to try things.

# %%
curve = mxnb.show.curves(result.run_dir)
mxnb.show.save(curve, result.run_dir / "figures" / "curves.png")
curve

# %%
mxnb.show.health(result.run_dir)

# %% [markdown]
# What the agent believes it earns, beside what each batch really paid. The belief lags behind on purpose: one batch holds
# few deaths.

# %%
rows = mxnb.show.read_metrics(result)
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
# ## How long does it live?
#
# Curves of training say little of lives that go on, so let us play lives from their first step to their last.
#
# For comparison: random play, doing nothing at all (in Craftax that is better than random play), and the same agent with
# the discount of its configuration instead of the gain. That one trains for `compare_timesteps`; who changes the one
# budget should change the other.

# %%
from mxnb.evaluate import evaluate, noop_policy, random_policy

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
# The gain's interval comes from renewal theory: lives are independent, so $z_i = L_i - g\,(L_i + R\,d_i)$ have mean 0
# ($d_i$ is 1 where life $i$ ended in death), and the standard error is $\sqrt{\overline{z^2} / n}$ over the mean of
# $L + R\,d$. Lives that the clock cut off are counted too; without them, the longest would be missing.
#
# The intervals are over lives, not over trainings: another seed may well train an agent that lies outside.

# %% [markdown]
# The **survival curve** shows the share of lives that still go on after so many steps (Kaplan and Meier's estimate, which
# knows what to do with lives that were cut off). Where it crosses 50 % is the median life.

# %%
curves = mxnb.show.survival(played)
mxnb.show.save(curves, result.run_dir / "figures" / "survival.png")
curves

# %% [markdown]
# ## Watch it live
#
# One life. Its values lie around 0, since only differences count: look at when they fall, for that is when the agent sees
# its death come.

# %%
from mxnb.evaluate import record

episode = record(players["average reward"], env, jax.random.key(p.seed + 1), max_steps=300)
print(f"the recorded life: {episode.rewards.sum():.0f} steps alive of the first {len(episode.actions)}")
if episode.frames is not None:
    strip = mxnb.show.filmstrip(episode)
    mxnb.show.save(strip, result.run_dir / "figures" / "episode.png")
    display(strip)

# %% [markdown]
# The same, playing: press ▶, or click into it and use the arrow keys. Its frames lie in the page, so it needs no kernel: it
# plays on while a cell is running, and in exported HTML. Beside the frame, or below it on a phone, are reward, value and
# entropy of every step; click there to go to one.

# %%
watched = None if episode.frames is None else mxnb.show.Playback((episode,), "A life of the average-reward agent")
watched

# %% [markdown]
# ## Three exercises
#
# Write the missing lines, run the cell, then run the check below them. An exercise left open says so and harms nothing.
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


# %% [markdown]
# **3. What follows.** Where do those values come from? `value[t]` is that of the observation before step `t`, `last` that
# after the rollout's last step, `final[t]` that of the observation which step `t` led to, given where a limit cut; `died`
# and `limit` say where a step ended so. Return the value `[T]` of what follows each step.


# %%
def next_values(value, last, final, died, limit):
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


cases = [(0.05, 60), (0.01, 30)]
tables = [tabular.evaluate_policy(chains.hazard((p_,), R), np.ones((R + 1, 1))) for p_, R in cases]
answers = [gain_and_price(p_, R) for p_, R in cases]
check(
    1,
    None if answers[0] is None else answers,
    [(table.gain, table.bias[0] - table.bias[1]) for table in tables],
    "A life takes 1 / p steps on average; and the price follows from the gain.",
)
rng = np.random.default_rng(0)
arrays = [jnp.asarray(rng.normal(size=8), jnp.float32) for _ in range(3)]
taken = jnp.array([1.0, 1.0, 51.0, 1.0, 1.0, 51.0, 1.0, 1.0])
check(
    2,
    surprise(*arrays, taken, 0.7),
    differential_td(*arrays, taken, jnp.float32(0.7)),
    "A transition that takes 51 steps owes the gain 51 times.",
)
value, final, _ = arrays
died, limit = jnp.arange(8) == 2, jnp.arange(8) == 5
check(
    3,
    next_values(value, 0.5, jnp.where(limit, final, 0.0), died, limit),
    np.where(limit, final, np.append(value[1:], 0.5)),
    "A death has a next state like any other step; a limit has only its final observation.",
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
# - `overrides = {"r_reset": 500}`: ten times as many empty steps. By what factor does the price $\rho R$ rise? The best
#   policy is the same; is it learned as fast?
# - `overrides = {"chain": "collapsed"}`: the empty steps are not played. The same gain, and more lives in the same time.
# - `overrides = {"recurrent": False}`: how much does memory matter for staying alive?
# - `overrides = {"rho": "td"}`: the gain learned from the surprises instead of from the rewards.
# - `env_id = "cartpole-v1"`: a pole that falls is a death. How long does it stand?
# - Headless: `papermill notebooks/03_average_reward.ipynb out.ipynb -p preset cpu -p seed 3`.

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
# # Environment checks
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mxnb/blob/main/notebooks/01_env_checks.ipynb)
#
# Press **Run all**. You see what this machine has, whether every environment keeps its contract, what the action
# masks say on pictures, how fast the environments step and reset, and how to bring your own in twenty lines.
#
# Nothing is trained here. When an agent does not learn, this is the first notebook to run.

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
run_dir = ""  # @param {type:"string"}
resume = True  # @param {type:"boolean"}
overrides = {}  # any EnvChecksConfig field, for example {"num_envs": 256}

# %% [markdown]
# The cell above has the same names in every notebook. Here nothing is trained, so `total_timesteps` stays 0.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import mxnb
from mxnb.config import ENV_IDS, use_compilation_cache
from mxnb.envs.check import EnvChecksConfig

p = mxnb.parameters(EnvChecksConfig, notebook="01_env_checks")
use_compilation_cache()
env = mxnb.make(p.config.env_id)

# %% [markdown]
# ## What is here
#
# Devices and versions. A wrong jax beside a right GPU is the most common reason for a slow run: if the device
# below says `cpu` and you expected another, mend that first.

# %%
from importlib.metadata import version

for device in jax.devices():
    print(f"{device.platform}: {device.device_kind}")
print(", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "gymnax", "craftax")))

# %% [markdown]
# ## The contract
#
# An environment here is a record of pure functions on one state, without batches and without resets of its own:
#
# $$\text{reset}(k) \to (o, s) \qquad \text{step}(k, s, a) \to (o', s', r, \text{terminated}, \text{truncated}, \text{info})$$
#
# `terminated` says that the future is worth nothing, `truncated` that somebody stopped the clock. Agents rely on
# that difference, on shapes and types that never change, on masks that leave something to do, on randomness that
# comes from the key alone. `mxnb.check` looks at each rule and says what to mend.

# %%
report = mxnb.check(env)
print(report)

# %% [markdown]
# And the others: all of them, or in the small presets (`check_all` False) one of each kind. A row is an environment,
# a column a rule; grey means that the rule was not looked at.

# %%
few = ["cartpole-v1", "pendulum-v1", "breakout-minatar", "probe-mask-v0"]  # one of each kind, where time is short
chosen = [name for name in (ENV_IDS if p.config.check_all else few) if name != env.spec.id]
reports = [report] + [mxnb.check(mxnb.make(name), unjitted=False) for name in chosen]
for broken in (r for r in reports if not r.ok):
    print(broken)
assert all(r.ok for r in reports)
mxnb.show.checks(reports)

# %% [markdown]
# ## Masks, with their reasons
#
# In most states of Craftax most actions do nothing. The mask says which can have an effect right now, and the rule
# is strict: an action is masked exactly when it does what NOOP does, for every random key. So a mask hides nothing.
#
# Here is a player of Craftax-Classic at the start of an episode, with the reason beside each masked action.

# %%
from mxnb.envs.check import random_action
from mxnb.evaluate import random_policy, record

names = env.spec.action_names or [str(action) for action in range(env.spec.num_actions)]
is_classic = env.spec.id.startswith("craftax-classic")
reset, step, mask_of = jax.jit(env.reset), jax.jit(env.step), jax.jit(env.action_mask)
obs, state = reset(jax.random.key(p.seed))


def reasons(state, table=False):
    """Why Craftax-Classic masks what it masks here, in a few words."""
    has = state.inventory
    missing = {"wood": has.wood, "stone": has.stone, "iron": has.iron}
    words = {"sleep": "not tired", "place_plant": "no sapling", "do": "nothing in reach"}
    words |= {"place_stone": "no stone", "place_table": "no wood", "place_furnace": "no stone"}
    for name in (n for n in names if n.startswith("make_")):
        material = name.split("_")[1]
        words[name] = "no table near" if not table else f"no {material}" if not missing[material] else "nothing new"
    words |= dict.fromkeys(("left", "right", "up", "down"), "blocked")
    return dict.fromkeys(names, "asleep") if state.is_sleeping else words


if env.spec.num_actions:
    words = reasons(state) if is_classic else None
    display(mxnb.show.mask_picture(env.render(state), mask_of(state), names, reasons=words))

# %% [markdown]
# Give the player wood and a table, and crafting opens; put it to sleep, and only NOOP is legal. Both states are
# edits of the one above.

# %%
if is_classic:
    from craftax.craftax_classic.constants import BlockType

    row, column = state.player_position
    table = state.map.at[row, column + 1].set(BlockType.CRAFTING_TABLE.value)
    crafting = state.replace(map=table, inventory=state.inventory.replace(wood=jnp.int32(3)))
    asleep = crafting.replace(is_sleeping=jnp.array(True))
    for at, near in ((crafting, True), (asleep, True)):
        display(mxnb.show.mask_picture(env.render(at), mask_of(at), names, reasons=reasons(at, near)))
    for words, at in (("at the start", state), ("with wood and a table", crafting), ("asleep", asleep)):
        print(f"{words}: {int(mask_of(at).sum())} of {len(names)} actions are legal")
    assert mask_of(crafting)[names.index("make_wood_pickaxe")] and not mask_of(state)[names.index("make_wood_pickaxe")]
    assert mask_of(asleep).sum() == 1

# %% [markdown]
# Proof rather than words: take the state above, try every action with the same key, and compare with NOOP. (A legal
# action may still need luck: DO on grass finds a sapling in one of ten tries, so it can be missing below.)

# %%
if is_classic:
    key = jax.random.key(p.seed + 1)

    def outcome(action):
        return jax.tree.leaves(step(key, crafting, jnp.int32(action))[1].replace(state_rng=None))

    does_something = [any((a != b).any() for a, b in zip(outcome(i), outcome(0))) for i in range(len(names))]
    for i, name in enumerate(names):
        if does_something[i]:
            print(f"{name:<20} has an effect   {'legal' if mask_of(crafting)[i] else 'MASKED: a bug'}")
    assert all(mask_of(crafting)[i] for i in range(len(names)) if does_something[i])

# %% [markdown]
# ## Resets at nearly the price of none
#
# A vectorised environment must reset those members whose episode ended. The usual way makes a new world for every
# member on every step and throws nearly all of them away. Here a queue of ready worlds rides along in the state: a
# finished member takes the next one, each world is used once, and new ones are made only when the queue is empty.
#
# First, what one of each costs here:

# %%
import time


def milliseconds(fn, *args, repeats=20):
    jax.block_until_ready(fn(*args))
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(fn(*args))
    return 1000 * (time.perf_counter() - start) / repeats


action = random_action(env.spec, jax.random.key(0), None)
print(f"one reset: {milliseconds(reset, jax.random.key(0)):.2f} ms")
print(f"one step:  {milliseconds(step, jax.random.key(0), state, action):.2f} ms")

# %% [markdown]
# Then the same random actions, with three ways of resetting:

# %%
from mxnb.envs.vector import vectorise

num_envs, num_steps = p.config.num_envs, p.config.num_steps


def auto_reset(state, keys, actions):
    """A world per member per step, as most JAX environments do it."""
    obs, after, reward, terminated, truncated, _ = jax.vmap(env.step)(keys, state, actions)
    fresh = jax.vmap(env.reset)(keys)[1]
    done = terminated | truncated
    keep = lambda new, old: jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    return jax.tree.map(keep, fresh, after), obs.sum() + reward.sum()


def no_reset(state, keys, actions):
    obs, after, reward, *_ = jax.vmap(env.step)(keys, state, actions)
    return after, obs.sum() + reward.sum()


venv = vectorise(env, num_envs)


def queue(state, keys, actions):
    state, tick = venv.step(state, actions)
    return state, state.obs.sum() + tick.reward.sum()


def steps_per_second(tick, state, steps):
    def one(state, key):
        keys = jax.random.split(key, num_envs)
        actions = jax.vmap(lambda k: random_action(env.spec, k, None))(keys)
        return tick(state, keys, actions)

    run = jax.jit(lambda state, key: jax.lax.scan(one, state, jax.random.split(key, steps)))
    run = run.lower(state, jax.random.key(0)).compile()
    times = []
    for i in range(4):  # the first one warms up; the fastest of the others counts
        start = time.perf_counter()
        state, _ = jax.block_until_ready(run(state, jax.random.key(i)))
        times.append(time.perf_counter() - start)
    return num_envs * steps / min(times[1:])


vec = jax.jit(venv.init)(jax.random.key(p.seed))
rates = {
    "no resets at all (the upper mark)": steps_per_second(no_reset, vec.env, num_steps),
    "world queue (exact)": steps_per_second(queue, vec, num_steps),
    "a world per member per step": steps_per_second(auto_reset, vec.env, max(4, num_steps // 16)),
}
mxnb.show.speed(rates, f"{env.spec.id}, {num_envs} in step")

# %% [markdown]
# The first bar is an upper mark and no way to train: its finished members go on for ever.
#
# ## The same key, the same bits
#
# Everything random comes from the key. So two runs agree to the last bit, on the same machine with the same
# program, and an experiment can be repeated.

# %%
import hashlib


def fingerprint(seed):
    vec = init(jax.random.key(seed))
    for t in range(8):
        vec, tick = step_all(vec, jnp.asarray(actions[t]))
    leaves = [np.asarray(x) for x in (vec.obs, tick.reward, vec.returns)]
    return hashlib.sha256(b"".join(x.tobytes() for x in leaves)).hexdigest()[:16]


init, step_all = jax.jit(venv.init), jax.jit(venv.step)
action_keys = jax.random.split(jax.random.key(7), (8, num_envs))
actions = np.asarray(jax.vmap(jax.vmap(lambda k: random_action(env.spec, k, None)))(action_keys))
once, again, other = fingerprint(p.seed), fingerprint(p.seed), fingerprint(p.seed + 1)
print(f"seed {p.seed}: {once}\nseed {p.seed}: {again}\nseed {p.seed + 1}: {other}")
assert once == again and (other != once or not is_classic)

# %% [markdown]
# ## A random episode
#
# Below each frame: the step and the action about to be taken, drawn from the legal ones.

# %%
if env.spec.num_actions:
    episode = record(random_policy(env.spec, use_mask=True), env, jax.random.key(p.seed), max_steps=100)
    print(f"{len(episode.actions)} steps, return {episode.rewards.sum():.1f}")
    if episode.frames is not None:
        display(mxnb.show.filmstrip(episode))

# %% [markdown]
# ## Bring your own
#
# Some twenty lines: a state, a reset, a step, a Spec. A walker on a line wants to reach the right end; the left end is a
# wall, and the mask forbids running into it.

# %% tags=["bring-your-own"]
from flax import struct

from mxnb.envs.api import Env, Spec


@struct.dataclass
class Walker:
    x: jax.Array
    t: jax.Array


def look(s):
    return jnp.stack([s.x / 5, s.t / 50]).astype(jnp.float32)


def walker_reset(key):
    s = Walker(jax.random.randint(key, (), -2, 3), jnp.int32(0))
    return look(s), s


def walker_step(key, s, action):
    s = Walker(jnp.maximum(s.x + 2 * action - 1, -3), s.t + 1)
    terminated = s.x == 5
    truncated = (s.t >= 50) & ~terminated
    return look(s), s, terminated.astype(jnp.float32), terminated, truncated, {}


walker = Env(
    Spec("walker-v0", obs_shape=(2,), num_actions=2, action_names=("left", "right"), max_steps=50),
    walker_reset,
    walker_step,
    action_mask=lambda s: jnp.stack([s.x > -3, jnp.array(True)]),
)
checked = mxnb.check(walker)
print(checked)
assert checked.ok

# %% [markdown]
# `vectorise(walker, 64)` steps sixty-four of them, and `mxnb.agents.ppo.ppo(config, walker)` trains on it. An
# environment of gymnax needs no lines at all: `mxnb.envs.gymnax_envs.from_gymnax(env, params)`.
#
# What does a broken one look like? Let the reward be a logarithm that can reach zero:

# %%
from dataclasses import replace


def broken_step(key, s, action):
    obs, s, reward, *rest = walker_step(key, s, action)
    return obs, s, jnp.log(reward), *rest


broken = mxnb.check(replace(walker, step=broken_step))
print(broken)
assert not broken.ok

# %% [markdown]
# ## What to try next
#
# - Break the walker in another way (return `terminated` as a number, forget the cast in `look`) and read what
#   `mxnb.check` says.
# - Set `env_id` to `craftax-v1` above: 43 actions, nine floors, and masks for ladders, spells and potions. On a CPU it
#   compiles for several minutes.
# - Look at `mxnb.envs.probes`: eight environments with known answers, each of which one kind of mistake fails. Run
#   them before you believe a change to an agent.
# - Then train: `02_masked_ppo`.

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
# # Memory: what fits, and how fast it is
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mxnb/blob/main/notebooks/05_memory_tuning.ipynb)
#
# How large may a run be on the device in front of you? This notebook asks the compiled programs themselves, before
# anything is allocated: where the bytes go, which setting moves them, what each size costs in speed, and what to do
# when it does not fit. It trains nothing.
#
# Press **Run all**. It measures the device it runs on. The pictures that compare sizes also mark the 7.84 GiB that are planned
# for on a free Colab T4 (0.7 of the 11.2 that JAX has there), on a laptop too.
#
# Most of the time goes into compiling some forty programs, so the second run on a machine is much quicker than the first.

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
sizes = 0  # @param {type:"integer"}
run_dir = ""  # @param {type:"string"}
resume = True  # @param {type:"boolean"}
overrides = {}  # any PPOConfig field, for example {"num_envs": 256}

# %% [markdown]
# `sizes` is how many values of each setting are tried, each twice the one before, and how many presets are drawn beside
# yours; 0 leaves it to the preset. The other
# names are the same in every notebook. Nothing is trained, so `total_timesteps` stays 0.

# %%
import time
from dataclasses import replace
from statistics import median

import jax
import jax.numpy as jnp

import mxnb
from mxnb.agents.dreamer import DreamerConfig
from mxnb.agents.ppo import PPOConfig, ppo
from mxnb.config import make_config

p = mxnb.parameters(
    PPOConfig,
    notebook="05_memory_tuning",
    extra=["sizes"],
    expect="trains nothing; on 2 CPU cores the first run takes about 15 minutes (measured), on a T4 nobody has taken the time",
)
figures = p.run_dir / "figures"

# %% [markdown]
# First a look at the machine: one row for each thing that goes wrong often, and for a red one what to do about it.

# %%
mxnb.doctor()

# %% [markdown]
# ## A budget before the run
#
# XLA plans every buffer of a program when it compiles it. So the need is known before the first step:
#
# $$\text{peak} = \text{arguments} + \text{outputs} + \text{temporaries} - \text{what is used twice}.$$
#
# The arguments are the run's **state**: parameters, the optimiser's moments, the environments, a replay. Everything else is
# **work**: the rollout, activations, gradients. Used twice is what is donated: the new state is written over the old one.
#
# JAX takes 75 % of a GPU's memory at first use. A run here is planned to stay under 0.7 of that, since evaluation, cuBLAS and
# fragments want room as well.

# %%
plan = mxnb.plan(p)
p, env = plan.parameters, plan.env
budget_bar = mxnb.show.budget(plan)
mxnb.show.save(budget_bar, figures / "budget.png")
budget_bar

# %% [markdown]
# `mxnb.plan(p, "T4")` does the same for a T4 that is not here. The programs are then compiled for the device that is, so the
# answer is an estimate; nobody has held it against a real T4 yet.
#
# ## What an observation costs
#
# PPO keeps a whole rollout. Observations are most of it:
#
# $$\text{num\_steps} \times \text{num\_envs} \times \text{entries} \times 4 \text{ bytes}.$$
#
# Craftax's symbols are nearly all 0 or 1. mxnb stores those as single bits and the few real numbers as they are. For 1024
# environments and 64 steps that makes:

# %%
from mxnb.kernels.packing import pack


def rollout_bytes(spec, num_envs=1024, num_steps=64):
    """Bytes of a rollout's observations as float32, and as they are stored."""
    obs = jax.ShapeDtypeStruct((num_steps, num_envs, *spec.obs_shape), jnp.float32)
    packed = jax.eval_shape(lambda x: pack(x, spec.num_binary, spec.obs_shape), obs)
    return obs.size * 4, sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(packed))


for name in ("craftax-classic-v1", "craftax-v1"):
    plain, stored = rollout_bytes(mxnb.make(name).spec)
    print(
        f"{name:<20} {plain / 1e9:5.2f} GB as float32, {stored / 1e9:6.3f} GB packed: {plain / stored:.0f} times less"
    )

# %% [markdown]
# ## Levers
#
# Each lever buys memory with something else. The bars show one PPO run with one lever moved at a time.
#
# - **Packed rollouts** cost nothing that we could measure: they take time to unpack, and less memory is moved.
# - **Donation** costs nothing: the old state's buffers are used for the new one.
# - **Parts** (`num_microbatches`): a minibatch goes through the network in pieces and the gradients are added. The same batch,
#   fewer activations at once, for one more forward pass.
# - **Half the environments** is a smaller batch: another run, not the same one in less memory.

# %%
from mxnb.run.memory import LIMITS, SHARE, measure

T4 = {"T4": SHARE * LIMITS["T4"]}


def measured(config, environment=None, **options):
    """The budget of one configuration's updates; with another environment, or without donation."""
    config = config.resolve()
    agent = mxnb.build(config)[0] if environment is None else ppo(config, environment)
    return measure(agent, begin=False, **options)


unpacked = replace(env, spec=replace(env.spec, num_binary=0))
levers = {
    "as it is": measured(p.config),
    "not packed": measured(p.config, unpacked),
    "not donated": measured(p.config, donate=False),
    "in twice as many parts": measured(replace(p.config, num_microbatches=2 * p.config.num_microbatches)),
    "half the environments": measured(replace(p.config, num_envs=p.config.num_envs // 2)),
}
lever_bars = mxnb.show.budgets(levers, f"PPO, {p.config.num_envs} x {p.config.num_steps} steps", T4)
mxnb.show.save(lever_bars, figures / "levers_ppo.png")
lever_bars

# %% [markdown]
# Dreamer spends its bytes elsewhere. The replay is state. The work is mostly the world model's over the replayed rows, whose
# inner values are kept for the way back; then actor and critic on the imagined states. **Computing again** (`remat`) keeps of the
# former only what passes from step to step and does the rest twice. Fewer **starts** shrink the latter.

# %%
dream = make_config(DreamerConfig, preset=p.preset, env_id=p.config.env_id, total_timesteps=10**7)
dream = mxnb.plan(replace(dream, origins={}), shrink=True).config  # pixels, say, may need a smaller replay
dreamer_levers = {
    "as it is": measured(dream),
    "computing again": measured(replace(dream, remat=True)),
    "half the starts": measured(replace(dream, starts=dream.starts // 2)),
}
title = f"Dreamer, {dream.batch_size} x {dream.num_steps} rows, {dream.starts} starts"
dreamer_bars = mxnb.show.budgets(dreamer_levers, title, T4)
mxnb.show.save(dreamer_bars, figures / "levers_dreamer.png")
dreamer_bars

# %% [markdown]
# Under preset `auto`, `mxnb.plan` pulls them in this order, as far as each helps, and prints what it does:
#
# | lever | agents | another result? |
# |---|---|---|
# | a smaller replay | `dreamer` | yes |
# | more parts | `ppo`, `ppo_rnn`, `average_reward` | no, but for rounding |
# | computing again | `ppo_rnn`, `average_reward`, `dreamer` | no |
# | fewer starts, then fewer sequences | `dreamer` | yes |
# | half the environments | all | yes: a smaller batch |
# | half the network | all | yes |
#
# What you set yourself stays as you set it.
#
# ## Presets
#
# The same for presets of both agents, compiled for this device.

# %%
from mxnb.presets import NAMES, PRESETS

drawn = dict.fromkeys([p.preset, *("cpu", "colab_t4_small", "colab_t4", "gpu", "tpu")[: p.sizes * (p.sizes > 1)]])

presets = {}
for config_class, name in ((PPOConfig, "PPO"), (DreamerConfig, "Dreamer")):
    for preset_name in drawn:
        presets[f"{name} {preset_name}"] = measured(
            make_config(config_class, preset=preset_name, env_id=p.config.env_id)
        )
preset_bars = mxnb.show.budgets(presets, "Presets", T4)
mxnb.show.save(preset_bars, figures / "presets.png")
preset_bars

# %% [markdown]
# ## Memory and speed, size by size
#
# How much larger is worth it? For each setting below, memory is read off the compiled programs, and the speed is measured: the
# median of three calls of half a second or more. What would not fit this device is not run.

# %%
from mxnb.run.program import first_state, updates


def sized(config, field, value):
    """The configuration with another size, and with what that size needs."""
    if getattr(config, field) == value:
        return config
    changed = {field: value, "total_timesteps": 10**9}  # enough for any
    if hasattr(config, "starts"):  # Dreamer imagines from replayed rows
        changed["starts"] = min(config.starts, config.batch_size * changed.get("num_steps", config.num_steps))
    return replace(config, **changed).resolve()


def tried(config, field, value):
    """One size: predicted peak in bytes, seconds to compile, and environment steps per second (None: does not fit)."""
    agent, _ = mxnb.build(sized(config, field, value))
    started = time.perf_counter()
    budget = measure(agent)
    row = {"field": field, "value": value, "peak": budget.peak, "compiling": time.perf_counter() - started}
    if not budget.fits:
        return row | {"steps_per_second": None}
    first, program = first_state(agent), updates(agent)  # made already: `measure` has handed them over
    state = first.call(jax.random.key(p.seed))
    state, _ = jax.block_until_ready(program.call(state, jnp.int32(1)))  # warms up
    for count in (1, 4, 16, 64, 256):  # as many updates in a call as take half a second
        started = time.perf_counter()
        state, _ = jax.block_until_ready(program.call(state, jnp.int32(count)))
        if time.perf_counter() - started > 0.5:
            break
    speeds = []
    for _ in range(3):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(program.call(state, jnp.int32(count)))
        speeds.append(count * agent.steps_per_update / (time.perf_counter() - started))
    return row | {"steps_per_second": median(speeds)}


def tried_all(config, fields):
    """A row for each size of each field: half of what the preset has, as much, twice, ... (from as much on, if 1 or 2)."""
    first = -1 if p.sizes > 2 else 0
    rows = {}
    for field in fields:
        for power in range(first, first + p.sizes):
            value = int(getattr(config, field) * 2**power)
            changed = (field, value) if power else ("", 0)
            if changed not in rows:
                rows[changed] = tried(config, field, value)
            yield rows[changed] | {"field": field, "value": value}


ppo_rows = list(tried_all(p.config, ("num_envs", "hidden_dim", "num_steps")))
ppo_sizes = mxnb.show.sizes(ppo_rows, {"T4: 7.84 GiB planned for": T4["T4"]})
mxnb.show.save(ppo_sizes, figures / "sizes_ppo.png")
ppo_sizes

# %% [markdown]
# Read the left column against the dashed line, the right one for where it flattens or falls. More environments use a wide
# device better until it is full. Longer rollouts are more memory for the same work. A wider network is more of both: its moments
# and gradients, and its matrix products. Speeds scatter on a shared machine, by a half now and then: a dent in one point is the
# machine's until a second run shows it too.
#
# Twice the environments or steps are another run, too: half as many updates for the same number of steps.

# %%
dreamer_rows = list(tried_all(dream, ("num_envs", "deter", "num_steps")))
dreamer_sizes = mxnb.show.sizes(dreamer_rows, {"T4: 7.84 GiB planned for": T4["T4"]})
mxnb.show.save(dreamer_sizes, figures / "sizes_dreamer.png")
dreamer_sizes

# %% [markdown]
# Dreamer's speed is set by learning, not by playing: `train_ratio` rows are replayed for each step of the game, whatever
# `num_envs` is. `deter` is the width of the world model's memory.
#
# ## What compiling needs
#
# Compiling has its own costs: seconds, and memory of the **host** (12.7 GB on a free Colab), not of the device. A kernel that dies
# before the first update has often run out of that. Two habits keep both low: nothing is unrolled in Python, and worlds are made
# a few at a time (`lax.map`) instead of all at once (`vmap`).

# %%
import resource
import sys

print(f"{'':<12} {'num_envs':>8} {'seconds':>8}")
for name, rows in (("PPO", ppo_rows), ("Dreamer", dreamer_rows)):
    for row in rows:
        if row["field"] == "num_envs":
            seen = (
                "  (this program was compiled further up)"
                if row["value"] in (p.config.num_envs, dream.num_envs)
                else ""
            )
            print(f"{name:<12} {row['value']:>8,} {row['compiling']:>8.1f}{seen}")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(f"this process has held at most {peak / 1e9:.1f} GB of the host's memory so far")

# %% [markdown]
# Few seconds mean that the program came out of the compile cache, which lies on disk (`~/.cache/mxnb/jax`) and, in Colab with Drive
# mounted, what `mxnb.plan` and `fit` compile goes to Drive too: their next run on such a device begins much sooner.
#
# ## Precision
#
# bfloat16 has float32's range at half the bytes, and only some hardware multiplies it.
#
# | device | bfloat16 | what to use |
# |---|---|---|
# | T4 (2018) | imitated: as slow as float32 at best, half as fast in older versions of XLA | float32 |
# | TPU v5e | native: 197 TFLOP/s a chip | `compute_dtype = "bfloat16"`; parameters stay float32 |
# | A100, H100, H200 | native, in tensor cores | the same |
# | CPU | imitated on most, native on some | float32 |
#
# mxnb keeps parameters, optimiser, losses and advantages in float32 always; only the layers of `ppo`, `ppo_rnn` and
# `average_reward` compute in `compute_dtype` (Dreamer has none), and on a T4 it refuses bfloat16. What this device makes of a chain of
# matrix products at jax's default precision, which is less than full float32 on a TPU and on GPUs from the A100 on:

# %%
side, chain, rates = 1024 if jax.devices()[0].platform == "cpu" else 4096, 16, {}
for dtype in (jnp.float32, jnp.bfloat16):
    a = jnp.eye(side, dtype=dtype)
    products = jax.jit(lambda x: jax.lax.fori_loop(0, chain, lambda i, y: y @ x, x)).lower(a).compile()
    products(a).block_until_ready()
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < 0.5:
        products(a).block_until_ready()
        calls += 1
    rates[jnp.dtype(dtype).name] = calls * chain * 2 * side**3 / (time.perf_counter() - started) / 1e9
speeds = mxnb.show.speed(rates, f"Products of {side} x {side} matrices", "billion operations per second (GFLOP/s)")
mxnb.show.save(speeds, figures / "precision.png")
speeds

# %% [markdown]
# ## When it does not fit
#
# Let us ask for too much on purpose: 262,144 games of Catch, 256 steps each, for a T4. Nothing is allocated; the programs are only
# compiled. `shrink` is what preset `auto` does by itself.

# %%
much = make_config(
    PPOConfig, env_id="catch-bsuite", num_envs=262_144, num_steps=256, hidden_dim=512, total_timesteps=10**9
)
much = replace(much, origins={})  # as if a preset had chosen these sizes: what is given by hand would stay
caught = mxnb.plan(much, "T4", shrink=True)
print(caught.budget)

# %% [markdown]
# If a run dies all the same with `RESOURCE_EXHAUSTED`, its folder says `oom` in `status.json`, and its last checkpoint, if there was
# one, is whole. Then, in this order:
#
# 1. Is something else on the device? Another notebook's kernel holds its 75 % until it is shut down; `nvidia-smi` shows it.
# 2. Let `preset = "auto"` choose, or take the next smaller preset. Other sizes are another run, with a folder of its own.
# 3. `num_microbatches` up, or `remat` on where the agent has it: the same result in less memory.
# 4. Fewer environments, or a smaller replay.
# 5. A larger share of the GPU for JAX: `XLA_CLIENT_MEM_FRACTION=0.85`, set before anything imports jax.
#
# ## One chunk under the profiler
#
# Memory says whether it runs; a trace says what it waits for. `jax.profiler.trace` writes down every operation of the compiled
# program. Below, one update with a short rollout is traced, and each operation's own time is added up by the function of mxnb that
# it came from.

# %%
short = replace(p.config, num_steps=16).resolve()
agent, _ = mxnb.build(short)
first, program = first_state(agent), updates(agent)
state = first.call(jax.random.key(p.seed))
state, _ = jax.block_until_ready(program.call(state, jnp.int32(1)))  # the first call is never typical
with jax.profiler.trace(p.run_dir / "trace"):
    jax.block_until_ready(program.call(state, jnp.int32(1)))
time_bars = mxnb.show.trace(p.run_dir / "trace", program.call)
mxnb.show.save(time_bars, figures / "trace.png")
time_bars

# %% [markdown]
# How to read it. `envs/craftax.py` is the game itself, `envs/vector.py` the resets, `networks` the network's layers forwards and
# backwards, `kernels` masks, returns and losses, `agents/ppo.py` what holds them together: rollout, minibatches, the optimiser. If the
# game leads, more environments at once pay. If networks and update lead, a smaller network or fewer epochs do. Copies are state that a
# loop carries along: small arrays copied often, as with few environments. A program that came out of the compile cache names the
# code of whoever compiled it first, a helper that several programs share the first of them, and with an older compiler the bars name files alone, those of flax and Craftax among them.
#
# The same trace opens on a time line in Perfetto (drag the file below into its page) or in XProf. Look for gaps: there the device waits
# for Python. Inside a chunk there are none, since a chunk is one program.

# %%
from mxnb.run.folder import shown

print(*(shown(path) for path in sorted((p.run_dir / "trace").rglob("*.trace.json.gz"))[-1:]))

# %% [markdown]
# ## The presets, and what is known of them
#
# Measured means that somebody ran it on that device and the figure stands in the repository. Everything else is an estimate until
# then. Peaks are of programs compiled for the device that this notebook runs on.

# %%
for name, table in PRESETS.items():
    for preset_name, fields in table.items():
        if name == "env_checks" or preset_name not in NAMES:
            continue
        known = presets.get(f"{'PPO' if name == 'ppo' else name.title()} {preset_name}")
        size = f"peak {known.peak / 2**30:.3f} GiB" if known else ""
        how = "measured" if "(measured)" in fields["expect"] else "estimated"
        print(f"{name} {preset_name}: {fields['num_envs']:,} x {fields['num_steps']}  {size}  [{how}]")
        print(f"    {fields['expect']}")

# %% [markdown]
# ## What to try next
#
# - `overrides = {"num_envs": 1024}` on a GPU: how far is the T4's line now, and where does the speed flatten?
# - `env_id = "craftax-v1"`: full Craftax, whose observations are six times as long. What does "not packed" need then?
# - `overrides = {"compute_dtype": "bfloat16"}` on a TPU or an A100: does "work" halve?
# - Replace `measured(p.config, donate=False)` by a lever of your own.
# - Headless: `papermill notebooks/05_memory_tuning.ipynb out.ipynb -f colab/t4.yaml`.

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
# # Sweep report: which of many runs is better, and how sure is that
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/mxnb/blob/main/notebooks/09_sweep_report.ipynb)
#
# A sweep runs one notebook many times, with other values and other seeds. This notebook reads the folder of a sweep and tells
# what came out of it: what is done and what failed, learning curves with bands, final results with intervals, which
# parameter mattered, and an episode of the best agent.
#
# Name a sweep's folder in `sweep_dir`; it may still be running. Name none and press **Run all**: a sweep of four tiny
# runs is then made before your eyes, in about a minute, and reported on.

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
env_id = "catch"  # @param {type:"string"}
total_timesteps = 0  # @param {type:"integer"}
sweep_dir = ""  # @param {type:"string"}
metric = ""  # @param {type:"string"}
run_dir = ""  # @param {type:"string"}
resume = True  # @param {type:"boolean"}
overrides = {}  # for the four runs of the example: any PPOConfig field but lr, for example {"ent_coef": 0.0}

# %% [markdown]
# `sweep_dir` is a folder such as `papermill_runs/ppo_entropy`, or its name alone. `metric` is what to judge by, higher being
# better: a name in the runs' `result.json`, such as `train/mean_reward`; left empty, it is the return of an episode. All
# other names speak of the example alone: its game, its steps, its first seed. It always uses preset `smoke` and the CPU, which is
# quicker than any accelerator for networks this small. The pictures go to `run_dir`.

# %%
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import jax
import nbformat
import numpy as np
import yaml

import mxnb
from mxnb.agents.ppo import PPOConfig
from mxnb.config import run_root

with redirect_stdout(io.StringIO() if sweep_dir else sys.stdout):  # of a sweep that is there, the example's say nothing
    p = mxnb.parameters(
        PPOConfig,
        notebook="09_sweep_report",
        extra={"sweep_dir": "", "metric": ""},
        expect="trains nothing but the example (preset smoke, whatever stands below): about a minute, 10 MB of disk",
    )

# %% [markdown]
# ## What can be swept
#
# Any notebook with a parameters cell, which says in its metadata which agent it trains. This is one, as small as it gets. The sweep
# puts `seed`, `run_dir` and the rest into the cell, and what the cell has no name for into `overrides`.

# %%
CELL = """preset = "auto"
seed = 0
env_id = ""
total_timesteps = 0
run_dir = ""
resume = True
overrides = {}"""

TRAIN = """import mxnb
from mxnb.agents.ppo import PPOConfig

p = mxnb.parameters(PPOConfig)
agent, env = mxnb.build(p.config)
mxnb.fit(agent, p.run_dir, seed=p.seed, resume=p.resume)"""


def tiny_notebook(path):
    """Writes the two cells above as a notebook."""
    new = nbformat.v4
    cells = [new.new_code_cell(CELL, metadata={"tags": ["parameters"]}), new.new_code_cell(TRAIN)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "mxnb": {"agent": "ppo"}}
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # the same bytes every time
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new.new_notebook(cells=cells, metadata=metadata), path)


# %% [markdown]
# What to vary stands in a YAML file: here two step sizes, each with two seeds. There is also `list` for sets of values that belong
# together, and `random` for values to be drawn; `papermill_runs/sweeps/` has examples. Every value is checked before the first
# run starts. A run is named by what decides its result, so a sweep that is started again does what is left.

# %%
plan = {
    "notebook": "tiny",
    "preset": "smoke",
    "parameters": {"env_id": env_id, "total_timesteps": total_timesteps or 16384, **overrides},
    "grid": {"lr": [3.0e-4, 3.0e-3]},
    "seeds": [p.seed, p.seed + 1],
}
if not p.sweep_dir:
    print(yaml.safe_dump(plan, sort_keys=False))

# %% [markdown]
# The sweep itself is one command. It keeps two runs going at a time, each a process of its own, and notes of each whether it is done,
# failed, ran out of memory or time, or was killed. `sweep resume`, `sweep table` and `sweep stop` go with it; on a Slurm
# cluster the same file is spread over machines.


# %%
def example(folder):
    """Runs what is left of the example and returns its folder."""
    tiny_notebook(folder / "notebooks" / "tiny.ipynb")
    file = folder / "papermill_runs" / "sweeps" / "example.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(plan, sort_keys=False))
    result = folder / "papermill_runs" / "example"
    if not p.resume and result.exists():
        earlier = len(list(result.parent.glob("example-before-*")))
        result.rename(result.with_name(f"example-before-{earlier + 1}"))
    command = [sys.executable, "-u", "-m", "mxnb", "sweep", "run", str(file), "--jobs", "2"]
    cpu = os.environ | {"JAX_PLATFORMS": "cpu"}  # the accelerator, if there is one, is this kernel's
    words = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=folder, env=cpu, **words) as child:
        said = []
        for line in child.stdout:
            print(line, end="")
            said.append(line)
    if not (result / "sweep.json").exists():
        raise RuntimeError("the example did not begin: " + "".join(said[-5:]))
    return result


def found(name):
    """The folder of a sweep: as a path from here or from the repository, or as a name in papermill_runs/."""
    root = run_root().parent
    places = [Path(name), root.parent / name, root / name]
    return next((place for place in places if (place / "sweep.json").exists()), Path(name))


sweep = found(p.sweep_dir) if p.sweep_dir else example(p.run_dir.resolve() / "example")
figures = p.run_dir / "figures" / sweep.name
asked = json.loads((sweep / "sweep.json").read_text())
varied = set().union(*(run["values"] for run in asked["runs"]))
params = {**asked["runs"][0]["params"], **asked["runs"][0]["params"].get("overrides", {})}
print(
    f"{sweep.name}: {len(asked['runs'])} runs of {Path(asked['notebook']).stem}, which vary {', '.join(sorted(varied))}"
)
print("all of them: ", {name: value for name, value in params.items() if name not in varied | {"overrides"}})

# %% [markdown]
# ## Where it stands
#
# First what is done and what is not, with the words of each failure. Nothing below waits for the rest: on a sweep that is half
# done, it speaks of that half.
#
# Look at the failures before the results. If the runs that diverge are those with a large step size, then the ones that are left
# make large steps look better than they are.

# %%
progress = mxnb.show.sweep_progress(sweep)
mxnb.show.save(progress.figure, figures / "progress.png")
progress

# %% [markdown]
# ## Learning curves
#
# A line for each set of values, its seeds together. With four seeds or more the line is the mean of the middle half of them, the
# **interquartile mean**, which one lucky or broken seed hardly moves:
#
# $$\text{IQM}(x) = \frac{1}{n - 2 \lfloor n/4 \rfloor} \sum_{i = \lfloor n/4 \rfloor + 1}^{n - \lfloor n/4 \rfloor} x_{(i)}.$$
#
# Its band holds the IQMs of 95 % of a thousand redraws of the seeds: where the line might have been with other seeds. It is no
# range for single runs, which scatter more. With fewer than four seeds the line is their mean and the band goes from the
# lowest to the highest, which promises nothing.

# %%
curves = mxnb.show.sweep_curves(sweep, metric=p.metric)
mxnb.show.save(curves, figures / "curves.png")
curves

# %% [markdown]
# In a large sweep, `mxnb.show.sweep_curves(sweep, by="lr")` pools all runs of one step size into one line.
#
# ## Why several seeds
#
# Two settings differ by as much as their seeds scatter: $\mu_A - \mu_B = \sigma$. With $n$ seeds each, the better one has the
# higher mean with probability
#
# $$P(\bar A > \bar B) = \Phi\left(\sqrt{n / 2} \; \frac{\mu_A - \mu_B}{\sigma}\right).$$
#
# With one seed each you pick the wrong one in a quarter of all cases; to be right in 95 % takes 6 seeds. And that is a large
# difference: at half of it, it takes 22.

# %%
from statistics import NormalDist

seeds = np.arange(1, 31)
right = lambda gap: [100 * NormalDist().cdf(gap * (n / 2) ** 0.5) for n in seeds]
chosen_right = mxnb.show.lines(
    {f"a difference of {gap:g} σ": (seeds, right(gap)) for gap in (1.0, 0.5, 0.25)},
    title="How often the better one looks better",
    xlabel="seeds each",
    ylabel="% of all comparisons",
    levels={"95 %": 95.0, "a coin": 50.0},
)
mxnb.show.save(chosen_right, figures / "why_seeds.png")
chosen_right

# %% [markdown]
# ## Final results
#
# The same at the end of the runs (their last tenth), the best set first. Intervals that overlap do not yet mean that two sets are
# alike, and a mean does not say how often one is better. The **probability of improvement** does
# (Agarwal et al. 2021, arXiv:2108.13264): of all pairs of a seed of $X$ and one of $Y$, the share in which $X$ is ahead, a tie
# counting half,
#
# $$P(X > Y) = \frac{1}{nm} \sum_{i=1}^{n} \sum_{j=1}^{m} \left(\mathbb{1}[x_i > y_j] + \tfrac12 \mathbb{1}[x_i = y_j]\right).$$
#
# It knows no units, so it does not care how large a lead is. Its interval comes from redrawing the seeds of both sides. A set
# whose interval reaches ½ cannot be told from the reference. With few seeds an interval may have no width at all: then all
# redraws agreed, which four seeds do easily.

# %%
results = mxnb.show.sweep_results(sweep, metric=p.metric)
mxnb.show.save(results.figure, figures / "results.png")
results

# %% [markdown]
# ## The best of many is optimistic
#
# The reference above is the best set, and it was chosen by the very numbers that it is now shown with. Of $k$ sets that are all
# equally good, the best looks better than they are by the largest of $k$ draws of noise: less than
# $\sigma \sqrt{2 \ln k}$, and close to it for very many.

# %%
noise = np.random.default_rng(0).normal(size=(4000, 100))
tries = np.arange(1, 101)
lead = {"the best of k equal sets": (tries, np.maximum.accumulate(noise, axis=1).mean(0))}
winners = mxnb.show.lines(
    lead,
    title="How much better it looks than it is",
    xlabel="sets tried, k",
    ylabel="lead (standard errors of one set)",
    levels={"what is there": 0.0},
)
mxnb.show.save(winners, figures / "best_of_many.png")
winners

# %% [markdown]
# So choose by one group of seeds and report another. Two sets that were chosen before the sweep began, a new method and
# a baseline, do not have this problem: `mxnb.show.sweep_results(sweep, baseline={"lr": 3e-4})` holds all others against one.
#
# ## Which parameter mattered
#
# Split the final results by the values of one parameter, and their sum of squares into that between the groups, $B$, and that
# within them, $W$. The **correlation ratio** $\eta^2 = B / (B + W)$ is the share that the parameter explains. Many small
# groups make it large by themselves; without that bias it is
#
# $$\varepsilon^2 = \frac{B - (k - 1) \, W / (N - k)}{B + W}$$
#
# for $N$ runs in $k$ groups; a range of numbers is cut into groups of equal size. In a grid, what the other parameters do is
# taken out of $B$ and $W$ first, because it is no noise. Even so noise is sometimes large. The grey band is what shuffled runs
# give 95 times of 100: a bar that stays inside says nothing, and of twenty parameters that do nothing one will stick out. These
# are main effects: what two parameters do only together is in neither bar.

# %%
importance = mxnb.show.sweep_importance(sweep, metric=p.metric)
mxnb.show.save(importance, figures / "importance.png")
importance

# %% [markdown]
# ## The best run plays
#
# The best seed of the best set, chosen twice over. Fresh episodes are not: they were no part of the choice, so their mean is an
# honest number for this one agent (not for its set of values: another seed of it is another agent).

# %%
from mxnb.build import run_env
from mxnb.evaluate import evaluate

best, policy, env = results.best_run, None, None
if best is None:
    print("no run is done yet: run this cell again when one is")
else:
    try:
        policy, env = mxnb.load_policy(best), run_env(best)[0]
        fresh = evaluate(policy, env, 64, jax.random.key(p.seed)).report()["return"]
        claimed = json.loads((best / "result.json").read_text())["metrics"].get("train/mean_episode_return")
        while_training = "" if claimed is None else f"; its last tenth of training had {claimed:.2f}"
        print(", ".join([best.name, *(f"{k} {v}" for k, v in results.rows[0].values.items())]))
        print(
            f"return of 64 fresh episodes {fresh['mean']:.2f} ({fresh['low']:.2f} to {fresh['high']:.2f}){while_training}"
        )
    except (
        OSError,
        ValueError,
        KeyError,
    ) as problem:  # a notebook of yours may save no policy, or play a world of its own
        print(f"no episodes of {best.name}: {problem}")

# %% [markdown]
# And this is how it plays. Press ▶, or click into it and use the arrow keys.

# %%
if policy is not None:
    try:
        display(mxnb.show.episodes(policy, env, 3, seed=p.seed))
    except ValueError as problem:  # a world without pictures
        print(f"nothing to watch: {problem}")

# %% [markdown]
# ## What to try next
#
# - More seeds: add them to the YAML file's `seeds` and start the sweep again. What is done is kept, and the bands shrink with $1/\sqrt{n}$.
# - `papermill_runs/sweeps/ppo_entropy.yaml` varies how much exploration is paid for on Craftax-Classic:
#   `python -m mxnb sweep run papermill_runs/sweeps/ppo_entropy.yaml`, then here `sweep_dir = "ppo_entropy"`, also while it runs.
# - Draw at random instead of on a grid: `random: {lr: {log_uniform: [1.0e-4, 1.0e-2]}}` and `samples: 20`. A grid of
#   two parameters tries five values of each with 25 runs, random values try 25 of each.
# - Judge by another metric: `metric = "train/mean_reward"`.
# - `mxnb.show.compare(one_run, another_run)` lays two runs side by side, and what they were told differently.
# - Headless: `papermill notebooks/09_sweep_report.ipynb report.ipynb -p sweep_dir papermill_runs/ppo_entropy`.

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

"""A machine that is like one of Colab's, as far as a notebook can tell, and is gone when it is thrown away.

Simulated: `google.colab`, which its kernel imports before the first cell; a Drive that outlives the machine; a home and
a working folder of its own; and that mxnb is not installed. pip is a stub that notes what it was asked for and puts
mxnb where Python finds it. Drive's place is fixed in mxnb, and only root could make it here: in the kernel, the one
line in each module that names it names the simulated one. All else is the real thing: notebook, kernel, mxnb, jax.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from runs import NOTEBOOK

ROOT = Path(__file__).parents[2]
STUBS = {
    "google/colab/__init__.py": "from google.colab import drive, output, runtime, userdata\n",
    "google/colab/drive.py": """
import os
from pathlib import Path

def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    assert mountpoint == "/content/drive"
    (Path(os.environ["SIMULATED_DRIVE"]) / "MyDrive").mkdir(parents=True, exist_ok=True)
    print("Mounted at", mountpoint)
""",
    "google/colab/output.py": "",  # which jax imports
    "google/colab/runtime.py": """
def unassign():
    raise AssertionError("the notebook gave the machine back")
""",
    "google/colab/userdata.py": """
class TimeoutException(Exception):
    pass

def get(key):
    raise TimeoutException(f"Requesting secret {key} timed out: nobody sits before a notebook that runs headless")
""",
    "pip/__init__.py": "",
    "pip/__main__.py": """
import json, os, sys
from pathlib import Path

words = sys.argv[1:]
constraints = Path(words[words.index("-c") + 1]).read_text().split()
with open(os.environ["SIMULATED_PIP"], "a") as file:
    print(json.dumps({"words": words, "constraints": constraints}), file=file)
assert "/" in words[-1], f"{words[-1]!r} is a package to pip, and no folder"
(Path(os.environ["SIMULATED_PACKAGES"]) / "mxnb").symlink_to(Path(words[-1]).resolve() / "mxnb")
""",
}
STARTUP = """
import importlib.machinery, importlib.util, os, sys

sys.meta_path[:] = [finder for finder in sys.meta_path if "mxnb" not in getattr(finder, "__module__", "")]
sys.path_hooks[:] = [hook for hook in sys.path_hooks if "mxnb" not in getattr(hook, "__module__", "")]
importlib.invalidate_caches()

class Elsewhere(importlib.machinery.SourceFileLoader):
    def get_code(self, name):
        line, drive = b\'Path("/content/drive/MyDrive")\', os.environ["SIMULATED_DRIVE"] + "/MyDrive"
        source = self.get_data(self.path)
        assert source.count(line) == 1, f"{self.path} does not name Drive once"
        return self.source_to_code(source.replace(line, f"Path({drive!r})".encode()), self.path)

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in ("mxnb.run.archive", "mxnb.doctor"):
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        return importlib.util.spec_from_file_location(name, found.origin, loader=Elsewhere(name, found.origin))

sys.meta_path.insert(0, Finder)
import google.colab
if os.environ["SIMULATED_MOUNT"]:
    google.colab.drive.mount("/content/drive")
"""


class Machine:
    """A fresh machine in `folder`, where every one is, with a clone of the repository beside the notebook."""

    def __init__(self, folder: Path, drive: Path, environ: Mapping[str, str], *, mount: bool = True) -> None:
        self.folder, self.content, self.packages = folder, folder / "content", folder / "dist-packages"
        startup = folder / "home" / ".ipython" / "profile_default" / "startup"
        for needed in (self.content, self.packages, startup):
            needed.mkdir(parents=True)
        (startup / "00-colab.py").write_text(STARTUP)
        for name, text in STUBS.items():
            (folder / "stubs" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "stubs" / name).write_text(text)
        clone = self.content / "mxnb"
        for path in ROOT.iterdir():
            (clone / path.name).parent.mkdir(exist_ok=True)
            (clone / path.name).symlink_to(path)
        if not (clone / "build").exists():  # as pip leaves one in a clone that it installs from
            (clone / "build").mkdir()
        mine = {
            k: v for k, v in os.environ.items() if not k.startswith(("MXNB_", "XDG_", "IPYTHON", "JAX_COMPILATION"))
        }
        self.environ = mine | {
            "HOME": str(folder / "home"),
            "COLAB_RELEASE_TAG": "release-colab-simulated",
            "PYTHONPATH": os.pathsep.join([str(folder / "stubs"), str(self.packages)]),
            "SIMULATED_DRIVE": str(drive),
            "SIMULATED_MOUNT": "yes" if mount else "",
            "SIMULATED_PACKAGES": str(self.packages),
            "SIMULATED_PIP": str(folder / "pip.jsonl"),
            **environ,
        }

    def run_all(self, **parameters: Any) -> subprocess.Popen[str]:
        """Presses "Run all" in notebook 02, as far as papermill can."""
        words = [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb", "--no-progress-bar"]
        for name, value in parameters.items():
            words += ["-p", name, str(value)]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environ, cwd=self.content
        )

    def printed(self) -> str:
        """What the cells have printed."""
        cells = nbformat.read(self.content / "out.ipynb", as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", []) if output.output_type == "stream"]
        return "".join(output.text for output in outputs)

    def run_dir(self) -> Path:
        """The one run's folder."""
        (found,) = (self.content / "papermill_runs" / "local" / "02_masked_ppo").iterdir()
        return found

    def disconnect(self) -> None:
        """Colab takes it away, with everything on it."""
        shutil.rmtree(self.folder)

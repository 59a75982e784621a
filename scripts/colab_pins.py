"""Write colab/pins-gpu.txt and pins-tpu.txt anew, for a person who has fetched what Colab publishes.

    python scripts/colab_pins.py pip-freeze.gpu.txt pip-freeze.tpu.txt

Both files are in the repository googlecolab/backend-info. Kept is what mxnb needs, directly or through its packages.
`make test` then runs at the new versions.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = (
    "anywidget",
    "chex",
    "craftax",
    "distrax",
    "flax",
    "gymnasium",
    "gymnax",
    "ipykernel",
    "ipython",
    "ipywidgets",
    "jax",
    "jaxlib",
    "jupytext",
    "libtpu",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "papermill",
    "scipy",
    "wandb",
)


def pins(freeze: str) -> list[str]:
    """The lines name==version of a pip freeze that matter here, in order; local suffixes such as +cuda are dropped."""
    found = re.findall(r"(?m)^([A-Za-z0-9_.-]+)==([^\s+;@]+)", freeze)
    versions = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}
    return [f"{name}=={versions[name]}" for name in KEPT if name in versions]


def main(arguments: list[str]) -> int:
    """Writes both files; the exit status."""
    if len(arguments) != 2:
        print(__doc__)
        return 2
    for kind, path in zip(("gpu", "tpu"), arguments, strict=True):
        lines = pins(Path(path).read_text())
        if not any(line.startswith("jax==") for line in lines):
            print(f"{path} names no jax; give Colab's pip-freeze.{kind}.txt")
            return 1
        words = (
            f"# What Colab's {kind.upper()} runtime has of what mxnb needs: googlecolab/backend-info, read on "
            f"{datetime.date.today()}.\n# scripts/colab_pins.py writes this anew.\n"
        )
        target = ROOT / "colab" / f"pins-{kind}.txt"
        target.write_text(words + "\n".join(lines) + "\n")
        print(f"wrote {target.relative_to(ROOT)}: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""What Colab has, as it is written down here: made by the script, and within what mxnb asks for."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pinned(kind: str) -> dict[str, str]:
    lines = (ROOT / "colab" / f"pins-{kind}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)]


@pytest.mark.parametrize("kind", ["gpu", "tpu"])
def test_what_mxnb_asks_for_is_within_what_colab_has(kind: str) -> None:
    """Else pip would replace Colab's own; distrax is the exception, for the TPU runtime's cannot be imported."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    asked = dict(re.match(r"([\w-]+)>=([\d.]+)$", line).groups() for line in told)  # type: ignore[union-attr]
    assert len(asked) == len(told), "lower bounds only"
    has = pinned(kind)
    assert {"jax", "flax", "numpy", "ipywidgets"} <= set(has) & set(asked)
    short = [name for name in set(has) & set(asked) if numbers(has[name]) < numbers(asked[name])]
    assert short == (["distrax"] if kind == "tpu" else [])
    assert re.search(r"read on \d{4}-\d\d-\d\d", (ROOT / "colab" / f"pins-{kind}.txt").read_text())


def test_the_script_keeps_what_matters(tmp_path: Path) -> None:
    for part in ("colab", "scripts"):
        (tmp_path / part).mkdir()
    script = tmp_path / "scripts" / "colab_pins.py"
    script.write_text((ROOT / "scripts" / "colab_pins.py").read_text())
    gpu = "absl-py==2.1\njax==0.8.0\njaxlib==0.8.0+cuda12\norbax_checkpoint==0.13\nIPython==7.34.0\n"
    (tmp_path / "gpu.txt").write_text(gpu + "flax @ file:///x\n")
    (tmp_path / "tpu.txt").write_text("jax==0.8.1\nlibtpu==0.1\n")
    words = [sys.executable, str(script), str(tmp_path / "gpu.txt"), str(tmp_path / "tpu.txt")]
    assert subprocess.run(words, capture_output=True, text=True, check=False).returncode == 0
    lines = [x for x in (tmp_path / "colab" / "pins-gpu.txt").read_text().splitlines() if not x.startswith("#")]
    assert lines == ["ipython==7.34.0", "jax==0.8.0", "jaxlib==0.8.0", "orbax-checkpoint==0.13"]
    (tmp_path / "tpu.txt").write_text("torch==2.0\n")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "names no jax" in done.stdout

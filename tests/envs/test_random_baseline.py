"""The frozen figures of random play still describe the game: a drift would move every comparison in README."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jax
import pytest

from mxnb.build import make
from mxnb.evaluate import evaluate, random_policy

FROZEN = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "random.json").read_text())["results"]
ENV = make("craftax-classic-v1")  # one object, one compiled program for both policies


@pytest.mark.parametrize(("name", "use_mask"), [("all_actions", False), ("open_actions", True)])
def test_random_return_is_the_frozen_one(name: str, use_mask: bool) -> None:
    seen = evaluate(random_policy(ENV.spec, use_mask=use_mask), ENV, 64, jax.random.key(7)).summary()
    frozen = FROZEN[name]
    error = math.hypot(seen["return_standard_error"], frozen["return_standard_error"])
    assert abs(seen["return"] - frozen["return"]) < 4 * error
    assert seen["return_standard_error"] < 0.4  # tight enough to tell the two baselines apart

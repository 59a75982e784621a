"""A profiler's trace, added up by the functions that the operations came from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mxnb import show
from mxnb.kernels.returns import gae
from mxnb.show._trace import _sources, _spent

# Of a program as compilers write it today: tables, a fused computation without a source of its own, a loop.
TABLES = """HloModule jit_f

FileNames
1 "/usr/lib/dist-packages/mxnb/agents/ppo.py"
2 "/x/mxnb/.venv/lib/site-packages/optax/_src/base.py"
3 "/c/cell.py"

FunctionNames
1 "update.<locals>.descend"
2 "scale"
3 "<module>"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=2}
2 {file_name_id=2 function_name_id=2 line=1 end_line=1 column=1 end_column=2}
3 {file_name_id=3 function_name_id=3 line=1 end_line=1 column=1 end_column=2}

StackFrames
1 {file_location_id=3 parent_frame_id=1}
2 {file_location_id=1 parent_frame_id=2}
3 {file_location_id=2 parent_frame_id=3}

%fused (p: f32[2]) -> f32[2] {
  ROOT %add.1 = f32[2]{0} add(%p, %p), metadata={op_name="jit(f)/add" stack_frame_id=3}
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %fusion.1 = f32[2]{0} fusion(%x), kind=kLoop, calls=%fused
  %copy.1 = f32[2]{0} copy(%fusion.1)
  %while.1 = (f32[2]{0}) while(%copy.1), condition=%c, body=%b, metadata={op_name="jit(f)/while" stack_frame_id=1}
  ROOT %cosine.1 = f32[2]{0} cosine(%x), metadata={op_name="jit(f)/cos" stack_frame_id=1}
}
"""
OLDER = '%dot.1 = f32[2] dot(%x, %y), metadata={op_name="dot" source_file="/a/mxnb/kernels/returns.py" source_line=7}'


def event(name: str, begin: float, took: float, thread: int = 1) -> dict[str, Any]:
    return {"ph": "X", "pid": 1, "tid": thread, "ts": begin, "dur": took, "name": name, "args": {"hlo_op": name}}


def test_operations_are_named_by_the_code_of_mxnb_that_they_came_from() -> None:
    named, loops = _sources(TABLES)
    assert named["add.1"] == "agents/ppo.py update" == named["fusion.1"]  # through optax, and through the fusion
    assert named["cosine.1"] == "cell.py <module>" and "copies" in named["copy.1"] and loops == {"while.1"}
    assert _sources(OLDER)[0] == {"dot.1": "kernels/returns.py"}


def test_time_is_an_operations_own() -> None:
    events = [event("while.1", 0, 100), event("fusion.1", 10, 60), event("copy.1", 20, 15), event("cosine.1", 80, 5)]
    events += [event("fusion.1", 0, 7, thread=2), event("unknown.1", 8, 3, thread=2)]
    spent = _spent(events, _sources(TABLES))
    assert spent == {
        "agents/ppo.py update": 60 - 15 + 7,
        "copies (the compiler's own)": 15,
        "cell.py <module>": 5,
        "no source named": 3,
    }
    assert _spent(events, None) == {"fusion": 52, "copy": 15, "cosine": 5, "unknown": 3}


def test_a_real_trace(tmp_path: Path, texts: Any, cut_off: Any) -> None:
    steps = jnp.ones(4096)
    returns = lambda x: gae(x, x, x, x > 2, x > 3, discount=0.99, lambda_=0.9)
    program = jax.jit(returns).lower(steps).compile()
    with jax.profiler.trace(tmp_path):
        jax.block_until_ready(program(steps))
    fig = show.trace(tmp_path, program)
    whole = any("kernels/returns.py" in text for text in texts(fig))  # and the function, with newer compilers
    assert whole and not cut_off(fig)
    assert sum(bar.get_width() for bar in fig.axes[0].patches) == pytest.approx(100, abs=1e-6)
    assert show.trace(tmp_path).axes  # without the program: by the operations' names


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no trace in"):
        show.trace(tmp_path)
    with gzip.open(tmp_path / "a.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": [{"ph": "M", "name": "process_name"}]}, file)
    with pytest.raises(ValueError, match="let the traced code wait"):
        show.trace(tmp_path, SimpleNamespace(as_text=lambda: TABLES))

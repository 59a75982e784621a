"""The parameters cell: every mistake in words with its mend, what wins over what, and where a run goes."""

from __future__ import annotations

import json
import math
import string
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mxnb
from mxnb import config as module
from mxnb.agents.ppo import BASE_LR, PPOConfig, auto_scale
from mxnb.config import ALIASES, CELL, as_json, make_config

FIELDS = tuple(name for name in PPOConfig.__dataclass_fields__ if name != "origins")
CELL_NAMES = "preset, seed, env_id, total_timesteps, run_dir, resume, overrides"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from outside, and run folders under a folder of the test's own."""
    monkeypatch.delenv("MXNB_PRESET", raising=False)
    monkeypatch.delenv("MXNB_RUN_DIR", raising=False)
    monkeypatch.chdir(tmp_path)


def problems(**overrides: Any) -> list[str]:
    """The lines of the message that refuses these overrides."""
    with pytest.raises(ValueError) as caught:
        make_config(PPOConfig, preset="smoke", overrides=overrides)
    head, *lines = str(caught.value).split("\n")
    assert head == f"{_mistakes(len(lines))} in the parameters for PPOConfig; nothing was trained:"
    return [line.strip() for line in lines]


def _mistakes(count: int) -> str:
    return "1 mistake" if count == 1 else f"{count} mistakes"


def cell(source: str, call: str = "mxnb.parameters(PPOConfig, notebook='nb')") -> Any:
    """Runs a parameters cell and the next cell in a module of its own."""
    scope = {"mxnb": mxnb, "PPOConfig": PPOConfig, "__name__": "notebook"}
    exec(source, scope)
    exec(f"result = {call}", scope)
    return scope["result"]


def cell_problems(source: str, call: str = "mxnb.parameters(PPOConfig, notebook='nb')") -> list[str]:
    with pytest.raises(ValueError) as caught:
        cell(source, call)
    return [line.strip() for line in str(caught.value).split("\n")[1:]]


BAD = {
    "misspelt": ({"num_env": 8}, "num_env: unknown field of PPOConfig (did you mean num_envs or n_envs?)"),
    "misspelt alias": (
        {"learning_rat": 1.0},
        "learning_rat: unknown field of PPOConfig (did you mean learning_rate?)",
    ),
    "nothing like it": ({"zzz": 1}, "zzz: unknown field of PPOConfig"),
    "origins is no field": ({"origins": {}}, "origins: unknown field of PPOConfig"),
    "text for a truth value": (
        {"use_mask": "true"},
        "use_mask: expected True or False, got 'true'; papermill's -p passes 'true' as text: write True",
    ),
    "another word for a truth value": ({"use_mask": "maybe"}, "use_mask: expected True or False, got 'maybe'"),
    "text that says a number otherwise": ({"lr": "0.5"}, "lr: expected a number, got '0.5'"),
    "a number of NumPy's for a truth value": ({"use_mask": np.True_}, "use_mask: expected True or False, got np.True_"),
    "a word for a number": ({"lr": "fast"}, "lr: expected a number, got 'fast'"),
    "number for a truth value": ({"anneal_lr": 1}, "anneal_lr: expected True or False, got 1"),
    "truth value for a count": ({"num_envs": True}, "num_envs: expected a whole number, got True"),
    "truth value for a number": ({"discount": False}, "discount: expected a number, got False"),
    "half for a count": ({"num_steps": 1.5}, "num_steps: expected a whole number, got 1.5"),
    "text for a count": ({"num_envs": "64"}, "num_envs: expected a whole number, got '64'; write num_envs = 64"),
    "text for a number": (
        {"lr": "1e-3"},
        "lr: expected a number, got '1e-3'; in YAML write 1.0e-3, since 1e-3 is text there",
    ),
    "not a number": ({"ent_coef": math.nan}, "ent_coef: expected a finite number, got nan"),
    "infinite": ({"lr": math.inf}, "lr: expected a finite number, got inf"),
    "infinite count": ({"num_envs": math.inf}, "num_envs: expected a whole number, got inf"),
    "negative count": ({"num_envs": -4}, "num_envs: expected a count of 0 or more, got -4"),
    "negative float count": ({"num_envs": -4.0}, "num_envs: expected a whole number, got -4.0"),
    "None for a count": ({"num_envs": None}, "num_envs: expected a whole number, got None"),
    "number for text": ({"env_id": 3}, "env_id: expected str, got 3 (int)"),
    "an alias is named as it was written": ({"n_envs": 1.5}, "n_envs: expected a whole number, got 1.5"),
    "sizes that do not divide": (
        {"num_envs": 10, "num_steps": 10, "num_minibatches": 7},
        "num_envs * num_steps = 10 * 10 = 100 does not divide into num_minibatches = 7; use num_minibatches = 5",
    ),
    "the divisor can be above": (
        {"num_envs": 11, "num_steps": 3, "num_minibatches": 9},
        "num_envs * num_steps = 11 * 3 = 33 does not divide into num_minibatches = 9; use num_minibatches = 11",
    ),
    "less than one update": (
        {"total_timesteps": 100},
        "total_timesteps = 100 is less than one update; use at least num_envs * num_steps = 128",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_refused_in_these_words(case: str) -> None:
    overrides, words = BAD[case]
    assert problems(**overrides) == [words]


def test_all_mistakes_are_listed_at_once() -> None:
    found = problems(num_env=8, use_mask="true", num_steps=1.5, lr="1e-3", zzz=0)
    assert [line.split(":")[0] for line in found] == ["num_env", "use_mask", "num_steps", "lr", "zzz"]
    assert len(problems(num_envs=10, num_steps=10, num_minibatches=7, total_timesteps=50)) == 2


def test_all_mistakes_of_a_cell_are_listed_at_once() -> None:
    found = cell_problems(
        "preset = 'cup'\nseed = 1.5\nresume = 'true'\ntotal_timesteps = -1\noverrides = {'lamda': 1.0, 'lr': 'x'}"
    )
    assert [line.split(":")[0] for line in found] == ["seed", "total_timesteps", "resume", "preset", "lamda", "lr"]
    assert (
        found[3]
        == "preset: 'cup' is not one of smoke, cpu, colab_t4, colab_t4_small, gpu, tpu, auto (did you mean cpu?)"
    )


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_field_name_with_one_slip_is_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FIELDS))
    at = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from(string.ascii_letters + "_0"))
    slips = {
        "dropped": name[:at] + name[at + 1 :],
        "doubled": name[:at] + name[at] + name[at:],
        "replaced": name[:at] + letter + name[at + 1 :],
        "inserted": name[:at] + letter + name[at:],
        "swapped": name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
        "case": name[:at] + name[at].swapcase() + name[at + 1 :],
    }
    slip = slips[data.draw(st.sampled_from(sorted(slips)))]
    assume(slip not in FIELDS and slip not in ALIASES)
    with pytest.raises(ValueError, match="unknown field of PPOConfig") as caught:
        make_config(PPOConfig, overrides={slip: 1})
    if len(name) > 3:
        assert f"did you mean {name}" in str(caught.value) or f" or {name}?" in str(caught.value)


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_are_accepted(alias: str) -> None:
    if ALIASES[alias] not in FIELDS:
        pytest.fail(f"{ALIASES[alias]} is no field of PPOConfig")
    value = {"lr": 1e-3, "ent_coef": 0.5, "discount": 0.5, "lambda_": 0.5, "num_envs": 32, "num_steps": 16}.get(
        ALIASES[alias], 8192
    )
    config = make_config(PPOConfig, overrides={alias: value})
    assert getattr(config, ALIASES[alias]) == value
    assert config.origins[ALIASES[alias]] == "override" and alias not in config.origins


def test_the_documented_aliases() -> None:
    wanted = [
        "learning_rate",
        "entropy_coef",
        "gamma",
        "gae_lambda",
        "lam",
        "n_envs",
        "total_steps",
        "total_frames",
        "unroll",
    ]
    assert list(ALIASES) == wanted


def test_1e6_is_taken_as_a_count_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert make_config(PPOConfig, overrides={"total_timesteps": 1e6}).total_timesteps == 1_000_000
    p = cell("preset = 'smoke'\ntotal_timesteps = 1e6\noverrides = {'num_envs': 8.0}")
    assert p.config.total_timesteps == 1_000_000 and type(p.config.total_timesteps) is int
    assert type(p.config.num_envs) is int
    assert p.notes == ("total_timesteps: 1000000.0 was taken as 1000000", "num_envs: 8.0 was taken as 8")
    assert "note: total_timesteps: 1000000.0 was taken as 1000000" in capsys.readouterr().out


def test_a_whole_number_is_good_for_a_float() -> None:
    config = make_config(PPOConfig, overrides={"discount": 1})
    assert config.discount == 1.0 and type(config.discount) is float


def test_precedence_and_origins() -> None:
    plain = make_config(PPOConfig)
    assert (plain.num_envs, plain.origins["num_envs"]) == (64, "default")
    smoke = make_config(PPOConfig, preset="smoke")
    assert (smoke.num_envs, smoke.origins["num_envs"]) == (8, "preset smoke")
    assert (smoke.discount, smoke.origins["discount"]) == (plain.discount, "default")
    given_ = make_config(PPOConfig, preset="smoke", num_envs=16)
    assert (given_.num_envs, given_.origins["num_envs"]) == (16, "parameter")
    over = make_config(PPOConfig, preset="smoke", num_envs=16, overrides={"n_envs": 32})
    assert (over.num_envs, over.origins["num_envs"]) == (32, "override")
    assert over.origins["lr"] == over.origins["update_epochs"] == "auto_scale"
    assert set(over.origins) == {*FIELDS, "preset"} and over.origins["preset"] == "smoke"
    assert set(plain.origins) == set(FIELDS)


def test_overrides_win_over_the_cell_and_the_cell_over_the_preset() -> None:
    of = lambda source: cell(f"preset = 'smoke'\n{source}").config
    assert (of("").total_timesteps, of("").origins["total_timesteps"]) == (1024, "preset smoke")
    assert of("total_timesteps = 0").total_timesteps == 1024  # 0 leaves it to the preset
    ours = of("total_timesteps = 4096")
    assert (ours.total_timesteps, ours.origins["total_timesteps"]) == (4096, "parameter")
    over = of("total_timesteps = 4096\noverrides = {'total_steps': 8192}")
    assert (over.total_timesteps, over.origins["total_timesteps"]) == (8192, "override")
    assert of("").env_id == "craftax-classic-symbolic-v1" and of("env_id = 'cartpole-v1'").env_id == "cartpole-v1"


def test_origins_are_no_part_of_a_comparison_or_of_the_json() -> None:
    one, other = make_config(PPOConfig, num_envs=16), make_config(PPOConfig, overrides={"num_envs": 16})
    assert one == other and one.origins != other.origins
    assert list(as_json(one)) == list(FIELDS)
    assert make_config(PPOConfig, overrides=json.loads(json.dumps(as_json(one)))) == one


# num_envs, num_steps -> num_minibatches = min(4 f, 64), update_epochs = max(2, 4 // f) with f = max(1, batch // 32768),
# and lr = BASE_LR * 16 / (num_minibatches * update_epochs), here in units of BASE_LR
SCALES = [
    (8, 16, 4, 4, 1.0),  # 128: f = 1
    (64, 64, 4, 4, 1.0),  # 4,096: f = 1
    (64, 128, 4, 4, 1.0),  # 8,192: f = 1
    (1024, 63, 4, 4, 1.0),  # 64,512: f = 1
    (1024, 64, 8, 2, 1.0),  # 65,536: f = 2, epochs 4 // 2
    (1024, 96, 12, 2, 16 / 24),  # 98,304: f = 3, epochs max(2, 1)
    (2048, 128, 32, 2, 1 / 4),  # 262,144: f = 8
    (4096, 128, 64, 2, 1 / 8),  # 524,288: f = 16
    (8192, 128, 64, 2, 1 / 8),  # 1,048,576: f = 32, 4 f is above 64
]


@pytest.mark.parametrize(("num_envs", "num_steps", "minibatches", "epochs", "lr"), SCALES)
def test_auto_scale(num_envs: int, num_steps: int, minibatches: int, epochs: int, lr: float) -> None:
    config = make_config(PPOConfig, num_envs=num_envs, num_steps=num_steps, total_timesteps=10**8)
    assert (config.num_minibatches, config.update_epochs) == (minibatches, epochs)
    assert config.lr == pytest.approx(BASE_LR * lr)
    assert auto_scale(config) == config  # nothing is left to fill in


def test_auto_scale_keeps_what_was_asked_for() -> None:
    of = lambda **given: make_config(PPOConfig, num_envs=1024, num_steps=64, total_timesteps=10**8, **given)
    assert (of(lr=1e-3).lr, of(lr=1e-3).num_minibatches, of(lr=1e-3).update_epochs) == (1e-3, 8, 2)
    four = of(num_minibatches=4)
    assert (four.num_minibatches, four.update_epochs) == (4, 2) and four.lr == pytest.approx(BASE_LR * 16 / 8)
    ten = of(update_epochs=10)
    assert (ten.num_minibatches, ten.update_epochs) == (8, 10) and ten.lr == pytest.approx(BASE_LR * 16 / 80)
    assert ten.origins["update_epochs"] == "parameter" and ten.origins["lr"] == "auto_scale"


def test_parameters_reads_the_cell_of_its_caller(capsys: pytest.CaptureFixture[str]) -> None:
    p = cell(
        "preset = 'smoke'\nseed = 7\nresume = False\nrun_dir = 'somewhere'\ncompare = 0\noverrides = {'gamma': 0.5}",
        "mxnb.parameters(PPOConfig, notebook='nb', extra=['compare'])",
    )
    assert (p.preset, p.seed, p.resume, p.run_dir) == ("smoke", 7, False, Path("somewhere"))
    assert p.config.discount == 0.5 and p.compare == 0 and p.notes == ()
    out = capsys.readouterr().out
    assert out.startswith("preset smoke (parameter): ")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert set(rows) == {*FIELDS, "compare", "seed", "run_dir"}  # every number, and no alias
    assert rows["discount"] == ["0.5", "override"] and rows["num_envs"] == ["8", "preset", "smoke"]
    assert rows["lr"] == [str(BASE_LR), "auto_scale"] and rows["total_timesteps"] == ["1,024", "preset", "smoke"]


def test_an_empty_cell_takes_the_defaults() -> None:
    p = cell("")
    assert (p.preset, p.seed, p.resume) == ("cpu", 0, True)  # auto, on a machine without an accelerator
    with pytest.raises(AttributeError, match="nonsense"):
        _ = p.nonsense


@pytest.mark.parametrize("source", ["", "compare_timesteps = 0"])
def test_a_parameter_of_one_notebook_is_left_to_the_preset(source: str) -> None:
    call = "mxnb.parameters(PPOConfig, extra=['compare_timesteps'])"
    assert cell(f"preset = 'smoke'\n{source}", call).compare_timesteps == 512
    assert cell("preset = 'smoke'\ncompare_timesteps = 640", call).compare_timesteps == 640
    assert cell_problems("compare_timesteps = 'x'", call) == ["compare_timesteps: expected a whole number, got 'x'"]


def test_a_parameter_of_one_notebook_is_printed_with_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    """From the cell, HackMatrix's recipe, the preset, or nowhere."""

    def printed(source: str, name: str) -> list[str]:
        cell(f"preset = 'smoke'\n{source}", f"mxnb.parameters(PPOConfig, extra=['{name}'])")
        return next(line.split() for line in capsys.readouterr().out.splitlines() if line.split()[0] == name)

    game = "env_id = 'hackmatrix-v1'\n"
    assert printed(game, "num_seeds") == ["num_seeds", "2", "recipe", "hackmatrix-v1"]
    assert printed(game + "num_seeds = 5", "num_seeds") == ["num_seeds", "5", "parameter"]
    assert printed("", "compare_timesteps") == ["compare_timesteps", "512", "preset", "smoke"]
    assert printed("", "mine") == ["mine", "0", "default"]


def test_a_parameter_of_one_notebook_may_be_a_text() -> None:
    call = "mxnb.parameters(PPOConfig, extra={'sweep_dir': '', 'sizes': 0})"
    p = cell("preset = 'smoke'", call)
    assert (p.sweep_dir, p.sizes) == ("", 1)
    assert cell("preset = 'smoke'\nsweep_dir = 'here'", call).sweep_dir == "here"
    assert cell_problems("sweep_dir = 3", call) == ["sweep_dir: expected str, got 3 (int)"]


def test_overrides_must_be_a_dict() -> None:
    assert cell_problems("overrides = 'lr=1'") == ["overrides: expected dict, got 'lr=1' (str)"]


def test_mxnb_preset_counts_only_where_the_cell_says_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXNB_PRESET", "smoke")
    assert cell("").preset == "smoke"
    assert cell("preset = 'cpu'").preset == "cpu"
    monkeypatch.setenv("MXNB_PRESET", "smok")
    assert "did you mean smoke?" in cell_problems("")[0]


@pytest.mark.parametrize("preset", ["colab_t4", "gpu", "tpu"])
def test_a_preset_for_hardware_that_is_not_there(preset: str) -> None:
    kind = "TPU" if preset == "tpu" else "GPU"
    assert cell_problems(f"preset = '{preset}'") == [
        f"preset '{preset}' is for a {kind} and JAX sees no accelerator here; use preset='auto' or 'cpu', "
        f"or choose a runtime with a {kind} (in Colab: Runtime > Change runtime type)"
    ]


def test_where_a_run_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    of = lambda source: cell(f"preset = 'smoke'\n{source}").run_dir
    home = tmp_path / "papermill_runs" / "local" / "nb"
    plain = of("seed = 3")
    assert plain.parent == home and plain.name.endswith("-s3")
    assert plain == of("seed = 3")  # the same run has the same folder
    assert of("seed = 4").name.split("-")[0] == plain.name.split("-")[0]
    assert of("seed = 3\noverrides = {'lr': 0.5}") != plain
    assert cell("preset = 'smoke'\n", "mxnb.parameters(PPOConfig)").run_dir.parent == home.parent / "runs"
    monkeypatch.setenv("MXNB_RUN_DIR", str(tmp_path / "elsewhere"))
    assert of("") == tmp_path / "elsewhere"
    assert of("run_dir = 'here'") == Path("here")


def test_runs_of_a_notebook_go_under_its_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("notebooks/deeper", "papermill_runs"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deeper")
    assert module.run_root() == tmp_path / "papermill_runs" / "local"


@pytest.fixture
def injected(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A notebook whose injected-parameters cell, as papermill writes it, holds this source."""

    def set_cell(source: str) -> None:
        cells = ["", "preset = 'auto'", f"# Parameters\n{source}\n", "import mxnb"]
        shell = SimpleNamespace(user_ns={"In": cells})
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))

    return set_cell


def test_a_name_that_papermill_injected_and_nobody_knows_is_refused(injected: Callable[[str], None]) -> None:
    injected('presett = "smoke"')
    assert cell_problems('presett = "smoke"') == [
        f"presett: unknown parameter (did you mean preset or resume?); the cell has {CELL_NAMES}"
    ]


def test_a_field_that_papermill_injected_is_sent_to_overrides(injected: Callable[[str], None]) -> None:
    injected("learning_rate = 0.5\nnum_envs = 3")
    found = cell_problems("learning_rate = 0.5\nnum_envs = 3")
    assert [line.split(":")[0] for line in found] == ["learning_rate", "num_envs"]
    assert all(line.endswith(f"the cell has {CELL_NAMES}; put it into overrides") for line in found)


def test_known_names_may_be_injected(injected: Callable[[str], None]) -> None:
    injected("preset = 'smoke'\nseed = 3\nmine = 5")
    p = cell("preset = 'smoke'\nseed = 3\nmine = 5", "mxnb.parameters(PPOConfig, extra=['mine'])")
    assert (p.preset, p.seed, p.mine) == ("smoke", 3, 5)
    assert [line.split(":")[0] for line in cell_problems("preset = 'smoke'")] == ["mine"]


def test_names_of_other_cells_are_nobodys_business(injected: Callable[[str], None]) -> None:
    injected("seed = 3")
    assert cell("preset = 'smoke'\nseed = 3\npresett = 'x'").seed == 3


def test_the_cell_has_the_documented_names() -> None:
    assert ", ".join(CELL) == CELL_NAMES

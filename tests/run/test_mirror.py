"""The mirror at Weights & Biases: every row once, whatever happens there, and never in a run's way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mxnb.run.mirror import check_options, mirror


class Server:
    """Stands in for the wandb module and its server: keeps what each run was sent."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.refuses = self.far = self.breaks = self.logged_in = False

    def login(self, prompt: bool, verify: bool) -> bool:
        assert prompt is verify is False
        return self.logged_in

    def init(self, **settings: Any) -> Any:
        assert settings["reinit"] == "create_new"
        if self.refuses or (self.far and settings["mode"] == "online"):
            raise ConnectionError("no route")
        rewound = settings.get("resume_from")
        if rewound and "?_step=" not in rewound:
            raise ValueError(rewound)
        run_id = rewound.split("?")[0] if rewound else settings["id"]
        seen = self.runs.setdefault(run_id, {"steps": [], "rows": [], "kept": [], "codes": []})
        seen |= {"settings": settings}
        if rewound:
            step = int(rewound.split("=")[1])
            seen["steps"] = [s for s in seen["steps"] if s <= step]

        def log(row: dict[str, Any], step: int) -> None:
            if self.breaks:
                raise BrokenPipeError("gone")
            seen["steps"].append(step)
            seen["rows"].append(row)

        return SimpleNamespace(
            id=run_id,
            url=f"server/{run_id}",
            log=log,
            log_artifact=lambda artifact: seen["kept"].append(artifact.files),
            finish=lambda exit_code: seen["codes"].append(exit_code),
        )

    def Artifact(self, name: str, type: str) -> Any:
        files: list[str] = []
        return SimpleNamespace(name=name, files=files, add_file=files.append)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setitem(sys.modules, "wandb", server)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return server


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"agent": "ppo", "seed": 3}')
    return tmp_path


def rows(first: int, last: int) -> list[dict[str, Any]]:
    return [{"update": u, "train/total_loss": None if u == 2 else 0.5} for u in range(first, last + 1)]


def keep(run_dir: Path, first: int, last: int) -> list[dict[str, Any]]:
    """metrics.jsonl as `fit` keeps it: cut back to before `first`, then rows to `last`."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines()[: first - 1] if path.exists() else []
    path.write_text("".join(f"{line}\n" for line in [*lines, *map(json.dumps, rows(first, last))]))
    return rows(first, last)


def send(options: Any, run_dir: Path, first: int, last: int) -> None:
    keep(run_dir, first, first - 1)
    with mirror(options, run_dir, first - 1) as hook:
        hook(run_dir, keep(run_dir, first, last))


def test_every_row_is_sent_once_also_when_a_killed_run_makes_some_again(server: Server, run_dir: Path) -> None:
    send(True, run_dir, 1, 5)
    send({"name": "n", "suffix": "-b"}, run_dir, 3, 7)  # resumed after update 2
    ((run_id, seen),) = server.runs.items()
    assert seen["steps"] == [1, 2, 3, 4, 5, 6, 7] and seen["codes"] == [0, 0]
    assert seen["rows"][1] == {"update": 2}  # what is not a number is left out
    settings = seen["settings"]
    assert settings["resume"] == "allow" and settings["config"] == {"agent": "ppo", "seed": 3}
    assert (settings["project"], settings["entity"], settings["name"]) == ("mxnb", None, "n-b")
    known = json.loads((run_dir / "wandb.json").read_text())
    assert known == {"id": run_id, "update": 7, "project": "mxnb", "entity": None, "mode": "offline"}


def test_rows_from_before_it_was_asked_for_are_sent_and_another_project_gets_all(server: Server, run_dir: Path) -> None:
    keep(run_dir, 1, 4)
    with mirror(True, run_dir, 4) as hook:
        hook(run_dir, keep(run_dir, 5, 6))
        keep(run_dir, 7, 7)  # a failing evaluation keeps the hooks from this row
    send({"project": "games", "entity": "us"}, run_dir, 8, 9)
    one, two = server.runs.values()
    assert one["steps"] == [*range(1, 8)] and two["steps"] == [*range(1, 10)]
    assert (two["settings"]["project"], two["settings"]["entity"]) == ("games", "us")


def test_rewind_asks_the_server_to_forget_what_is_made_again(server: Server, run_dir: Path) -> None:
    server.logged_in = True
    send({"rewind": True}, run_dir, 1, 5)
    send({"rewind": True}, run_dir, 3, 6)
    ((run_id, seen),) = server.runs.items()
    assert seen["steps"] == [1, 2, 3, 4, 5, 6] and seen["settings"]["resume_from"] == f"{run_id}?_step=2"
    assert len(seen["rows"]) == 5 + 4 and "resume" not in seen["settings"]


def test_without_a_login_it_is_offline_and_the_environment_wins(
    server: Server, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modes = []
    for logged_in, far, asked in ((0, 0, ""), (1, 0, ""), (1, 0, "offline"), (1, 1, "")):
        server.logged_in, server.far = bool(logged_in), bool(far)
        monkeypatch.setenv("WANDB_MODE", asked)
        send(True, run_dir, 1, 1)
        modes.append(next(iter(server.runs.values()))["settings"]["mode"])
    assert modes == ["offline", "online", "offline", "offline"]
    said = capsys.readouterr().out
    assert "`wandb sync` sends what is below" in said and "ConnectionError: no route; offline instead" in said
    assert next(iter(server.runs.values()))["steps"] == [1, 1, 1]  # once a mode: a server drops what it has


def test_nothing_there_stops_a_run(server: Server, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.refuses = True
    send(True, run_dir, 1, 2)
    assert "ConnectionError: no route; the run goes on, metrics.jsonl has everything" in capsys.readouterr().out
    server.refuses, server.breaks = False, True
    with mirror(True, run_dir, 0) as hook:
        hook(run_dir, keep(run_dir, 1, 2))
        hook(run_dir, keep(run_dir, 3, 4))
    assert capsys.readouterr().out.count("BrokenPipeError: gone") == 1
    server.breaks = False
    send(True, run_dir, 5, 6)  # what could not be sent then is sent now
    assert next(iter(server.runs.values()))["steps"] == [1, 2, 3, 4, 5, 6]


def test_a_failed_run_ends_there_as_failed_and_a_good_one_keeps_its_policy(server: Server, run_dir: Path) -> None:
    with pytest.raises(RuntimeError), mirror(True, run_dir, 0):
        raise RuntimeError("training failed")
    (run_dir / "policy").mkdir()
    (run_dir / "policy" / "params.npz").write_bytes(b"")
    send({"artifacts": False}, run_dir, 1, 1)
    send(True, run_dir, 2, 2)
    (seen,) = server.runs.values()
    assert seen["codes"] == [1, 0, 0] and seen["kept"] == [[str(run_dir / "policy" / "params.npz")]]


def test_off_is_off_and_options_are_checked(server: Server, run_dir: Path) -> None:
    send(False, run_dir, 1, 3)
    assert not server.runs and not (run_dir / "wandb.json").exists()
    with pytest.raises(ValueError, match=r"wandb: unknown option projekt; it takes project, entity, name"):
        check_options({"projekt": "x"})
    assert check_options({"project": "x"}) is check_options(True) is None


def test_a_sweep_sends_its_own_runs_and_no_others(
    server: Server, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MXNB_WANDB", "games")
    send(False, run_dir, 1, 2)
    assert not server.runs  # a run that a notebook trains for comparison
    (run_dir / "job.json").write_text("{}")
    send(False, run_dir, 3, 4)
    (seen,) = server.runs.values()
    assert seen["settings"]["project"] == "games" and seen["steps"] == [1, 2, 3, 4]


def test_wandb_itself_offline(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    send({"project": "games"}, run_dir, 1, 3)
    assert list(run_dir.glob("wandb/offline-run-*/*.wandb"))
    assert json.loads((run_dir / "wandb.json").read_text())["update"] == 3

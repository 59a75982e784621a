"""Every row of the doctor, whole and broken on purpose: a broken one says what to do."""

from __future__ import annotations

import bz2
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import mxnb

doctor = importlib.import_module("mxnb.doctor")
VERSIONS = {"jax": "0.9.1", "jaxlib": "0.9.1", "flax": "0.12.0", "distrax": "0.1.9", "wandb": "0.31.0"}
VERSIONS |= dict.fromkeys(("optax", "orbax-checkpoint", "gymnax", "craftax", "numpy"), "1.0")


@pytest.fixture(autouse=True)
def a_plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No accelerator, nothing said in the environment, an empty home."""
    names = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE", "WANDB_MODE")
    for name in (
        *names,
        "JAX_PLATFORMS",
        "JAX_COMPILATION_CACHE_DIR",
        "COLAB_RELEASE_TAG",
        "COLAB_GPU",
        "WANDB_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("MXNB_RUN_DIR", str(tmp_path / "runs"))
    monkeypatch.setattr(doctor, "_CHIPS", (f"{tmp_path}/dev/accel*",))
    monkeypatch.setattr(doctor, "_TPU_LOCK", f"{tmp_path}/libtpu_lockfile")
    monkeypatch.setattr(doctor, "_imported_jax", lambda: None)
    monkeypatch.setattr(doctor, "_DRIVE", tmp_path / "drive" / "MyDrive")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Only these packages are installed; "" takes one away."""
    names = {**VERSIONS, **{name.replace("_", "-"): found for name, found in versions.items()}}
    monkeypatch.setattr(doctor, "_installed", lambda name: names.get(name, ""))


def test_a_ready_machine_is_all_green(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """This one: nothing is made up but its environment variables."""
    found = mxnb.doctor()
    assert found.ok, found
    assert [row.name for row in found.rows][:4] == ["Python", "jax", "plug-ins", "devices"]
    assert "CPU" in found.rows[3].words and str(found).endswith("all is ready")
    page = found._repr_html_()
    assert page.count("<tr>") == len(found.rows) and "✓ ok" in page


def test_looking_opens_no_device_here() -> None:
    """A notebook may still choose its memory share after it asked the doctor."""
    code = "import sys, mxnb; from mxnb.doctor import _initialised; ok = mxnb.doctor().ok; "
    code += "sys.exit(_initialised() or not ok)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_devices_that_are_open_here_are_asked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    jax.devices()
    monkeypatch.setattr(doctor, "_asked_elsewhere", lambda: pytest.fail("asked another process"))
    assert doctor._devices() == doctor.Row("devices", "ok", "CPU")
    device = SimpleNamespace(platform="gpu", device_kind="Tesla T4", memory_stats=lambda: {"bytes_limit": 12e9})
    monkeypatch.setattr(jax, "local_devices", lambda: [device, device])
    assert doctor._devices().words == "2 x Tesla T4, 11.2 GiB usable"


@pytest.mark.parametrize(
    ("look", "versions", "words", "mend"),
    [
        ("_jax", {"jax": ""}, "jax is missing", "pip install jax"),
        ("_jax", {"jax": "0.7.1", "jaxlib": "0.7.1"}, "jax 0.7.1 is too old", "jax>=0.7.2"),
        ("_jax", {"gymnax": "", "flax": ""}, "missing: flax, gymnax", "pip install flax gymnax"),
        ("_jax", {"jaxlib": "0.8.0"}, "jax 0.9.1 beside jaxlib 0.8.0", "pip install jaxlib==0.9.1"),
        ("_plugins", {"jax_metal": "0.1.1"}, "jax-metal 0.1.1 lacks", "set JAX_PLATFORMS=cpu"),
        ("_plugins", {"jax_cuda12_plugin": "0.8.0"}, "beside jaxlib 0.9.1", "pip install jax-cuda12-plugin==0.9.1"),
        ("_distrax", {"distrax": ""}, "missing", "distrax>=0.1.7"),
    ],
)
def test_packages_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, look: str, versions: dict[str, str], words: str, mend: str
) -> None:
    installed(monkeypatch)
    assert getattr(doctor, look)().state != "broken"
    installed(monkeypatch, **versions)
    row = getattr(doctor, look)()
    assert row.state == "broken" and words in row.words and mend in row.mend


def test_a_jax_that_was_replaced_while_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    monkeypatch.setattr(doctor, "_imported_jax", lambda: SimpleNamespace(__version__="0.7.2"))
    row = doctor._jax()
    assert row.words == "jax 0.7.2 is running, and 0.9.1 is installed" and row.mend.startswith("restart")


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.12")
    assert doctor._python() == doctor.Row("Python", "broken", "3.10.12", "mxnb needs Python 3.11 or newer")


def test_a_gpu_without_its_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    row = doctor._plugins()
    assert row.state == "broken" and "jax[cuda12]==0.9.1" in row.mend
    installed(monkeypatch, jax_cuda12_plugin="0.9.1")
    assert doctor._plugins() == doctor.Row("plug-ins", "ok", "jax-cuda12-plugin 0.9.1")
    installed(monkeypatch, jax_metal="0.1.1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert doctor._plugins().state == "ok"


def test_a_tpu_that_another_process_holds_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chip = tmp_path / "dev" / "accel0"
    chip.parent.mkdir()
    chip.touch()
    monkeypatch.setattr(doctor, "_initialised", lambda: False)
    monkeypatch.setattr(doctor, "_asked_elsewhere", lambda: [("tpu", "TPU v5 lite", 16_000_000_000)])
    assert doctor._devices() == doctor.Row("devices", "ok", "TPU v5 lite, 14.9 GiB usable")
    code = f"import time; file = open({str(chip)!r}); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"open\n"
        monkeypatch.setattr(doctor, "_asked_elsewhere", lambda: pytest.fail("it tried to open the chip"))
        row = doctor._devices()
        holder.kill()
    assert row.state == "broken" and f"process {holder.pid} (" in row.words and f"kill {holder.pid}" in row.mend
    installed(monkeypatch)
    assert "jax[tpu]==0.9.1" in doctor._plugins().mend


def test_a_lock_file_of_another_user_may_be_left_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    monkeypatch.setattr(doctor, "_TPU_LOCK", str(lock))
    monkeypatch.setattr(doctor, "_initialised", lambda: False)
    monkeypatch.setattr(doctor, "_chips", lambda: {"/dev/accel0"})
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    row = doctor._devices()
    assert row.state == "broken" and "another user" in row.words
    assert f"sudo rm {lock}" in row.mend and "kill ?" not in row.mend


def test_a_cpu_asked_for_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the red rows of TPU and GPU name as a mend makes them green."""
    monkeypatch.setattr(doctor, "_chip_holder", lambda: "process 7 (python)")
    monkeypatch.setattr(doctor, "_asked_elsewhere", lambda: [("cpu", "cpu", None)])
    monkeypatch.setattr(doctor, "_initialised", lambda: False)
    monkeypatch.setenv("COLAB_GPU", "1")
    assert doctor._devices().state == "broken"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert doctor._devices() == doctor.Row("devices", "ok", "CPU")


def test_devices_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_initialised", lambda: False)
    monkeypatch.setenv("JAX_PLATFORMS", "rocm")
    found = doctor.doctor()
    (row,) = [row for row in found.rows if row.name == "devices"]
    assert row.state == "broken" and "jax cannot open its devices" in row.words and not found.ok
    assert row.mend == "unset JAX_PLATFORMS (it is 'rocm')"

    def late() -> Any:
        raise subprocess.TimeoutExpired("python", 90)

    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(doctor, "_asked_elsewhere", late)
    assert "timed out after 90 seconds" in doctor._devices().words and doctor._devices().mend.startswith("restart")


def test_colab_with_a_gpu_that_jax_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLAB_GPU", "1")
    monkeypatch.setattr(doctor, "_asked_elsewhere", lambda: [("cpu", "cpu", None)])
    monkeypatch.setattr(doctor, "_initialised", lambda: False)
    row = doctor._devices()
    assert row.state == "broken" and "this runtime has a GPU, and jax sees CPU" in row.words


def test_memory_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "75%" in doctor._memory_share().words
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.85")
    assert "85%" in doctor._memory_share().words
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert doctor._memory_share().mend == "unset XLA_PYTHON_CLIENT_MEM_FRACTION, the older name"
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "85%")
    assert "'85%' is no number" in doctor._memory_share().words and doctor._memory_share().state == "broken"
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    assert doctor._memory_share().state == "note"
    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))
    assert doctor._memory_share().state == "broken"


def test_a_distrax_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Colab's TPU runtime has it: it is installed, and its import fails."""
    installed(monkeypatch, distrax="0.1.5")

    def fails(name: str) -> Any:
        raise AttributeError("jax.interpreters.xla.pytype_aval_mappings was removed")

    monkeypatch.setattr(doctor.importlib, "import_module", fails)
    row = doctor._distrax()
    assert row.state == "broken" and "0.1.5 cannot be imported: AttributeError" in row.words and ">=0.1.7" in row.mend


def test_textures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "craftax"
    found = SimpleNamespace(origin=str(home / "__init__.py"))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: found)
    row = doctor._textures()
    assert row.state == "note" and "Classic and full" in row.words
    whole = bz2.compress(os.urandom(100_000))
    for part, name in (("craftax_classic", "texture_cache_classic.pbz2"), ("craftax", "texture_cache.pbz2")):
        (home / part / "assets").mkdir(parents=True)
        (home / part / "assets" / name).write_bytes(whole)
    assert doctor._textures().state == "ok"
    torn = home / "craftax" / "assets" / "texture_cache.pbz2"
    torn.write_bytes(whole[:5000])
    row = doctor._textures()
    assert row.state == "broken" and "delete texture_cache.pbz2 in " in row.mend
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor._textures().state == "broken"


def test_compile_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "caches" / "mxnb" / "jax"
    assert doctor._cache().words == f"0 files, 0 MB in {folder}"
    folder.mkdir(parents=True)
    (folder / "one").write_bytes(bytes(3_000_000))
    assert doctor._cache().words.startswith("1 files, 3 MB")
    (doctor._DRIVE / "mxnb").mkdir(parents=True)
    (doctor._DRIVE / "mxnb" / "compile_cache-tesla-t4.tar.gz").write_bytes(bytes(7_000_000))
    assert doctor._cache().words == f"1 files, 3 MB in {folder}; 7 MB kept on Drive"
    folder.chmod(0o777)
    row = doctor._cache()
    assert row.state == "broken" and row.mend == f"chmod o-w {folder}"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(doctor._DRIVE / "cache"))
    assert "over the network" in doctor._cache().words
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "one"))
    assert doctor._cache().state == "broken"  # a file
    chosen = SimpleNamespace(config=SimpleNamespace(jax_compilation_cache_dir="gs://bucket/jax"))
    monkeypatch.setattr(doctor, "_imported_jax", lambda: chosen)
    assert doctor._cache().state == "note" and "gs://bucket/jax" in doctor._cache().words


def test_a_full_disk_and_one_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._disk().state == "ok"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=4e9))
    row = doctor._disk()
    assert row.state == "broken" and "4.0 GB free" in row.words and "MXNB_RUN_DIR" in row.mend
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert "cannot be written" in doctor._disk().words


def test_drive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor._drive() == doctor.Row("Drive", "note", "not in Colab")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab-1")
    row = doctor._drive()
    assert row.state == "broken" and "Mount Drive" in row.mend
    (tmp_path / "drive" / "MyDrive").mkdir(parents=True)
    assert doctor._drive().state == "ok"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=5e7))
    assert doctor._drive().state == "broken"


def test_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, wandb="")
    assert doctor._wandb().state == "note"
    installed(monkeypatch)
    assert doctor._wandb().words == "0.31.0, off unless a run asks for it"
    monkeypatch.setenv("WANDB_MODE", "online")
    row = doctor._wandb()
    assert row.state == "broken" and "wandb login" in row.mend
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert doctor._wandb().state == "ok"


def test_a_look_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(doctor, "_disk", fails)
    monkeypatch.setattr(doctor, "_devices", lambda: doctor.Row("devices", "ok", "CPU"))
    found = doctor.doctor()
    (row,) = [row for row in found.rows if row.name == "disk"]
    assert row.state == "broken" and "RuntimeError: no" in row.words
    assert str(found).endswith("1 of 11 rows need a mend") and "<b>Mend:</b> look at the cause" in found._repr_html_()

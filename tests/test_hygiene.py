"""The house rules: who imports whom, how long import takes, sizes, words, and nothing of one machine."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "mxnb").rglob("*.py"))
MODULES = sorted(".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in SOURCES)

# Who may import whom. A part may always import itself; an entry covers the modules below it.
ANYTHING = ("mxnb",)
ALLOWED: dict[str, tuple[str, ...]] = {
    "mxnb.kernels": (),
    "mxnb.networks": ("mxnb.kernels",),
    "mxnb.envs": ("mxnb.kernels",),
    "mxnb.agents": ("mxnb.networks", "mxnb.kernels", "mxnb.envs.api", "mxnb.envs.vector"),
    "mxnb.run": ("mxnb.config",),
    "mxnb.show": ("mxnb.config",),
    "mxnb.evaluate": ("mxnb.envs", "mxnb.kernels", "mxnb.agents.api", "mxnb.config"),
    "mxnb.doctor": ("mxnb.envs", "mxnb.agents.api", "mxnb.config"),
    "mxnb.config": ("mxnb.presets", "mxnb.recipes"),
    "mxnb.presets": (),
    "mxnb.recipes": (),
    "mxnb.build": ANYTHING,
    "mxnb.__main__": ANYTHING,
    "mxnb": (),
}
INSIDE_FUNCTIONS = {"mxnb.show": ("mxnb.build", "mxnb.evaluate")}  # the player and take-over


def part_of(module: str) -> str:
    """mxnb.run.fit -> mxnb.run."""
    return ".".join(module.split(".")[:2])


def below(module: str, parts: tuple[str, ...]) -> bool:
    return any(module == part or module.startswith(part + ".") for part in parts)


def imports(tree: ast.AST, package: str, deep: bool = False) -> Iterator[tuple[int, str, bool]]:
    """(line, module of mxnb, whether inside a function) for every import, `import_module("...")` included."""
    for node in ast.iter_child_nodes(tree):
        names: list[str] = []
        if package == "mxnb" and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            # mxnb/__init__.py names what it imports lazily for the type checker: nothing is imported at run time
            for other in node.orelse:
                yield from imports(ast.Module([other], []), package, deep)
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            # `from mxnb import presets` names a module, `from mxnb.presets import choose` something in one
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func) and node.args:
            names = [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
        yield from ((node.lineno, name, deep) for name in names if below(str(name), ("mxnb",)))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(node, package, deep or inside)


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    part = part_of(module)
    package = module if is_package else module.rpartition(".")[0]
    if part not in ALLOWED:
        return [f"{module}: {part} has no line in the import rules"]
    return [
        f"{module}:{line} imports {name}"
        for line, name, deep in imports(ast.parse(source), package)
        if not below(name, (*ALLOWED[part], *((part,) if part != "mxnb" else ())))
        and not (deep and below(name, INSIDE_FUNCTIONS.get(part, ())))
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_import_graph(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    assert violations(module, path.read_text(), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("mxnb.kernels.x", "import mxnb.config", False),
        ("mxnb.kernels.x", "from mxnb.kernels.masked import mask_logits", True),
        ("mxnb.kernels.x", "from .masked import mask_logits", True),
        ("mxnb.kernels.x", "from ..envs import api", False),
        ("mxnb.agents.x", "from mxnb.envs.craftax import craftax_classic", False),
        ("mxnb.agents.x", "from mxnb.envs import craftax", False),
        ("mxnb.agents.x", "from mxnb.envs import vector", True),
        ("mxnb.agents.x", "def f():\n    from mxnb.run.fit import fit", False),
        ("mxnb.run.x", "from mxnb import agents", False),
        ("mxnb.run.x", "def f():\n    import mxnb", False),
        ("mxnb.run.x", "import importlib\nimportlib.import_module('mxnb.agents.ppo')", False),
        ("mxnb.show.x", "from mxnb.build import load_policy", False),
        ("mxnb.show.x", "def f():\n    from mxnb.build import load_policy", True),
        ("mxnb.show.x", "class A:\n    def f(self):\n        from mxnb.run.fit import fit", False),
        ("mxnb.show.x", "from mxnb.configuration import x", False),
        ("mxnb.build", "from mxnb.agents.ppo import ppo", True),
        ("mxnb.new_part", "import json", False),
    ],
)
def test_the_rule_itself(module: str, source: str, allowed: bool) -> None:
    assert (violations(module, source) == []) is allowed


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import mxnb; took = time.perf_counter() - start\n"
        "heavy = {'jax', 'numpy', 'flax', 'matplotlib', 'IPython', 'gymnax', 'craftax', 'orbax'} & set(sys.modules)\n"
        "import json; print(json.dumps([took, sorted(heavy)]))"
    )
    runs = [json.loads(python(code)) for _ in range(3)]
    assert [heavy for _, heavy in runs] == [[], [], []]
    assert min(took for took, _ in runs) <= 0.3


def test_asking_for_a_part_loads_only_that_part() -> None:
    code = "import sys, mxnb; mxnb.parameters; mxnb.show; print({'jax', 'numpy', 'matplotlib'} & set(sys.modules))"
    assert python(code).strip() == "set()"


def test_importing_mxnb_changes_no_setting_of_jax() -> None:
    code = (
        "import importlib, jax\n"
        "import distrax, flax, gymnax, optax, orbax.checkpoint, craftax.craftax_classic.envs.craftax_symbolic_env\n"
        "before = dict(jax.config.values)\n"
        f"for name in {[m for m in MODULES if m != 'mxnb.__main__']}:\n    importlib.import_module(name)\n"
        "after = dict(jax.config.values)\n"
        "print({k: (before.get(k), after.get(k)) for k in {*before, *after} if before.get(k) != after.get(k)})"
    )
    assert python(code).strip().splitlines()[-1] == "{}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes_and_docstrings(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 450, "a file of at most 450 lines, about 350"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is"
    long, silent = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > 100:
            long.append(node.name)
    for node in public(tree):
        if not ast.get_docstring(node):
            silent.append(node.name)
    assert long == [], "functions of at most 100 lines, about 60"
    assert silent == [], "public functions and classes have docstrings"


def public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes at the top of a module, and methods of those classes, whose names have no underscore."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def tracked() -> list[Path]:
    """What git tracks or would track; without git, everything but what git would ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        skip = {".git", ".venv", ".jax_cache", ".hypothesis", ".pytest_cache", ".ruff_cache", "__pycache__", "local"}
        return [p for p in ROOT.rglob("*") if p.is_file() and not skip & set(p.relative_to(ROOT).parts)]
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


HOMES = re.compile(
    r"(?<![\w.])/(?:home|Users)/[\w.-]+|(?<![\w.])/root\b/|[A-Z]:\\Users\\|" + re.escape(str(ROOT)) + r"\b"
)
REGISTRIES = re.compile(r"(?:--(?:extra-)?index-url|https?://\S*(?:/simple|registry|artifactory))[^\s\"']*")


def test_no_path_of_one_machine_and_no_registry_address() -> None:
    files = [p for p in tracked() if p != Path(__file__).resolve()]
    assert ROOT / "pyproject.toml" in files and len(files) > 50
    found = []
    for path in files:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for pattern in (HOMES, REGISTRIES):
            found += [f"{path.relative_to(ROOT)}: {hit.group()}" for hit in pattern.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("see /home/ann/x", True),
        (f"open('/{'root'}/x')", True),
        ("/Users/ann", True),
        ("the URL docs.org/home/x", False),
        ("Path.home()", False),
        ("pip install --" + "index-url x", True),
        ("https" + "://packages.example/simple" + "/jax", True),
        ("https://arxiv.org/abs/1707.06347", False),
    ],
)
def test_those_patterns_themselves(text: str, hit: bool) -> None:
    assert bool(HOMES.search(text) or REGISTRIES.search(text)) is hit

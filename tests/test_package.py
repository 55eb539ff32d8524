"""The cost of importing and installing the package, and how its parts depend on each other."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest

import medfocus_bench

PACKAGE = Path(medfocus_bench.__file__).parent

LAYERS = (
    *("_version", "errors", "geometry", "text", "verdicts", "answers"),
    *("storage", "journal", "lock", "progress", "tables", "drawing", "engine"),
    *("data", "lvlm", "attribution", "counterfactual", "medfocus", "submission", "evaluation", "phantom"),
    *("runs", "paper", "leaderboard", "cli"),
)
"""The parts of the package from the ground up: each may import those before it."""

WITHOUT_MODELS = ("submission", "evaluation", "leaderboard")
"""Parts that score what is on disk. Of the parts that run LVLMs they use the type of an explanation only."""

MODEL_PARTS = ("lvlm", "attribution", "counterfactual", "medfocus", "phantom")


def imported_modules(program: str) -> set[str]:
    code = f"import sys\n{program}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    modules = imported_modules("import medfocus_bench")
    assert not modules & {"torch", "numpy", "scipy", "pyarrow", "pydantic", "rich"}


def test_scoring_never_imports_torch():
    modules = imported_modules("from medfocus_bench import evaluate, compare, SubmissionWriter")
    assert "scipy" in modules
    assert "torch" not in modules


def test_every_public_name_resolves():
    for name in medfocus_bench.__all__:
        assert getattr(medfocus_bench, name) is not None, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        medfocus_bench.nonsense  # noqa: B018


@cache
def module_names() -> dict[str, Path]:
    """Every module of the package with its file."""
    paths = {path: path.relative_to(PACKAGE.parent).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in paths.items()}


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a module imports, also for types and within functions."""
    modules = module_names()
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medfocus_bench."):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names}
    return found


def test_imports_go_downwards_only():
    parts = {path.name.removesuffix(".py") for path in PACKAGE.glob("[a-z_]*") if path.name != "py.typed"}
    assert parts - {"__init__", "__main__", "__pycache__"} == set(LAYERS)
    for name, path in module_names().items():
        part = name.split(".")[1] if "." in name else ""
        for target in imports_of(path) if part in LAYERS else ():
            other = target.split(".")[1]
            assert LAYERS.index(other) <= LAYERS.index(part), f"{name} imports {target}"
            if part in WITHOUT_MODELS and target != "medfocus_bench.attribution.attribution":
                assert other not in MODEL_PARTS, f"{name} imports {target}"


def test_modules_do_not_import_each_other_in_a_circle():
    imports = {name: imports_of(path) - {name} for name, path in module_names().items()}
    del imports["medfocus_bench"]  # its names load on first use
    TopologicalSorter(imports).prepare()


def test_every_module_imports_on_its_own():
    for name in module_names():
        if not name.endswith("__main__"):
            importlib.import_module(name)


MODULES = {"POT": "ot", "scikit-image": "skimage"}
"""Modules that are called otherwise than their distribution."""

FOUND_BY_OTHERS = {"pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "accelerate", "bitsandbytes"}
"""Decoders that pydicom imports itself, to unpack the pictures of DICOM files, and the libraries by which
transformers places and quantises weights."""


def extras() -> dict[str, set[str]]:
    """The distributions of each extra that users install, by their names in `pyproject.toml`."""
    table = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {name: {re.split(r"[^A-Za-z0-9_.-]", text)[0] for text in texts} for name, texts in table.items()}
    return {name: found - {"medfocus-bench"} for name, found in names.items() if name != "dev"}


@pytest.mark.parametrize("extra", extras())
def test_every_package_of_an_extra_is_imported_somewhere(extra):
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
                imported |= {word.value for word in node.args if isinstance(word, ast.Constant)}
    assert extras()[extra]
    needed = extras()[extra] - FOUND_BY_OTHERS
    assert {name for name in needed if MODULES.get(name, name) not in imported} == set()


def core_distributions(name: str, seen: set[str]) -> set[str]:
    """The distributions that installing the package without extras brings."""
    for requirement in metadata.requires(name) or ():
        wanted, _, condition = requirement.partition(";")
        dependency = re.split(r"[^A-Za-z0-9_.-]", wanted.strip())[0]
        if "extra ==" in condition or dependency in seen:
            continue
        try:
            metadata.distribution(dependency)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        seen.add(dependency)
        seen |= core_distributions(dependency, seen)
    return seen


def test_the_core_install_stays_under_600_mb():
    names = core_distributions("medfocus-bench", set())
    assert {"numpy", "scipy", "pyarrow", "pydantic"} <= names
    files = {Path(str(file.locate())) for name in names for file in metadata.files(name) or ()}
    assert sum(path.stat().st_size for path in files if path.is_file()) < 600e6


def test_no_module_calls_eval_exec_or_pickle():
    """Trap 30."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, path
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"pickle", "marshal", "shelve"}, path

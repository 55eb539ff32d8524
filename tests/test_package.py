"""What importing and installing the package costs, and how its parts depend on each other."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import medfocus_bench

PACKAGE = Path(medfocus_bench.__file__).parent

LAYERS = {
    "_version": set(),
    "errors": set(),
    "geometry": set(),
    "storage": {"errors"},
    "tables": {"errors"},
    "text": set(),
    "verdicts": {"text"},
    "answers": {"verdicts"},
    "data": {"errors", "geometry", "storage", "text", "answers"},
    "submission": {"errors", "geometry", "storage", "data"},
    "evaluation": {"errors", "geometry", "storage", "tables", "data", "submission"},
    "lvlm": {"errors", "geometry", "storage", "data", "answers", "verdicts"},
    "attribution": {"errors", "geometry", "text", "storage", "data", "answers", "lvlm"},
    "counterfactual": {"errors", "geometry", "storage", "data", "answers", "lvlm"},
    "medfocus": {
        *("errors", "geometry", "text", "storage", "data", "answers", "lvlm", "attribution"),
        "counterfactual",
    },
    "runs": {
        *("errors", "geometry", "storage", "tables", "data", "submission", "evaluation", "lvlm"),
        *("attribution", "counterfactual"),
    },
    "paper": {
        *("errors", "geometry", "storage", "tables", "data", "submission", "evaluation", "lvlm"),
        *("attribution", "counterfactual", "runs"),
    },
    "leaderboard": {
        *("errors", "geometry", "storage", "tables", "data", "submission", "evaluation", "runs", "paper"),
    },
    "phantom": {
        *("errors", "geometry", "storage", "data", "answers", "lvlm", "attribution", "counterfactual"),
        "evaluation",
    },
}
"""What each part may import of the package; the command line may import everything."""


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


@pytest.mark.parametrize("name", [name for name in medfocus_bench.__all__ if name != "__version__"])
def test_every_public_name_resolves(name):
    assert getattr(medfocus_bench, name).__name__ == {"open_benchmark": "load_benchmark"}.get(name, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        medfocus_bench.nonsense  # noqa: B018


def test_imports_go_downwards_only():
    for part, allowed in LAYERS.items():
        for path in [*PACKAGE.glob(f"{part}.py"), *(PACKAGE / part).rglob("*.py")]:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medfocus_bench."):
                    target = node.module.split(".")[1]
                    assert target in allowed | {part}, f"{path.name} imports {node.module}"


def test_every_module_imports_on_its_own():
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__main__.py":
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            importlib.import_module(".".join(parts).removesuffix(".__init__"))


MODULES = {"POT": "ot", "scikit-image": "skimage"}
"""Modules that are called otherwise than their distribution."""

DECODERS = {"pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg"}
"""What pydicom finds and imports itself, to unpack the pictures of DICOM files."""


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
    needed = extras()[extra] - DECODERS
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

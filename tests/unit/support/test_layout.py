"""The layout rules of docs/architecture.md."""

import ast
import subprocess
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("cli", "emulator", "infra", "lambda_fn", "model", "programs", "sample_data")
MAY_IMPORT = {
    "cli": {"emulator", "infra", "model", "programs", "sample_data"},
    "infra": {"programs", "model.core.archives", "model.core.artifact_digest"},
}


def python_files(*rooms: str) -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "--", *rooms], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in listing.stdout.split() if name.endswith(".py") and (ROOT / name).exists()]


FILES = python_files(*ROOMS)
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imports(module: str, *, of_functions: bool) -> set[str]:
    """Return our modules that a module imports, with or without what its functions import when they are called."""
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse((ROOT / MODULES[module]).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    later = set() if of_functions else {node for function in functions for node in ast.walk(function)}
    found: set[str] = set()
    for node in set(ast.walk(tree)) - later:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join(filter(None, [*start, node.module]))
            found |= {f"{source}.{alias.name}" for alias in node.names} & MODULES.keys() or {source}
    return found & MODULES.keys()


def test_imports_have_no_circle() -> None:
    list(TopologicalSorter({name: imports(name, of_functions=False) for name in MODULES}).static_order())


def test_imports_go_one_way() -> None:
    pairs = {(name, other) for name in MODULES for other in imports(name, of_functions=True)}
    allowed = {room: {room, *MAY_IMPORT.get(room, ())} for room in ROOMS}
    assert {p for p in pairs if not {p[1], p[1].split(".")[0]} & allowed[p[0].split(".")[0]]} == set()


def test_files_and_folders_are_small() -> None:
    files = [*FILES, *python_files("tests")]
    lines = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name for name, count in lines.items() if count > 350} == set()
    folders = Counter(str(path.parent) for path in files)
    assert {folder for folder, count in folders.items() if count > 12} == set()

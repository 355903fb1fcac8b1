"""MiniStack is what emulator/ministack was made for; when it is another one, a message says so."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from emulator.ministack import configuration

ROOT = Path(__file__).resolve().parents[2]
#: Names that are replaced in a loop over modules, and a member of a class.
ALSO_USED = {
    "ministack.core.lambda_runtime:Worker._drain_stderr_bounded",
    "ministack.services.cloudwatch:_metrics",
    "ministack.services.cloudwatch_logs:_log_groups",
    *(f"ministack.services.cloudformation.{m}:_deploy_stack_async" for m in ("changesets", "handlers", "stacks")),
    *(f"ministack.services.cloudformation.{m}:_delete_stack_async" for m in ("handlers", "stacks")),
    *(f"ministack.services.cloudformation.{m}:_{verb}_resource" for m in ("provisioners", "stacks")
      for verb in ("delete", "provision", "update")),
}  # fmt: skip


def test_every_name_of_ministack_that_is_used_is_there() -> None:
    sources = [*(ROOT / "emulator/ministack").rglob("*.py"), ROOT / "emulator/platform/server.py"]
    used = set().union(ALSO_USED, *(used_names(ast.parse(path.read_text())) for path in sources))
    assert len(used) > 100
    assert [name for name in sorted(used) if not exists(name)] == []


def used_names(tree: ast.Module) -> set[str]:
    """Names of MiniStack that a module imports, and attributes of MiniStack's modules that it touches."""
    names, modules = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ministack":
            for alias in node.names:
                qualified = f"{node.module}.{alias.name}"
                package = importlib.util.find_spec(node.module or "")
                if package and package.submodule_search_locations and importlib.util.find_spec(qualified):
                    modules[alias.asname or alias.name] = qualified
                else:
                    names.add(f"{node.module}:{alias.name}")
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name("around"), [ast.Name(module), ast.Constant(name), *_]) if module in modules:
                names.add(f"{modules[module]}:{name}")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            names.add(f"{modules[node.value.id]}:{node.attr}")
    return names


def exists(name: str) -> bool:
    module, _, attributes = name.partition(":")
    value: object = importlib.import_module(module)
    for attribute in attributes.split("."):
        value = getattr(value, attribute, None)
    return value is not None


def test_the_pin_of_the_requirements_is_the_version_that_this_was_made_for() -> None:
    configuration.check_version()
    pin = f"ministack=={configuration.PINNED_VERSION}"
    assert pin in (ROOT / "requirements.txt").read_text().splitlines()


def test_another_version_and_none_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(configuration, "version", lambda name: "9.9.9")
    with pytest.raises(configuration.ContractError, match=r"MiniStack 9\.9\.9 is installed.*ministack==1\.5\.33"):
        configuration.check_version()
    monkeypatch.setattr(configuration, "version", absent)
    with pytest.raises(configuration.ContractError, match=r"not installed.*ministack=="):
        configuration.check_version()

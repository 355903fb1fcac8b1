"""MiniStack is what emulator/ministack was made for; when it is not, one message says in which way."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from emulator.ministack import contract

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"


def test_the_installed_ministack_is_the_one_that_this_was_made_for() -> None:
    contract.check_version()
    contract.check_names()


def test_the_pin_of_the_requirements_is_the_version_of_the_contract() -> None:
    assert f"ministack=={contract.PINNED_VERSION}" in REQUIREMENTS.read_text().splitlines()


def test_every_name_of_ministack_that_is_used_is_in_the_contract() -> None:
    package = Path(contract.__file__).parent
    sources = [path.read_text() for path in [*package.rglob("*.py"), package.parent / "platform" / "server.py"]]
    used = set().union(*map(used_names, sources))
    listed = {without_members(name) for name in contract.TOUCHED}
    assert used - listed == set()
    assert listed - used <= BY_ATTRIBUTE


#: Touched, but not as an attribute of a module of that name: in a loop, or of the module that a service's name gives.
BY_ATTRIBUTE = {
    "ministack.services.cloudformation.changesets:_deploy_stack_async",
    "ministack.services.cloudformation.handlers:_delete_stack_async",
    "ministack.services.cloudformation.handlers:_deploy_stack_async",
    "ministack.services.cloudwatch:_metrics",
    "ministack.services.cloudformation.provisioners:_delete_resource",
    "ministack.services.cloudformation.provisioners:_provision_resource",
    "ministack.services.cloudformation.provisioners:_update_resource",
    "ministack.services.cloudwatch_logs:_log_groups",
}


def without_members(name: str) -> str:
    """``module:Class.method`` as ``module:Class``."""
    module, _, attributes = name.partition(":")
    return f"{module}:{attributes.partition('.')[0]}"


def used_names(source: str) -> set[str]:
    """Names of MiniStack that a module imports, and attributes of MiniStack's modules that it touches."""
    tree = ast.parse(source)
    names, modules = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ministack":
            for alias in node.names:
                qualified = f"{node.module}.{alias.name}"
                if importlib.util.find_spec(node.module).submodule_search_locations and _is_module(qualified):
                    modules[alias.asname or alias.name] = qualified
                else:
                    names.add(f"{node.module}:{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            names.add(f"{modules[node.value.id]}:{node.attr}")
    return names


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def test_another_version_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "version", lambda name: "9.9.9")
    with pytest.raises(contract.ContractError, match=r"MiniStack 9\.9\.9 is installed.*ministack==1\.5\.33"):
        contract.check_version()


def test_a_missing_ministack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(contract, "version", absent)
    with pytest.raises(contract.ContractError, match=r"not installed.*ministack=="):
        contract.check_version()


def test_all_names_that_are_missing_are_listed_at_once() -> None:
    names = ["ministack.app:no_such_name", "ministack.app:app", "ministack.no_such_module:x"]
    with pytest.raises(contract.ContractError) as failed:
        contract.check_names(names)
    heading, *listed = str(failed.value).splitlines()
    assert heading == f"MiniStack {contract.PINNED_VERSION} is not what emulator/ministack was made for:"
    assert [line.split()[0] for line in listed] == [names[0], names[2]]

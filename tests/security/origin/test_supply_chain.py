"""What is installed or built upon is what was pinned: by hash where it is a package, by digest where it is an image.

The exceptions are PyTorch's packages, whose builds differ by machine, and the packages of AWS's training image.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pip_requirements_parser import RequirementsFile

from benchmarks import serving_systems
from model.core.packaging import SERVING_PACKAGES

ROOT = Path(__file__).resolve().parents[3]
#: Files of pins, for people, each with a lock beside it, which is what is installed.
PINNED = sorted([*ROOT.glob("requirements-*.txt"), *ROOT.glob("benchmarks/requirements-*.txt")])
#: Files that others install by this name, so they hold the hashes themselves.
HASHED = [ROOT / "model/training/job/requirements.txt", ROOT / "model/serving/image/requirements.txt"]
#: Its builds for processors only come from another place than those with CUDA, so it has no hash that fits all.
OF_PYTORCH = {"torch", "torchvision"}
#: Comes with AWS's training image, whose PyTorch was built with it.
OF_THE_TRAINING_IMAGE = {"numpy"}


def requirements(path: Path) -> list[Any]:
    """The requirements of a file and of those that it includes."""
    found = RequirementsFile.from_file(str(path), include_nested=True)
    assert not found.invalid_lines
    return list(found.requirements)


def pins(path: Path) -> dict[str, str]:
    """Exact version by package."""
    assert [it.name for it in requirements(path) if not it.is_pinned] == []
    return {canonicalize_name(it.name): it.get_pinned_version for it in requirements(path)}


@pytest.mark.parametrize("path", PINNED, ids=lambda path: path.name)
def test_the_lock_has_what_is_pinned(path: Path) -> None:
    wanted = {package: version for package, version in pins(path).items() if package not in OF_PYTORCH}
    assert pins(path.with_suffix(".lock")) == wanted, "run make lock"


@pytest.mark.parametrize("path", HASHED, ids=lambda path: path.parent.name)
def test_what_is_installed_elsewhere_has_the_versions_of_the_tests(path: Path) -> None:
    assert pins(path).items() <= pins(ROOT / "requirements.txt").items(), "run make lock"


@pytest.mark.parametrize("path", [*(path.with_suffix(".lock") for path in PINNED), *HASHED], ids=lambda path: path.name)
def test_every_package_has_its_hashes_and_no_source_of_its_own(path: Path) -> None:
    hashes = {it.name: it.hash_options for it in requirements(path)}
    assert hashes
    assert [
        name for name, given in hashes.items() if not given or not all(it.startswith("sha256:") for it in given)
    ] == []
    assert "://" not in path.read_text(encoding="utf-8")


def test_bills_of_materials_are_valid_and_have_all_hashes(record_property: Callable[[str, object], None]) -> None:
    # To validate the whole operator's takes 13 seconds; `make sbom` does.
    subprocess.run(["make", "sbom", "VALIDATE=--no-validate"], cwd=ROOT, check=True, capture_output=True)
    without = {}
    for path in (ROOT / "build" / "sbom").glob("*.json"):
        bill = json.loads(path.read_text())
        parts, bill["components"] = bill["components"], bill["components"][::10]
        version = SchemaVersion[f"V{bill['specVersion'].replace('.', '_')}"]
        assert JsonStrictValidator(version).validate_str(json.dumps(bill)) is None
        without[path.stem] = {part["name"] for part in parts if '"content"' not in json.dumps(part)}
        hashed = len(parts) - len(without[path.stem])
        record_property(f"packages with hashes, {path.stem}", f"{hashed} of {len(parts)}")
    assert without == {"operator": OF_PYTORCH, "serving-image": set(), "training-job": set(), "node": set()}
    record_property("packages without: builds differ by machine", ", ".join(sorted(OF_PYTORCH)))


def make_commands() -> list[str]:
    """What make would run for all targets on a machine where nothing is installed yet."""
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", *" ".join(targets).split()]
    done = subprocess.run([*command, "ACCOUNT=1", "REGION=r"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.replace("\\\n", " ").splitlines()


def test_make_installs_nothing_without_a_hash_but_pytorch_and_this_project() -> None:
    commands = make_commands()
    installations = [command for command in commands if "pip install" in command]
    ours, pytorch = sorted((command for command in installations if "--require-hashes" not in command), key=len)
    # Nothing is fetched for this: its dependencies and what builds it are installed by then.
    assert ours.endswith("--no-deps --no-build-isolation --editable . --editable ./emulator")
    uv, _, pip = pytorch.partition(" || ")
    assert uv.endswith("--constraint requirements.txt torch torchvision 2>/dev/null")
    assert pip.endswith("--constraint requirements.txt torch torchvision")
    assert len(installations) > 4
    assert all("--only-binary :all:" in command for command in installations if command != ours)
    assert any(command.startswith("npm ci ") for command in commands)


def test_the_benchmarks_peers_are_installed_by_hash_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Mock(return_value=subprocess.CompletedProcess([], 0, ""))
    monkeypatch.setattr(serving_systems.subprocess, "run", run)
    monkeypatch.setattr(serving_systems.shutil, "rmtree", Mock())
    (tmp_path / "peers").mkdir()
    serving_systems.install_peers(tmp_path / "peers", print)
    ran = [" ".join(call.args[0]) for call in run.call_args_list]
    checked, pytorch = (command for command in ran if "pip install" in command)
    assert "--require-hashes" in checked
    assert pytorch.endswith("requirements-peers.txt torch torchvision")
    assert not any("--seed" in command for command in ran)


LINUX = [
    {**default_environment(), "sys_platform": "linux", "python_version": version, "python_full_version": f"{version}.0"}
    for version in ("3.11", "3.12", "3.13", "3.14")
]


@pytest.mark.parametrize(
    ("path", "environment", "there_already"),
    [
        (ROOT / "requirements-dev.lock", default_environment(), OF_PYTORCH),
        # With one hash in the file of a training job pip asks for all.
        *((HASHED[0], machine, OF_THE_TRAINING_IMAGE) for machine in LINUX),
    ],
)
def test_what_is_installed_leaves_no_dependency_out(
    path: Path, environment: dict[str, str], there_already: set[str]
) -> None:
    listed = pins(path).keys()
    # Not installed here: what only other systems need.
    installed = [package for package in listed if any(importlib.metadata.distributions(name=package))]
    needs = [Requirement(text) for package in installed for text in importlib.metadata.requires(package) or ()]
    here = {**environment, "extra": ""}
    needed = {canonicalize_name(n.name) for n in needs if n.marker is None or n.marker.evaluate(here)}
    assert needed - listed <= there_already


def test_the_serving_image_is_built_on_a_digest() -> None:
    dockerfile = (ROOT / "model/serving/image/Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    # The tag says what it is; the digest is what counts.
    assert re.fullmatch(r"[\w./-]+:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${BASE}"}
    (install,) = re.findall(r"pip .*install[^&]*?(?=\n\n|\n[A-Z])", dockerfile.replace("\\\n", " "))
    assert {"--require-hashes", "--no-deps", ":all:"} <= set(install.split())
    assert "apt" not in dockerfile.split()


def test_what_a_page_or_a_notebook_tells_a_person_to_install_has_its_version() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    told = [
        word
        for page in pages
        for command in re.findall(r"pip install ([^&`\n]*)", page.read_text(encoding="utf-8"))
        for word in command.split()
    ]
    assert "jupyterlab" in {word.partition("==")[0] for word in told}
    # Not a package: an option or its file, and what a file of constraints holds to a version.
    allowed = re.compile(r"[\w.-]+==[\w.]+|-.*|.*\.(txt|lock)|\W+|" + "|".join(OF_PYTORCH))
    assert [word for word in told if not allowed.fullmatch(word)] == []


def test_the_serving_image_has_every_package_that_its_program_imports() -> None:
    names = {"httptools"}  # uvicorn takes it where it is installed
    for module in (path for name in SERVING_PACKAGES for path in (ROOT / "model" / name).rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).partition(".")[0])
    providers = importlib.metadata.packages_distributions()
    # PyTorch: `network.py` is for trainings.
    needed = {canonicalize_name(providers[name][0]) for name in names - sys.stdlib_module_names - OF_PYTORCH}
    assert needed <= pins(HASHED[1]).keys()

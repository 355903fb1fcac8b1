"""The local AWS as a distribution of its own: what is in it, what it needs, whose pins are those of the project."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from emulator.containers import mounts
from emulator.ministack.configuration import PINNED_VERSION
from emulator.platform.running import lifecycle

ROOT = Path(__file__).resolve().parents[4]
OURS, PROJECT = (tomllib.loads((ROOT / name / "pyproject.toml").read_text()) for name in ("emulator", ""))
NEEDED = {canonicalize_name(it.name): it for it in map(Requirement, OURS["project"]["dependencies"])}
LISTED = ["git", "ls-files", "-co", "--exclude-standard", "emulator"]
FILES = [path for path in map(Path, subprocess.check_output(LISTED, cwd=ROOT, text=True).split()) if path.suffix]
#: Of the installation that runs the tests or the training program, where there is one; of what builds the wheel.
OF_OTHERS = {"pytest", "torch", "setuptools"}


def test_its_versions_are_those_of_the_project() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {
        canonicalize_name(line.split("==")[0]): line.split("==")[1].split(";")[0] for line in lines if "==" in line
    }
    assert [name for name, it in NEEDED.items() if pinned[name] not in it.specifier] == []
    exact = {name: str(it.specifier)[2:] for name, it in NEEDED.items() if str(it.specifier).startswith("==")}
    assert exact == {**{name: pinned[name] for name in ("boto3", "botocore")}, "ministack": PINNED_VERSION}
    for table, entry in (("build-system", "requires"), ("project", "version"), ("project", "requires-python")):
        assert OURS[table][entry] == PROJECT[table][entry]


def test_it_needs_what_it_imports_and_neither_torch_nor_the_cdk() -> None:
    imported = {name for path in FILES if path.suffix == ".py" for name in _imports(ROOT / path)}
    places = importlib.metadata.packages_distributions()
    modules = imported - sys.stdlib_module_names - {"emulator", "backports"} - OF_OTHERS
    used = {canonicalize_name(name) for module in modules for name in places[module]}
    # Those that it imports by another name, and that MiniStack does.
    assert NEEDED.keys() - used == {"backports-tarfile", "cryptography"}
    all_needed, left = set[str](), set(NEEDED) - {"backports-tarfile"}
    while left:
        all_needed |= left
        left = {name for package in left for name in _needed_by(package)} - all_needed
    assert used <= all_needed
    assert {name for name in all_needed if name.startswith(("torch", "aws-cdk", "jsii", "sagemaker"))} == set()


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        yield from (name.split(".")[0] for name in names)


def _needed_by(package: str) -> Iterator[str]:
    for it in map(Requirement, importlib.metadata.requires(package) or ()):
        if it.marker is None or it.marker.evaluate({"extra": ""}):
            yield canonicalize_name(it.name)


def test_the_page_of_operations_is_what_the_command_prints() -> None:
    printed = subprocess.check_output([sys.executable, "-m", "emulator", "operations"], cwd=ROOT, text=True)
    assert "`cognito-idp`" in printed.partition("**Closed,**")[2]
    page = ROOT / "docs/local-aws-operations.md"
    assert page.read_text(encoding="utf-8") == printed, "loopback-aws operations >docs/local-aws-operations.md"


def test_the_wheel_is_small_and_has_every_module(tmp_path: Path) -> None:
    # Without --wheel the wheel is made of the source distribution, so that has all, too.
    build = f"{sys.executable} -m uv build -q --no-build-isolation --python {sys.executable} -o {tmp_path} emulator"
    subprocess.run(build.split(), cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 1e6
    content = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info" not in name}
    without = {"emulator/pyproject.toml", "emulator/README.md", "emulator/setup.py"}
    assert content == {path.as_posix() for path in FILES} - without


@pytest.mark.skipif(not mounts.available(), reason="this machine lets its users mount nothing")
def test_a_notebook_finds_its_role_and_bucket_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "environment", lambda state_dir: {})
    monkeypatch.chdir(tmp_path)
    read = "cat /opt/ml/metadata/resource-metadata.json $SAGEMAKER_USER_CONFIG_OVERRIDE > found; exit 7"
    assert lifecycle.notebook(Path("state"), "arn:role", ["sh", "-c", read]) == 7
    assert '{"ExecutionRoleArn": "arn:role"}' in (found := Path("found").read_text())
    assert '{"DefaultS3Bucket": "sagemaker-us-east-1-000000000000"}' in found

"""What goes into the serving image, as far as it can be checked without building it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from model.core.packaging import SERVING_PACKAGES

ROOT = Path(__file__).resolve().parents[4]
IMAGE = ROOT / "model" / "serving" / "image"
# The networks are for the training; the serving program does not import them.
NOT_IN_THE_IMAGE = {"torch", "torchvision"}
# Not imported by us: uvicorn takes it where it is installed.
PARSER_OF_UVICORN = "httptools"


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Versions by package; every other line of the file is a comment, a hash or a reference to another file."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {normalised(name): version for name, version in found}


def imported_packages() -> set[str]:
    """What the serving modules import beyond the standard library and each other."""
    names = set()
    for module in (path for name in SERVING_PACKAGES for path in (ROOT / "model" / name).glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(str(node.module).partition(".")[0])
    return names - sys.stdlib_module_names - NOT_IN_THE_IMAGE


def test_image_has_the_packages_that_the_serving_program_imports_in_the_versions_that_the_tests_run():
    providers = packages_distributions()
    needed = {normalised(providers[name][0]) for name in imported_packages()} | {PARSER_OF_UVICORN}
    direct = {line.strip() for line in (IMAGE / "requirements.in").read_text().splitlines() if line[:1] not in "# "}
    assert needed == direct
    tested, image = pins(ROOT / "requirements.txt"), pins(IMAGE / "requirements.txt")
    assert needed <= image.keys()
    assert {name: tested.get(name) for name in image} == image


def test_every_package_of_the_image_is_pinned_by_hash():
    text = (IMAGE / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", "")
    entries = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert entries
    assert [line for line in entries if "==" not in line or "--hash=sha256:" not in line] == []


def test_container_does_not_run_as_root_and_onnx_runtime_reports_to_nobody():
    dockerfile = (IMAGE / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["10001:10001"]
    assert "ORT_DISABLE_TELEMETRY=1" in dockerfile


@pytest.mark.parametrize("program", ["import os, sys\nprint(os.getpid(), os.getppid())\nsys.exit(7)\n", None])
def test_command_becomes_the_artifacts_program_or_says_what_is_missing(tmp_path: Path, program: str | None):
    if program is not None:
        (tmp_path / "code").mkdir()
        # Without the permission to execute: SageMaker's unpacking need not keep it.
        (tmp_path / "code" / "serve").write_text(program, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "SM_MODEL_DIR": str(tmp_path)}
    done = subprocess.run(IMAGE / "serve", env=environment, capture_output=True, text=True, timeout=60, check=False)
    if program is None:
        assert done.returncode == 1
        assert f"There is no serving program at {tmp_path}/code/serve" in done.stderr
    else:
        assert done.returncode == 7
        assert done.stdout.split()[1] == str(os.getpid())  # in the same process, which gets the signal to stop

"""What goes into the serving image, as far as it can be checked without building it.

That its packages are those of the tests, by hash, is in tests/security/test_supply_chain.py.
"""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from model.core.packaging import SERVING_PACKAGES

ROOT = Path(__file__).resolve().parents[4]
IMAGE = ROOT / "model" / "serving" / "image"
# The networks are for the training; the serving program does not import them.
NOT_IN_THE_IMAGE = {"torch", "torchvision"}
# Not imported by us: uvicorn takes it where it is installed.
PARSER_OF_UVICORN = "httptools"


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


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


def test_image_has_the_packages_that_the_serving_program_imports():
    providers = packages_distributions()
    needed = {normalised(providers[name][0]) for name in imported_packages()} | {PARSER_OF_UVICORN}
    direct = {line.strip() for line in (IMAGE / "requirements.in").read_text().splitlines() if line[:1] not in "# "}
    assert needed == direct


def test_container_does_not_run_as_root_and_onnx_runtime_reports_to_nobody():
    dockerfile = (IMAGE / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["10001:10001"]
    assert "ORT_DISABLE_TELEMETRY=1" in dockerfile


def test_a_missing_program_is_named(tmp_path: Path):
    environment = {"PATH": os.environ["PATH"], "SM_MODEL_DIR": str(tmp_path)}
    done = subprocess.run(IMAGE / "serve", env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"There is no serving program at {tmp_path}/code/serve" in done.stderr

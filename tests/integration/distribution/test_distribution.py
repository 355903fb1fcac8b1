"""The distribution as a stranger has it: an environment without this project, and projects that know nothing of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from clone import ROOT, Project

from emulator.platform.processes import process_started
from emulator.platform.settings import free_port

EXAMPLES = ROOT / "tests/examples"
MEMORY_BYTES = 150e6
SDK_FOR_NODE = "@aws-sdk/client-s3@3.1175.0"
#: Makes what jobs need, and asks the stack of the CDK's example.
(START,) = re.findall(r"```python\n(import json\n.*?)```", (ROOT / "emulator/README.md").read_text(), re.DOTALL)
PLACES = ("my-bucket", "arn:aws:iam::000000000000:role/jobs")
ASK = """
import boto3
print(boto3.client("lambda").invoke(FunctionName="example:live", Payload='{"name": "rex"}')["Payload"].read().decode())
scaling = boto3.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="lambda")
print(*(target["MaxCapacity"] for target in scaling["ScalableTargets"]))
"""
#: A stranger's tests, in a shell that points elsewhere.
TESTS = """
import os, shutil, boto3

def test_programs_find_it(local_aws):
    boto3.client("s3").create_bucket(Bucket="made")
    assert boto3.client("s3").meta.endpoint_url == local_aws.endpoint_url

def test_its_variables_are_gone_and_it_is_not(local_aws_server):
    assert os.environ["AWS_SESSION_TOKEN"] == "x" and "AWS_ENDPOINT_URL" not in os.environ
    assert [it.name for it in local_aws_server.session("eu-west-1").resource("s3").buckets.all()] == ["made"]
    shutil.copy(local_aws_server.state_dir / "server.json", ".")
"""


class Stranger(Project):
    """A folder with an environment that has the distribution and `requirements`."""

    def __init__(self, folder: Path, *requirements: str | Path) -> None:
        path = f"{folder / 'environment/bin'}:{ROOT / 'node_modules/.bin'}:{os.environ['PATH']}"
        own = {"HOME": str(folder), "SAGEMAKER_VALIDATE_ROLE": "false", "PATH": path}
        super().__init__(folder, free_port(), {**os.environ, **own})
        uv = f"{sys.executable} -m uv"
        self.run(*f"{uv} build -q --no-build-isolation --python {sys.executable} -o dist {ROOT}/emulator".split())
        self.run(*f"{uv} venv -q --seed --python {sys.executable} environment".split())
        install = f"{uv} pip install -q --compile-bytecode --python environment/bin/python"  # as pip does
        self.run(*install.split(), *map(str, (folder / "dist").glob("*.whl")))
        # pip, where it is told to, finds builds of PyTorch without CUDA; uv does not.
        self.run("environment/bin/python", "-m", "pip", "install", "-q", "--no-compile", *requirements)

    def up(self) -> psutil.Process:
        said = self.run("loopback-aws", "up", "--port", str(self.port))
        exported = [line.removeprefix("export ").split("=", 1) for line in self.run("loopback-aws", "env").splitlines()]
        self.environment |= dict(exported)
        return psutil.Process(int(re.findall(r"process (\d+)", said)[0]))


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Callable[..., Stranger]]:
    yield lambda *requirements: Stranger(tmp_path, *requirements)
    if (program := tmp_path / "environment/bin/loopback-aws").exists():
        subprocess.run([program, "down"], cwd=tmp_path, check=True)


@pytest.fixture
def example(stranger: Callable[..., Stranger], tmp_path: Path) -> Callable[[str], Stranger]:
    """Make the environment of an example, with a local AWS that runs and has what jobs need."""

    def start(name: str) -> Stranger:
        shutil.copytree(EXAMPLES / name, tmp_path, dirs_exist_ok=True)
        made = stranger("-r", "requirements.txt")
        if name == "cdk":  # what AWS's Node runtimes bring, and the function that empties buckets needs
            made.run("npm", "install", "--no-fund", "--no-audit", "--loglevel=error", SDK_FOR_NODE)
            made.environment["NODE_PATH"] = str(tmp_path / "node_modules")
        made.up()
        made.run("python", "-c", START)
        return made

    return start


def test_an_empty_server_is_small_and_the_plugin_costs_nothing_until_it_is_asked_for(
    stranger: Callable[..., Stranger], tmp_path: Path
) -> None:
    installed = stranger("pytest")
    elsewhere = {**installed.environment, "AWS_ENDPOINT_URL_S3": "https://s3.example.org", "AWS_SESSION_TOKEN": "x"}
    server = installed.up()
    whole = [server, *server.children(recursive=True)]
    assert sum(process.memory_info().rss for process in whole) < MEMORY_BYTES
    installed.environment = elsewhere
    (tmp_path / "test_it.py").write_text(TESTS)
    assert "2 passed" in installed.run("python", "-m", "pytest", "-q", "test_it.py")
    assert process_started(int(re.findall(r'"pid": (\d+)', (tmp_path / "server.json").read_text())[0])) is None
    modules = installed.run(
        "python", "-c", "import sys, pytest; pytest.main(['--markers']); print(*sys.modules)"
    ).split()
    assert "emulator.pytest_plugin" in modules
    assert not {"boto3", "botocore", "ministack", "pydantic", "psutil", "emulator.platform"} & set(modules)


def test_examples_know_nothing_of_this_project() -> None:
    for path in EXAMPLES.rglob("*.py"):
        ours = r"loopback|127\.0\.0\.1|endpoint_url|(import|from) (cli|emulator|infra|model|programs)\b"
        assert not re.search(ours, path.read_text(encoding="utf-8")), path


@pytest.mark.slow
def test_scikit_learn_is_trained_and_its_inference_py_served(example: Callable[[str], Stranger]) -> None:
    said = example("scikit-learn").run("python", "run.py", *PLACES)
    assert "endpoint: ['0', '1', '2']" in said and "transform: ['0', '1', '2']" in said, said


@pytest.mark.slow
def test_pytorch_is_tuned(example: Callable[[str], Stranger]) -> None:
    said = example("pytorch").run("python", "tune.py", *PLACES)
    assert re.search(r"best: .*-00[123]-.* of 3, loss \d+\.\d+", said), said


@pytest.mark.slow
def test_a_cdk_app_with_a_network_is_deployed_and_destroyed(example: Callable[[str], Stranger]) -> None:
    made = example("cdk")
    made.run("cdk", "bootstrap", "aws://000000000000/us-east-1")
    made.run("cdk", "deploy", "--app", "python app.py", "--require-approval", "never")
    assert made.run("python", "-c", ASK).splitlines() == ['{"seen": "rex"}', "3"]
    made.run("cdk", "destroy", "--app", "python app.py", "--force")

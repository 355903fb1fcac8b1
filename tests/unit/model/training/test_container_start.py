"""The entry point of a training job: what SageMaker's toolkit would prepare, and then the program in its place."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.training.sagemaker import CODE_CHANNEL, ENTRY_POINT, SOURCE_DIR, source_bundle
from model.training.arguments import parse_arguments

#: Stands for train.py: says what it was given.
PROGRAM = """
import json, os, sys
print(json.dumps({"pid": os.getpid(), "argv": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}))
"""


class Container:
    """/opt/ml as SageMaker fills it."""

    def __init__(self, root: Path, hyperparameters: dict[str, str], requirements: str = "") -> None:
        self.root = root / "opt ml"
        source = root / "source"
        source.mkdir()
        shutil.copy(SOURCE_DIR / "container_start.py", source)
        (source / "train.py").write_text(PROGRAM)
        (source / "requirements.txt").write_text(requirements)
        for folder in ("input/config", "input/data/training", f"input/data/{CODE_CHANNEL}", "model", "output/data"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "input" / "data" / CODE_CHANNEL / "sourcedir.tar.gz").write_bytes(source_bundle(source))
        resources = {
            "hosts": ["algo-1", "algo-2"],
            "current_host": "algo-2",
            "current_instance_type": "ml.m5.xlarge",
            "network_interface_name": "eth0",
        }
        for name, content in (("resourceconfig", resources), ("hyperparameters", hyperparameters)):
            (self.root / "input" / "config" / f"{name}.json").write_text(json.dumps(content))

    def start(self) -> subprocess.Popen[str]:
        """Run the entry point as the request has it, but for the place of /opt/ml."""
        (line,) = ENTRY_POINT["ContainerArguments"]
        place = self.root.with_name("opt-ml")
        place.symlink_to(self.root)
        command = [*ENTRY_POINT["ContainerEntrypoint"], line.replace("/opt/ml", str(place))]
        variables = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PIP_NO_INDEX": "1"}
        return subprocess.Popen(
            command, cwd=self.root, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    values = {"lr": '"0.01"', "seed": "3", "weights": '"a b; $HOME"', "architecture": "resnet9", "mixup": "-1e-05"}
    container = Container(tmp_path_factory.mktemp("job"), values)
    process = container.start()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return container, process, json.loads(output.splitlines()[-1])


def test_the_program_takes_the_place_of_the_first_process(given):
    _, process, found = given
    assert found["pid"] == process.pid


def test_hyperparameters_reach_the_program_as_they_are(given):
    _, _, found = given
    assert found["argv"] == [
        "--architecture=resnet9", "--lr=0.01", "--mixup=-1e-05", "--seed=3", "--weights=a b; $HOME",
    ]  # fmt: skip


def test_the_program_finds_its_places_and_the_other_hosts(given):
    container, _, found = given
    arguments = parse_arguments([], found["environment"])
    assert arguments.data_dir == container.root / "input" / "data" / "training"
    assert arguments.model_dir == container.root / "model"
    assert arguments.output_data_dir == container.root / "output" / "data"
    assert (arguments.hosts, arguments.current_host) == (("algo-1", "algo-2"), "algo-2")
    assert found["environment"]["SM_OUTPUT_DIR"] == str(container.root / "output")
    assert found["environment"]["SM_NETWORK_INTERFACE_NAME"] == "eth0"
    assert found["environment"]["SM_CURRENT_INSTANCE_TYPE"] == "ml.m5.xlarge"
    assert Path(found["cwd"]) == container.root / "code"


def test_packages_that_cannot_be_installed_are_the_reason_of_the_failure(tmp_path):
    container = Container(tmp_path, {}, "no-such-package==9\n")
    process = container.start()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no-such-package==9" in output + errors
    assert (container.root / "output" / "failure").read_text().startswith("The packages in requirements.txt could not")


def test_the_entry_point_fits_into_the_request():
    assert all(len(part) <= 256 and "\n" not in part for part in ENTRY_POINT["ContainerArguments"])

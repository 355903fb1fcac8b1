"""The entry point of a training job: what SageMaker's toolkit would prepare, and then the program in its place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.training.sagemaker import ENTRY_POINT, SOURCE_DIR
from model.training.arguments import parse_arguments

#: Stands for train.py: says what it was given.
PROGRAM = """
import json, os, sys
print(json.dumps({"pid": os.getpid(), "argv": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}))
"""
RESOURCES = {
    "hosts": ["algo-1", "algo-2"], "current_host": "algo-2", "current_instance_type": "ml.m5.xlarge",
    "network_interface_name": "eth0",
}  # fmt: skip


@pytest.mark.parametrize("requirements", ["", "no-such-package==9\n"])
def test_the_program_takes_the_place_of_the_first_process_unless_a_package_is_missing(tmp_path, requirements):
    values = {"lr": '"0.01"', "seed": "3", "weights": '"a b; $HOME"', "architecture": "resnet9", "mixup": "-1e-05"}
    for name in ("code", "input/config", "input/data/training", "model", "output/data"):
        (tmp_path / name).mkdir(parents=True)
    for name, content in (
        ("code/container_start.py", (SOURCE_DIR / "container_start.py").read_text()),
        ("code/train.py", PROGRAM),
        ("code/requirements.txt", requirements),
        ("input/config/resourceconfig.json", json.dumps(RESOURCES)),
        ("input/config/hyperparameters.json", json.dumps(values)),
    ):
        (tmp_path / name).write_text(content)
    assert all(len(line) <= 256 and "\n" not in line for line in ENTRY_POINT["ContainerArguments"])
    assert " && exec python " in ENTRY_POINT["ContainerArguments"][-1], "or the shell would hear of a stop in its place"
    variables = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PIP_NO_INDEX": "1"}
    command, pipe = [sys.executable, tmp_path / "code" / "container_start.py"], subprocess.PIPE
    process = subprocess.Popen(command, env=variables, stdout=pipe, stderr=pipe, text=True)
    output, errors = process.communicate(timeout=60)
    if requirements:
        assert process.returncode == 1
        assert "no-such-package==9" in output + errors
        assert (tmp_path / "output" / "failure").read_text().startswith("The packages in requirements.txt could not")
        return
    found = json.loads(output.splitlines()[-1])
    assert (found["pid"], found["cwd"]) == (process.pid, str(tmp_path / "code"))
    assert found["argv"] == [
        "--architecture=resnet9", "--lr=0.01", "--mixup=-1e-05", "--seed=3", "--weights=a b; $HOME",
    ]  # fmt: skip
    arguments = parse_arguments([], found["environment"])
    assert (arguments.data_dir, arguments.model_dir) == (tmp_path / "input" / "data" / "training", tmp_path / "model")
    assert (arguments.hosts, arguments.current_host) == (("algo-1", "algo-2"), "algo-2")
    expected = {"SM_OUTPUT_DIR": str(tmp_path / "output"), "SM_NETWORK_INTERFACE_NAME": "eth0"}
    assert expected.items() <= found["environment"].items()

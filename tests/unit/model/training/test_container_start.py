"""The entry point of a training job: what SageMaker's toolkit would prepare, and then the program in its place."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from cli.training.sagemaker import CODE_CHANNEL, ENTRY_POINT, SOURCE_DIR, source_bundle
from model.training.arguments import parse_arguments

#: Stands for train.py: says what it was given.
PROGRAM = """
import json, os, sys
print(json.dumps({"pid": os.getpid(), "argv": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}))
"""


def start(folder: Path, hyperparameters: dict[str, str], requirements: str = "") -> tuple[Path, subprocess.Popen[str]]:
    """Fill /opt/ml as SageMaker does, and run the entry point as the request has it, but for that place."""
    root, source = folder / "opt-ml", folder / "source"
    source.mkdir()
    shutil.copy(SOURCE_DIR / "container_start.py", source)
    (source / "train.py").write_text(PROGRAM)
    (source / "requirements.txt").write_text(requirements)
    for name in ("input/config", "input/data/training", f"input/data/{CODE_CHANNEL}", "model", "output/data"):
        (root / name).mkdir(parents=True)
    (root / "input" / "data" / CODE_CHANNEL / "sourcedir.tar.gz").write_bytes(source_bundle(source))
    resources = {
        "hosts": ["algo-1", "algo-2"], "current_host": "algo-2", "current_instance_type": "ml.m5.xlarge",
        "network_interface_name": "eth0",
    }  # fmt: skip
    for name, content in (("resourceconfig", resources), ("hyperparameters", hyperparameters)):
        (root / "input" / "config" / f"{name}.json").write_text(json.dumps(content))
    (line,) = ENTRY_POINT["ContainerArguments"]
    assert len(line) <= 256 and "\n" not in line, "what a request takes"
    command = [*ENTRY_POINT["ContainerEntrypoint"], line.replace("/opt/ml", str(root))]
    variables = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PIP_NO_INDEX": "1"}
    pipe = subprocess.PIPE
    return root, subprocess.Popen(command, cwd=root, env=variables, stdout=pipe, stderr=pipe, text=True)


def test_the_program_takes_the_place_of_the_first_process_with_its_hyperparameters_and_places(tmp_path):
    values = {"lr": '"0.01"', "seed": "3", "weights": '"a b; $HOME"', "architecture": "resnet9", "mixup": "-1e-05"}
    root, process = start(tmp_path, values)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found = json.loads(output.splitlines()[-1])
    assert found["pid"] == process.pid
    assert found["argv"] == [
        "--architecture=resnet9", "--lr=0.01", "--mixup=-1e-05", "--seed=3", "--weights=a b; $HOME",
    ]  # fmt: skip
    arguments = parse_arguments([], found["environment"])
    assert arguments.data_dir == root / "input" / "data" / "training"
    assert (arguments.model_dir, arguments.output_data_dir) == (root / "model", root / "output" / "data")
    assert (arguments.hosts, arguments.current_host) == (("algo-1", "algo-2"), "algo-2")
    assert found["environment"]["SM_OUTPUT_DIR"] == str(root / "output")
    assert found["environment"]["SM_NETWORK_INTERFACE_NAME"] == "eth0"
    assert found["environment"]["SM_CURRENT_INSTANCE_TYPE"] == "ml.m5.xlarge"
    assert Path(found["cwd"]) == root / "code"


def test_packages_that_cannot_be_installed_are_the_reason_of_the_failure(tmp_path):
    root, process = start(tmp_path, {}, "no-such-package==9\n")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no-such-package==9" in output + errors
    assert (root / "output" / "failure").read_text().startswith("The packages in requirements.txt could not")

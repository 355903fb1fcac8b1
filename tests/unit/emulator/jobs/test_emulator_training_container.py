"""A training program finds what SageMaker's container gives it, below a folder that stands for /opt/ml."""

from __future__ import annotations

import importlib.metadata
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import channel, training_job

from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.training.container import Cluster, TrainingContainer
from emulator.sagemaker.training.requirements import unmet_requirements

PORT = 23456
URL = "s3://bucket/data"


def container(
    directory: Path, hosts: int = 1, host: str = "algo-1", port: int = PORT, **members: Any
) -> TrainingContainer:
    job = {**training_job(**members), "TrainingJobArn": "arn:job"}
    cluster = Cluster(tuple(f"algo-{n}" for n in range(1, hosts + 1)), port, 0)
    made = TrainingContainer(job, cluster, host, directory)
    made.make_folders()
    return made


def entry_point(*command: str) -> dict[str, Any]:
    algorithm = training_job()["AlgorithmSpecification"]
    return {**algorithm, "ContainerEntrypoint": ["/bin/bash"], "ContainerArguments": list(command)}


def test_hyperparameters_become_arguments_as_the_toolkit_makes_them(tmp_path: Path) -> None:
    values = {
        "lr": "0.1",
        "name": '"plain text"',
        "bare": "a b",
        "n": "3",
        "flag": "true",
        "layers": "[1, 2]",
        "null": "null",
        "object": '{"b": true, "a": 1}',
        "sagemaker_program": '"train.py"',
        "_tuning_objective_metric": "valid:loss",
    }
    made = container(tmp_path, HyperParameters=values)
    assert made.user_arguments() == [
        "--bare", "a b", "--flag", "True", "--layers", "[1, 2]", "--lr", "0.1", "-n", "3", "--name", "plain text",
        "--null", "", "--object", "a=1,b=True",
    ]  # fmt: skip
    environment = made.environment(tmp_path, {})
    assert json.loads(environment["SM_HPS"]) == {
        "lr": 0.1, "name": "plain text", "bare": "a b", "n": 3, "flag": True, "layers": [1, 2], "null": None,
        "object": {"a": 1, "b": True},
    }  # fmt: skip
    assert [environment[f"SM_HP_{name}"] for name in ("LR", "FLAG", "NAME")] == ["0.1", "true", "plain text"]


def test_the_variables_and_files_name_folders_that_exist(tmp_path: Path) -> None:
    inputs = [channel("training", URL), {**channel("more-data", URL), "ContentType": "application/x-image"}]
    made = container(tmp_path, InputDataConfig=inputs)
    environment = made.environment(tmp_path, {})
    for name in ("SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR", "SM_OUTPUT_DIR", "SM_INPUT_CONFIG_DIR", "SM_MODULE_DIR"):
        assert Path(environment[name]).is_dir(), name
    assert environment["SM_CHANNEL_MORE_DATA"] == str(made.path("input", "data", "more-data"))
    assert json.loads(environment["SM_CHANNELS"]) == ["more-data", "training"]
    summary = json.loads(environment["SM_TRAINING_ENV"])
    assert (summary["model_dir"], summary["current_host"]) == (environment["SM_MODEL_DIR"], "algo-1")
    config = json.loads(made.path("input", "config", "inputdataconfig.json").read_text())
    assert config["more-data"]["ContentType"] == "application/x-image"


def test_nothing_of_the_environment_of_the_server_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "PYTHONSTARTUP", "SECRET"):
        monkeypatch.setenv(name, "leak")
    environment = container(tmp_path).environment(tmp_path, {})
    assert "leak" not in environment.values()
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


def test_opt_ml_is_replaced_where_it_is_a_path(tmp_path: Path) -> None:
    made = container(
        tmp_path,
        HyperParameters={"both": "/opt/ml:/opt/ml/x", "other": "/opt/mlflow /opt/ml.bak"},
        Environment={"CACHE": "a=/opt/ml/cache"},
        AlgorithmSpecification=entry_point("/opt/ml/input/data/code/run.sh", "--out", "/opt/ml/model"),
    )
    root = made.root
    assert made.user_parameters() == {"both": f"{root}:{root}/x", "other": "/opt/mlflow /opt/ml.bak"}
    assert made.environment(tmp_path, {})["CACHE"] == f"a={root}/cache"
    assert made.command() == ["/bin/bash", f"{root}/input/data/code/run.sh", "--out", f"{root}/model"]


def test_an_entry_points_scripts_find_the_folders_and_the_other_instances(tmp_path: Path) -> None:
    driver = b'HOME = "/opt/ml/model"  # \xe9t\xe9\nSM_MASTER_ADDR = "algo-1"\nOTHER_SM_MASTER_PORT = 7777\n'
    made = container(
        tmp_path,
        InputDataConfig=[channel("drivers", URL), channel("code", URL)],
        AlgorithmSpecification=entry_point("-c", "/opt/ml/input/data/drivers/run.sh"),
    )
    scripts = [made.path("input", "data", name, "environment.py") for name in ("drivers", "code")]
    for script in scripts:
        script.parent.mkdir()
        script.write_bytes(driver)
    made.adapt_drivers()
    adapted = driver.replace(b"/opt/ml", str(made.root).encode()).replace(b'"algo-1"', b"'127.0.0.1'")
    assert scripts[0].read_bytes() == adapted
    assert scripts[1].read_bytes() == driver, "the program is the caller's"
    # The variables of the toolkit are none of its own; these stand for what a container has and a process has not.
    assert {name for name in made.environment(tmp_path, {}) if name.startswith("SM_")} == {
        "SM_MASTER_ADDR", "SM_MASTER_PORT", "SM_CHECKPOINT_DIR", "SM_NUM_CPUS",
    }  # fmt: skip


SHOW_ARGUMENTS = {
    "train.py": "import json, sys\nprint(json.dumps(sys.argv[1:]))\n",
    "run.sh": f'#!/bin/sh\nexec "{sys.executable}" -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"\n',
}


@pytest.mark.parametrize(
    ("program", "value", "arguments"),
    [
        ("train.py", "two words", ["two", "words"]),
        ("train.py", "$((6 * 7))", ["42"]),
        ("run.sh", "two words", ["two words"]),
        ("run.sh", "`echo within`", ["within"]),
    ],
)
def test_a_shell_interprets_what_the_toolkit_joins(
    tmp_path: Path, program: str, value: str, arguments: list[str]
) -> None:
    made = container(tmp_path, HyperParameters={"sagemaker_program": program, "value": value})
    made.path("code", program).write_text(SHOW_ARGUMENTS[program])
    found = subprocess.run(made.command(), cwd=made.path("code"), capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == ["--value", *arguments]


SHOW_RANKS = """
import os, psutil
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
listening = {c.laddr.ip for c in psutil.Process(os.getppid()).net_connections("inet") if c.status == "LISTEN"}
print(*(os.environ[name] for name in names), *listening, flush=True)
"""


def test_torchrun_joins_the_instances_as_the_toolkit_lets_it(tmp_path: Path) -> None:
    values = {"sagemaker_program": "train.py", "sagemaker_torch_distributed_enabled": "true", "lr": "0.1"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = []
    for host in ("algo-1", "algo-2"):
        made = container(tmp_path / host, hosts=2, host=host, port=port, HyperParameters=values)
        made.path("code", "train.py").write_text(SHOW_RANKS)
        variables = made.environment(tmp_path, {})
        processes.append(
            subprocess.Popen(
                made.command(), cwd=made.path("code"), env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    answers = [process.communicate(timeout=120) for process in processes]
    assert [output.decode().split() for output, _ in answers] == [
        ["0", "2", "0", "1", "127.0.0.1", str(port), "127.0.0.1"],
        ["1", "2", "0", "1", "127.0.0.1", str(port)],
    ], answers


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "names no program"),
        ({"sagemaker_program": "absent.py"}, r"absent\.py is not in .*: present\.sh\."),
        (
            {"sagemaker_program": "present.sh", "sagemaker_torch_distributed_enabled": "true"},
            r"torchrun starts Python scripts, and the program present\.sh is none",
        ),
    ],
)
def test_a_program_that_cannot_be_started_is_refused(tmp_path: Path, parameters: dict[str, str], message: str) -> None:
    made = container(tmp_path, HyperParameters=parameters)
    made.path("code", "present.sh").touch()
    with pytest.raises(ArtifactError, match=message):
        made.command()


VERSION = importlib.metadata.version("pytest")
HASHED = f"pytest=={VERSION} \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n"


@pytest.mark.parametrize(
    ("requirements", "unmet"),
    [
        (f"# comment\n--index-url https://example.com\n\npytest=={VERSION}  # exactly\npytest>=1\n", None),
        ('absent-package; python_version < "3"', None),
        ("pytest==0.1", f"pytest==0.1 (installed: {VERSION})"),
        ("absent-package>=2", "absent-package>=2 (not installed)"),
        ("= what", "= what (unreadable"),
        (HASHED, None),
        (f"{HASHED}packaging\n", "packaging (has no hash, and others have)"),
    ],
)
def test_requirements_are_compared_and_not_installed(requirements: str, unmet: str | None) -> None:
    found = list(unmet_requirements(requirements))
    assert len(found) == (unmet is not None)
    assert "".join(found).startswith(unmet or "")

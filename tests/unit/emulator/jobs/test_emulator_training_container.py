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
from emulator_fixtures import training_job

from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.training.container import Cluster, TrainingContainer
from emulator.sagemaker.training.requirements import unmet_requirements

PORT = 23456


def container(
    directory: Path, hosts: int = 1, host: str = "algo-1", port: int = PORT, **members: Any
) -> TrainingContainer:
    job = {**training_job(**members), "TrainingJobArn": "arn:job"}
    cluster = Cluster(tuple(f"algo-{n}" for n in range(1, hosts + 1)), port, 0)
    made = TrainingContainer(job, cluster, host, directory)
    made.make_folders()
    return made


def channel(name: str) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "ContentType": "application/x-image",
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data"}},
    }


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
        "sagemaker_region": "eu-west-1",
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
    assert (environment["SM_HP_LR"], environment["SM_HP_FLAG"], environment["SM_HP_NAME"]) == (
        "0.1",
        "true",
        "plain text",
    )


def test_the_variables_and_files_name_folders_that_exist(tmp_path: Path) -> None:
    made = container(tmp_path, InputDataConfig=[channel("training"), channel("more-data")])
    environment = made.environment(tmp_path, {"AWS_ACCESS_KEY_ID": "AKIA"})
    for name in ("SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR", "SM_OUTPUT_DIR", "SM_INPUT_CONFIG_DIR", "SM_MODULE_DIR"):
        assert Path(environment[name]).is_dir(), name
    assert environment["SM_CHANNEL_TRAINING"] == str(made.path("input", "data", "training"))
    assert environment["SM_CHANNEL_MORE_DATA"] == str(made.path("input", "data", "more-data"))
    assert json.loads(environment["SM_CHANNELS"]) == ["more-data", "training"]
    assert environment["AWS_ACCESS_KEY_ID"] == "AKIA"
    assert environment["TRAINING_JOB_NAME"] == "job"
    summary = json.loads(environment["SM_TRAINING_ENV"])
    assert (summary["model_dir"], summary["current_host"]) == (environment["SM_MODEL_DIR"], "algo-1")
    config = json.loads(made.path("input", "config", "inputdataconfig.json").read_text())
    assert config["training"]["ContentType"] == "application/x-image"


def test_instances_know_each_other_and_share_the_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    environments = [
        container(tmp_path / host, hosts=2, host=host).environment(tmp_path, {}) for host in ("algo-1", "algo-2")
    ]
    assert [e["SM_CURRENT_HOST"] for e in environments] == ["algo-1", "algo-2"]
    assert {e["SM_HOSTS"] for e in environments} == {'["algo-1","algo-2"]'}
    assert {(e["SM_MASTER_ADDR"], e["SM_MASTER_PORT"], e["SM_NUM_CPUS"]) for e in environments} == {
        ("127.0.0.1", str(PORT), "2")
    }


def test_nothing_of_the_environment_of_the_server_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "PYTHONSTARTUP", "SECRET"):
        monkeypatch.setenv(name, "leak")
    environment = container(tmp_path).environment(tmp_path, {})
    assert "leak" not in environment.values()
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


def test_opt_ml_is_replaced_where_it_is_a_path(tmp_path: Path) -> None:
    made = container(
        tmp_path,
        HyperParameters={"dir": "/opt/ml/model/x", "both": "/opt/ml:/opt/ml/", "other": "/opt/mlflow /opt/ml.bak"},
        Environment={"CACHE": "a=/opt/ml/cache"},
        AlgorithmSpecification={
            "TrainingImage": "i",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/bash", "/opt/ml/input/data/code/run.sh"],
            "ContainerArguments": ["--out", "/opt/ml/model"],
        },
    )
    root = made.root
    assert made.user_parameters() == {
        "dir": f"{root}/model/x",
        "both": f"{root}:{root}/",
        "other": "/opt/mlflow /opt/ml.bak",
    }
    assert made.environment(tmp_path, {})["CACHE"] == f"a={root}/cache"
    assert made.command() == ["/bin/bash", f"{root}/input/data/code/run.sh", "--out", f"{root}/model"]


DRIVER = """
HOME = "/opt/ml/model"
SM_MASTER_ADDR = "algo-1"
SM_MASTER_PORT = 7777
OTHER_SM_MASTER_PORT = 7777
variables = {"SM_MASTER_ADDR": SM_MASTER_ADDR, "SM_MASTER_PORT": SM_MASTER_PORT}
"""


def driver_job(directory: Path) -> TrainingContainer:
    return container(
        directory,
        InputDataConfig=[channel("drivers"), channel("code")],
        AlgorithmSpecification={
            "TrainingImage": "i",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/bash"],
            "ContainerArguments": ["-c", "/opt/ml/input/data/drivers/run.sh"],
        },
    )


def test_an_entry_points_scripts_find_the_folders_and_the_other_instances(tmp_path: Path) -> None:
    made = driver_job(tmp_path)
    for name in ("drivers", "code"):
        made.path("input", "data", name).mkdir()
        made.path("input", "data", name, "environment.py").write_text(DRIVER)
    made.adapt_drivers()
    found: dict[str, Any] = {}
    exec(made.path("input", "data", "drivers", "environment.py").read_text(), found)
    assert (found["HOME"], found["OTHER_SM_MASTER_PORT"]) == (f"{made.root}/model", 7777)
    variables = made.environment(tmp_path, {})
    assert found["variables"] == {"SM_MASTER_ADDR": "127.0.0.1", "SM_MASTER_PORT": PORT}
    assert {name: str(value) for name, value in found["variables"].items()}.items() <= variables.items()
    assert made.path("input", "data", "code", "environment.py").read_text() == DRIVER, "the program is the caller's"


def test_an_entry_points_script_keeps_bytes_that_are_no_text(tmp_path: Path) -> None:
    made = driver_job(tmp_path)
    script = made.path("input", "data", "drivers", "run.sh")
    script.parent.mkdir()
    script.write_bytes(b"cd /opt/ml/model # \xe9t\xe9\r\n")
    made.adapt_drivers()
    assert script.read_bytes() == f"cd {made.root}/model # ".encode() + b"\xe9t\xe9\r\n"


def test_the_job_may_set_variables_of_its_own_and_of_ours(tmp_path: Path) -> None:
    environment = container(tmp_path, Environment={"SM_LOG_LEVEL": "10", "OWN": "1"}).environment(tmp_path, {})
    assert (environment["SM_LOG_LEVEL"], environment["OWN"]) == ("10", "1")


SHOW_ARGUMENTS = {
    "train.py": "import json, sys\nprint(json.dumps(sys.argv[1:]))\n",
    "run.sh": f'#!/bin/sh\nexec "{sys.executable}" -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"\n',
}


@pytest.mark.parametrize(
    ("program", "value", "arguments"),
    [
        ("train.py", "plain", ["plain"]),
        ("train.py", "two words", ["two", "words"]),
        ("train.py", "[1, 2]", ["[1,", "2]"]),
        ("train.py", "$((6 * 7))", ["42"]),
        ("train.py", "x; touch seen", None),
        ("run.sh", "two words", ["two words"]),
        ("run.sh", "`echo within`", ["within"]),
    ],
)
def test_a_shell_interprets_what_the_toolkit_joins(
    tmp_path: Path, program: str, value: str, arguments: list[str] | None
) -> None:
    made = container(tmp_path, HyperParameters={"sagemaker_program": program, "value": value})
    made.path("code", program).write_text(SHOW_ARGUMENTS[program])
    found = subprocess.run(made.command(), cwd=made.path("code"), capture_output=True, text=True, check=True)
    if arguments is None:
        assert made.path("code", "seen").exists(), "the end of the value is a command of its own"
    else:
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
    ("value", "program", "uses_torchrun"),
    [("true", "train.py", True), ("false", "train.py", False), ("true", "run.sh", None)],
)
def test_torchrun_is_the_hyperparameters_choice_and_starts_python_only(
    tmp_path: Path, value: str, program: str, uses_torchrun: bool | None
) -> None:
    made = container(
        tmp_path, HyperParameters={"sagemaker_program": program, "sagemaker_torch_distributed_enabled": value}
    )
    made.path("code", program).touch()
    if uses_torchrun is None:
        with pytest.raises(ArtifactError, match=r"torchrun starts Python scripts, and the program run\.sh is none"):
            made.command()
    else:
        assert ("--nproc_per_node 1 " in made.command()[-1]) == uses_torchrun


def test_an_entry_point_of_its_own_goes_without_the_variables_of_the_toolkit(tmp_path: Path) -> None:
    environment = driver_job(tmp_path).environment(tmp_path, {})
    # These four stand for what a container has and a process has not.
    assert {name for name in environment if name.startswith("SM_")} == {
        "SM_MASTER_ADDR", "SM_MASTER_PORT", "SM_CHECKPOINT_DIR", "SM_NUM_CPUS",
    }  # fmt: skip
    assert environment["TRAINING_JOB_NAME"] == "job"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({}, "names no program"), ({"sagemaker_program": "absent.py"}, r"absent\.py is not in .*: present\.py\.")],
)
def test_a_job_without_its_program_says_what_is_missing(
    tmp_path: Path, parameters: dict[str, str], message: str
) -> None:
    made = container(tmp_path, HyperParameters=parameters)
    made.path("code", "present.py").touch()
    with pytest.raises(ArtifactError, match=message):
        made.command()


def test_requirements_are_compared_and_not_installed() -> None:
    version = importlib.metadata.version("pytest")
    lines = [
        "# comment",
        "--index-url https://example.com",
        "",
        f"pytest=={version}  # exactly",
        "pytest>=1",
        'absent-package; python_version < "3"',
        "pytest==0.1",
        "absent-package>=2",
        "= what",
    ]
    unmet = list(unmet_requirements("\n".join(lines)))
    assert unmet[:2] == [f"pytest==0.1 (installed: {version})", "absent-package>=2 (not installed)"]
    assert unmet[2].startswith("= what (unreadable")
    assert len(unmet) == 3


def test_one_hash_means_that_all_need_one() -> None:
    version = importlib.metadata.version("pytest")
    with_hashes = f"pytest=={version} \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n"
    assert list(unmet_requirements(with_hashes)) == []
    assert list(unmet_requirements(f"{with_hashes}packaging\n")) == ["packaging (has no hash, and others have)"]

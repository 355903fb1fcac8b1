"""A training program finds what SageMaker's container gives it, below a folder that stands for /opt/ml."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from emulator_fixtures import FakeRole, FakeS3, channel, training_job
from examples import examples

from emulator.containers import mounts
from emulator.sagemaker.roles import Role
from emulator.sagemaker.runs import JobFailed
from emulator.sagemaker.training.container import Cluster, TrainingContainer
from emulator.sagemaker.training.transfers import download, upload_outputs

URL = "s3://bucket/data"


def container(
    directory: Path, hosts: int = 1, host: str = "algo-1", port: int = 1, **members: Any
) -> TrainingContainer:
    job = {**training_job(**members), "TrainingJobArn": "arn:job"}
    cluster = Cluster(tuple(f"algo-{n}" for n in range(1, hosts + 1)), port, 0)
    made = TrainingContainer(job, cluster, host, directory)
    made.make_folders()
    return made


def start(made: TrainingContainer) -> subprocess.Popen[str]:
    return subprocess.Popen(
        made.command(),
        cwd=made.path("code"),
        env=made.environment(made.root, {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    assert json.loads(environment["SM_HPS"])["object"] == {"a": 1, "b": True}
    assert [environment[f"SM_HP_{name}"] for name in ("LR", "FLAG", "NAME")] == ["0.1", "true", "plain text"]


def test_the_toolkit_sums_up_its_variables_in_one_of_them(tmp_path: Path) -> None:
    values = {"lr": "0.1", "sagemaker_container_log_level": "10", "sagemaker_submit_directory": '"s3://b/code.tar.gz"'}
    made = container(tmp_path, InputDataConfig=[channel("more-data", URL)], HyperParameters=values)
    environment = made.environment(tmp_path, {})
    summary, data = json.loads(environment["SM_TRAINING_ENV"]), str(made.seen("input", "data", "more-data"))
    assert (environment["SM_CHANNEL_MORE-DATA"], environment["SM_LOG_LEVEL"]) == (data, "10")
    assert environment["SM_MODULE_DIR"] == "s3://b/code.tar.gz"
    expected = {"hyperparameters": {"lr": 0.1}, "channel_input_dirs": {"more-data": data}, "job_name": "job"}
    expected |= {"model_dir": environment["SM_MODEL_DIR"], "hosts": ["algo-1"], "current_host": "algo-1"}
    expected |= {"log_level": 10, "num_gpus": 0, "hps": {"lr": 0.1}, "user_args": ["--lr", "0.1"]}
    assert {name: summary[name] for name in expected} == expected


def test_nothing_of_the_environment_of_the_server_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "PYTHONSTARTUP", "SECRET"):
        monkeypatch.setenv(name, "leak")
    environment = container(tmp_path).environment(tmp_path, {})
    assert "leak" not in environment.values()
    assert environment["PATH"].startswith(f"{tmp_path}/python/bin:{Path(sys.executable).parent}:")


def test_opt_ml_is_replaced_where_it_is_a_path_and_cannot_be_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "available", lambda: False)
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
    adapted = driver.replace(b"/opt/ml", bytes(made.seen())).replace(b'"algo-1"', b"'127.0.0.1'")
    assert scripts[0].read_bytes() == adapted
    assert scripts[1].read_bytes() == driver, "the program is the caller's"
    # The variables of the toolkit are none of its own; these stand for what a container has and a process has not.
    assert {name for name in made.environment(tmp_path, {}) if name.startswith("SM_")} == {
        "SM_MASTER_ADDR", "SM_MASTER_PORT", "SM_CHECKPOINT_DIR", "SM_NUM_CPUS",
    }  # fmt: skip


@pytest.mark.parametrize(("line", "fails"), [("boto3", False), ("no-such==9", True)])
def test_pip_installs_requirements_before_the_program_or_fails_the_job(tmp_path: Path, line: str, fails: bool) -> None:
    made = container(tmp_path, HyperParameters={"sagemaker_program": "train.py"}, EnableNetworkIsolation=True)
    made.path("code", "requirements.txt").write_text(line)
    made.path("code", "train.py").write_text("print('trained')")
    process = start(made)
    printed, errors = process.communicate()
    assert ("trained" in printed, line in errors, process.returncode != 0) == (not fails, fails, fails)


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
    made = [container(tmp_path / host, 2, host, port, HyperParameters=values) for host in ("algo-1", "algo-2")]
    for each in made:
        each.path("code", "train.py").write_text(SHOW_RANKS)
    answers = [process.communicate(timeout=120) for process in [start(each) for each in made]]
    assert [output.split() for output, _ in answers] == [
        ["0", "2", "0", "1", "127.0.0.1", str(port), "127.0.0.1"],
        ["1", "2", "0", "1", "127.0.0.1", str(port)],
    ], answers


def test_torchrun_starts_as_many_processes_as_the_job_asks_for(tmp_path: Path) -> None:
    values = {"sagemaker_program": "train.py", "sagemaker_torch_distributed_enabled": "true"}
    made = container(tmp_path, HyperParameters={**values, "sagemaker_mpi_num_of_processes_per_host": "2"})
    made.path("code", "train.py").touch()
    assert "--nproc_per_node 2 " in made.command()[-1]


@pytest.mark.parametrize(("parameters", "message"), examples(__file__, "refused"))
def test_a_program_that_cannot_be_started_is_refused(tmp_path: Path, parameters: dict[str, str], message: str) -> None:
    made = container(tmp_path, HyperParameters=parameters)
    for name in ("present.sh", "train.py"):
        made.path("code", name).touch()
    with pytest.raises(JobFailed, match=message):
        made.command()


@pytest.mark.parametrize(
    ("program", "files", "line"),
    [
        ("go.sh", ["setup.py"], "./go.sh --text 'a b'"),
        ("go", [], "./go --text 'a b'"),
        ("mine.py", ["setup.py"], "PYTHON -m pip install . && PYTHON -m mine --text a b"),
        ("mine.py", ["requirements.txt"], "PYTHON -m pip install -r requirements.txt && PYTHON mine.py --text a b"),
    ],
)
def test_a_program_is_started_by_its_kind(tmp_path: Path, program: str, files: list[str], line: str) -> None:
    made = container(tmp_path, HyperParameters={"sagemaker_program": program, "text": "a b"})
    for name in (program, *files):
        made.path("code", name).write_text('#!/bin/sh\necho "$2"')
    assert made.command()[-1].replace(f"{tmp_path}/python/bin/python", "PYTHON") == line
    assert not program.startswith("go") or start(made).communicate(timeout=60)[0] == "a b\n"


def test_the_hook_of_the_debugger_finds_its_configuration(tmp_path: Path) -> None:
    made = container(tmp_path, DebugHookConfig={"S3OutputPath": "s3://b"})
    found = made.outside(made.environment(tmp_path, {})["SMDEBUG_CONFIG_FILE_PATH"])
    assert json.loads(found.read_text()) == {"S3OutputPath": "s3://b", "LocalPath": str(made.seen("output", "tensors"))}


HOSTS, ROLE = ("algo-1", "algo-2"), cast(Role, FakeRole(None))


@pytest.mark.parametrize(
    ("source", "shares"),
    [
        ({}, [["a", "b", "c"]] * 2),
        ({"S3DataDistributionType": "ShardedByS3Key"}, [["a", "c"], ["b"]]),
        ({"S3DataType": "ManifestFile"}, [["b", "c"]] * 2),
    ],
)
def test_each_instance_gets_all_objects_or_its_share(
    tmp_path: Path, source: dict[str, str], shares: list[list[str]]
) -> None:
    listed = json.dumps([{"prefix": "s3://bucket/data/"}, "b", "c"]).encode()
    s3 = FakeS3(**{"data/": listed, "data/a": b"", "data/b": b"", "data/c": b""})
    made = [container(tmp_path / host, 2, host) for host in HOSTS]
    train = channel("train", "s3://bucket/data/", **source)["DataSource"]["S3DataSource"]
    folders = [each.path("input", "data", "train") for each in made]
    download(ROLE, s3, train, folders, lambda: False)
    found = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert found == shares


def test_tensors_and_tensorboards_files_are_copied_to_s3(tmp_path: Path) -> None:
    board = {"S3OutputPath": "s3://bucket/boards/", "LocalPath": "/opt/ml/output/mine"}
    job = training_job(DebugHookConfig={"S3OutputPath": "s3://bucket"}, TensorBoardOutputConfig=board)
    made = [container(tmp_path / host, 2, host, **job) for host in HOSTS]
    (tmp_path / "of the server").write_text("not the program's")
    for each, name in zip(made, ("tensors/1", "mine/2"), strict=True):
        each.path("output", name).parent.mkdir()
        each.path("output", name).write_text("x")
        each.path("output", name).with_name("link").symlink_to(tmp_path / "of the server")
        each.path("model").rmdir()
        each.path("model").symlink_to(tmp_path)
    s3 = FakeS3()
    upload_outputs(ROLE, s3, job, made, tmp_path)
    assert sorted(s3.objects) == ["boards/job/tensorboard-output/2", "job/debug-output/1"]

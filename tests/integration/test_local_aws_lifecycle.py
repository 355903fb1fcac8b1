"""Starting, stopping and being killed: nothing acknowledged is lost, nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import botocore.exceptions
import psutil
import pytest
from local_aws_harness import (
    LAMBDA_TRUST,
    SAGEMAKER_TRUST,
    LocalAws,
    free_port,
    function_archive,
    local_aws,
    model_archive,
    policy,
    wait_until,
)

from emulator.platform import lifecycle
from emulator.platform.layout import StateDir


def kill(aws: LocalAws) -> None:
    """SIGKILL, and wait for the system to have let go of the folder."""
    os.kill(aws.pid, signal.SIGKILL)
    wait_until(lambda: StateDir(aws.state_dir).holder() is None)


def restart(aws: LocalAws) -> LocalAws:
    return LocalAws(aws.state_dir, lifecycle.up(aws.state_dir, free_port()).port)


def relatives(state_dir: Path) -> list[psutil.Process]:
    """Every process that was told of a folder of this server, in its arguments, environment or working directory."""
    folders = (str(state_dir), str(StateDir(state_dir).temporary))
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            traces = [*process.cmdline(), *process.environ().values(), process.cwd()]
            if process.pid != os.getpid() and any(folder in trace for folder in folders for trace in traces):
                found.append(process)
    return found


def serve_model(aws: LocalAws, name: str) -> None:
    """An endpoint with one real process."""
    s3, sagemaker = aws.client("s3"), aws.client("sagemaker")
    s3.create_bucket(Bucket="artifacts")
    s3.put_object(Bucket="artifacts", Key="model.tar.gz", Body=model_archive())
    role = aws.role(
        "model", SAGEMAKER_TRUST, policy({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::artifacts/*"})
    )
    container = {
        "Image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/echo:1",
        "ModelDataUrl": "s3://artifacts/model.tar.gz",
        "Environment": {"NAME": name},
    }
    variant = {"VariantName": "v", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    wait_in_service(aws, name)


def wait_in_service(aws: LocalAws, name: str) -> None:
    sagemaker = aws.client("sagemaker")
    wait_until(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService")


def test_up_status_environment_down(tmp_path: Path) -> None:
    assert lifecycle.status(tmp_path) is None
    with local_aws(tmp_path) as aws:
        status = lifecycle.status(tmp_path)
        assert status is not None and status.endpoint_url == f"http://127.0.0.1:{aws.port}"
        assert aws.client("sts").get_caller_identity()["Arn"] == "arn:aws:iam::000000000000:root"
    assert lifecycle.status(tmp_path) is None
    with pytest.raises(lifecycle.LocalAwsError, match="not running"):
        lifecycle.environment(tmp_path)
    lifecycle.down(tmp_path)  # a second time is no mistake


def test_it_listens_on_the_loopback_interface_and_one_port_only(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        listening = [c for c in psutil.Process(aws.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert [(c.laddr.ip, c.laddr.port) for c in listening] == [("127.0.0.1", aws.port)]


def test_a_second_one_on_the_same_state_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        with pytest.raises(lifecycle.AlreadyRunningError, match=rf"already running on port {aws.port}") as refused:
            lifecycle.up(tmp_path, free_port())
        assert refused.value.status.pid == aws.pid
        serve = [sys.executable, "-m", "emulator", "serve", "--state-dir", str(tmp_path), "--port", str(free_port())]
        second = subprocess.run(serve, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "already running" in second.stderr
        assert "Traceback" not in second.stderr
        aws.client("sts").get_caller_identity()


def test_many_ups_at_once_make_one_server(tmp_path: Path) -> None:
    outcomes: list[Any] = []

    def start(port: int) -> None:
        try:
            outcomes.append(lifecycle.up(tmp_path, port))
        except lifecycle.LocalAwsError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=start, args=(port,)) for port in [free_port() for _ in range(3)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert sum(isinstance(outcome, lifecycle.Status) for outcome in outcomes) == 1, outcomes
        assert all("already running" in outcome for outcome in outcomes if isinstance(outcome, str)), outcomes
    finally:
        lifecycle.down(tmp_path)
    assert relatives(tmp_path) == []


def test_a_port_that_is_taken_is_told_with_who_took_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(lifecycle.LocalAwsError, match=rf"Port {port} is already in use by .*process {os.getpid()}"):
            lifecycle.up(tmp_path, port)
        assert lifecycle.status(tmp_path) is None


def test_down_leaves_no_process_no_port_and_no_temporary_file(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        serve_model(aws, "m")
        make_function(aws, "import subprocess\ndef handler(event, context):\n    subprocess.Popen(['sleep', '600'])\n")
        aws.client("lambda").invoke(FunctionName="f")
        assert len(relatives(tmp_path)) >= 4  # server, watchdog, model, function, and what the function started
        port = aws.port
    wait_until(lambda: relatives(tmp_path) == [], seconds=10)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    assert not StateDir(tmp_path).temporary.exists()
    assert not (tmp_path / "server.json").exists()
    assert list((tmp_path / "processes").iterdir()) == []


@pytest.mark.slow
def test_a_killed_server_takes_its_processes_with_it(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        serve_model(aws, "m")
        make_function(aws, "def handler(event, context):\n    return 1\n")
        aws.client("lambda").invoke(FunctionName="f")
        kill(aws)
        wait_until(lambda: relatives(tmp_path) == [], seconds=10)


@pytest.mark.slow
def test_the_next_up_ends_what_a_server_and_its_watchdog_left_behind(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        serve_model(aws, "m")
        model, watchdog = one_child(aws.pid, "code/serve"), one_child(aws.pid, "emulator.platform.processes")
        watchdog.kill()
        kill(aws)
        assert model.is_running()
        aws = restart(aws)
        wait_until(lambda: not model.is_running())
        wait_in_service(aws, "m")
        assert aws.invoke("m") == {"model": "m", "received": 3}


def one_child(pid: int, argument: str) -> psutil.Process:
    (found,) = [c for c in psutil.Process(pid).children() if any(argument in part for part in c.cmdline())]
    return found


def make_function(aws: LocalAws, source: str) -> str:
    """A function `f` and its URL."""
    functions = aws.client("lambda")
    functions.create_function(
        FunctionName="f",
        Runtime="python3.14",
        Role=aws.role("function", LAMBDA_TRUST),
        Handler="app.handler",
        Code={"ZipFile": function_archive(source)},
    )
    return functions.create_function_url_config(FunctionName="f", AuthType="AWS_IAM")["FunctionUrl"]


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        s3, kms, logs = aws.client("s3"), aws.client("kms"), aws.client("logs")
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        secret = kms.encrypt(KeyId=key, Plaintext=b"secret")["CiphertextBlob"]
        s3.create_bucket(Bucket="data")
        s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket="data", Key="kept", Body=b"one", Metadata={"colour": "brown"}, Tagging="a=b")
        s3.put_object(Bucket="data", Key="kept", Body=b"two")
        s3.put_object(Bucket="data", Key="gone", Body=b"x")
        s3.delete_object(Bucket="data", Key="gone")
        user = aws.user("u", policy({"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::data"}))
        aws.client("ssm").put_parameter(Name="/p", Value="v", Type="String")
        url = make_function(aws, "def handler(event, context):\n    print('hello')\n    return {'statusCode': 200}\n")
        serve_model(aws, "m")
        logs.create_log_group(logGroupName="g")
        logs.create_log_stream(logGroupName="g", logStreamName="s")
        for number in range(5):
            event = {"timestamp": int(time.time() * 1000), "message": f"line {number}"}
            logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=[event])
        kill(aws)

        aws = restart(aws)
        s3 = aws.client("s3")
        versions = s3.list_object_versions(Bucket="data")
        assert sorted(v["Key"] for v in versions["Versions"]) == ["gone", "kept", "kept"]
        assert [m["Key"] for m in versions["DeleteMarkers"]] == ["gone"]
        bodies = {
            s3.get_object(Bucket="data", Key="kept", VersionId=v["VersionId"])["Body"].read()
            for v in versions["Versions"]
            if v["Key"] == "kept"
        }
        assert bodies == {b"one", b"two"}
        assert aws.client("kms").decrypt(CiphertextBlob=secret)["Plaintext"] == b"secret"
        aws.client("s3", user).list_objects_v2(Bucket="data")
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            aws.client("s3", user).get_object(Bucket="data", Key="kept")
        assert aws.client("ssm").get_parameter(Name="/p")["Parameter"]["Value"] == "v"
        events = aws.client("logs").get_log_events(logGroupName="g", logStreamName="s", startFromHead=True)["events"]
        assert [event["message"] for event in events] == [f"line {number}" for number in range(5)]
        url = aws.client("lambda").get_function_url_config(FunctionName="f")["FunctionUrl"]
        assert aws.call(url).status == 200
        wait_in_service(aws, "m")
        assert aws.invoke("m") == {"model": "m", "received": 3}


@pytest.mark.slow
def test_no_put_that_was_answered_is_lost_by_a_kill_in_the_middle_of_many(tmp_path: Path) -> None:
    answered: list[str] = []
    with local_aws(tmp_path) as aws:
        aws.client("s3").create_bucket(Bucket="data")
        clients = [(aws.client("s3"), aws.client("ssm")) for _ in range(4)]

        def work(number: int) -> None:
            s3, ssm = clients[number]
            with contextlib.suppress(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                for count in range(100_000):
                    name = f"{number}-{count}"
                    s3.put_object(Bucket="data", Key=name, Body=name.encode())
                    ssm.put_parameter(Name=name, Value=name, Type="String")
                    answered.append(name)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answered) > 100)
        kill(aws)
        for thread in threads:
            thread.join()

        aws = restart(aws)
        s3, ssm = aws.client("s3"), aws.client("ssm")
        for name in answered:
            assert s3.get_object(Bucket="data", Key=name)["Body"].read() == name.encode()
            assert ssm.get_parameter(Name=name)["Parameter"]["Value"] == name

"""Starting, stopping, being killed, a full disk: nothing acknowledged is lost, nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import botocore.exceptions
import psutil
import pytest
from local_aws_harness import SAGEMAKER_TRUST, LocalAws, free_port, local_aws, policy
from waiting import wait_until

from emulator.platform import lifecycle
from emulator.platform.layout import StateDir

LEAVES_A_PROGRAM = "import subprocess\ndef handler(event, context):\n    subprocess.Popen(['sleep', '600'])\n"


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


def run_programs(aws: LocalAws) -> None:
    """Have an endpoint, a function, and what the function started."""
    reading = policy({"Action": "s3:GetObject", "Resource": "*"})
    aws.serve("m", aws.role("model", SAGEMAKER_TRUST, reading))
    aws.function("f", LEAVES_A_PROGRAM)
    aws.client("lambda").invoke(FunctionName="f")
    assert len(relatives(aws.state_dir)) >= 5  # with the server and its watchdog


def test_it_listens_on_the_loopback_interface_and_one_port_only(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        listening = [c for c in psutil.Process(aws.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert [(c.laddr.ip, c.laddr.port) for c in listening] == [("127.0.0.1", aws.port)]


def test_down_leaves_no_process_no_port_and_no_temporary_file(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        run_programs(aws)
    wait_until(lambda: relatives(tmp_path) == [], seconds=10)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", aws.port)) == errno.ECONNREFUSED
    assert not StateDir(tmp_path).temporary.exists()
    assert not (tmp_path / "server.json").exists()
    assert list((tmp_path / "processes").iterdir()) == []


@pytest.mark.slow
def test_the_next_up_ends_what_a_server_and_its_watchdog_left_behind(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        run_programs(aws)
        children = psutil.Process(aws.pid).children()
        (watchdog,) = (child for child in children if "emulator.platform.processes" in child.cmdline())
        watchdog.kill()
        aws.kill()
        left = [child for child in children if child is not watchdog]
        assert all(child.is_running() for child in left)
        lifecycle.up(tmp_path, free_port())
        wait_until(lambda: not any(child.is_running() for child in left))


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        s3, kms, logs = aws.client("s3"), aws.client("kms"), aws.client("logs")
        logs.create_log_group(logGroupName="g")
        logs.create_log_stream(logGroupName="g", logStreamName="s")
        for number in range(5):
            event = {"timestamp": int(time.time() * 1000), "message": f"line {number}"}
            logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=[event])
        run_programs(aws)  # which takes longer than lines take to be saved
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        secret = kms.encrypt(KeyId=key, Plaintext=b"secret")["CiphertextBlob"]
        s3.create_bucket(Bucket="data")
        s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
        for name, body in (("kept", b"one"), ("kept", b"two"), ("gone", b"x")):
            s3.put_object(Bucket="data", Key=name, Body=body)
        s3.delete_object(Bucket="data", Key="gone")
        user = aws.user("u", policy({"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::data"}))
        aws.client("ssm").put_parameter(Name="/p", Value="v", Type="String")
        aws.kill()

        aws = aws.restarted()
        s3 = aws.client("s3")
        versions = s3.list_object_versions(Bucket="data")
        bodies = [
            (v["Key"], s3.get_object(Bucket="data", Key=v["Key"], VersionId=v["VersionId"])["Body"].read())
            for v in versions["Versions"]
        ]
        assert sorted(bodies) == [("gone", b"x"), ("kept", b"one"), ("kept", b"two")]
        assert [m["Key"] for m in versions["DeleteMarkers"]] == ["gone"]
        assert aws.client("kms").decrypt(CiphertextBlob=secret)["Plaintext"] == b"secret"
        aws.client("s3", user).list_objects_v2(Bucket="data")
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            aws.client("s3", user).get_object(Bucket="data", Key="kept")
        assert aws.client("ssm").get_parameter(Name="/p")["Parameter"]["Value"] == "v"
        events = aws.client("logs").get_log_events(logGroupName="g", logStreamName="s", startFromHead=True)["events"]
        assert [event["message"] for event in events] == [f"line {number}" for number in range(5)]
        assert aws.client("lambda").invoke(FunctionName="f")["StatusCode"] == 200
        assert aws.invoke("m") == {"model": "m of us-east-1", "received": 3}


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

        with ThreadPoolExecutor() as pool:
            for number in range(4):
                pool.submit(work, number)
            wait_until(lambda: len(answered) > 100)
            aws.kill()
        aws = aws.restarted()
        s3, ssm = aws.client("s3"), aws.client("ssm")
        for name in answered:
            assert s3.get_object(Bucket="data", Key=name)["Body"].read() == name.encode()
            assert ssm.get_parameter(Name=name)["Parameter"]["Value"] == name


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can limit a process that runs")
def test_what_a_full_disk_cannot_keep_is_not_acknowledged_and_the_rest_survives_a_kill(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        iam, s3, role = aws.client("iam"), aws.client("s3"), aws.role("r", SAGEMAKER_TRUST)
        s3.create_bucket(Bucket="data")
        notebook = {"NotebookInstanceName": "notebook", "InstanceType": "ml.t3.medium", "RoleArn": role}
        for call in (
            lambda: iam.create_user(UserName="somebody"),
            lambda: aws.client("logs").create_log_group(logGroupName="group"),
            lambda: s3.put_object(Bucket="data", Key="lost", Body=b"x"),
            lambda: aws.client("sagemaker").create_notebook_instance(**notebook),
        ):
            soft, hard = resource.prlimit(aws.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(aws.pid, resource.RLIMIT_FSIZE, (0, hard))
            with pytest.raises(botocore.exceptions.ClientError, match="make room on the disk") as refused:
                call()
            resource.prlimit(aws.pid, resource.RLIMIT_FSIZE, (soft, hard))
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        iam.create_user(UserName="later")
        s3.put_object(Bucket="data", Key="kept", Body=b"x")
        aws.kill()
        aws = aws.restarted()
        assert [item["Key"] for item in aws.client("s3").list_objects_v2(Bucket="data")["Contents"]] == ["kept"]
        assert "later" in [user["UserName"] for user in aws.client("iam").list_users()["Users"]]

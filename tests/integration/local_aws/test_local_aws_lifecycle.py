"""Starting, stopping, being killed, a full disk: nothing acknowledged is lost, nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError
from local_aws_harness import SAGEMAKER_TRUST, policy, refused
from sagemaker_local import ACTIONS, LocalSageMaker, local_aws
from waiting import wait_until

from emulator.platform.running.layout import StateDir

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


def run_programs(aws: LocalSageMaker) -> str:
    """Have an endpoint, a function, and what the function started; the endpoint's name."""
    endpoint = aws.endpoint(aws.config(aws.model(aws.artifact("1"), aws.job_role(*ACTIONS))))
    aws.function("f", LEAVES_A_PROGRAM)
    aws.lambda_.invoke(FunctionName="f")
    assert len(relatives(aws.state_dir)) >= 5  # with the server and its watchdog
    return endpoint


def test_down_leaves_no_process_no_port_and_no_temporary_file(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        run_programs(aws)
        listening = [c for c in psutil.Process(aws.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert [(c.laddr.ip, c.laddr.port) for c in listening] == [("127.0.0.1", aws.port)]
    wait_until(lambda: relatives(tmp_path) == [])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", aws.port)) == errno.ECONNREFUSED
    assert not StateDir(tmp_path).temporary.exists()
    assert not (tmp_path / "server.json").exists()
    assert list((tmp_path / "processes").iterdir()) == []


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        stream = {"logGroupName": "g", "logStreamName": "s"}
        aws.logs.create_log_group(logGroupName="g")
        aws.logs.create_log_stream(**stream)
        lines = [f"line {number}" for number in range(5)]
        for line in lines:
            aws.logs.put_log_events(**stream, logEvents=[{"timestamp": int(time.time() * 1000), "message": line}])
        endpoint = run_programs(aws)  # which takes longer than lines take to be saved
        key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
        secret = aws.client("kms").encrypt(KeyId=key, Plaintext=b"secret")["CiphertextBlob"]
        aws.s3.create_bucket(Bucket="data")
        aws.s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
        for name, body in (("kept", b"one"), ("kept", b"two"), ("gone", b"x")):
            aws.s3.put_object(Bucket="data", Key=name, Body=body)
        aws.s3.delete_object(Bucket="data", Key="gone")
        user = aws.user("u", policy({"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::data"}))
        aws.client("ssm").put_parameter(Name="/p", Value="v", Type="String")
        aws.kill()
        aws.up()
        versions = aws.s3.list_object_versions(Bucket="data")
        bodies = [
            (v["Key"], aws.s3.get_object(Bucket="data", Key=v["Key"], VersionId=v["VersionId"])["Body"].read())
            for v in versions["Versions"]
        ]
        assert sorted(bodies) == [("gone", b"x"), ("kept", b"one"), ("kept", b"two")]
        assert [marker["Key"] for marker in versions["DeleteMarkers"]] == ["gone"]
        assert aws.client("kms").decrypt(CiphertextBlob=secret)["Plaintext"] == b"secret"
        aws.client("s3", user).list_objects_v2(Bucket="data")
        refused(aws.client("s3", user).get_object, "AccessDenied", Bucket="data", Key="kept")
        assert aws.client("ssm").get_parameter(Name="/p")["Parameter"]["Value"] == "v"
        events = aws.logs.get_log_events(**stream, startFromHead=True)["events"]
        assert [event["message"] for event in events] == lines
        assert aws.lambda_.invoke(FunctionName="f")["StatusCode"] == 200
        assert aws.who(endpoint)["version"] == "1"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can limit a process that runs")
def test_what_a_full_disk_cannot_keep_is_not_acknowledged_and_the_rest_survives_a_kill(tmp_path: Path) -> None:
    with local_aws(tmp_path) as aws:
        role = aws.role("r", SAGEMAKER_TRUST)
        aws.s3.create_bucket(Bucket="data")
        notebook = {"NotebookInstanceName": "notebook", "InstanceType": "ml.t3.medium", "RoleArn": role}
        for call in (
            lambda: aws.iam.create_user(UserName="somebody"),
            lambda: aws.logs.create_log_group(logGroupName="group"),
            lambda: aws.s3.put_object(Bucket="data", Key="lost", Body=b"x"),
            lambda: aws.sagemaker.create_notebook_instance(**notebook),
        ):
            soft, hard = resource.prlimit(aws.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(aws.pid, resource.RLIMIT_FSIZE, (0, hard))
            with pytest.raises(ClientError, match="make room on the disk") as refused:
                call()
            resource.prlimit(aws.pid, resource.RLIMIT_FSIZE, (soft, hard))
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        aws.iam.create_user(UserName="later")
        aws.s3.put_object(Bucket="data", Key="kept", Body=b"x")
        aws.kill()
        aws.up()
        assert [item["Key"] for item in aws.s3.list_objects_v2(Bucket="data")["Contents"]] == ["kept"]
        assert "later" in [user["UserName"] for user in aws.iam.list_users()["Users"]]

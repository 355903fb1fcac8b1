"""A local AWS of a test's own, and small things to run on it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import sqlite3
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from waiting import wait_until

from emulator.platform.conditions import Conditions
from emulator.platform.running import lifecycle
from emulator.platform.running.layout import StateDir
from emulator.platform.settings import free_port

#: For the waiters of boto3.
QUICKLY = {"Delay": 0.1, "MaxAttempts": 600}
#: In place of AWS's two minutes.
STOP_GRACE_SECONDS = 3.0


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement} for statement in statements]}


def trust(service: str) -> dict[str, Any]:
    return policy({"Principal": {"Service": service}, "Action": "sts:AssumeRole"})


SAGEMAKER_TRUST = trust("sagemaker.amazonaws.com")
LAMBDA_TRUST = trust("lambda.amazonaws.com")


def zipped(files: Mapping[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def custom_resource(code: dict[str, Any], runtime: str, **properties: Any) -> dict[str, Any]:
    """A template of a function, and of a ``Thing`` that it makes, whose attribute ``Answer`` is an output."""
    function = {"Code": code, "Handler": "index.handler", "Runtime": runtime, "Role": {"Fn::GetAtt": ["Role", "Arn"]}}
    return {
        "Resources": {
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": LAMBDA_TRUST}},
            "F": {"Type": "AWS::Lambda::Function", "Properties": {**function, "Timeout": 10}},
            "Thing": {
                "Type": "Custom::Thing",
                "Properties": {"ServiceToken": {"Fn::GetAtt": ["F", "Arn"]}, **properties},
            },
        },
        "Outputs": {"Answer": {"Value": {"Fn::GetAtt": ["Thing", "Answer"]}}},
    }


#: What a function needs to have a log.
LOGGING = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"


def function_archive(source: str) -> bytes:
    """A function's zip with one module, ``app``."""
    return zipped({"app.py": source})


def refused(call: Callable[..., Any], match: str, *arguments: Any, **request: Any) -> str:
    """The message with which AWS refuses a call; `match` is found in its code or its message."""
    with pytest.raises(ClientError, match=match) as error:
        call(*arguments, **request)
    return str(error.value.response["Error"]["Message"])


class LocalAws:
    """A local AWS that runs under these `Conditions`; its clients are its administrator's unless told otherwise."""

    def __init__(self, state_dir: Path, **conditions: Any) -> None:
        self.state_dir = state_dir
        self.conditions: dict[str, Any] = {"stop_grace_seconds": STOP_GRACE_SECONDS}
        self.up(**conditions)

    def up(self, **conditions: Any) -> None:
        """Start it, on another port than before, and connect; what has been said of its conditions goes on to hold."""
        self.conditions |= conditions
        status = lifecycle.up(self.state_dir, free_port(), Conditions(**self.conditions))
        self.port, self.pid = status.port, status.pid
        self.environment = lifecycle.environment(self.state_dir)
        self.connect()

    def connect(self) -> None:
        self.s3, self.iam, self.logs = (self.client(name) for name in ("s3", "iam", "logs"))
        self.sagemaker, self.runtime = (self.client(name) for name in ("sagemaker", "sagemaker-runtime"))
        self.lambda_, self.cloudformation = (self.client(name) for name in ("lambda", "cloudformation"))
        self.scaling = self.client("application-autoscaling")

    def down(self) -> None:
        lifecycle.down(self.state_dir)

    def age(self, days: int) -> None:
        """Let all that IAM has, and its use, be older by so many days; for the time between `down` and `up`."""

        def earlier(match: re.Match[str]) -> str:
            return f"{datetime.fromisoformat(match[0]) - timedelta(days):%Y-%m-%dT%H:%M:%SZ}"

        with contextlib.closing(sqlite3.connect(StateDir(self.state_dir).database, isolation_level=None)) as database:
            database.create_function("earlier", 1, lambda text: re.sub(r"20\d\d-[\d-]+T[\d:]+Z", earlier, text))
            database.execute("UPDATE saved SET head = earlier(head) WHERE module = 'iam'")

    def kill(self) -> None:
        """Let it die as in a crash, and wait for the system to know."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: StateDir(self.state_dir).server() is None)

    @property
    def _administrator(self) -> dict[str, str]:
        names = {"AccessKeyId": "AWS_ACCESS_KEY_ID", "SecretAccessKey": "AWS_SECRET_ACCESS_KEY"}
        return {name: self.environment[variable] for name, variable in names.items()}

    def client(
        self, service: str, credentials: dict[str, str] | None = None, config: Config | None = None, **options: Any
    ) -> Any:
        """A boto3 client that does not try again; `credentials` as STS or CreateAccessKey return them."""
        keys = credentials or self._administrator
        once = Config(retries={"total_max_attempts": 1}, read_timeout=60, max_pool_connections=32)
        place = {"endpoint_url": self.environment["AWS_ENDPOINT_URL"], "region_name": self.environment["AWS_REGION"]}
        return boto3.client(
            service,
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
            config=once.merge(config or Config()),
            **{**place, **options},
        )

    def user(self, name: str, document: dict[str, Any] | None = None) -> dict[str, str]:
        """An access key of a new user who may do what the policy says and nothing else."""
        self.iam.create_user(UserName=name)
        if document is not None:
            self.iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document))
        key = self.iam.create_access_key(UserName=name)["AccessKey"]
        return {"AccessKeyId": key["AccessKeyId"], "SecretAccessKey": key["SecretAccessKey"]}

    def role(self, name: str, trusted: dict[str, Any], document: dict[str, Any] | None = None) -> str:
        arn = str(self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trusted))["Role"]["Arn"])
        if document is not None:
            self.iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(document))
        return arn

    def send(
        self,
        method: str,
        path: str,
        body: bytes | str = b"",
        *,
        sign: str | None = None,
        key: dict[str, str] | None = None,
        region: str = "us-east-1",
        in_query: int = 0,
        **headers: str,
    ) -> urllib3.BaseHTTPResponse:
        """A request that no SDK would make, to a path or a whole URL.

        It is signed for the service `sign`, if any, with a key, by default the administrator's: in a header, or in a
        URL that is good for `in_query` seconds. Names of headers have underscores for hyphens.
        """
        url = path if path.startswith("http") else self.environment["AWS_ENDPOINT_URL"] + path
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = AWSRequest(method, url, data=body, headers=named)
        if sign is not None:
            keys = key or self._administrator
            credentials = Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys.get("SessionToken"))
            by_service = sign == "s3" and "x-amz-content-sha256" not in named
            if in_query:
                signer = S3SigV4QueryAuth if by_service else SigV4QueryAuth
                signer(credentials, sign, region, in_query).add_auth(request)
            else:
                (S3SigV4Auth if by_service else SigV4Auth)(credentials, sign, region).add_auth(request)
        return urllib3.request(method, request.url, body=body, headers=dict(request.headers), retries=False, timeout=60)

    def call(self, url: str, body: bytes = b"{}", key: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        return self.send("POST", url, body, sign="lambda", key=key, content_type="application/octet-stream")

    def statistic(self, namespace: str, metric: str, statistic: str = "Sum", **dimensions: str) -> float:
        """A statistic of a metric over the last hour."""
        request = {"Namespace": namespace, "MetricName": metric, "Statistics": [statistic], "Period": 24 * 3600}
        request["Dimensions"] = [{"Name": name, "Value": value} for name, value in dimensions.items()]
        now, hour = datetime.now(UTC), timedelta(hours=1)
        found = self.client("cloudwatch").get_metric_statistics(**request, StartTime=now - hour, EndTime=now + hour)
        return {"Sum": sum, "Minimum": min}.get(statistic, max)(point[statistic] for point in found["Datapoints"])

    def function(self, name: str, source: str, role: str = "", **options: Any) -> str:
        """The ARN of a new function, whose role nothing is allowed."""
        role, code = role or self.role(f"{name}-function", LAMBDA_TRUST), {"ZipFile": function_archive(source)}
        program = {"Runtime": "python3.14", "Handler": "app.handler", "Timeout": 30, "Code": code, **options}
        return str(self.lambda_.create_function(FunctionName=name, Role=role, **program)["FunctionArn"])

    def deploy(
        self,
        stack: str,
        template: dict[str, Any] | str,
        *,
        update: bool = False,
        key: dict[str, str] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Create or update a stack; how it is described in the end."""
        client = self.client("cloudformation", key)
        call = client.update_stack if update else client.create_stack
        body = template if isinstance(template, str) else json.dumps(template)
        options = {"StackName": stack, "TemplateBody": body, "Capabilities": ["CAPABILITY_NAMED_IAM"], **options}
        return self.stack(call(**options)["StackId"])

    def delete(self, stack: dict[str, Any]) -> dict[str, Any]:
        """Delete a stack; how it is described in the end."""
        self.cloudformation.delete_stack(StackName=stack["StackName"])
        return self.stack(stack["StackId"])

    def stack(self, name: str) -> dict[str, Any]:
        """A stack once nothing is in progress; as ``Reasons``, what its events say."""

        def settled() -> Any:
            (found,) = self.cloudformation.describe_stacks(StackName=name)["Stacks"]
            return None if found["StackStatus"].endswith("_IN_PROGRESS") else found

        found = wait_until(settled)
        events = self.cloudformation.describe_stack_events(StackName=found["StackId"])["StackEvents"]
        return {**found, "Reasons": "\n".join(event.get("ResourceStatusReason", "") for event in events)}

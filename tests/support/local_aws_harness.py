"""A local AWS of a test's own, and small things to run on it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import urllib3
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from waiting import wait_until

from emulator.platform import lifecycle
from emulator.platform.conditions import Conditions
from emulator.platform.layout import StateDir
from emulator.platform.programs import free_port as free_port

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/echo:1"
#: A model that says who it is; its environment decides whether and when it comes up.
ECHO_SERVER = """#!/usr/bin/env python3
import http.server, json, os, sys, time

while not os.path.exists(os.environ.get("WAIT_FOR", "/")):
    time.sleep(0.02)
if os.environ.get("BROKEN"):
    sys.exit("the weights are missing")

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        received = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(json.dumps({"model": os.environ["NAME"], "received": len(received)}).encode())

    def log_message(self, *args):
        pass

address = os.environ["SAGEMAKER_BIND_TO_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    """A policy document of statements that allow."""
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement} for statement in statements]}


def trust(service: str) -> dict[str, Any]:
    """Who may assume a role: one service of AWS."""
    return policy({"Principal": {"Service": service}, "Action": "sts:AssumeRole"})


SAGEMAKER_TRUST = trust("sagemaker.amazonaws.com")
LAMBDA_TRUST = trust("lambda.amazonaws.com")


def model_archive(program: str = ECHO_SERVER) -> bytes:
    """A model.tar.gz with the program as ``code/serve``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("code/serve")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program.encode()))
    return buffer.getvalue()


def function_archive(source: str) -> bytes:
    """A function's zip with one module, ``app``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", source)
    return buffer.getvalue()


@dataclass
class LocalAws:
    """A local AWS that runs; its clients are its administrator's unless told otherwise."""

    state_dir: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        return lifecycle.environment(self.state_dir)

    @property
    def _administrator(self) -> dict[str, str]:
        names = {"AccessKeyId": "AWS_ACCESS_KEY_ID", "SecretAccessKey": "AWS_SECRET_ACCESS_KEY"}
        return {name: self.environment[variable] for name, variable in names.items()}

    @property
    def pid(self) -> int:
        status = lifecycle.status(self.state_dir)
        assert status is not None
        return status.pid

    def kill(self) -> None:
        """Let it die as in a crash, and wait for the system to know."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: StateDir(self.state_dir).server() is None)

    def restarted(self) -> LocalAws:
        """Take it down, if it runs, and up on another port."""
        lifecycle.down(self.state_dir)
        return LocalAws(self.state_dir, lifecycle.up(self.state_dir, free_port()).port)

    def client(
        self,
        service: str,
        credentials: dict[str, str] | None = None,
        region: str | None = None,
        config: Config | None = None,
    ) -> Any:
        """A boto3 client; `credentials` as STS or CreateAccessKey return them."""
        environment, keys = self.environment, credentials or self._administrator
        return boto3.client(
            service,
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name=region or environment["AWS_REGION"],
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
            config=Config(retries={"total_max_attempts": 1}, read_timeout=60).merge(config or Config()),
        )

    def user(self, name: str, document: dict[str, Any] | None = None) -> dict[str, str]:
        """An access key of a new user who may do what the policy says and nothing else."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        if document is not None:
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"AccessKeyId": key["AccessKeyId"], "SecretAccessKey": key["SecretAccessKey"]}

    def role(self, name: str, trust: dict[str, Any], document: dict[str, Any] | None = None) -> str:
        """The ARN of a new role."""
        iam = self.client("iam")
        arn = str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"])
        if document is not None:
            iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(document))
        return arn

    def serve(self, name: str, role: str, region: str = "us-east-1") -> None:
        """A model, its endpoint config and its endpoint, of one name, in service."""
        sagemaker, bucket = self.client("sagemaker", region=region), f"models-of-{region}"
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        self.client("s3", region=region).create_bucket(Bucket=bucket, **where)
        self.client("s3", region=region).put_object(Bucket=bucket, Key="model.tar.gz", Body=model_archive())
        container = {
            "Image": IMAGE,
            "ModelDataUrl": f"s3://{bucket}/model.tar.gz",
            "Environment": {"NAME": f"{name} of {region}"},
        }
        variant = {"VariantName": "v", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        waiter = sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})

    def invoke(self, endpoint_name: str, body: bytes = b"123", region: str | None = None) -> dict[str, Any]:
        """The answer of an endpoint, once it has an instance: after a restart it is in service before its processes."""
        runtime = self.client("sagemaker-runtime", region=region)

        def answer() -> Any:
            with contextlib.suppress(runtime.exceptions.ServiceUnavailable):
                return runtime.invoke_endpoint(EndpointName=endpoint_name, Body=body)["Body"].read()

        return json.loads(wait_until(answer))

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

    def call(
        self, url: str, body: bytes = b"{}", *, credentials: dict[str, str] | None = None, signed: bool = True
    ) -> urllib3.BaseHTTPResponse:
        """POST to a function URL."""
        sign = "lambda" if signed else None
        return self.send("POST", url, body, sign=sign, key=credentials, content_type="application/octet-stream")

    def function(self, name: str, source: str) -> str:
        """The ARN of a new function, whose role nothing is allowed."""
        role = self.role(f"{name}-function", LAMBDA_TRUST)
        code = {"ZipFile": function_archive(source)}
        made = self.client("lambda").create_function(
            FunctionName=name, Runtime="python3.14", Role=role, Handler="app.handler", Timeout=30, Code=code
        )
        return str(made["FunctionArn"])

    def deploy(
        self, stack: str, template: dict[str, Any] | str, *, update: bool = False, **options: Any
    ) -> dict[str, Any]:
        """Create or update a stack; how it is described in the end."""
        client = self.client("cloudformation")
        call = client.update_stack if update else client.create_stack
        body = template if isinstance(template, str) else json.dumps(template)
        options = {"StackName": stack, "TemplateBody": body, **options}
        return self.settled(call(Capabilities=["CAPABILITY_NAMED_IAM"], **options)["StackId"])

    def delete(self, stack: dict[str, Any]) -> dict[str, Any]:
        self.client("cloudformation").delete_stack(StackName=stack["StackName"])
        return self.settled(stack["StackId"])

    def settled(self, stack: str) -> dict[str, Any]:
        """A stack once nothing is in progress; as ``Reasons``, what its events say."""
        client = self.client("cloudformation")

        def settled() -> Any:
            (found,) = client.describe_stacks(StackName=stack)["Stacks"]
            return None if found["StackStatus"].endswith("_IN_PROGRESS") else found

        found = wait_until(settled, seconds=60)
        events = client.describe_stack_events(StackName=found["StackId"])["StackEvents"]
        return {**found, "Reasons": "\n".join(event.get("ResourceStatusReason", "") for event in events)}


@contextlib.contextmanager
def local_aws(state_dir: Path, **options: Any) -> Iterator[LocalAws]:
    """Start one, stop it in the end; `options` are members of `Conditions`."""
    status = lifecycle.up(state_dir, free_port(), Conditions(**options))
    try:
        yield LocalAws(state_dir, status.port)
    finally:
        lifecycle.down(state_dir)


@dataclass
class CdkApp:
    """Synthesised variants of an app in a folder, and the local AWS that an unmodified CDK deploys them to."""

    aws: LocalAws
    folder: Path

    def cdk(self, *arguments: str, check: bool = True) -> str:
        """What the CDK's command line says, told nothing but the endpoint and the credentials."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        done = subprocess.run(
            [ROOT / "node_modules" / ".bin" / "cdk", "--no-notices", *arguments],
            cwd=self.folder,
            env={**environment, **self.aws.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stdout
        return done.stdout

    def deploy(self, variant: str, *stacks: str, check: bool = True) -> str:
        """Deploy stacks of a variant, by default its only one."""
        return self.cdk("deploy", "--app", variant, *stacks, "--require-approval", "never", check=check)

"""The app as the CDK command line runs it: exit codes, messages, and no word to AWS."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from templates import KINDS, PROJECT

CDK = PROJECT / "node_modules" / ".bin" / "cdk"
BAD_APP = """
import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from infra.gate import compliance

app = cdk.App()
s3.Bucket(cdk.Stack(app, "Bad"), "Open")
compliance.add_checks(app)
app.synth()
"""


class Listener:
    """Takes connections on loopback and answers none: what looks for AWS or a proxy ends here."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def environment(**extra: str) -> dict[str, str]:
    """The environment of a machine without any AWS account, this interpreter and its Node first on the path."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(("AWS_", "CDK_"))}
    return {
        **clean,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **extra,
    }


def run(*command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("stage", ["dev", "prod"])
def test_synthesis_needs_no_aws_account_and_no_network(stage, tmp_path, listener):
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), listener.url)
    env = environment(AWS_ENDPOINT_URL=listener.url, AWS_EC2_METADATA_SERVICE_ENDPOINT=listener.url, **proxies)
    done = run(str(CDK), "synth", "--quiet", "-c", f"stage={stage}", "-o", str(tmp_path), env=env)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("*.template.json")} == {
        f"kennel-{stage}-{kind}.template.json" for kind in KINDS
    }
    assert listener.connections == 0


def test_bad_stack_fails_cdk_synth_and_says_why(tmp_path):
    program = tmp_path / "bad_app.py"
    program.write_text(BAD_APP)
    done = run(str(CDK), "synth", "--quiet", "-a", f"python3 {program}", "-o", str(tmp_path / "out"), env=environment())
    assert done.returncode != 0
    assert "AwsSolutions-S1" in done.stdout + done.stderr
    assert "Bad/Open" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"stage": "staging"}, "There is no stage 'staging'. Stages: dev, local, prod."),
        ({"artifact": "no/such/model.tar.gz"}, "There is no model artifact at no/such/model.tar.gz."),
    ],
    ids=["unknown-stage", "missing-artifact"],
)
def test_bad_context_gets_one_line_and_no_stack_trace(context, message, tmp_path):
    env = environment(CDK_CONTEXT_JSON=json.dumps(context), CDK_OUTDIR=str(tmp_path))
    done = run(sys.executable, "app.py", env=env)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == message
    assert "Traceback" not in done.stderr


def test_a_damaged_artifact_gets_one_line_and_no_stack_trace(tmp_path):
    artifact = tmp_path / "model.tar.gz"
    artifact.write_bytes(b"not an archive")
    arguments = ("synth", "--quiet", "-c", f"artifact={artifact}", "-o", str(tmp_path / "out"))
    done = run(str(CDK), *arguments, env=environment())
    assert done.returncode != 0
    assert f"{artifact} is not a readable tar.gz" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr

"""The app as the CDK command line runs it: exit codes, messages, and no word to AWS."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from templates import KINDS, PROJECT

CDK = PROJECT / "node_modules" / ".bin" / "cdk"


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run on a machine without any AWS account, this interpreter and its Node first on the path."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(("AWS_", "CDK_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    environment = {**clean, "PATH": path, **files, **variables}
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_synthesis_needs_no_aws_account_and_no_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)
        services = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_SERVICE_ENDPOINT"), url)
        command = (str(CDK), "synth", "--quiet", "-c", "stage=prod", "-o", str(tmp_path))
        done = run(*command, **proxies, **services)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has connected
            server.accept()
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.glob("*.template.json")}
    assert names == {f"kennel-prod-{kind}.template.json" for kind in KINDS}


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"stage": "staging"}, "There is no stage 'staging'. Stages: demo, dev, local, prod, serverless."),
        ({"artifact": "no/such/model.tar.gz"}, "There is no model artifact at no/such/model.tar.gz."),
        ({"artifact": "README.md"}, "README.md is not a readable tar.gz"),
    ],
)
def test_bad_context_gets_one_line_and_no_stack_trace(context, message, tmp_path):
    flags = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    done = run(sys.executable, "app.py", CDK_CONTEXT_JSON=json.dumps(flags | context), CDK_OUTDIR=str(tmp_path))
    assert done.returncode == 1
    assert message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr

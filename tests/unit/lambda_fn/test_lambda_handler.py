"""How the function starts: the asset with what the Python runtime brings, in a fresh process, and its environment."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import botocore
import pytest
from lambda_fakes import ANSWER, CREDENTIALS, fake_server, reply

import lambda_fn
from lambda_fn.config import ConfigurationError, Settings

CALL = """
import json, sys
from lambda_fn.handler import handler
assert "lambda_fn.aws.caller_limit" not in sys.modules  # which most functions do not need
class Context:
    aws_request_id = "request-1"
    def get_remaining_time_in_millis(self): return 5000
print(json.dumps(handler(json.loads(sys.argv[1]), Context())))
"""


@pytest.fixture
def run(tmp_path):
    source = Path(lambda_fn.__file__).parent
    shutil.copytree(source, tmp_path / "lambda_fn", ignore=shutil.ignore_patterns("__pycache__"))
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    for name in ("botocore", "urllib3", "jmespath", "dateutil", "six.py"):  # with boto3, all that the runtime has
        (runtime / name).symlink_to(Path(botocore.__file__).parents[1] / name)
    always = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "runtime"}

    def call(event, **environ):
        # -S leaves site-packages out: what the runtime brings must be enough.
        command = [sys.executable, "-S", "-c", CALL, json.dumps(event)]
        return subprocess.run(command, cwd=tmp_path, env=always | environ, capture_output=True, text=True, timeout=60)

    return call


def test_the_asset_runs_on_what_the_runtime_brings(run):
    with fake_server(reply()) as server:
        url = f"http://127.0.0.1:{server.port}"
        environ = {"ENDPOINT_NAME": "dogs-1", "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": url, **CREDENTIALS}
        done = run({"image": "aGVsbG8="}, **environ)
    assert done.returncode == 0, done.stderr
    metrics, answer = (json.loads(line) for line in done.stdout.splitlines())
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"]) == {**ANSWER, "request_id": "request-1"}
    assert metrics["Requests"] == 1
    (line,) = (json.loads(line) for line in done.stderr.splitlines())
    assert (line["level"], line["status"], line["request_id"]) == ("INFO", 200, "request-1")
    assert server.requests[0].body == b"hello"


MINIMAL = {"ENDPOINT_NAME": "dogs-1", "AWS_REGION": "eu-central-1"}
PUBLIC = "https://runtime.sagemaker.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("variables", "member", "value"),
    [
        ({"MAX_IMAGE_BYTES": "1000"}, "max_image_bytes", 1000),
        ({"FETCH_TIMEOUT_SECONDS": "2.5"}, "fetch_timeout_seconds", 2.5),
        ({"ENDPOINT_TIMEOUT_SECONDS": "60"}, "endpoint_timeout_seconds", 60.0),
        ({"CONTACT": "a@b.org"}, "contact", "a@b.org"), ({}, "contact", ""),
        ({"AWS_ENDPOINT_URL": ""}, "runtime_url", PUBLIC),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:4566/"}, "runtime_url", "http://127.0.0.1:4566"),
        ({"AWS_ENDPOINT_URL": "http://x:1", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "https://y"}, "runtime_url", "https://y"),
        ({"URL_SUFFIX": "c2s.ic.gov"}, "runtime_url", "https://runtime.sagemaker.eu-central-1.c2s.ic.gov"),
    ],
)  # fmt: skip
def test_a_variable_is_read_as_documented(variables, member, value):
    assert getattr(Settings.from_environment({**MINIMAL, **variables}), member) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENDPOINT_NAME", "dogs/../other"), ("ENDPOINT_NAME", "d" * 64), ("AWS_REGION", "evil.example/"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:4566"), ("AWS_ENDPOINT_URL", "http://user:pw@host"),
        ("AWS_ENDPOINT_URL", "http://h:abc"), ("AWS_ENDPOINT_URL", "http://h:99999"), ("AWS_ENDPOINT_URL", "http://h:0"),
        ("AWS_ENDPOINT_URL", "http://[::1"), ("AWS_ENDPOINT_URL", "http://a b"), ("AWS_ENDPOINT_URL", "http://:80"),
        ("METRICS_NAMESPACE", "AWS/Lambda"), ("MAX_IMAGE_BYTES", "4.5MB"), ("MAX_IMAGE_BYTES", "0.5"),
        ("MAX_IMAGE_BYTES", "6291457"), ("FETCH_TIMEOUT_SECONDS", "nan"), ("ENDPOINT_TIMEOUT_SECONDS", "0"),
        ("CONTACT", "a) evil"), ("CONTACT", "a\nHost: b"), ("CONTACT", "ü@b.org"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(ConfigurationError, match=name):
        Settings.from_environment({**MINIMAL, name: value})

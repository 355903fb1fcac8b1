"""The function's environment: sensible defaults, and every mistake named at once."""

import pytest

from lambda_fn.config import ConfigurationError, Settings

MINIMAL = {"ENDPOINT_NAME": "dogs-1", "AWS_REGION": "eu-central-1"}
PUBLIC = "https://runtime.sagemaker.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("variables", "member", "value"),
    [
        ({}, "max_image_bytes", 4_500_000), ({"MAX_IMAGE_BYTES": "1000"}, "max_image_bytes", 1000),
        ({"FETCH_TIMEOUT_SECONDS": "2.5"}, "fetch_timeout_seconds", 2.5),
        ({"ENDPOINT_TIMEOUT_SECONDS": "60"}, "endpoint_timeout_seconds", 60.0),
        ({"METRICS_NAMESPACE": "Dogs"}, "metrics_namespace", "Dogs"),
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
        ("MAX_IMAGE_BYTES", "4.5MB"),
        ("MAX_IMAGE_BYTES", "6291457"), ("FETCH_TIMEOUT_SECONDS", "nan"), ("ENDPOINT_TIMEOUT_SECONDS", "0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(ConfigurationError, match=name):
        Settings.from_environment({**MINIMAL, name: value})

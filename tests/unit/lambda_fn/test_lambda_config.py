"""The function's environment: sensible defaults, and every mistake named at once."""

import pytest

from lambda_fn.config import ConfigurationError, Settings

MINIMAL = {"ENDPOINT_NAME": "dogs-1", "AWS_REGION": "eu-central-1"}


def test_two_variables_are_enough():
    settings = Settings.from_environment(MINIMAL)
    assert settings.endpoint_name == "dogs-1"
    assert settings.runtime_url == "https://runtime.sagemaker.eu-central-1.amazonaws.com"
    assert settings.metrics_namespace == "Kennel"
    assert settings.max_image_bytes == 4_500_000


def test_everything_can_be_set():
    settings = Settings.from_environment(
        {
            **MINIMAL,
            "AWS_LAMBDA_FUNCTION_NAME": "f",
            "METRICS_NAMESPACE": "Dogs",
            "MAX_IMAGE_BYTES": "1000",
            "FETCH_TIMEOUT_SECONDS": "2.5",
            "ENDPOINT_TIMEOUT_SECONDS": "60",
        }
    )
    assert settings == Settings(
        endpoint_name="dogs-1",
        region="eu-central-1",
        runtime_url="https://runtime.sagemaker.eu-central-1.amazonaws.com",
        function_name="f",
        metrics_namespace="Dogs",
        max_image_bytes=1000,
        fetch_timeout_seconds=2.5,
        endpoint_timeout_seconds=60.0,
    )


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:4566/"}, "http://127.0.0.1:4566"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "https://vpce.example"},
            "https://vpce.example",
        ),
        (
            {"AWS_REGION": "us-iso-east-1", "URL_SUFFIX": "c2s.ic.gov"},
            "https://runtime.sagemaker.us-iso-east-1.c2s.ic.gov",
        ),
        ({"AWS_ENDPOINT_URL": ""}, "https://runtime.sagemaker.eu-central-1.amazonaws.com"),
    ],
)
def test_the_endpoint_url_is_found_as_the_sdks_find_it(extra, expected):
    assert Settings.from_environment({**MINIMAL, **extra}).runtime_url == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENDPOINT_NAME", ""), ("ENDPOINT_NAME", "dogs/../other"), ("ENDPOINT_NAME", "-dogs"),
        ("ENDPOINT_NAME", "d" * 64), ("AWS_REGION", ""), ("AWS_REGION", "evil.example/"),
        ("AWS_ENDPOINT_URL", "127.0.0.1:4566"), ("AWS_ENDPOINT_URL", "ftp://x"),
        ("AWS_ENDPOINT_URL", "http://user:pw@host"), ("AWS_ENDPOINT_URL", "http://host:port"),
        ("AWS_ENDPOINT_URL", "http://[::1"), ("METRICS_NAMESPACE", "AWS/Lambda"), ("MAX_IMAGE_BYTES", "0"),
        ("MAX_IMAGE_BYTES", "-5"), ("MAX_IMAGE_BYTES", "4.5MB"), ("MAX_IMAGE_BYTES", "6291457"),
        ("FETCH_TIMEOUT_SECONDS", "nan"), ("FETCH_TIMEOUT_SECONDS", "inf"), ("ENDPOINT_TIMEOUT_SECONDS", "0"),
        ("ENDPOINT_TIMEOUT_SECONDS", "61"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(ConfigurationError, match=name):
        Settings.from_environment({**MINIMAL, name: value})


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({"MAX_IMAGE_BYTES": "x", "FETCH_TIMEOUT_SECONDS": "-1"})
    for name in ("ENDPOINT_NAME", "AWS_REGION", "MAX_IMAGE_BYTES", "FETCH_TIMEOUT_SECONDS"):
        assert name in str(caught.value)

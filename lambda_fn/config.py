"""The function's environment, read and validated once, when Lambda loads the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T", int, float)

# A synchronous Lambda payload is 6 MB and carries a binary body in base64, so about 4.5 MB of image.
DEFAULT_MAX_IMAGE_BYTES = 4_500_000
# The body limit of SageMaker's InvokeEndpoint.
LARGEST_MAX_IMAGE_BYTES = 6 * 1024 * 1024
DEFAULT_FETCH_TIMEOUT_SECONDS = 5.0
DEFAULT_ENDPOINT_TIMEOUT_SECONDS = 20.0
# SageMaker gives a model's container 60 seconds to answer.
LARGEST_ENDPOINT_TIMEOUT_SECONDS = 60.0
DEFAULT_METRICS_NAMESPACE = "Kennel"

_ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d")


class ConfigurationError(Exception):
    """The environment cannot work; the message lists every problem."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function needs to know.

    Attributes
    ----------
    endpoint_name
        ``ENDPOINT_NAME``: the SageMaker endpoint to invoke.
    region
        ``AWS_REGION``, set by Lambda.
    runtime_url
        Base URL of SageMaker Runtime: ``AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME``, else ``AWS_ENDPOINT_URL``, else
        the region's public address.
    function_name
        ``AWS_LAMBDA_FUNCTION_NAME``, set by Lambda; the dimension of the metrics.
    metrics_namespace
        ``METRICS_NAMESPACE``.
    max_image_bytes
        ``MAX_IMAGE_BYTES``: of an image, however it arrives.
    fetch_timeout_seconds
        ``FETCH_TIMEOUT_SECONDS``: for all of fetching a URL, redirects included.
    endpoint_timeout_seconds
        ``ENDPOINT_TIMEOUT_SECONDS``: for the endpoint's answer. Less is used when Lambda leaves less.
    """

    endpoint_name: str
    region: str
    runtime_url: str
    function_name: str = "unknown"
    metrics_namespace: str = DEFAULT_METRICS_NAMESPACE
    max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES
    fetch_timeout_seconds: float = DEFAULT_FETCH_TIMEOUT_SECONDS
    endpoint_timeout_seconds: float = DEFAULT_ENDPOINT_TIMEOUT_SECONDS

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; a `ConfigurationError` lists everything that is missing or out of range."""
        problems: list[str] = []

        def number(name: str, convert: Callable[[str], T], default: T, largest: T) -> T:
            text = environ.get(name, "").strip()
            if not text:
                return default
            try:
                value = convert(text)
            except ValueError:
                value = None
            if value is None or not 0 < value <= largest:  # also refuses NaN
                problems.append(f"{name} is {text!r}; it must be a number above 0, at most {largest}")
                return default
            return value

        endpoint_name = environ.get("ENDPOINT_NAME", "").strip()
        if not _ENDPOINT_NAME.fullmatch(endpoint_name):
            problems.append(f"ENDPOINT_NAME is {endpoint_name!r}; it must name a SageMaker endpoint")
        region = (environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "").strip()
        if not _REGION.fullmatch(region):
            problems.append(f"AWS_REGION is {region!r}; it must be a region such as us-east-1")
        runtime_url = (
            environ.get("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME")
            or environ.get("AWS_ENDPOINT_URL")
            # Hosts of China, GovCloud and the like end otherwise; the template knows how.
            or f"https://runtime.sagemaker.{region}.{environ.get('URL_SUFFIX') or 'amazonaws.com'}"
        )
        if not _is_base_url(runtime_url):
            problems.append(f"AWS_ENDPOINT_URL is {runtime_url!r}; it must look like https://host or http://host:port")
        namespace = environ.get("METRICS_NAMESPACE", "").strip() or DEFAULT_METRICS_NAMESPACE
        # CloudWatch keeps this prefix for its own metrics and drops ours silently.
        if namespace.startswith("AWS/"):
            problems.append(f"METRICS_NAMESPACE is {namespace!r}; it must not begin with AWS/")
        settings = cls(
            endpoint_name=endpoint_name,
            region=region,
            runtime_url=runtime_url.rstrip("/"),
            function_name=environ.get("AWS_LAMBDA_FUNCTION_NAME") or "unknown",
            metrics_namespace=namespace,
            max_image_bytes=number("MAX_IMAGE_BYTES", int, DEFAULT_MAX_IMAGE_BYTES, LARGEST_MAX_IMAGE_BYTES),
            fetch_timeout_seconds=number("FETCH_TIMEOUT_SECONDS", float, DEFAULT_FETCH_TIMEOUT_SECONDS, 60.0),
            endpoint_timeout_seconds=number(
                "ENDPOINT_TIMEOUT_SECONDS", float, DEFAULT_ENDPOINT_TIMEOUT_SECONDS, LARGEST_ENDPOINT_TIMEOUT_SECONDS
            ),
        )
        if problems:
            raise ConfigurationError("The function's environment is wrong: " + "; ".join(problems) + ".")
        return settings


def _is_base_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    return (
        url.scheme in ("http", "https")
        and bool(url.hostname)
        and "@" not in url.netloc
        and port != 0
        and not (url.query or url.fragment)
    )

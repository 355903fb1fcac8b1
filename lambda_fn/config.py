"""The function's environment, read and validated once, when Lambda loads the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

# The body limit of SageMaker's InvokeEndpoint.
_LARGEST_IMAGE_BYTES = 6 * 1024 * 1024
# SageMaker gives a model's container 60 seconds to answer.
_LONGEST_TIMEOUT_SECONDS = 60
_ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d")
# What may stand in a comment of the header User-Agent.
_CONTACT = re.compile(r"[!-'*-~ ]{0,200}")
_BASE_URL = re.compile(r"https?://[^/@?#\s]+(/[^@?#\s]*)?")


class ConfigurationError(Exception):
    """The environment cannot work; the message lists every problem."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function needs to know; docs/function.md describes each variable of the environment."""

    endpoint_name: str
    region: str
    runtime_url: str
    function_name: str
    metrics_namespace: str
    max_image_bytes: int
    fetch_timeout_seconds: float
    endpoint_timeout_seconds: float
    contact: str
    dynamodb_url: str
    #: Absent: callers have no limit.
    caller_table: str | None
    caller_requests_per_minute: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings; a `ConfigurationError` lists everything that is missing or out of range."""
        problems: list[str] = []

        def number(name: str, default: float, largest: float, convert: Callable[[str], float] = float) -> float:
            text, kind = environ.get(name) or str(default), "whole number" if convert is int else "number"
            try:
                value = convert(text)
            except ValueError:
                value = 0.0
            if not 0 < value <= largest:  # also refuses NaN
                problems.append(f"{name} is {text!r}; it must be a {kind} above 0, at most {largest}")
                return default
            return value

        endpoint_name = environ.get("ENDPOINT_NAME", "")
        if not _ENDPOINT_NAME.fullmatch(endpoint_name):
            problems.append(f"ENDPOINT_NAME is {endpoint_name!r}; it must name a SageMaker endpoint")
        region = environ.get("AWS_REGION", "")
        if not _REGION.fullmatch(region):
            problems.append(f"AWS_REGION is {region!r}; it must be a region such as us-east-1")
        # Hosts of China, GovCloud and the like end otherwise; the template knows how.
        ending = f"{region}.{environ.get('URL_SUFFIX') or 'amazonaws.com'}"

        def base_url(service: str, host: str) -> str:
            url = environ.get(f"AWS_ENDPOINT_URL_{service}") or environ.get("AWS_ENDPOINT_URL")
            if url and not _is_base_url(url):
                problems.append(f"AWS_ENDPOINT_URL is {url!r}; it must look like https://host or http://host:port")
            return (url or f"https://{host}.{ending}").rstrip("/")

        namespace = environ.get("METRICS_NAMESPACE") or "Kennel"
        # CloudWatch keeps this prefix for its own metrics and drops ours silently.
        if namespace.startswith("AWS/"):
            problems.append(f"METRICS_NAMESPACE is {namespace!r}; it must not begin with AWS/")
        contact = environ.get("CONTACT", "")
        if not _CONTACT.fullmatch(contact):
            problems.append(f"CONTACT is {contact!r}; it must be at most 200 ASCII characters without parentheses")
        settings = cls(
            endpoint_name=endpoint_name,
            region=region,
            runtime_url=base_url("SAGEMAKER_RUNTIME", "runtime.sagemaker"),
            function_name=environ.get("AWS_LAMBDA_FUNCTION_NAME") or "unknown",
            metrics_namespace=namespace,
            # A synchronous Lambda payload is 6 MB and carries a binary body in base64, so about 4.5 MB of image.
            max_image_bytes=int(number("MAX_IMAGE_BYTES", 4_500_000, _LARGEST_IMAGE_BYTES, int)),
            fetch_timeout_seconds=number("FETCH_TIMEOUT_SECONDS", 5, _LONGEST_TIMEOUT_SECONDS),
            endpoint_timeout_seconds=number("ENDPOINT_TIMEOUT_SECONDS", 20, _LONGEST_TIMEOUT_SECONDS),
            contact=contact,
            dynamodb_url=base_url("DYNAMODB", "dynamodb"),
            caller_table=environ.get("CALLER_TABLE"),
            caller_requests_per_minute=int(number("CALLER_REQUESTS_PER_MINUTE", 60, 60_000, int)),
        )
        if problems:
            raise ConfigurationError("The function's environment is wrong: " + "; ".join(dict.fromkeys(problems)) + ".")
        return settings


def _is_base_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return bool(_BASE_URL.fullmatch(text) and url.hostname and url.port != 0)
    except ValueError:  # the port is no number up to 65535, or the host half an IPv6 address
        return False

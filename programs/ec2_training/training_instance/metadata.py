"""What the instance knows of itself: EC2's metadata service, version 2."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

_TIMEOUT_SECONDS = 2.0
#: No proxy is between an instance and its metadata.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def entry(name: str) -> str | None:
    """Return an entry below ``/latest/meta-data/``, None where there is none; OSError where nobody answers."""
    token = _send("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    try:
        return _send("GET", f"meta-data/{name}", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def _send(method: str, path: str, headers: dict[str, str]) -> str:
    # The address that every instance has; the AWS SDKs read the variable, too.
    endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
    request = urllib.request.Request(f"{endpoint}/latest/{path}", method=method, headers=headers)  # noqa: S310
    with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
        return str(answer.read().decode())

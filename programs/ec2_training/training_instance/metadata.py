"""What the instance knows of itself: EC2's metadata service, version 2."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

#: The address that every instance has; the AWS SDKs read the variable, too.
_ENDPOINT = "http://169.254.169.254"
_TIMEOUT_SECONDS = 2.0


class InstanceMetadata:
    """Reads entries of the metadata service."""

    def __init__(self) -> None:
        self._endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _ENDPOINT).rstrip("/")
        # No proxy is between an instance and its metadata.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, entry: str) -> str | None:
        """Return an entry below ``/latest/meta-data/``, None where there is none; OSError where nobody answers."""
        token = self._send("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        try:
            return self._send("GET", f"meta-data/{entry}", {"X-aws-ec2-metadata-token": token})
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def interrupted(self) -> bool:
        """Whether AWS has announced that it takes a spot instance back, which it does two minutes before."""
        try:
            return self.get("spot/instance-action") is not None
        except OSError:
            return False

    def _send(self, method: str, path: str, headers: dict[str, str]) -> str:
        url = f"{self._endpoint}/latest/{path}"
        request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - not a caller's address
        with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return str(answer.read().decode())

"""What the instance knows of itself: EC2's metadata service, version 2."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

#: As the AWS SDKs read it; the address is the one that every instance has.
_ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
_ENDPOINT = "http://169.254.169.254"
_TOKEN_SECONDS = "21600"  # noqa: S105 - how long a token is valid
_TIMEOUT_SECONDS = 2.0


class InstanceMetadata:
    """Reads entries of the metadata service."""

    def __init__(self) -> None:
        self._endpoint = os.environ.get(_ENDPOINT_VARIABLE, _ENDPOINT).rstrip("/")
        # No proxy is between an instance and its metadata.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""

    def get(self, entry: str) -> str | None:
        """An entry below ``/latest/meta-data/``, None where there is none.

        Raises
        ------
        OSError
            The service does not answer.
        """
        if not self._token:
            self._renew_token()
        try:
            return self._read(entry)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            self._renew_token()  # it has expired
            return self._read(entry)

    def tag(self, key: str) -> str | None:
        """A tag of the instance."""
        return self.get(f"tags/instance/{key}")

    def interrupted(self) -> bool:
        """Whether AWS has announced that it takes a spot instance back, which it does two minutes before."""
        try:
            return self.get("spot/instance-action") is not None
        except OSError:
            return False

    def _renew_token(self) -> None:
        request = urllib.request.Request(  # noqa: S310 - the address is not a caller's
            f"{self._endpoint}/latest/api/token",
            method="PUT",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_SECONDS},
        )
        self._token = self._send(request)

    def _read(self, entry: str) -> str | None:
        request = urllib.request.Request(  # noqa: S310 - the address is not a caller's
            f"{self._endpoint}/latest/meta-data/{entry}", headers={"X-aws-ec2-metadata-token": self._token}
        )
        try:
            return self._send(request)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def _send(self, request: urllib.request.Request) -> str:
        with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            text: str = answer.read().decode()
        return text

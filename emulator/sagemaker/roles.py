"""Clients of the other services of this local AWS, with the credentials of the role that SageMaker acts under."""

from __future__ import annotations

import functools
import threading
from typing import Any

from botocore.config import Config

from emulator.platform.host import Host

# boto3 builds its first clients from shared, unguarded state.
_creation_lock = threading.Lock()
_CONFIG = Config(
    connect_timeout=5, read_timeout=60, max_pool_connections=16, proxies={}, s3={"addressing_style": "path"}
)


class Role:
    """An execution role, whose session has SageMaker's name; ServiceError without SageMaker's trust."""

    def __init__(self, host: Host, arn: str, region: str) -> None:
        self.arn = arn
        self._host = host
        self.region = region
        self._credentials = host.role_credentials(arn, "SageMaker")

    def environment(self) -> dict[str, str]:
        return {
            **self._credentials,
            "AWS_ENDPOINT_URL": self._host.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }

    def client(self, service: str, attempts: int = 3) -> Any:
        """A boto3 client; that of S3 also has ``copy_objects(bucket, targets)`` (see `Host`)."""
        import boto3  # when the first job needs it: it takes a tenth of the server's start

        retries = Config(retries={"mode": "standard", "total_max_attempts": attempts})
        with _creation_lock:
            client = boto3.Session().client(
                service,
                endpoint_url=self._host.endpoint_url,
                region_name=self.region,
                aws_access_key_id=self._credentials["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=self._credentials["AWS_SECRET_ACCESS_KEY"],
                aws_session_token=self._credentials.get("AWS_SESSION_TOKEN"),
                config=_CONFIG.merge(retries),
            )
        if service == "s3":
            client.copy_objects = functools.partial(self._host.copy_objects, self._credentials, self.region)
        return client

"""A bucket in a dictionary, for what the command line does with one."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.exceptions


class NoSuchKey(botocore.exceptions.ClientError):
    """What S3 answers of an object that is not there."""


class Objects(dict[str, bytes]):
    """Bodies by key; `times` has when each was written, no two at once, and may be changed. Earlier ones are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[str, datetime] = {}
        self.earlier: dict[str, list[tuple[bytes, datetime]]] = {}

    def __setitem__(self, key: str, body: bytes) -> None:
        latest = max(self.times.values(), default=datetime.min.replace(tzinfo=UTC))
        if key in self:
            self.earlier.setdefault(key, []).append((self[key], self.times[key]))
        self.times[key] = max(datetime.now(UTC), latest + timedelta(microseconds=1))
        super().__setitem__(key, body)

    def forget(self, key: str) -> None:
        """Take an object away with all its versions."""
        self.pop(key, None)
        self.earlier.pop(key, None)


class FakeS3:
    """The client of one bucket, which is named ``bucket``. An ETag changes with the bytes."""

    class exceptions:
        NoSuchKey = NoSuchKey

    def __init__(self) -> None:
        self.objects = Objects()
        self.metadata: dict[str, dict[str, str]] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **options: Any) -> dict[str, str]:
        assert Bucket == "bucket"
        self.objects[Key] = Body
        self.metadata[Key] = options.get("Metadata", {})
        return {"ETag": self._listed(Key)["ETag"]}

    def get_object(self, *, Bucket: str, Key: str, VersionId: str = "latest") -> dict[str, Any]:
        if VersionId != "latest":
            return {"Body": io.BytesIO(self.objects.earlier[Key][int(VersionId)][0])}
        if Bucket != "bucket" or Key not in self.objects:
            raise NoSuchKey({"Error": {"Code": "NoSuchKey", "Message": "Not Found"}}, "GetObject")
        metadata = self.metadata.get(Key, {})
        return {**self._listed(Key), "Body": io.BytesIO(self.objects[Key]), "Metadata": metadata}

    def download_file(self, bucket: str, key: str, destination: str, **_: Any) -> None:
        Path(destination).write_bytes(self.get_object(Bucket=bucket, Key=key)["Body"].read())

    def upload_file(self, name: str, bucket: str, key: str, **_: Any) -> None:
        self.put_object(Bucket=bucket, Key=key, Body=Path(name).read_bytes())

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        self.objects.pop(Key, None)

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        for item in Delete["Objects"]:
            self.objects.pop(item["Key"], None)
        return {}

    def list_objects_v2(self, *, Bucket: str, Prefix: str, MaxKeys: int) -> dict[str, Any]:
        found = [self._listed(key) for key in self.objects if key.startswith(Prefix)][:MaxKeys]
        return {"KeyCount": len(found), "Contents": found}

    def get_paginator(self, _: str) -> FakeS3:
        return self

    def paginate(self, *, Bucket: str, Prefix: str, StartAfter: str = "") -> list[dict[str, Any]]:
        keys = [key for key in self.objects if key.startswith(Prefix) and key > StartAfter]
        return [{}, *({"Contents": [self._listed(key)], "Versions": self._versions(key)} for key in keys), {}]

    def _versions(self, key: str) -> list[dict[str, Any]]:
        earlier = [(str(n), time) for n, (_, time) in enumerate(self.objects.earlier.get(key, []))]
        versions = [*earlier, ("latest", self.objects.times[key])]
        return [{"Key": key, "VersionId": version, "LastModified": time} for version, time in reversed(versions)]

    def _listed(self, key: str) -> dict[str, Any]:
        body = self.objects[key]
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        return {"Key": key, "Size": len(body), "ETag": etag, "LastModified": self.objects.times[key]}

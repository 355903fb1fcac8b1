"""What a transform job works on: the objects of a prefix or of a manifest."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from emulator.platform.awsapi import Payload
from emulator.sagemaker import artifacts
from emulator.sagemaker.artifacts import ArtifactError


class InputObject(NamedTuple):
    """One input; `name` is where it lies below the prefix, and where its output will lie."""

    bucket: str
    key: str
    name: str


def find_inputs(s3: Any, source: Payload) -> list[InputObject]:
    """The objects of an ``S3DataSource``, in the order of their keys or of the manifest.

    Raises
    ------
    ArtifactError
        They cannot be listed, there are none, or the manifest is malformed.
    """
    bucket, key = artifacts.parse_s3_url(source["S3Uri"])
    if source["S3DataType"] == "ManifestFile":
        inputs = _read_manifest(s3, bucket, key)
    else:
        keys = artifacts.list_keys(s3, bucket, key)
        inputs = [InputObject(bucket, found, artifacts.relative_key(found, key)) for found in keys]
    if not inputs:
        raise ArtifactError(f"there are no objects under {source['S3Uri']}.")
    return inputs


def _read_manifest(s3: Any, bucket: str, key: str) -> list[InputObject]:
    """Read ``[{"prefix": "s3://bucket/folder/"}, "name", …]``."""
    try:
        match json.loads(artifacts.read(s3, bucket, key)):
            case [{"prefix": str(folder)}, *names] if all(isinstance(name, str) and name for name in names):
                prefix_bucket, prefix = artifacts.parse_s3_url(folder)
                return [InputObject(prefix_bucket, prefix + name, name) for name in names]
    except (ValueError, RecursionError):
        pass  # not JSON
    raise ArtifactError(f's3://{bucket}/{key} is no manifest: [{{"prefix": "s3://bucket/folder/"}}, "name", …].')

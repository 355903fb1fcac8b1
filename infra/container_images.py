"""Container images in ECR, and where AWS keeps its own: which account, which partition, which address.

All of it comes from tables that the libraries of AWS ship: files on disk, no import of the SDK and no call to AWS.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import botocore.loaders

from infra.validation import SettingsError, Table, matching

AccountId = Annotated[str, matching(r"\d{12}", "an account id of twelve digits")]


def _image_tables(name: str) -> list[Path]:
    package = importlib.util.find_spec("sagemaker")  # finds it without running it, in one folder or several
    assert package is not None and package.submodule_search_locations is not None
    folders = [Path(folder, "core/image_uri_config") for folder in package.submodule_search_locations]
    return [path for folder in folders for path in folder.glob(name)]


@cache
def image_accounts() -> dict[str, str]:
    """By region, the account from which AWS gives out its Deep Learning Containers; no other region has them."""
    table = _image_tables("pytorch.json")[0].read_bytes()
    versions: dict[str, dict[str, dict[str, str]]] = json.loads(table)["training"]["versions"]
    return list(versions.values())[-1]["registries"]  # the newest


@cache
def aws_accounts() -> set[str]:
    """Accounts from which AWS gives out images: containers, algorithms, monitors."""
    return {account for path in _image_tables("*.json") for account in re.findall(r'"(\d{12})"', path.read_text())}


@cache
def _partitions() -> list[dict[str, Any]]:
    """What AWS consists of: the commercial regions, China, GovCloud and the others."""
    partitions: list[dict[str, Any]] = botocore.loaders.Loader().load_data("partitions")["partitions"]
    return partitions


def url_suffix(region: str) -> str:
    """The end of host names in a region; that of the commercial regions where nobody knows the region."""
    suffixes = [p["outputs"]["dnsSuffix"] for p in _partitions() if re.match(p["regionRegex"], region)]
    return str((suffixes or ["amazonaws.com"])[0])


#: The address of an image in a private registry, the only kind SageMaker pulls.
ECR_IMAGE_URI = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\."
    rf"(?P<suffix>{'|'.join(sorted({re.escape(p['outputs']['dnsSuffix']) for p in _partitions()}))})/"
    r"(?P<repository>[a-z0-9][a-z0-9._/-]*)(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})"
)


@dataclass(frozen=True, kw_only=True)
class ContainerImage(Table):
    """A container image in a private ECR registry of the stage's own region, the only kind SageMaker pulls."""

    repository: Annotated[str, matching(r"[a-z0-9][a-z0-9._/-]*", "the name of an ECR repository")]
    tag: Annotated[str, matching(r"[\w][\w.-]{0,127}", "an image tag")]
    #: Absent: AWS's own, which is another one in many regions (`image_accounts`).
    account: AccountId | None = None
    architecture: Literal["arm64", "x86_64"] = "x86_64"

    def uri(self, region: str) -> str:
        """Address of the image in a region; a SettingsError says that the region does not have it."""
        if missing := self.missing_in(region):
            raise SettingsError(f"{missing}.")
        account = self.account or image_accounts()[region]
        return f"{account}.dkr.ecr.{region}.{url_suffix(region)}/{self.repository}:{self.tag}"

    def missing_in(self, region: str) -> str | None:
        """Say why a region does not have the image, or None."""
        if self.account or region in image_accounts():
            return None
        return f"AWS gives out no {self.repository}:{self.tag} in {region}; regions: {', '.join(image_accounts())}"

"""Functions of Node, as the CDK's custom resources are: run by ``node`` with the SDK in ``NODE_PATH``, or refused."""

from __future__ import annotations

import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc
from ministack.services.cloudformation import changesets, handlers

from emulator.ministack.functions.corrections import replaced, wrap_handlers
from emulator.ministack.patching import around

_PACKAGE = re.compile(rb"""["'`](@aws-sdk/[a-z0-9-]+)["'`]""")
_INSTALL = (
    "AWS's Node runtimes have it, the local AWS has what you install: run `npm install PACKAGE` and "
    "`export NODE_PATH=$PWD/node_modules` in a folder of yours, and start the local AWS again"
)
#: MiniStack's stand-ins for the SDK, which sign and serialise in their own way: a package is there, or it is not.
_PROGRAM = {
    "try { return _origRequire.apply(this, arguments); } catch (_) {}\n      return specific;": "",
    "if (prefix) return _makeGenericJsonServiceModule(prefix, id);": "",
    "MiniStack local executor has no stub for '": "Cannot find module '",
    "bundle the module with your function or use LAMBDA_EXECUTOR=docker.": _INSTALL,
}
_DEPLOYMENT = (
    "The local AWS has no BucketDeployment ({}): its function runs the AWS CLI of a layer in /opt. Leave it out here "
    "and upload with `aws s3 sync`, or use an asset (aws_s3_assets.Asset)."
)


def install() -> None:
    lambda_runtime._NODEJS_WORKER_SCRIPT = replaced(lambda_runtime._NODEJS_WORKER_SCRIPT, _PROGRAM)
    wrap_handlers("AWS::Lambda::Function", before=_check)
    for module in (changesets, handlers):
        around(module, "validate_template_support", _validate)


def _validate(inner: Callable[..., None], template: dict[str, Any], *args: Any, **options: Any) -> None:
    inner(template, *args, **options)
    for name, resource in (template.get("Resources") or {}).items():
        if resource.get("Type") == "Custom::CDKBucketDeployment":
            raise ValueError(_DEPLOYMENT.format(name))


def _check(identity: str, properties: Any) -> None:
    code = properties.get("Code") or {}
    if not str(properties.get("Runtime", "")).startswith("nodejs"):
        return
    if shutil.which("node") is None:
        raise ValueError("The function is of Node: install it (https://nodejs.org), and start the local AWS again.")
    if code.get("S3Bucket"):
        content = lambda_svc._fetch_code_from_s3(code["S3Bucket"], code["S3Key"], code.get("S3ObjectVersion"))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = archive.namelist()
            own = [archive.read(name) for name in files if re.fullmatch(r"(?!.*node_modules/).*\.[cm]?js", name)]
        folders = [Path(each) for each in os.environ.get("NODE_PATH", "").split(os.pathsep)]
        absent = [
            name
            for name in sorted({found.decode() for text in own for found in _PACKAGE.findall(text)})
            if f"node_modules/{name}/package.json" not in files and not any((each / name).is_dir() for each in folders)
        ]
        if absent:
            raise ValueError(
                f"The function needs {', '.join(absent)}. {_INSTALL.replace('PACKAGE', ' '.join(absent))}."
            )

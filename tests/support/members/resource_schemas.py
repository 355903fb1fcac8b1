"""Make emulator/ministack/cloudformation/schemas.json.xz of cfn-lint's schemas; ``make schemas`` does so."""

from __future__ import annotations

import json
import lzma
import sys
from datetime import date
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from ministack.services.cloudformation import provisioners

from emulator.ministack.cloudformation import resource_types
from emulator.ministack.door import available
from emulator.platform.awsapi import service_model


def make() -> bytes:
    available.install()
    services: Any = {
        kind: SimpleNamespace(model=service_model(kind)) for kind in ("sagemaker", "application-autoscaling")
    }
    resource_types.install(services, lambda: None)
    types, texts = {}, ("description", "format")
    for name in sorted(provisioners._RESOURCE_HANDLERS.keys() - {"AWS::CloudFormation::CustomResource"}):
        found = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", name).schema
        read = {path.removeprefix("/properties/") for path in found.get("readOnlyProperties", ())}
        settable = {member: of for member, of in found["properties"].items() if member not in read}
        # Types that the registry does not handle are not validated before a stack operation.
        types[name] = {**found, "properties": settable, "early": "handlers" in found, "handlers": None, "tagging": None}
    made = json.dumps({"made_on": date.today().isoformat(), "of": f"cfn-lint {version('cfn-lint')}", "types": types})
    made = made.replace(r"\\Z", "$")  # JSON Schema's expressions have no other name for the end

    def short(node: Any) -> Any:  # A property that is named so has a schema, not a text.
        return {name: of for name, of in node.items() if name not in texts or not isinstance(of, str)}

    return lzma.compress(json.dumps(json.loads(made, object_hook=short)).encode(), preset=9)


if __name__ == "__main__":
    sys.stdout.buffer.write(make())

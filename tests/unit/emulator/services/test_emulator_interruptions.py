"""What a stack's operation that was cut off left behind is deleted after a restart, whatever else goes meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ministack.services.cloudformation import provisioners

from emulator.ministack.cloudformation import interruptions
from emulator.platform.errors import ServiceError


class Endpoints:
    """Lists two endpoints, of which another stack deletes the first one at once."""

    def call(self, operation: str, request: dict[str, Any], _: Any) -> dict[str, Any]:
        if operation == "ListEndpoints":
            return {"Endpoints": [{"EndpointArn": "gone"}, {"EndpointArn": "ours"}]}
        if request["ResourceArn"] == "gone":
            raise ServiceError("ValidationException", "Could not find it.")
        return {"Tags": [{"Key": "aws:cloudformation:stack-id", "Value": "stack"}]}


def test_what_another_stack_deletes_meanwhile_does_not_end_the_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    kind = SimpleNamespace(kind="Endpoint", type_name="AWS::SageMaker::Endpoint")
    monkeypatch.setattr(interruptions, "sagemaker_types", lambda _: [kind])
    monkeypatch.setattr(interruptions, "caller", lambda: None)
    monkeypatch.setattr(provisioners, "_delete_resource", lambda _, arn, __: deleted.append(arn))
    interruptions._delete_unrecorded(Endpoints(), "stack")  # type: ignore[arg-type]
    assert deleted == ["ours"]

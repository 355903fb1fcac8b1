"""What a template's own function text finds as ``cfnresponse``, as Lambda provides it; it imports nothing of ours."""

import json
from typing import Any

import urllib3

SUCCESS = "SUCCESS"
FAILED = "FAILED"


def send(
    event: Any, context: Any, responseStatus: str, responseData: Any, physicalResourceId: str | None = None,
    noEcho: bool = False, reason: str | None = None,
) -> None:  # fmt: skip
    """Send the response of a custom resource; as with AWS's module, what goes wrong is only printed."""
    response = {
        "Status": responseStatus,
        "Reason": reason or f"See the details in CloudWatch Log Stream: {context.log_stream_name}",
        "PhysicalResourceId": physicalResourceId or context.log_stream_name,
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
        "NoEcho": noEcho,
        "Data": responseData,
    }
    try:
        body = json.dumps(response).encode()
        urllib3.request("PUT", event["ResponseURL"], body=body, retries=False)
    except Exception as error:
        print("send(..) failed:", error)  # noqa: T201 - into the log of the function

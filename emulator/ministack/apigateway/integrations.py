"""How a method's integration is called that is no proxy: parameters and templates map the request and the answer.

Source: API Gateway's Developer Guide, "Data transformations for REST APIs" and "Binary media types for REST APIs".
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import apigateway_v1 as v1

from emulator.evaluation import evaluator
from emulator.ministack import identity
from emulator.ministack.apigateway import allowed, templates
from emulator.ministack.door.enforcement import refusal
from emulator.ministack.patching import around
from emulator.platform.errors import Response, ServiceError

PRINCIPAL = "apigateway.amazonaws.com"
JSON = "application/json"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
VARIABLE = re.compile(r"\$context((?:\.\w+)+)")


@dataclass
class Execution:
    """One request: what templates know of it, when its time is up, and `lines` for its log with what is an error."""

    context: dict[str, Any]
    parameters: dict[str, Mapping[str, str]]
    variables: Mapping[str, str]
    credentials: str | None = None
    seconds: float = 0.0
    deadline: float = field(default_factory=lambda: time.monotonic() + 29)
    lines: list[tuple[str, bool]] = field(default_factory=list)

    def failed(self, reason: str) -> Any:
        """Note why, for the log; callers learn only that it failed."""
        self.lines.append((f"Execution failed due to configuration error: {reason}", True))
        return v1._gw_error("API_CONFIGURATION_ERROR", "Internal server error")

    async def render(self, template: str, body: str) -> str:
        """Render a template, and take over what it overrides."""
        given = template, body, self.parameters, self.context, self.variables
        call = functools.partial(evaluator.call, templates.render, given, self.deadline)
        text, overrides = await asyncio.get_running_loop().run_in_executor(evaluator.THREADS, call)
        self.context.update(overrides)
        return str(text)

    def mapped(self, source: str) -> str | None:
        """What a mapping expression stands for; None leaves it out."""
        if source.startswith("'"):
            return source[1:-1]
        origin, _, rest = source.partition(".")
        if origin == "stageVariables":
            return self.variables.get(rest)
        if origin == "context":
            found = VARIABLE.sub(looked_up(self.context), f"$context.{rest}")
            return None if found == "-" else found
        _, where, name = rest.split(".", 2)
        return self.parameters[where].get(name.lower() if where == "header" else name)


current: ContextVar[Execution] = ContextVar("execution")


class Integrations:
    """`runtime` answers for endpoints."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def install(self) -> None:
        around(v1, "_invoke_mock_v1", _mock)
        v1._invoke_lambda_custom_v1 = self._custom

    async def _custom(
        self, integration: Mapping[str, Any], api_id: str, stage_name: str, stage: Mapping[str, Any],
        resource: Mapping[str, Any], path: str, verb: str, headers: Mapping[str, str], body: bytes,
        query: Mapping[str, Any], path_params: Mapping[str, str], *, binary_media_types: list[str], **_: Any,
    ) -> Any:  # fmt: skip
        """Call what is integrated without being a proxy: parameters and templates map the request and the answer."""
        execution = current.get()
        execution.parameters["path"], override = path_params, execution.context["requestOverride"]
        kind = _media_type(headers.get("content-type"))
        by_type = {_media_type(name): text for name, text in (integration.get("requestTemplates") or {}).items()}
        behavior = integration.get("passthroughBehavior") or "WHEN_NO_MATCH"
        if kind not in by_type and (behavior == "NEVER" or (behavior == "WHEN_NO_TEMPLATES" and by_type)):
            return v1._gw_error("UNSUPPORTED_MEDIA_TYPE", "Unsupported Media Type")
        content = body if v1._media_type_matches(kind, binary_media_types) else as_text(body).encode()
        try:
            if kind in by_type:
                content = (await execution.render(by_type[kind], as_text(body))).encode()
            sent, places = {"content-type": kind, "accept": JSON}, dict[str, str]()
            for to, source in (integration.get("requestParameters") or {}).items():
                _, _, where, name = to.split(".", 3)
                value = execution.mapped(source)
                if value is not None:
                    (sent if where == "header" else places)[name.lower() if where == "header" else name] = value
            sent |= {name.lower(): str(value) for name, value in override["header"].items()}
            places |= {name: str(value) for name, value in override["path"].items()}
            check_headers(sent)
            uri = re.sub(r"\{([\w-]+)\}", lambda match: places.get(match[1], match[0]), integration["uri"])
            status, answered, data, failure = await self._ask(uri, execution, sent, content)
            selected = v1._select_service_integration_response(integration, status if failure is None else failure)
            if selected is None:
                raise ValueError(f"No match for output mapping and no default endpoint mapping. Status Code: {status}")
            return await _map_back(execution, selected, answered, data, headers.get("accept"), binary_media_types)
        except (AttributeError, TypeError, ValueError, ServiceError) as wrong:  # a template may override by anything
            return execution.failed(str(wrong))

    async def _ask(
        self, uri: str, execution: Execution, headers: Mapping[str, str], content: bytes
    ) -> tuple[int, Mapping[str, str], bytes, str | None]:
        """Return status, headers and body, and of a function the message of its error, empty if there is none."""
        if function := allowed.FUNCTION.fullmatch(uri):
            try:
                event = json.loads(content)
            except ValueError:
                message = json.dumps({"message": "Could not parse request body into json."})
                return 400, {}, message.encode(), None
            result, error = await v1._call_lambda_raw(function["arn"], event)
            if error:
                raise ValueError(error)
            answer = result.get("body")
            data = answer if isinstance(answer, bytes) else json.dumps(answer, ensure_ascii=False).encode()
            failed = str(answer.get("errorMessage", "")) if result.get("error") and isinstance(answer, dict) else ""
            return 200, {}, data, failed
        endpoint = allowed.ENDPOINT.fullmatch(uri)
        if endpoint is None:
            raise ValueError(f"There is no endpoint at {uri}.")
        region, name = endpoint["region"], endpoint["name"].lower()
        arn = f"arn:aws:sagemaker:{region}:{get_account_id()}:endpoint/{name}"
        key = identity.acting_as(PRINCIPAL, execution.credentials or "")
        if denied := refusal(key, "sagemaker:InvokeEndpoint", arn, {}):
            return 403, {}, json.dumps({"Message": denied.message}).encode(), None
        scope = f"Credential={key}/20260101/{region}/sagemaker/aws4_request"  # where the runtime reads the region
        status, answered, data = await self._runtime.handle(
            "POST", f"/endpoints/{endpoint['name']}/invocations", {**headers, "authorization": scope}, content, {}
        )
        return status, answered, data, None


def looked_up(context: Mapping[str, Any]) -> Callable[[re.Match[str]], str]:
    def value(match: re.Match[str]) -> str:
        found: Any = context
        for name in match[1].strip(".").split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return "-" if found is None or isinstance(found, Mapping) else str(found)

    return value


def check_headers(headers: Mapping[str, Any]) -> None:
    """Raise a ValueError for a header that a caller, a template or a function would make several of."""
    values = (text for value in headers.values() for text in (value if isinstance(value, list) else [value]))
    if any(_CONTROL.search(str(text)) for text in (*headers, *values)):
        raise ValueError("A header has control characters.")


def as_text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _media_type(header: str | None) -> str:
    return (header or JSON).partition(";")[0].strip().lower()


async def _map_back(
    execution: Execution, selected: Mapping[str, Any], answered: Mapping[str, str], data: bytes, accept: str | None,
    binary_media_types: list[str],
) -> Any:  # fmt: skip
    accepted = _media_type(accept)
    by_type = {_media_type(name): text or "" for name, text in (selected.get("responseTemplates") or {}).items()}
    kind = accepted if accepted in by_type else JSON if JSON in by_type else next(iter(by_type), None)
    content = data if v1._media_type_matches(accepted, binary_media_types) else as_text(data).encode()
    if kind is not None:
        content = (await execution.render(by_type[kind], as_text(data))).encode()
    back = {"Content-Type": kind or JSON}
    given = {name.lower(): value for name, value in answered.items()}
    for to, source in (selected.get("responseParameters") or {}).items():
        origin = source.removeprefix("integration.response.header.")
        value = given.get(origin.lower()) if origin != source else execution.mapped(source)
        if value is not None:
            back[to.removeprefix("method.response.header.")] = value
    override = execution.context["responseOverride"]
    back |= {name: str(value) for name, value in override["header"].items()}
    return int(override.get("status") or selected["statusCode"]), _one_each(back), content


def _one_each(headers: Mapping[str, str]) -> dict[str, str]:
    """Names of headers differ by more than case; the last of equal ones counts."""
    return dict({name.lower(): (name, value) for name, value in headers.items()}.values())


async def _mock(inner: Callable[..., Response], integration: Mapping[str, Any]) -> Response:
    """Answer as the integration says."""
    execution = current.get()
    written = any(each.get("responseTemplates") for each in (integration.get("integrationResponses") or {}).values())
    try:
        status, headers, content = inner(integration)
        return status, headers, (await execution.render(as_text(content) if written else "", "")).encode()
    except (TimeoutError, ValueError) as wrong:
        execution.failed(str(wrong))
        late = isinstance(wrong, TimeoutError)
        message = b'{"message": "Endpoint request timed out"}' if late else b'{"message": "Internal server error"}'
        return 504 if late else 500, {"Content-Type": JSON}, message

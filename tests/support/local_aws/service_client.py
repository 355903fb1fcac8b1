"""A service of the local AWS as boto3 would have it, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError

from emulator.platform.awsapi import Caller, Service
from emulator.platform.errors import ServiceError


class ServiceClient:
    """Calls the operations of a service by their names in Python; times of its answers are dates."""

    def __init__(self, service: Service, caller: Caller) -> None:
        self._service, self._caller = service, caller
        self._operations = {xform_name(name): name for name in service.model.operation_names}

    def __getattr__(self, name: str) -> Any:
        def call(**request: Any) -> dict[str, Any]:
            try:
                answer = self._service.call(self._operations[name], request, self._caller)
            except ServiceError as error:
                raise ClientError({"Error": {"Code": error.code, "Message": error.message}}, name) from None
            dates = {k: datetime.fromtimestamp(v, UTC) for k, v in answer.items() if k.endswith("Time")}
            return answer | dates

        return call

    def get_paginator(self, name: str) -> Any:
        def pages(**request: Any) -> Iterator[dict[str, Any]]:
            page = getattr(self, name)(**request)
            yield page
            while "NextToken" in page:
                page = getattr(self, name)(**request, NextToken=page["NextToken"])
                yield page

        return SimpleNamespace(paginate=pages)

"""One deployed stage whose AWS is made of fakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cli.aws import Stage


class FakeStage(Stage):
    """A stage with its own settings file, in front of fakes.

    Either the stacks of a `FakeAccount` have the outputs, or `outputs` does, where a key that is missing is its own
    value. `services` are fakes by name (`s3`, …), which are attributes, too; `aws` answers for the others.
    """

    data_bucket = "bucket"
    region = "us-east-1"
    account = "123456789012"

    def __init__(
        self, name: str = "dev", account: Any = None, *, outputs: Mapping[str, str] | None = None, **services: Any
    ) -> None:
        super().__init__(name)
        self.__dict__.update({"aws": account, **services})
        self.__dict__["outputs"] = (outputs or {}) if account is None else None

    def client(self, service: str, **_: Any) -> Any:
        return self.__dict__[service if service in self.__dict__ else "aws"]

    def output(self, kind: str, key: str) -> str:
        outputs = self.__dict__["outputs"]
        return super().output(kind, key) if outputs is None else str(outputs.get(key, key))

    def configure(self, section: str, **members: Any) -> None:
        changed = replace(getattr(self.settings, section), **members)
        self.__dict__["settings"] = replace(self.settings, **{section: changed})

"""The records of a transform job's objects: split, filtered, sent in batches, and joined with the model's answers.

https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform-data-processing.html
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from emulator.evaluation.json_path import JsonPath
from emulator.platform.awsapi import Payload
from emulator.platform.errors import refuse

#: What AWS assumes where the request does not say otherwise.
DEFAULT_PAYLOAD_MB = 6
MIB = 2**20
_FORMATS = ("text/csv", "application/json", "application/jsonlines")
#: Of an object, decompressed. AWS publishes no such limit; this one keeps a gzip bomb from filling a laptop's memory.
_MAX_BYTES = 2**30
csv.field_size_limit(2**27)  # more than any payload; the module's own limit is 128 KiB


class ObjectFailed(Exception):
    """One object has no output; the message says why, and begins with ClientError where the object is at fault."""


class Batch(NamedTuple):
    """What one request sends, and the records of the object that it is made of."""

    body: bytes
    records: list[bytes]


class Records:
    """How a transform job, a valid request of CreateTransformJob, treats records; what AWS has not is refused."""

    def __init__(self, request: Payload) -> None:
        given, output, processing = (
            request.get(member, {}) for member in ("TransformInput", "TransformOutput", "DataProcessing")
        )
        split, assemble = given.get("SplitType", "None"), output.get("AssembleWith", "None")
        self._split, self._assemble = split == "Line", assemble == "Line"
        self._single = request.get("BatchStrategy") == "SingleRecord"
        self._gzip = given.get("CompressionType") == "Gzip"
        self._limit: int = request.get("MaxPayloadInMB", DEFAULT_PAYLOAD_MB) * MIB  # zero: none
        self._most = _MAX_BYTES if self._split or not self._limit else self._limit
        self._input, self._output = (JsonPath(processing.get(f"{side}Filter") or "$") for side in ("Input", "Output"))
        self._join = processing.get("JoinSource") == "Input"
        types = given.get("ContentType"), output.get("Accept")
        kind, answered = ((each or "").partition(";")[0].strip().lower() for each in types)
        self._csv, self._document = kind == "text/csv", not self._split and kind != "application/jsonlines"
        if self._join or not self._input.whole or not self._output.whole:
            wrong = not {kind, answered} <= set(_FORMATS) or (answered == "text/csv") != self._csv
            needed = (
                f"a ContentType and an Accept of one format, {', '.join(_FORMATS)}: they are {types[0]} and {types[1]}"
            )
            refuse(wrong, f"DataProcessing needs {needed}.")
            refuse(split != assemble, f"DataProcessing: SplitType {split} does not match AssembleWith {assemble}.")
            refuse(self._csv and not self._split, "DataProcessing of text/csv needs SplitType and AssembleWith Line.")
            by_index = self._input.by_index and self._output.by_index
            refuse(self._csv and not by_index, "A row of text/csv is filtered by indexes: $[0], $[1,3], $[1:].")

    @property
    def read_limit(self) -> int | None:
        """How many bytes of an object are worth reading: one more than can be sent of one that is not split."""
        return None if self._gzip else self._most + 1

    def batches(self, content: bytes) -> Iterator[Batch]:
        """Split an object into what is sent at a time: all its records, in their order."""
        if self._gzip:
            try:
                content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(self._most + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise ObjectFailed(f"ClientError: the object is not compressed with gzip: {error}") from None
        if self._most != self._limit and len(content) > self._most:
            raise ObjectFailed(f"ClientError: the object has more than {self._most:,} bytes, the local AWS's limit")
        records = [content] if self._document else _lines(content)
        sent = records if self._input.whole else [self._filtered(record) for record in records]
        if not self._split:
            sent = [b"".join(sent)]
        elif self._single:  # as with paddings: those of a single record are left out, those between several are not
            sent = [record.removesuffix(b"\n") for record in sent]
        if any(len(record) > self._limit for record in sent if self._limit):
            what = "a record" if self._split else "the object"
            raise ObjectFailed(f"ClientError: {what} is larger than the payload limit ({self._limit} bytes)")
        first = size = 0
        for number, record in enumerate(sent):
            if number > first and (self._single or (self._limit and size + len(record) > self._limit)):
                yield Batch(b"".join(sent[first:number]), records[first:number])
                first, size = number, 0
            size += len(record)
        if sent:
            yield Batch(b"".join(sent[first:]), records[first:])

    def finish(self, batch: Batch, answer: bytes) -> bytes:
        """Give what the output gets of one answer: joined with the records that were sent, filtered, a line each."""
        if self._join or not self._output.whole:
            answers = [answer] if self._document else _lines(answer)
            if len(answers) != len(batch.records):
                counts = f"between the input ({len(batch.records)}) and the output ({len(answers)})"
                raise ObjectFailed(f"ClientError: Fail to join data: mismatched line count {counts}")
            pairs = zip(answers, batch.records, strict=True)
            answer = b"\n".join(self._select(self._output, *pair) for pair in pairs)
        return answer + b"\n" if self._assemble and not answer.endswith(b"\n") else answer

    def _filtered(self, record: bytes) -> bytes:
        return self._select(self._input, record) + (b"\n" if record.endswith(b"\n") else b"")

    def _select(self, path: JsonPath, data: bytes, record: bytes | None = None) -> bytes:
        """Select from a record, or from the answer to one, joined with it if the job says so."""
        try:
            value = self._load(data)
            if self._join and record is not None:
                given = self._load(record)
                if self._csv:
                    value = [*given, *value]
                else:
                    given = given if isinstance(given, dict) else {"SageMakerInput": given}
                    value = {**given, "SageMakerOutput": value}
            return self._dump(path.select(value))
        except (ValueError, csv.Error, RecursionError) as error:
            kind = "CSV" if self._csv else "JSON"
            raise ObjectFailed(f"ClientError: a record cannot be read as {kind} and filtered: {error}") from None

    def _load(self, data: bytes) -> Any:
        text = data.decode().rstrip("\r\n")
        if self._csv:
            return next(csv.reader([text], strict=True), [])
        return json.loads(text, parse_constant=_refuse_constant)

    def _dump(self, value: Any) -> bytes:
        if not self._csv:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        row = io.StringIO()
        csv.writer(row, lineterminator="").writerow(value if isinstance(value, list) else [value])
        return row.getvalue().encode()


def _lines(content: bytes) -> list[bytes]:
    return re.findall(rb"[^\n]*\n|[^\n]+", content)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")

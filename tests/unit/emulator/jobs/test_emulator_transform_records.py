"""The records of transform jobs: splitting loses nothing; joins and filters make what AWS's guide says."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from typing import Any

import pytest
from emulator_fixtures import refusal
from hypothesis import given
from hypothesis import strategies as st

from emulator.evaluation.json_path import JsonPath
from emulator.sagemaker.transform.records import MIB, ObjectFailed, Records

CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(), SCALARS, max_size=3)
ROWS = st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1, max_size=4)


def records(kind: str = "", split: str = "Line", **members: Any) -> Records:
    processing = {name: members.pop(name) for name in ("InputFilter", "OutputFilter", "JoinSource") if name in members}
    ends = {"TransformInput": {"SplitType": split, "ContentType": kind}}
    ends["TransformOutput"] = {"AssembleWith": split, "Accept": kind}
    return Records({"DataProcessing": processing, **ends, **members})


def gzipped(split: str, limit: int) -> Records:
    made = records(MaxPayloadInMB=limit, TransformInput={"SplitType": split, "CompressionType": "Gzip"})
    made._most = min(made._most, 2 * MIB)
    return made


def finished(of: Records, content: bytes, answer: bytes | None = None) -> bytes:
    """The output of an object for a model that answers each batch with itself, or with these bytes."""
    return b"".join(of.finish(batch, batch.body if answer is None else answer) for batch in of.batches(content))


def row(fields: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(fields)
    return text.getvalue()


@given(st.lists(st.binary(max_size=9).map(lambda data: data.replace(b"\n", b"")), max_size=20), st.booleans())
def test_batches_are_the_object_and_single_records_its_lines(lines: list[bytes], ended: bool) -> None:
    content = b"".join(line + b"\n" for line in lines)[: None if ended else -1]
    several, single = records(), records(BatchStrategy="SingleRecord")
    several._limit = 16  # bytes, and no line has more than ten
    batches = list(several.batches(content))
    assert b"".join(batch.body for batch in batches) == content
    assert all(len(batch.body) <= 16 for batch in batches)
    assert all(len(one.body) + len(other.records[0]) > 16 for one, other in itertools.pairwise(batches))
    expected = content.removesuffix(b"\n").split(b"\n") if content else []
    assert [batch.body for batch in single.batches(content)] == expected
    assert finished(single, content) == finished(several, content)


@given(st.lists(st.tuples(ROWS, ROWS), min_size=1, max_size=8))
def test_rows_are_followed_by_the_models_and_filtered_by_index(pairs: list[tuple[list[str], list[str]]]) -> None:
    content, answer = ("".join(row(pair[side]) for pair in pairs).encode() for side in (0, 1))
    joined = [[*before, *answered] for before, answered in pairs]
    for path, expected in (("$", joined), ("$[0,-1]", [[fields[0], fields[-1]] for fields in joined])):
        output = finished(records(CSV, JoinSource="Input", OutputFilter=path), content, answer).decode()
        assert list(csv.reader(io.StringIO(output, newline=""))) == expected


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5), st.sampled_from([JSON, LINES]))
def test_objects_get_the_output_and_other_values_become_objects(pairs: list[tuple[Any, Any]], kind: str) -> None:
    content, answer = ("\n".join(json.dumps(pair[side]) for pair in pairs).encode() for side in (0, 1))
    lines = finished(records(kind, JoinSource="Input"), content, answer).decode().split("\n")
    whole = [before if isinstance(before, dict) else {"SageMakerInput": before} for before, _ in pairs]
    expected = [{**before, "SageMakerOutput": pair[1]} for before, pair in zip(whole, pairs, strict=True)]
    assert ([json.loads(line) for line in lines[:-1]], lines[-1]) == (expected, "")


@pytest.mark.parametrize(
    ("of", "content", "sent", "answer", "output"),
    [
        (records(JSON, "None", JoinSource="Input"), '{"key":1}', '{"key":1}', "2", '{"key":1,"SageMakerOutput":2}'),
        (records(CSV, JoinSource="Input"), "1,2,3", "1,2,3", "1", "1,2,3,1\n"),
        (records(CSV, InputFilter="$[1:]", JoinSource="Input"), "a,1\nb,2\n", "1\n2\n", "x\ny\n", "a,1,x\nb,2,y\n"),
        (
            records(LINES, InputFilter="$.x", JoinSource="Input", OutputFilter="$['id','SageMakerOutput']"),
            *('{"id": 7, "x": [1, 2.5]}\n', "[1,2.5]\n", "0.5", '{"id":7,"SageMakerOutput":0.5}\n'),
        ),
    ],
)
def test_the_examples_of_the_guide(of: Records, content: str, sent: str, answer: str, output: str) -> None:
    (batch,) = of.batches(content.encode())
    assert (batch.body.decode(), of.finish(batch, answer.encode()).decode()) == (sent, output)


def test_what_paths_select() -> None:
    value = {"id": {"a": [1, 2, 3, 4], "b": "é"}, "list": [0, 1, 2, 3, 4, 5, 6]}
    for path, selected in {
        **{"$": value, "$.id.a[-1]": 4, "$.id.*": [[1, 2, 3, 4], "é"], "$.id.a[*]": [1, 2, 3, 4]},
        **{"$.id['b', 'a']": {"b": "é", "a": [1, 2, 3, 4]}, "$.id.['b']": "é", "$.list[1,3,5]": [1, 3, 5]},
        **{"$.list[2:5]": [2, 3, 4, 5], "$.list[:5]": [0, 1, 2, 3, 4, 5]},  # the guide: inclusive
        **{"$.list[0, 5:]": [0, 5, 6], "$.list[-2:-1]": [5, 6]},
    }.items():
        assert JsonPath(path).select(value) == selected, path
    for path in ("", "id", "$..a", "$.a[?(@.b)]", "$['a','b'].c", "$[]", "$[1-2]", "$[1,]", "$.a()"):
        assert "Invalid JSONPath" in refusal(lambda path=path: JsonPath(path)).message


@pytest.mark.parametrize(
    ("of", "content", "answer", "reason"),
    [
        (records(CSV, JoinSource="Input"), b"1\n2\n", b"1\n", "mismatched line count between the input (2) and the"),
        (records(CSV, OutputFilter="$[3]"), b"1", b"1,2,3", "nothing is at $[3]"),
        (records(CSV, InputFilter="$[0]"), b'"a', b"", "cannot be read as CSV"),
        (records(JSON, JoinSource="Input"), b"NaN", b"1", "NaN is not JSON"),
        (records(JSON, InputFilter="$.a"), b"\xff", b"1", "cannot be read as JSON"),
        (records(JSON, InputFilter="$.a"), b"[1]", b"1", "nothing is at $.a"),
        (records(MaxPayloadInMB=1), b"1\n" + bytes(MIB + 1), b"", "a record is larger than the payload limit (1048"),
        (records("", "None", MaxPayloadInMB=1), bytes(MIB + 1), b"", "the object is larger than the payload limit"),
        (gzipped("None", 1), gzip.compress(bytes(4 * MIB)), b"", "the object is larger than the payload limit"),
        (gzipped("Line", 1), gzip.compress(bytes(4 * MIB)), b"", "has more than 2,097,152 bytes"),
    ],
)
def test_what_fails_an_object(of: Records, content: bytes, answer: bytes, reason: str) -> None:
    with pytest.raises(ObjectFailed) as failed:
        finished(of, content, answer)
    assert (str(failed.value)[:13], reason in str(failed.value)) == ("ClientError: ", True)

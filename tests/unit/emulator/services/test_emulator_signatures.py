"""Credentials are read in one way or not at all."""

from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emulator.ministack.door.signatures import Signature, SignatureError, read

PARAMETERS = {
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-Credential": "AKIDEXAMPLE/20260101/us-east-1/s3/aws4_request",
    "X-Amz-Date": "20260101T000000Z",
    "X-Amz-Expires": "60",
    "X-Amz-SignedHeaders": "host",
    "X-Amz-Signature": "0" * 64,
}
HEADER = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature="
WHOLE = HEADER + "0" * 64


@given(
    header=st.none() | st.sampled_from([WHOLE, HEADER, "", "AWS4-HMAC-SHA256"]) | st.text(max_size=9),
    parameters=st.lists(
        st.tuples(
            st.sampled_from(sorted(PARAMETERS)) | st.sampled_from(["x-amz-signature", "AWSAccessKeyId", "a"]),
            st.sampled_from(["", "x", *PARAMETERS.values()]),
        ),
        max_size=9,
    ),
)
@example(header=None, parameters=list(PARAMETERS.items()))
@example(header=WHOLE, parameters=[])
@example(header=None, parameters=[*PARAMETERS.items(), ("X-Amz-Signature", "")])
def test_one_whole_set_of_credentials_is_read_and_any_other_refused(
    header: str | None, parameters: list[tuple[str, str]]
) -> None:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1", "replace"))]
    credentials = sorted(pair for pair in parameters if pair[0] != "a")
    complete = sorted(PARAMETERS.items())
    query = parse_qs(urlencode(parameters), keep_blank_values=True)
    expected: Signature | None
    if header is None and not credentials:
        expected = None
    elif header == WHOLE and not credentials:
        expected = Signature("AKIDEXAMPLE", "us-east-1", "s3", presigned=False)
    elif header is None and credentials == complete:
        expected = Signature("AKIDEXAMPLE", "us-east-1", "s3", presigned=True)
    else:
        with pytest.raises(SignatureError):
            read(headers, query)
        return
    assert read(headers, query) == expected


@given(place=st.integers(0, len(WHOLE) - 1), letter=st.sampled_from("aA0 ,;=/\n\t"))
def test_a_changed_header_is_refused_or_reads_as_it_is_written(place: int, letter: str) -> None:
    changed = WHOLE[:place] + letter + WHOLE[place + 1 :]
    try:
        found = read([(b"authorization", changed.encode())], {})
    except SignatureError:
        return
    assert found is not None
    assert f"Credential={found.access_key_id}/" in changed
    assert f"/{found.region}/{found.service}/aws4_request, SignedHeaders=" in changed


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": WHOLE, "x-amz-target": "x"}, {}),
        ({"x-amz-copy-source": "x"}, {key: [value] for key, value in PARAMETERS.items()}),
        ({"authorization": WHOLE.replace("=host", "=date")}, {}),
    ],
)
def test_what_anybody_could_have_added_is_refused(headers: dict[str, str], query: dict[str, list[str]]) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        read([(name.encode(), value.encode()) for name, value in headers.items()], query)

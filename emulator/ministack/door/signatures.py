"""Who signed a request, and for what: read once, strictly, so that nobody can read the same request differently.

MiniStack reads credentials in several places and leniently: any scheme that begins in ``AWS4-HMAC``, parameters in two
spellings, the first of several, a header before the query. Only requests for which all of these give one answer pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_SCOPE = r"(?P<key>\w+)/\d{8}/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/aws4_request"
_NAMES = r"(?P<names>[a-z0-9._-]+(;[a-z0-9._-]+)*)"
_HEADER = re.compile(
    rf"AWS4-HMAC-SHA256 Credential={_SCOPE}, ?SignedHeaders={_NAMES}, ?Signature=[0-9a-f]{{64}}", re.ASCII
)
_REQUIRED = {
    "X-Amz-Algorithm": re.compile("AWS4-HMAC-SHA256"),
    "X-Amz-Credential": re.compile(_SCOPE, re.ASCII),
    "X-Amz-Date": re.compile(r"\d{8}T\d{6}Z", re.ASCII),
    "X-Amz-Expires": re.compile(r"\d{1,6}", re.ASCII),
    "X-Amz-SignedHeaders": re.compile(_NAMES, re.ASCII),
    "X-Amz-Signature": re.compile("[0-9a-f]{64}"),
}
_OPTIONAL = {"X-Amz-Security-Token": re.compile(r"\S+")}
#: Parameters that belong to a signature, also of Version 2, whatever their case.
RESERVED = frozenset(name.lower() for name in (*_REQUIRED, *_OPTIONAL, "AWSAccessKeyId"))


class SignatureError(Exception):
    """Credentials that AWS would not read, or that two readers could read differently."""


@dataclass(frozen=True)
class Signature:
    """Who says to have signed, and for which service in which region."""

    access_key_id: str
    region: str
    service: str
    presigned: bool


def read(headers: Iterable[tuple[bytes, bytes]], query: Mapping[str, Sequence[str]]) -> Signature | None:
    """Find the signature of a request, None where there are no credentials; its truth is not looked into.

    Raises
    ------
    SignatureError
        There are credentials other than one complete, well-formed set.
    """
    headers = list(headers)
    authorizations = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
    reserved = {name for name in query if name.lower() in RESERVED}
    if not authorizations and not reserved:
        return None
    if len(authorizations) > 1 or (authorizations and reserved):
        raise SignatureError("Only one auth mechanism is allowed: one Authorization header, or the query parameters.")
    if authorizations:
        match = _HEADER.fullmatch(authorizations[0])
        if match is None:
            raise SignatureError(
                "The Authorization header has to read 'AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/"
                "aws4_request, SignedHeaders=NAMES, Signature=HEX'."
            )
        names = match["names"]
    else:
        found = _one_of_each(query, reserved)
        match, names = found["X-Amz-Credential"], found["X-Amz-SignedHeaders"][0]
        if match["service"] != "s3":
            raise SignatureError("The local AWS takes presigned URLs of S3 only.")
    # Headers that change what a request does could have been added by anybody.
    unsigned = {name.decode("latin-1") for name, _ in headers if name.startswith(b"x-amz-")} - {*names.split(";")}
    if unsigned or "host" not in names.split(";"):
        raise SignatureError(f"There were headers which were not signed: {', '.join(sorted(unsigned)) or 'host'}.")
    return Signature(match["key"], match["region"], match["service"], presigned=not authorizations)


def _one_of_each(query: Mapping[str, Sequence[str]], names: set[str]) -> dict[str, re.Match[str]]:
    patterns = {**_OPTIONAL, **_REQUIRED}
    if not _REQUIRED.keys() <= names <= patterns.keys():
        raise SignatureError(
            f"A signature in the query has these parameters, so spelt: {', '.join(_REQUIRED)}. (With boto3, presign "
            "with the signature version s3v4.)"
        )
    found = {}
    for name in names:
        match = patterns[name].fullmatch(query[name][0])
        if match is None or len(query[name]) > 1:
            raise SignatureError(f"The query has to have one well-formed {name}.")
        found[name] = match
    return found

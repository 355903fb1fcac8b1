"""What S3 says of a copy of an object onto itself."""

import pytest

from emulator.ministack.s3 import copies


@pytest.mark.parametrize(
    ("source", "headers", "status"),
    [
        ("b/k%20k", {}, 400), ("/b/k k", {"x-amz-metadata-directive": "COPY"}, 400),
        ("b/k k", {"x-amz-acl": "private"}, 400),
        ("b/k k", {"x-amz-metadata-directive": "REPLACE"}, 200), ("b/k k", {"x-amz-storage-class": "STANDARD_IA"}, 200),
        ("b/k k?versionId=1", {}, 200), ("b/k", {}, 200), ("c/k k", {}, 200),
    ],
)  # fmt: skip
def test_a_copy_onto_itself_has_to_change_something(source: str, headers: dict[str, str], status: int) -> None:
    asked = {"x-amz-copy-source": source, **headers}
    assert copies._copy(lambda *_: (200, {}, b""), "b", "k k", asked)[0] == status

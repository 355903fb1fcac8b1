"""The digest of a model artifact's contents, known outside the artifact and checked before any of it runs.

The serving image holds this file, too, and runs it as a program before it starts the artifact's own. Standard library
only. The digest is what coreutils give in the artifact's folder:

    find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

#: The environment variable that gives a serving container the digest.
VARIABLE = "MODEL_ARTIFACT_DIGEST"


class DigestError(Exception):
    """The contents have no digest, or another than expected; the message names the folder and why."""


def folder_digest(folder: Path) -> str:
    """Return the digest of a folder's files: `sha256:` and 64 hexadecimal digits.

    Names and contents count, all of them, bytecode caches too; times, owners and permissions do not. What is neither
    a file nor a folder raises DigestError.
    """
    digests = {}
    try:
        for name in _files(str(folder)):
            with (folder / name).open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DigestError(f"{error.filename} cannot be read: {error.strerror}.") from None
    return digest_of(digests)


def digest_of(files: Mapping[str, str]) -> str:
    """Return the digest of files, given the SHA-256 of each in hexadecimal by its relative name.

    A name that sha256sum would write in another way raises DigestError.
    """
    total = hashlib.sha256()
    for name in sorted(files, key=os.fsencode):
        if not name.isprintable() or "\\" in name:
            raise DigestError(f"The file name {name!r} has characters that a model artifact may not use.")
        total.update(f"{files[name]}  ".encode() + os.fsencode(name) + b"\n")
    return f"sha256:{total.hexdigest()}"


def check_digest(folder: Path, expected: str) -> None:
    """Check that a folder holds exactly the files that have a digest, or raise DigestError with the one found."""
    found = folder_digest(folder)
    if found != expected:
        raise DigestError(
            f"The model artifact in {folder} is not the one that was deployed: its digest is {found}, "
            f"{VARIABLE} is {expected}."
        )


def _files(folder: str, prefix: str = "") -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not prefix and entry.name == "lost+found":
                continue  # a file system's own, of a volume that is mounted as the folder; only root may read it
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield prefix + entry.name
            else:
                raise DigestError(f"{entry.path} is a link or a special file; a model artifact holds files only.")


if __name__ == "__main__":
    try:
        check_digest(Path(sys.argv[1]), sys.argv[2])
    except DigestError as fault:
        sys.exit(str(fault))

"""Fetch a data set: download, compare with its checksum or what was fetched before, unpack."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cli.console import console, progress_bar
from cli.data.dataset import named, only_writer, whole_folder
from cli.data.download import address_digest, discard, download, public_url, require_web_address
from cli.data.published import published_sets, torchvision_datasets
from cli.data.unzip import ArchiveError, unzip
from cli.errors import NotReadyError, UsageError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ROOM = 2.1  # bytes on the disk for one of an archive: itself, the images, and what file systems add to small files


@dataclass(frozen=True)
class Source:
    """Where a pulled data set came from; kept beside its folder as ``NAME.source.json``."""

    url: str  # without user name, password and query
    address: str  # SHA-256 that tells addresses with different queries apart
    sha256: str  # of the archive, hexadecimal
    pulled: str  # when, in UTC


def pull(directory: Path, url: str, sha256: str | None) -> None:
    """Fetch and unpack a data set, or do nothing where it lies already.

    Nothing vouches for an archive that is fetched for the first time, unless its checksum is given. It is kept, and
    every later archive of the same address must have the same one. `directory` appears when everything is unpacked.
    ``DIRECTORY.zip``, where a person has put one, is used instead of a download, and kept. A NotReadyError says that
    the folder holds something else, or that the archive is not the one that is expected.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256 := sha256.lower().removeprefix("sha256:")):
        raise UsageError(f"{sha256!r} is no SHA-256 checksum: it has 64 hexadecimal digits.")
    require_web_address(url)
    directory = named(directory)
    archive, record = (directory.with_name(directory.name + end) for end in (".zip", ".source.json"))
    with only_writer(directory.parent):
        before = _read(record)
        if not _is_there(directory, before, url, sha256):
            fetched = _fetched(archive, url)
            source = _verified(fetched, url, sha256, before)
            try:
                with progress_bar("Unpacking", in_bytes=True) as report, whole_folder(directory) as new:
                    unpacked = unzip(fetched, new, report=report)
                    # Before the folder has its name: of something unusable no checksum is kept.
                    _write(record, source)
            except ArchiveError:
                discard(_part(archive))
                raise
            console.print(f"Unpacked {unpacked}, into {directory}.")
        discard(_part(archive))


def pull_set(directory: Path, name: str) -> None:
    """Fetch and unpack a published set, or do nothing where it lies already; a UsageError lists the sets there are.

    What has arrived lies in ``DIRECTORY.archives`` until all is unpacked. Files that a person has put there, under the
    publisher's names, are used and kept.
    """
    if (published := (offered := published_sets()).get(name)) is None:
        known = "".join(f"\n  {key}: {one.title}" for key, one in offered.items())
        raise UsageError(f"There is no published set {name!r}. There are:{known}")
    directory = named(directory)
    folder, record = (directory.with_name(directory.name + end) for end in (".archives", ".source.json"))
    with only_writer(directory.parent):
        before, url = _read(record), published.archives[0]["url"]
        if _is_there(directory, before, url, None):
            return
        size, free = sum(archive["size"] for archive in published.archives), shutil.disk_usage(directory.parent).free
        console.print(f"{published.title}. {published.images:,} images, {size / 1e6:,.0f} MB to download.")
        console.print(f"Licence, as {published.page} states it: {published.licence}.")
        needed = _ROOM * size - sum(path.stat().st_size for path in folder.glob("*"))
        if free < needed:
            have = f"{directory.parent} has {free / 1e9:.1f} GB free"
            raise NotReadyError(f"{have}; archives and images need {needed / 1e9:.1f} GB.", "Make room.")
        folder.mkdir(exist_ok=True)
        archives = {folder / archive["url"].rpartition("/")[2]: archive for archive in published.archives}
        fetched = []
        for path, archive in archives.items():
            fetched.append(found := _fetched(path, archive["url"]))
            if not torchvision_datasets().utils.check_integrity(found, archive["md5"]):
                discard(_part(path))
                message = f"{found} is not what was published: its MD5 is not {archive['md5']}."
                raise NotReadyError(message, "Fetch it again.")
        source = _verified(fetched[0], url, None, before)
        with whole_folder(directory) as new, progress_bar("Unpacking"):
            published.unpack(fetched, new.with_name("unpacked"), new)
            _write(record, source)
        for path in archives:
            discard(_part(path))
        with suppress(OSError):  # what a person has put there
            folder.rmdir()


def _fetched(path: Path, url: str) -> Path:
    """Return an archive that a person has put there, or else its part, which is downloaded."""
    if path.is_file():
        console.print(f"Using {path}, which is there already.")
        return path
    part = _part(path)
    with progress_bar(f"Downloading {path.name}", in_bytes=True) as report:
        download(url, part, report=report)
    return part


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _is_there(directory: Path, before: Source | None, url: str, sha256: str | None) -> bool:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        if directory.is_symlink():
            way_out = f"Name the folder that it leads to, {os.path.realpath(directory)}, or remove the link."
            raise NotReadyError(f"{directory} is a link, which pulling would replace.", way_out)
        return False
    if before is None or before.address != address_digest(url) or sha256 not in (None, before.sha256):
        what = "was not pulled" if before is None else f"was pulled from {before.url} (sha256 {before.sha256})"
        raise NotReadyError(
            f"{directory} is there and {what}, so it is left alone.",
            "Choose another folder, or remove this one. An address with another query is another address.",
        )
    console.print(f"{directory} was pulled from there on {before.pulled}; sha256 {before.sha256}.")
    return True


def _verified(archive: Path, url: str, sha256: str | None, before: Source | None) -> Source:
    """Compare the archive with what was asked for or fetched before; return what it is."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    console.print(f"{archive}: {archive.stat().st_size:,} bytes, sha256 {found}")
    keep = f"The archive stays in {archive}: remove it to download it again"
    source = Source(public_url(url), address_digest(url), found, datetime.now(UTC).isoformat(timespec="seconds"))
    if sha256 is not None and found != sha256:
        raise NotReadyError(f"{archive} is not what was asked for: its sha256 is not {sha256}.", f"{keep}.")
    if sha256 is None and before is not None and before.address == source.address and before.sha256 != found:
        raise NotReadyError(
            f"{before.url} is another file than on {before.pulled}: then its sha256 was {before.sha256}.",
            f"{keep}, or accept the new one with --sha256 {found}.",
        )
    return source


def _write(record: Path, source: Source) -> None:
    record.write_text(json.dumps(asdict(source), indent=2) + "\n", encoding="utf-8")


def _read(record: Path) -> Source | None:
    try:
        return Source(**json.loads(record.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        # Not to be taken for "never pulled": the checksum in it is what the next archive is measured against.
        raise NotReadyError(f"{record} cannot be read: {error}.", "Remove it to trust the next archive.") from error

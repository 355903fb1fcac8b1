"""Hostile archives at every place that unpacks some: refused by name, nothing outside, little memory, little time."""

from __future__ import annotations

import functools
import gzip
import io
import os
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from emulator.sagemaker import artifacts
from model.core.artifact import ArtifactError
from model.core.packaging import unpack
from programs.ec2_training.training_instance import storage

MIB = 2**20
FREE = 64 * MIB


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **headers: str):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.pax_headers = kind, link, len(content), headers
    return info, content


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, content: bytes = b"") -> bytes:
    """A header that claims a size, and what really follows it."""
    info = tarfile.TarInfo(name)
    info.size, info.type = abs(size), kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        block[124:136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block) + content + bytes(-len(content) % 512)


def chain_of_links() -> bytes:
    """Links of which none leads out, until the path is too long for `realpath` (CVE-2025-4517)."""
    long, steps, path, members = "d" * 247, "abcdefghijklmnop", "", []
    for step in steps:
        members.append(member(path + long, kind=tarfile.DIRTYPE))
        members.append(member(path + step, kind=tarfile.SYMTYPE, link=long))
        path += f"{long}/"
    members.append(member("/".join(steps) + "/" + "l" * 254, kind=tarfile.SYMTYPE, link="../" * len(steps)))
    out = "/".join(steps) + "/" + "l" * 254 + "/../outside"
    members.append(member("escape", kind=tarfile.SYMTYPE, link=out))
    return tar_bytes(*members, member("escape/planted", b"evil"))


def old_sparse() -> bytes:
    """136 bytes, compressed, that tarfile writes out as 8 GiB - 1."""
    info = tarfile.TarInfo("model.json")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"77777777777\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def pax_sparse(entries: int) -> bytes:
    sparse_map = b"%d\n" % entries + b"0\n" * 2 * entries
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "model.json"}
    headers["GNU.sparse.realsize"] = str(2**50)
    return tar_bytes(member("model.json", sparse_map + bytes(-len(sparse_map) % 512), **headers))


LINKS = {
    "symbolic link": lambda: tar_bytes(member("model.json", kind=tarfile.SYMTYPE, link="../outside/secret")),
    "link within": lambda: tar_bytes(member("a", b"x"), member("model.json", kind=tarfile.SYMTYPE, link="a")),
    "hard link": lambda: tar_bytes(member("a", b"x"), member("model.json", kind=tarfile.LNKTYPE, link="a")),
    "through a link": lambda: tar_bytes(member("d", kind=tarfile.SYMTYPE, link=".."), member("d/outside/x", b"x")),
    "chain of links": chain_of_links,
    "pipe": lambda: tar_bytes(member("model.json", kind=tarfile.FIFOTYPE)),
    "block device": lambda: tar_bytes(member("model.json", kind=tarfile.BLKTYPE)),
    "device": lambda: tar_bytes(member("model.json", kind=tarfile.CHRTYPE)),
    "sparse": old_sparse,
    "sparse in pax": lambda: pax_sparse(1),
}
NAMES = {
    "parent": lambda: tar_bytes(member("../outside/x", b"x")),
    "parent inside": lambda: tar_bytes(member("a/../../outside/x", b"x")),
    "NUL": lambda: tar_bytes(member("model.json\0x", b"x", path="model.json\0x")),
    "deep": lambda: tar_bytes(member("a/" * 900 + "x", b"x")),
}
BOMBS = {
    "claims a petabyte": lambda: header("model.json", 2**50),
    "claims more than is free": lambda: header("model.json", FREE + 1, content=bytes(FREE + 1)),
    "together more than is free": lambda: b"".join(
        header(f"f{n}", FREE // 4, content=bytes(FREE // 4)) for n in range(5)
    ),
    "negative size": lambda: header("model.json", -512) + bytes(1024),
    "negative pax header": lambda: header("x", -1024, tarfile.XHDTYPE) + bytes(1024),
    "long pax header": lambda: header("x", 100 * MIB, tarfile.XHDTYPE, bytes(100 * MIB)),
    "long name": lambda: header("x", 100 * MIB, tarfile.GNUTYPE_LONGNAME, bytes(100 * MIB)),
    "sparse map": lambda: pax_sparse(2_000_000),
    "names upon names": lambda: header("x", 1, tarfile.GNUTYPE_LONGNAME, b"x") * 5000,
    "much behind the end": lambda: tar_bytes(member("model.json", b"{}")) + bytes(100 * MIB),
    "many": lambda: b"".join(header(f"f{number}", 0) for number in range(2000)) + bytes(1024),
}
# What `tar`, and so SageMaker, unpacks inside, the last one over the others.
UNUSUAL = {
    "absolute": lambda: tar_bytes(member("/outside/x", b"x")),
    "twice": lambda: tar_bytes(member("model.json", b"1"), member("model.json", b"2")),
}
DAMAGED = {
    "shorter than it claims": lambda: header("model.json", 5000, content=b"x"),
}


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=FREE - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))

    monkeypatch.setattr("shutil.disk_usage", usage)
    monkeypatch.setattr("model.core.archives.MAX_FILES", 1000)


def unpack_model(archive: Path, folder: Path) -> None:
    folder.mkdir()
    unpack(archive, folder, ["model.json", "f0", "f1", "f2", "f3", "f4"])


def unpack_in_the_local_aws(archive: Path, folder: Path) -> None:
    artifacts.unpack(archive, folder, max_files=1000)


def unpack_on_an_instance(archive: Path, folder: Path) -> None:
    class S3:
        def download_file(self, _: str, __: str, path: str) -> None:
            Path(path).write_bytes(archive.read_bytes())

    storage.download_archive(S3(), "s3://bucket/model.tar.gz", folder)


ALL = [*LINKS, *NAMES, *BOMBS, *DAMAGED]
# What each place refuses, and how: an instance's own disk is small, and its training's archive is its own.
PLACES: dict[Callable[[Path, Path], None], tuple[type[Exception], list[str]]] = {
    unpack_model: (ArtifactError, [*ALL, *UNUSUAL]),
    unpack_in_the_local_aws: (artifacts.ArtifactError, ALL),
    unpack_on_an_instance: (storage.JobError, [*LINKS]),
}


@functools.cache
def compressed(name: str) -> bytes:
    return gzip.compress((LINKS | NAMES | BOMBS | DAMAGED | UNUSUAL)[name](), 1)


@pytest.mark.parametrize(("place", "name"), [(place, name) for place, (_, names) in PLACES.items() for name in names])
def test_hostile_archive_is_refused(place: Callable[[Path, Path], None], name: str, tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(compressed(name))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("untouched")
    before = {path.name for path in tmp_path.iterdir()} | {"inside"}
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(PLACES[place][0]) as raised:
            place(archive, tmp_path / "inside")
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 10
    assert {path.name for path in tmp_path.iterdir()} <= before
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "untouched"
    written = list((tmp_path / "inside").rglob("*"))
    assert sum(path.lstat().st_size for path in written if path.is_file()) <= FREE
    assert not [path for path in written if not (path.is_file() or path.is_dir())]
    assert "model.tar.gz" in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_ordinary_archive_is_unpacked_as_it_is(place: Callable[[Path, Path], None], tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "code").mkdir(parents=True)
    (source / "model.json").write_bytes(os.urandom(3 * MIB))
    (source / ("long " * 40)).write_text("needs a header of its own")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(source, ".")
    place(tmp_path / "model.tar.gz", tmp_path / "inside")
    assert (tmp_path / "inside" / "model.json").read_bytes() == (source / "model.json").read_bytes()

"""Archives for tests, whole and hostile."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

KINDS = {"zip": "", "tar": "w:", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


def write_archive(path: Path, members: Mapping[str, bytes | str | None]) -> Path:
    """Write an archive of the kind that its name says; text is the target of a link, None a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = next(kind for kind in sorted(KINDS, key=len, reverse=True) if path.name.endswith(f".{kind}"))
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for name, content in members.items():
                _zip(target, name, content)
        return path
    with tarfile.open(path, KINDS[kind]) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = (tarfile.SYMTYPE, content) if content else (tarfile.DIRTYPE, "")
                tar.addfile(info)
    return path


def _zip(target: zipfile.ZipFile, name: str, content: bytes | str | None) -> None:
    info = zipfile.ZipInfo(name if content is not None else f"{name}/")
    info.compress_type = zipfile.ZIP_DEFLATED
    if isinstance(content, str):
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    target.writestr(info, content or b"")


def write_named_alike(path: Path, name: str, count: int) -> None:
    """Write a zip of empty members that all have one name, which may be empty: zipfile refuses to."""
    text = name.encode()
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, *[0] * 7, len(text), 0) + text
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, *[0] * 7, len(text), *[0] * 6) + text
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, count * len(central), len(local), 0)
    path.write_bytes(local + count * central + end)


def say_encrypted(path: Path, name: str) -> None:
    """Set the bit that says that a member is encrypted, in both of its headers."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        local = archive.getinfo(name).header_offset
    data[local + 6] |= 1
    central = data.rindex(name.encode()) - 46
    data[central + 8] |= 1
    path.write_bytes(data)


def write_directory(path: Path, references: list[list[str]]) -> Path:
    """Write a DICOMDIR with these ReferencedFileIDs."""
    dataset = Dataset()
    dataset.FileSetID = "MEDIUM"
    dataset.DirectoryRecordSequence = []
    for reference in references:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.ReferencedFileID = reference
        dataset.DirectoryRecordSequence.append(record)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path

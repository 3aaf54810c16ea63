"""sha256 of every file of a folder: written down once, compared before the files are trusted.

It costs one pass over the bytes: one to three seconds a gigabyte, by disk and processor.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 4


class DamagedFiles(ValueError):
    """Saved files that are missing, cut off, or hold other bytes than were written."""


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, in hexadecimal; the file is never in memory as a whole."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def directory_checksums(folder: str | os.PathLike[str]) -> dict[str, str]:
    """{path below the folder, with forward slashes: sha256} of every file in it, sorted."""
    root = Path(folder)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return _sha256_of(root, names)


def verify_checksums(folder: str | os.PathLike[str], wanted: Mapping[str, str]) -> None:
    """Compare the files of a folder with what directory_checksums told of them.

    Files that are not named are not looked at. Raises one DamagedFiles that names every file that
    is missing or holds other bytes; OSError where one cannot be read.
    """
    root = Path(folder)
    missing = [name for name in wanted if not (root / name).is_file()]
    found = _sha256_of(root, [name for name in wanted if name not in missing])
    wrong = {name: "missing" for name in missing}
    for name, digest in found.items():
        if digest != wanted[name]:
            wrong[name] = f"damaged, sha256 is {digest[:16]}..., {wanted[name][:16]}... was written"
    if wrong:
        lines = [f"{root / name}: {what}" for name, what in wrong.items()]
        lines.append(
            f"{root}: {len(wrong)} of {len(wanted)} files are not as they were written "
            f"({', '.join(list(wrong)[:3])})"
        )
        raise DamagedFiles("\n".join(lines))


def _sha256_of(root: Path, names: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor(THREADS) as threads:
        return dict(
            zip(names, threads.map(lambda name: file_sha256(root / name), names), strict=True)
        )

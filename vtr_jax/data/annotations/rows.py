"""Rows of annotation files, each with the line it stands on, and one error for all bad rows."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr_jax.data.annotations.parsed_once import parsed_once

_SHOWN = 10
_SAVE_AGAIN = "expected commas: save it again as comma-separated values, with quoted texts"


@dataclass(frozen=True)
class Row:
    """One row: the line of the file on which it begins, and its cells by column name."""

    line: int
    cells: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    why: str


@parsed_once
def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 text file, with or without a byte order mark, gzipped if its name ends in .gz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8 (the message names the line), or not gzipped.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such annotation file")
    content = _bytes(Path(path))
    _require_text(path, content)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"byte 0x{content[error.start]:02x}"
        raise ValueError(
            f"{path}, line {line}: {found} is not UTF-8; save the file as UTF-8 (spreadsheet "
            'programs call it "CSV UTF-8")'
        ) from error


# How files of other kinds begin, and what to do with them.
_OTHER_KINDS = {
    codecs.BOM_UTF16_LE: 'UTF-16 text; save it as UTF-8 (spreadsheet programs: "CSV UTF-8")',
    codecs.BOM_UTF16_BE: 'UTF-16 text; save it as UTF-8 (spreadsheet programs: "CSV UTF-8")',
    b"PK\x03\x04": 'a spreadsheet (.xlsx, .ods) or an archive; save it as "CSV UTF-8"',
    b"\xd0\xcf\x11\xe0": 'a spreadsheet (.xls); save it as "CSV UTF-8"',
    b"\x1f\x8b": "a gzip file; unpack it",
}


def _require_text(path: str | os.PathLike[str], content: bytes) -> None:
    """Raise a ValueError that says what a file is if it is of another kind than UTF-8 text."""
    for start, kind in _OTHER_KINDS.items():
        if content.startswith(start):
            raise ValueError(f"{path}: expected a text file in UTF-8, found {kind}")
    if b"\x00" in content[:1000]:
        kind = "UTF-16 text" if content[:1000].count(b"\x00") > 10 else "a binary file"
        raise ValueError(
            f"{path}: expected a text file in UTF-8, found zero bytes: {kind}? Save it as UTF-8 "
            '(spreadsheet programs: "CSV UTF-8")'
        )


def _bytes(path: Path) -> bytes:
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: no whole gzip file ({error}); download it again") from error


@parsed_once
def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; the caller must not change its content.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8, not JSON, or an object in it has a key twice; the
            message names the line.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _RepeatedKey as repeated:
        raise ValueError(
            f"{path}{_line_of(repeated.key, text)}: {repeated.key!r} stands twice"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


class _RepeatedKey(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that stands twice, of which Python would keep the last, is refused."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatedKey(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def _line_of(key: str, text: str) -> str:
    """Says ", line N" of a key's second place; nothing where other objects have it too."""
    pattern = re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:"
    places = [match.start() for match in re.finditer(pattern, text)]
    return "" if len(places) != 2 else ", line " + str(text.count("\n", 0, places[1]) + 1)


def read_csv(
    path: str | os.PathLike[str], required: Sequence[str]
) -> tuple[list[Row], list[BadRow]]:
    """Read a comma-separated file whose first line names its columns.

    Column names are compared without case and surrounding white space. What spreadsheet programs
    add is ignored: rows without content, empty columns at the end, and the line "sep=,".

    Returns:
        the rows, and those with more or fewer fields than the header names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no CSV in UTF-8, is separated by something other than commas, or
            its header is not as expected.
    """
    rows, bad = _parse_csv(path, tuple(required))
    return list(rows), list(bad)


@parsed_once
def _parse_csv(
    path: str | os.PathLike[str], required: Sequence[str]
) -> tuple[list[Row], list[BadRow]]:
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    bad: list[BadRow] = []
    header: list[str] = []
    columns: list[str] = []
    line = 1
    try:
        for fields in reader:
            if not any(field.strip() for field in fields):
                pass  # spreadsheet programs write rows without content, also before the header
            elif not header and not _is_separator_line(path, fields):
                header, columns = fields, _columns(path, fields, required)
            elif header:
                if len(columns) <= len(fields) <= len(header):
                    _add_row(line, fields, columns, rows, bad)
                else:
                    bad.append(BadRow(line, _field_count(len(fields), len(columns))))
            line = reader.line_num + 1
    except csv.Error as error:
        if not header:  # quoted names with another separator between them
            _require_commas(path, text.splitlines()[0], required)
        raise ValueError(f"{path}, line {line}: broken quoting ({error})") from error
    if not columns:
        raise ValueError(f"{path}: the file is empty, expected the columns {', '.join(required)}")
    return rows, bad


def _add_row(
    line: int, fields: list[str], columns: list[str], rows: list[Row], bad: list[BadRow]
) -> None:
    if any(field.strip() for field in fields[len(columns) :]):
        why = "text in a column without a name; quote texts that contain a comma"
        bad.append(BadRow(line, why))
        return
    cells = zip(columns, fields[: len(columns)], strict=True)
    rows.append(Row(line, {name: text for name, text in cells if name}))


def _is_separator_line(path: str | os.PathLike[str], fields: list[str]) -> bool:
    """Whether this is "sep=,", which tells a spreadsheet program how to read the file."""
    text = ",".join(fields).strip().lower()
    if text.startswith("sep=") and text != "sep=,":
        raise ValueError(
            f"{path}: its first line is {text!r}, so it is not separated by commas; {_SAVE_AGAIN}"
        )
    return text == "sep=,"


def read_jsonl(path: str | os.PathLike[str]) -> tuple[list[Row], list[BadRow]]:
    """Read a file with one JSON object a line; blank lines are skipped.

    Returns:
        the rows, and those that are no JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8.
    """
    rows, bad = _parse_jsonl(path)
    return list(rows), list(bad)


@parsed_once
def _parse_jsonl(path: str | os.PathLike[str]) -> tuple[list[Row], list[BadRow]]:
    rows: list[Row] = []
    bad: list[BadRow] = []
    for line, text in enumerate(read_text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except (ValueError, RecursionError) as error:
            bad.append(BadRow(line, f"not JSON ({error})"))
            continue
        if isinstance(cells, dict):
            rows.append(Row(line, cells))
        else:
            bad.append(BadRow(line, f"a JSON {type(cells).__name__}, expected an object"))
    return rows, bad


def refuse_bad_rows(path: str | os.PathLike[str], bad: Sequence[BadRow]) -> None:
    """Raise one ValueError that lists the first ten bad rows and counts them all, if any.

    The last line says what to do.
    """
    if not bad:
        return
    listed = [f"line {row.line}: {row.why}" for row in sorted(bad, key=lambda row: row.line)]
    more = [f"and {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
    plural = "row" if len(listed) == 1 else "rows"
    lines = "\n  ".join([f"{path}: {len(listed)} bad {plural}", *listed[:_SHOWN], *more])
    raise ValueError(
        f"{lines}\n{path}: fix the {len(listed)} {plural} listed above, or remove them"
    )


def _columns(
    path: str | os.PathLike[str], fields: Sequence[str], required: Sequence[str]
) -> list[str]:
    columns = [field.strip().lower() for field in fields]
    while columns and not columns[-1]:  # spreadsheet programs write empty columns at the end
        columns.pop()
    missing = [name for name in required if name not in columns]
    if missing:
        _require_commas(path, ",".join(fields), required)
        raise ValueError(
            f"{path}: the first line must name the columns {', '.join(required)}; missing: "
            f"{', '.join(missing)}; found: {', '.join(columns) or 'none'}"
        )
    named = [name for name in columns if name]
    if len(set(named)) < len(named):
        raise ValueError(f"{path}: the first line names a column twice: {', '.join(columns)}")
    return columns


def _require_commas(path: str | os.PathLike[str], line: str, required: Sequence[str]) -> None:
    """Raise a ValueError if the columns of a first line are separated by something else."""
    for separator, name in {";": "semicolons", "\t": "tabs", "|": "vertical bars"}.items():
        names = [each.strip(" \"'").lower() for each in line.split(separator)]
        if len(names) > 1 and set(required) & set(names):
            raise ValueError(
                f"{path}: its columns are separated by {name}, found: {line}; {_SAVE_AGAIN}"
            )


def _field_count(found: int, expected: int) -> str:
    hint = "; quote texts that contain a comma" if found > expected else ""
    return f"{found} fields, the first line names {expected}{hint}"

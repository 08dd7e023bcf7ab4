"""Reads a file of text record by record, and plain text part by part."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from mbench.core.errors import CorpusError
from mbench.storage.text_files import json_list
from mbench.storage.text_files.formats import CHUNK, JSON, TextFile, one_line_errors
from mbench.storage.text_files.values import Object, fields_of, kind_of

ROWS = 256
"""Rows of a table that are read at once."""


def place(file: TextFile, number: int) -> str:
    """Where the record with this number stands."""
    if file.format in ("JSON lines", "CSV", "TSV"):
        return f"{file.path}:{number}"
    return f"{file.path}:{'record' if file.format == 'JSON list' else 'row'} {number}"


def values(file: TextFile, field: str) -> Iterator[tuple[int, Any]]:
    """The number of every record and the value of a field in it, whatever it is.

    A record is numbered by its line, or as item of a list or row of a table, from 1 on. Raises
    `CorpusError` for a record that lacks the field or has it twice, and where the file cannot be
    read. Not for plain text.
    """
    if file.format == "JSON lines":
        return _json_lines(file, field)
    if file.format == "JSON list":
        return _json_list(file, field)
    if file.format in ("CSV", "TSV"):
        return _cells(file, field)
    return _rows(file, field)


def parts(file: TextFile) -> Iterator[str]:
    """Plain text, in parts of bounded length; whatever ends a line is LF.

    Raises `CorpusError` where it cannot be read.
    """
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    for characters in _characters(file):
        yield newlines.decode(characters)
    yield newlines.decode("", final=True)


def _lines(file: TextFile) -> Iterator[tuple[int, str]]:
    """Numbers and lines; only LF ends one."""
    start = len(codecs.BOM_UTF8) * file.marked
    with file.opened() as stream:
        stream.read(start)
        for number, line in enumerate(stream, 1):
            text, _ = _decoded(file, line, start, f":{number}", final=True)
            yield number, text
            start += len(line)


def _characters(file: TextFile) -> Iterator[str]:
    start = len(codecs.BOM_UTF8) * file.marked
    rest = b""
    with file.opened() as stream:
        stream.read(start)
        while chunk := stream.read(CHUNK):
            chunk = rest + chunk
            text, decoded = _decoded(file, chunk, start, "", final=False)
            yield text
            rest, start = chunk[decoded:], start + decoded
        yield _decoded(file, rest, start, "", final=True)[0]


def _decoded(
    file: TextFile, content: bytes, start: int, line: str, *, final: bool
) -> tuple[str, int]:
    """Bytes that begin behind `start` others as text, and how many of them are whole characters."""
    of = " of what it holds compressed" if file.compression else ""
    if b"\0" in content:
        where = f"byte {start + content.index(0) + 1}{of} is NUL"
        raise CorpusError(f"{file.path}{line}: not UTF-8 text: {where} (binary, or UTF-16)")
    try:
        return codecs.utf_8_decode(content, "strict", final)
    except UnicodeDecodeError as error:
        where = f"byte {start + error.start + 1}{of} ({content[error.start]:#04x})"
        raise CorpusError(f"{file.path}{line}: not UTF-8 text: {where}") from None


def _json_lines(file: TextFile, field: str) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(file):
        if line.isspace():
            continue
        try:
            record = JSON.decode(line)
        except (ValueError, RecursionError) as error:
            raise _no_json(file, number, error) from None
        yield number, _value(file, number, record, field)


def _json_list(file: TextFile, field: str) -> Iterator[tuple[int, Any]]:
    number = 0
    records = json_list.items(_characters(file), JSON)
    while True:
        number += 1
        try:
            record = next(records)
        except StopIteration:
            return
        except (ValueError, RecursionError) as error:
            raise _no_json(file, number, error) from None
        yield number, _value(file, number, record, field)


def _no_json(file: TextFile, number: int, error: Exception) -> CorpusError:
    why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    if isinstance(error, json.JSONDecodeError):
        why = f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
    elif "integer string conversion" in why:
        why = "a number of thousands of digits"
    return CorpusError(f"{place(file, number)}: not a JSON object: {why}")


def _value(file: TextFile, number: int, record: Any, field: str) -> Any:
    if not isinstance(record, Object):
        raise CorpusError(f"{place(file, number)}: not a JSON object but {kind_of(record)}")
    found = [value for key, value in record if key == field]
    if len(found) != 1:
        raise _no_field(place(file, number), field, record.keys)
    return found[0]


def _no_field(where: str, field: str, names: list[str]) -> CorpusError:
    if field in names:
        return CorpusError(f"{where}: field {field!r} is there {names.count(field)} times")
    return CorpusError(f"{where}: no field {field!r}; {fields_of(names)}")


def _cells(file: TextFile, field: str) -> Iterator[tuple[int, str]]:
    csv.field_size_limit(2**31 - 1)
    dialect = "excel" if file.format == "CSV" else "excel-tab"
    reader = csv.reader((line for _, line in _lines(file)), dialect, strict=True)
    try:
        names = next(reader, [])
        if names.count(field) != 1:
            raise _no_field(place(file, 1), field, names)
        column = names.index(field)
        while True:
            number = reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            if row and len(row) != len(names):
                words = f"{len(row)} fields where the first line names {len(names)}"
                raise CorpusError(f"{place(file, number)}: {words}")
            if row:
                yield number, row[column]
    except csv.Error as error:
        raise CorpusError(f"{place(file, reader.line_num)}: no {file.format}: {error}") from None


def _rows(file: TextFile, field: str) -> Iterator[tuple[int, Any]]:
    number = 0
    with one_line_errors(file.path):
        for batch in _batches(file, field):
            for value in batch.column(batch.schema.get_field_index(field)):
                number += 1
                try:
                    held = value.as_py()
                except UnicodeDecodeError:
                    raise CorpusError(f"{place(file, number)}: not UTF-8 text") from None
                yield number, held


def _batches(file: TextFile, field: str) -> Iterator[Any]:
    """Batches of rows of a table that has this column, once."""
    import pyarrow
    import pyarrow.parquet

    with pyarrow.OSFile(str(file.path)) as stream:
        if file.format == "parquet":
            table = pyarrow.parquet.ParquetFile(stream, page_checksum_verification=True)
            _check_columns(file, table.schema_arrow.names, field)
            yield from table.iter_batches(ROWS, columns=[field], use_threads=False)
            return
        if file.format == "Arrow stream":
            table = pyarrow.ipc.open_stream(stream)
            batches = iter(table)
        else:
            table = pyarrow.ipc.open_file(stream)
            batches = (table.get_batch(at) for at in range(table.num_record_batches))
        _check_columns(file, table.schema.names, field)
        for batch in batches:
            # Offsets that are damaged would be followed to any place in memory.
            batch.validate(full=True)
            yield batch


def _check_columns(file: TextFile, names: list[str], field: str) -> None:
    if names.count(field) != 1:
        raise _no_field(str(file.path), field, names)

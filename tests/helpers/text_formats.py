"""Documents written in every format that a text may have, by libraries other than its reader's."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence

import pandas as pd
import pyarrow
import pyarrow.feather
import pyarrow.parquet

UTF8_MARK = b"\xef\xbb\xbf"


def json_lines(documents: Sequence[str], end: str = "\n", ascii_only: bool = True) -> bytes:
    """Records with other fields around the text, as other programs write them."""
    others = [{"url": "x", "scores": [1, {"text": None}]}, {}, {"n": float("nan"), "null": None}]
    lines = [
        json.dumps({**others[at % 3], "text": text, "id": at}, ensure_ascii=ascii_only)
        for at, text in enumerate(documents)
    ]
    return "".join(line + end for line in lines).encode()


def json_list(documents: Sequence[str], indent: int | None = None) -> bytes:
    records = [{"text": text, "more": {"text": 1}} for text in documents]
    return json.dumps(records, indent=indent, ensure_ascii=False).encode()


def separated(documents: Sequence[str], dialect: str) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, dialect, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "text"], *([at, text] for at, text in enumerate(documents))])
    return file.getvalue().encode()


def table(documents: Sequence[str]) -> pyarrow.Table:
    columns = {"id": list(range(len(documents))), "text": documents}
    schema = pyarrow.schema([("id", pyarrow.int64()), ("text", pyarrow.string())])
    return pyarrow.table(columns, schema=schema)


def parquet(documents: Sequence[str], **settings) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table(documents), sink, row_group_size=3, **settings)
    return sink.getvalue()


def pandas_parquet(documents: Sequence[str]) -> bytes:
    frame = pd.DataFrame({"text": pd.Series(documents, dtype="object")})
    return frame.astype("category").to_parquet()


def arrow(documents: Sequence[str], writer: Callable) -> bytes:
    sink = io.BytesIO()
    whole = table(documents)
    with writer(sink, whole.schema) as out:
        for batch in whole.to_batches(max_chunksize=2):
            out.write_batch(batch)
    return sink.getvalue()


def feather(documents: Sequence[str]) -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(table(documents), sink, compression="zstd")
    return sink.getvalue()


FORMATS: dict[str, Callable[[Sequence[str]], bytes]] = {
    "a.jsonl": json_lines,
    "crlf.jsonl": lambda documents: json_lines(documents, "\r\n", ascii_only=False),
    "blank.ndjson": lambda documents: b"\n \n" + json_lines(documents, "\n\r\n", ascii_only=False),
    "unended.json": lambda documents: json_lines(documents, ascii_only=False).removesuffix(b"\n"),
    "marked.jsonl": lambda documents: UTF8_MARK + json_lines(documents),
    "list.json": json_list,
    "pretty.json": lambda documents: UTF8_MARK + json_list(documents, indent=2),
    "list.jsonl": lambda documents: b" \n" + json_list(documents) + b"\n",
    "a.csv": lambda documents: separated(documents, "excel"),
    "unix.csv": lambda documents: UTF8_MARK + separated(documents, "unix"),
    "a.tsv": lambda documents: separated(documents, "excel-tab"),
    "a.parquet": parquet,
    "plain.parquet": lambda documents: parquet(documents, use_dictionary=False, compression="zstd"),
    "pandas.parquet": pandas_parquet,
    "a.arrow": lambda documents: arrow(documents, pyarrow.ipc.new_file),
    "stream.arrow": lambda documents: arrow(documents, pyarrow.ipc.new_stream),
    "a.feather": feather,
}
"""By a name that such a file may have."""

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True),
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}
"""By the end of a name; each gives one stream, and several behind one another are one content."""

TABLES = (".parquet", ".arrow", ".feather")

"""The folder that results go to, one file a shard, so that each is there whole or not at all.

``results-00003.jsonl`` says that shard 3 is done, for its name appears last: whoever starts again leaves it
out, and whoever does it a second time writes the same file. ``errors-00003.jsonl`` beside it lists what could
not be read. ``plan.json`` holds what decides the shards and the texts; a run with another plan is refused.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from asr.bulk.manifests import Plan, import_parquet
from asr.core.places import delete_place, join_place, list_places, read_place, write_place
from asr.errors import UserError

PLAN_FILE = "plan.json"
RESULTS = re.compile(r"^results-(\d+)\.(jsonl|parquet)$")

Format = Literal["jsonl", "parquet"]


class OutputError(UserError):
    """A folder that belongs to other work, or cannot be written to."""


@dataclass(frozen=True)
class Output:
    """Where results go, and in which format."""

    folder: str
    format: Format = "jsonl"

    def name_results(self, number: int) -> str:
        """The place of a shard's results."""
        return join_place(self.folder, f"results-{number:05d}.{self.format}")

    def name_errors(self, number: int) -> str:
        """The place of a shard's recordings that could not be read."""
        return join_place(self.folder, f"errors-{number:05d}.{self.format}")


def claim_output(output: Output, plan: Plan, size: int, settings: Mapping[str, Any]) -> None:
    """Write the plan into the folder, or check that it is the same as the one there.

    ``settings`` are what else the results depend on. Raises ``OutputError`` where they differ.
    """
    wanted = {
        "manifest": plan.digest,
        "utterances": plan.rows,
        "shards": len(plan.shards),
        "shard_size": size,
        "format": output.format,
        **settings,
    }
    place = join_place(output.folder, PLAN_FILE)
    names = list_places(output.folder)
    if PLAN_FILE not in names:
        strange = sorted(name for name in names if RESULTS.match(name))
        if strange:
            raise OutputError(f"{output.folder}: has {strange[0]} and no {PLAN_FILE}; choose another -o")
        write_place(place, (json.dumps(wanted, indent=2, ensure_ascii=False) + "\n").encode())
        return
    try:
        before = json.loads(read_place(place))
        differ = sorted(key for key in wanted.keys() | before.keys() if before.get(key) != wanted.get(key))
    except (ValueError, AttributeError) as error:
        raise OutputError(f"{place}: is damaged: {error}; choose another -o") from error
    if differ:
        raise OutputError(
            f"{output.folder}: was begun with another {' and another '.join(differ)}; choose another -o, "
            "or give what plan.json says"
        )


def list_finished(output: Output) -> set[int]:
    """The numbers of the shards whose results are there."""
    found = (RESULTS.match(name) for name in list_places(output.folder))
    return {int(match[1]) for match in found if match and match[2] == output.format}


def write_results(
    output: Output, number: int, results: Sequence[Mapping[str, Any]], errors: Sequence[Mapping[str, Any]]
) -> None:
    """Write a shard's errors, if it has any, and then its results, which say that it is done."""
    if errors:
        write_place(output.name_errors(number), encode_rows(errors, output.format))
    else:
        delete_place(output.name_errors(number))  # of an attempt that was killed
    write_place(output.name_results(number), encode_rows(results, output.format))


def encode_rows(rows: Sequence[Mapping[str, Any]], format: Format) -> bytes:
    """Rows as the bytes of a file."""
    if format == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(
            "utf-8", "backslashreplace"
        )
    parquet = import_parquet()
    import pyarrow

    file = io.BytesIO()
    try:
        table = pyarrow.Table.from_pylist([dict(row) for row in rows])
        parquet.write_table(table, file)
    except (pyarrow.ArrowException, TypeError) as error:
        raise OutputError(f"the keys of the manifest fit no Parquet table: {error}; use -f jsonl") from error
    return file.getvalue()

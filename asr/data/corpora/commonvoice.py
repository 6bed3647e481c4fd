"""Common Voice: the CSV files of its first release and the TSV files of all later ones."""

from __future__ import annotations

import csv
from pathlib import Path

from asr.data.corpora.recordings import CorpusError, find_recordings
from asr.data.manifest import Utterance


class UnquotedTabs(csv.excel_tab):
    """How the later releases are written: quotation marks belong to the sentence."""

    quoting = csv.QUOTE_NONE


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """One split per table that lists recordings with their sentences, named after the table."""
    splits = {}
    for table in sorted([*corpus.glob("*.csv"), *corpus.glob("*.tsv")]):
        utterances = _read_first_release(table) if table.suffix == ".csv" else _read_later_release(table)
        if utterances:
            splits[table.stem] = find_recordings(utterances)
    if not splits:
        raise CorpusError(
            f"{corpus}: is not a Common Voice folder: expected a .tsv with the columns path and sentence "
            "(the folder of one language), or a .csv with the columns filename and text"
        )
    return splits


def _read_first_release(table: Path) -> list[Utterance]:
    """Rows of ``filename,text,...``; who speaks was not published."""
    return [
        Utterance(Path(row["filename"]).stem, str(table.parent / row["filename"]), text=row["text"])
        for row in _read_rows(table, {"filename", "text"}, csv.excel)
    ]


def _read_later_release(table: Path) -> list[Utterance]:
    """Rows of ``client_id, path, sentence, ...``."""
    return [
        Utterance(
            id=Path(row["path"]).stem,
            audio=str(table.parent / "clips" / row["path"]),
            text=row["sentence"],
            speaker=row.get("client_id") or "",
        )
        for row in _read_rows(table, {"path", "sentence"}, UnquotedTabs)
    ]


def _read_rows(table: Path, needed: set[str], dialect: type[csv.Dialect]) -> list[dict[str, str]]:
    """The rows of a table as dictionaries; none when it lacks one of the columns ``needed``."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, dialect=dialect)
            if not needed <= set(reader.fieldnames or ()):
                return []  # corpora have tables of other things, too
            rows = []
            for row in reader:
                if any(row[column] is None for column in needed):
                    raise CorpusError(f"{table}:{reader.line_num}: has fewer columns than the first line")
                rows.append(row)
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{table}: cannot be read as a table: {error}") from error

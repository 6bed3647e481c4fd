"""Parsers of texts, led by the branches that an input takes (atheris, which nothing else needs).

    pip install atheris
    python -m tools.fuzz.guided CORPUS -max_total_time=300

``CORPUS`` is a folder in which inputs that reach something new are kept. What is neither read nor refused by
a ``UserError`` ends the run, and lies in the current folder: `python -m tools.fuzz.guided crash-...` runs it
again. Language models are left out: atheris changes code so that numba cannot compile it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["asr.core.config", "asr.data", "asr.scoring", "asr.text"]):
    from asr.core.config import read_toml
    from asr.data.manifest import read_manifest
    from asr.errors import UserError
    from asr.scoring.files import read_texts
    from asr.text.lexicon import read_dictionary, read_lexicon

READERS: tuple[tuple[str, Callable[[Path], object]], ...] = (
    *[
        ("texts." + ending, read_texts)
        for ending in ("stm", "ctm", "trn", "txt", "json", "jsonl", "tsv", "csv")
    ],
    *[("texts." + ending, read_texts) for ending in ("srt", "vtt")],
    ("utterances.jsonl", read_manifest),
    ("words.dict", read_dictionary),
    ("lexicon.txt", read_lexicon),
    ("search.toml", read_toml),
)
SAMPLES = (
    *(
        ";; x\nr1 1 anna 0.0 1.5 <o> hello { a / b }\n",
        "r1 1 0.10 0.20 hello 0.9\n",
        "hello (u1)\n",
        "u1 hello\n",
    ),
    *('{"u1": "hello"}', '{"id": "u1", "text": "hello"}\n', "id\ttext\nu1\thello\n", "id,text\nu1,hello\n"),
    *("1\n00:00:00,100 --> 00:00:01,000\nhello\n", "WEBVTT\n\n00:00.100 --> 00:01.000\nhello\n"),
    *('{"id": "u1", "audio": "a.wav", "text": "hello"}\n', "hello 0.9 HH AH0 L OW1\n", "hello\tHH AH L OW\n"),
    "beam_size = 4\n",
)


def main() -> None:
    """Run libFuzzer over all readers; the first byte of an input chooses one."""
    folder = Path(tempfile.mkdtemp(prefix="asr-guided-"))
    for number, sample in enumerate(SAMPLES):
        place = next((Path(word) for word in sys.argv[1:] if Path(word).is_dir()), None)
        if place is not None:
            (place / f"sample-{number}").write_bytes(bytes([number]) + sample.encode())

    def read(content: bytes) -> None:
        if not content:
            return
        name, reader = READERS[content[0] % len(READERS)]
        path = folder / name
        path.write_bytes(content[1:])
        try:
            reader(path)
        except UserError as error:
            if not str(error).isprintable():
                raise ValueError(f"a message that is no line: {error!r}") from error

    atheris.Setup(sys.argv, read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

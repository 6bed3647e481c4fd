"""ARPA files as others write them, and files that are no ARPA."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from asr.cli import cli
from asr.errors import UserError
from asr.lm.arpa import read_arpa
from asr.lm.model import LanguageModelError
from asr.lm.perplexity import measure_perplexity
from asr.lm.storage import load_model, save_model

NO_ENDS = "\\data\\\nngram 1=2\n\n\\1-grams:\n-0.5 hello\n-0.6 world\n\n\\end\\\n"
CLOSED = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-inf <unk>
-99 <s> -0.3
-1.0 </s>
-0.5 hello -0.2
-0.6 world -0.2

\\2-grams:
-0.3 <s> hello
-0.2 hello world
-0.1 world </s>

\\end\\
"""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def run_lm(*arguments: object) -> tuple[str, str]:
    result = CliRunner().invoke(cli, ["lm", *map(str, arguments)])
    assert result.exception is None
    return result.stdout, result.stderr


@pytest.mark.parametrize("is_binary", [False, True])
def test_without_sentence_ends_words_alone_are_scored(tmp_path, is_binary):
    """-0.5 and -0.6 are 10 to the 0.55 a word."""
    path = write(tmp_path, "x.arpa", NO_ENDS)
    if is_binary:
        save_model(read_arpa(path), path := tmp_path / "x.bin")
    text = write(tmp_path, "text.txt", "hello world\n")
    found = measure_perplexity(load_model(path), [b"hello world\n"])
    assert (found.tokens, found.ends) == (2, 0)
    assert found.including_unknown == pytest.approx(10**0.55, rel=1e-3)
    assert found.excluding_unknown == found.including_unknown
    for verb in ("perplexity", "score"):
        out, errors = run_lm(verb, path, text)
        assert "has no <s> and </s>" in errors
        assert ("3.55" if verb == "perplexity" else f"{-1.1 * math.log(10):.2f}") in out
    assert json.loads(run_lm("info", path, "--json")[0])["sentence_ends"] is False


@pytest.mark.parametrize("is_binary", [False, True])
def test_what_cannot_be_does_not_spoil_what_can(tmp_path, is_binary):
    """hello -0.3 and </s> -1.0 behind a word that the model says is impossible: 10 to the 0.65 a token."""
    path = write(tmp_path, "x.arpa", CLOSED)
    if is_binary:
        save_model(read_arpa(path), path := tmp_path / "x.bin")
    text = write(tmp_path, "text.txt", "hello sir\n")
    found = measure_perplexity(load_model(path), [b"hello sir\n"])
    assert found.excluding_unknown == pytest.approx(10**0.65, rel=1e-3)
    assert found.unknown == 1
    for verb in (["perplexity", path, text], ["info", path]):
        json.loads(run_lm(*verb, "--json")[0], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "4.47" in run_lm("perplexity", path, text)[0]


def test_only_unknown_words_have_no_perplexity_without_them(tmp_path):
    path, text = write(tmp_path, "x.arpa", NO_ENDS), write(tmp_path, "text.txt", "sir\n")
    assert "n/a" in run_lm("perplexity", path, text)[0]
    assert json.loads(run_lm("perplexity", path, text, "--json")[0])["perplexity_excluding_oov"] is None


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    plain = read_arpa(write(tmp_path, "x.arpa", CLOSED))
    marked = read_arpa(write(tmp_path, "y.arpa", b"\xef\xbb\xbf" + CLOSED.encode()))
    assert marked.counts == plain.counts
    assert marked.vocabulary.words == plain.vocabulary.words
    assert read_arpa(write(tmp_path, "z.arpa", CLOSED.replace("\n", "\r\n"))).counts == plain.counts


@pytest.mark.parametrize(
    ("begin", "says"),
    [
        (
            b"mmap lm http://kheafield.com/code format version 5\n\0",
            "is KenLM's binary format: give the ARPA",
        ),
        (b"BZh91AY&SY", "is compressed by bzip2"),
        (b"\x28\xb5\x2f\xfd\0", "is compressed by zstd"),
        (b"PK\x03\x04", "is a ZIP archive"),
        (b"blmt 3 10 20 30\n", "is IRSTLM's binary format"),
        (b"\xd6\xfd\xb2\x7e\x06\0\0\0vector", "is a transducer of OpenFst"),
    ],
)
def test_files_of_other_programs_are_named(tmp_path, begin, says):
    path = write(tmp_path, "k.bin", begin + bytes(100))
    with pytest.raises(LanguageModelError, match=f"k.bin: {says}"):
        load_model(path)
    dictionary = write(tmp_path, "x.dict", "a AH0\n")
    result = CliRunner().invoke(cli, ["lexicon", "--words", str(path), "--dictionary", str(dictionary)])
    assert isinstance(result.exception, UserError)
    assert says in str(result.exception)

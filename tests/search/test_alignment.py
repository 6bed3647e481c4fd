"""Alignment: the best path, words and what they are spelled with, ``asr align``."""

from __future__ import annotations

import io
import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.audio.reading import read_audio
from asr.cli import cli
from asr.errors import UserError
from asr.g2p.model import G2PError, add_pronunciations
from asr.longform.cutting import LONGEST_CHUNK_SECONDS
from asr.recognition.recognizer import open_recognizer
from asr.search import alignment as aligning
from asr.search.alignment import AlignmentError, align_text, align_tokens
from asr.text.lexicon import Lexicon, make_lexicon
from asr.text.tokenizer import BLANK, SPACE, TextConfig, TextError, Tokenizer, learn_tokenizer
from asr.transcript.formats import ALIGNMENT_FORMATS
from asr.transcript.values import AlignedText, AlignedWord, Word
from tests.reference import best_ctc_path, collapse, read_textgrid

STRING = Path(__file__).parents[2] / "samples" / "digits-lucas.flac"
LETTERS = Tokenizer((BLANK, SPACE, "a", "b", "c"))
LEXICON = make_lexicon([("the", ("DH", "AH")), ("the", ("DH", "IY")), ("a", ("AH",)), ("he", ("IY",))])
PHONES = Tokenizer((BLANK, *LEXICON.phones), lexicon=LEXICON)


def draw_log_probs(seed: int, frames: int, vocabulary: int = 4) -> np.ndarray:
    """Normalised log-probs."""
    values = np.random.default_rng(seed).standard_normal((frames, vocabulary)).astype(np.float32)
    return values - np.logaddexp.reduce(values, axis=1, keepdims=True)


def make_spiky(path: list[int], vocabulary: int = 5, peak: float = 0.9) -> np.ndarray:
    """Log-probs whose best token in each frame is that of ``path``."""
    probabilities = np.full((len(path), vocabulary), (1 - peak) / (vocabulary - 1))
    probabilities[np.arange(len(path)), path] = peak
    return np.log(probabilities).astype(np.float32)


# --- the best path --------------------------------------------------------------------------------


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 6), data=st.data())
def test_the_alignment_is_the_best_path(seed, frames, data):
    log_probs = draw_log_probs(seed, frames)
    tokens = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    paths = [p for p in itertools.product(range(4), repeat=frames) if collapse(p) == tokens]
    if not paths:
        with pytest.raises(AlignmentError):
            align_tokens(log_probs, np.array(tokens))
        return
    best = max(paths, key=lambda path: log_probs[np.arange(frames), list(path)].sum())
    alignment = align_tokens(log_probs, np.array(tokens))
    runs = [
        (key, [frame for frame, _ in group])
        for key, group in itertools.groupby(enumerate(best), key=lambda item: item[1])
    ]
    expected = [(group[0], group[-1] + 1) for key, group in runs if key != 0]
    assert list(zip(alignment.begins.tolist(), alignment.ends.tolist(), strict=True)) == expected
    peaks = [log_probs[b:e, t].max() for (b, e), t in zip(expected, tokens, strict=True)]
    assert alignment.peaks == pytest.approx(peaks)
    assert alignment.score == pytest.approx(log_probs[np.arange(frames), list(best)].sum(), abs=1e-5)


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(1, 40),
    count=st.integers(1, 20),
    block=st.integers(1, 45),
    ties=st.booleans(),
)
@example(seed=0, frames=40, count=20, block=1, ties=False)
@example(seed=1, frames=39, count=20, block=2, ties=True)
def test_block_by_block_the_path_is_that_of_the_whole_table(seed, frames, count, block, ties):
    log_probs = draw_log_probs(seed, frames)
    if ties:  # to multiples of which sums are exact
        log_probs = np.round(log_probs * 2) / 2
    tokens = np.random.default_rng(seed).integers(1, 4, min(count, (frames + 1) // 2)).astype(np.int32)
    expected = best_ctc_path(log_probs, tokens.tolist())
    np.testing.assert_array_equal(aligning._find_best_path(log_probs, tokens, block), expected)


def test_a_path_whose_steps_are_too_many_is_the_same():
    log_probs, tokens = draw_log_probs(5, 300), np.random.default_rng(5).integers(1, 4, 120)
    whole = align_tokens(log_probs, tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligning, "MOST_STEPS", 0)
        pieces = align_tokens(log_probs, tokens)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one, other)


LONG = """
import re
from pathlib import Path
import numpy as np
from asr.search.alignment import align_tokens

def memory():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

frames, count = 24_000, 12_000  # twenty minutes of the English model's frames
generator = np.random.default_rng(1)
tokens = generator.integers(1, 40, count)
begins = np.arange(0, frames, 2) + generator.integers(0, 2, count)
begins[1:][tokens[1:] == tokens[:-1]] |= 1  # a blank between equal ones
begins[:-1][tokens[1:] == tokens[:-1]] &= ~1
log_probs = np.full((frames, 40), np.log(0.1 / 39), np.float32)
path = np.zeros(frames, int)
path[begins] = tokens
log_probs[np.arange(frames), path] = np.log(0.9)
align_tokens(log_probs[:4000], tokens[:1900])  # long enough for compiled code
Path("/proc/self/clear_refs").write_text("5")  # the most memory in use so far is what is in use now
before = memory()
found = align_tokens(log_probs, tokens)
print(memory() - before, (found.begins == begins).all())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how much memory was in use at most")
def test_a_long_path_takes_little_memory():
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, check=True)
    kilobytes, right = done.stdout.split()
    assert right == "True"
    assert int(kilobytes) < 40_000  # the whole table has 576,000


# --- words and their units ------------------------------------------------------------------------


def times(aligned: tuple[AlignedWord, ...]) -> list[tuple[str, float, float, str]]:
    return [
        (
            word.word.text,
            round(word.word.start, 6),
            round(word.word.end, 6),
            "".join(u.text for u in word.units),
        )
        for word in aligned
    ]


def test_characters_and_words_are_where_they_were_planted():
    #       0  1  2  3  4  5  6  7  8  9
    path = [0, 2, 2, 0, 3, 1, 0, 4, 4, 0]
    aligned = align_text(make_spiky(path), " ab  c", LETTERS, 0.1, 1.0)
    assert times(aligned) == [("ab", 0.1, 0.5, "ab"), ("c", 0.7, 0.9, "c")]
    assert [(round(u.start, 6), round(u.end, 6)) for u in aligned[0].units] == [(0.1, 0.3), (0.4, 0.5)]
    assert all(unit.confidence == pytest.approx(0.9) for word in aligned for unit in word.units)


def test_a_word_is_as_sure_as_its_units_and_ends_with_the_recording():
    log_probs = np.concatenate([make_spiky([2], peak=0.9), make_spiky([3], peak=0.4)])
    (word,) = align_text(log_probs, "ab", LETTERS, 0.1, 0.15)
    assert word.word.confidence == pytest.approx(math.sqrt(0.9 * 0.4))
    assert word.word.end == word.units[1].end == 0.15


def test_pieces_belong_to_their_words():
    tokenizer = learn_tokenizer(TextConfig(tokens="bpe", vocabulary_size=16), ["one two one two three"])
    tokens = tokenizer.encode("two three one")
    path = [token for number in tokens for token in (number, 0)]
    aligned = align_text(make_spiky(path, len(tokenizer)), "two three one", tokenizer, 1.0, 99.0)
    assert [("".join(unit.text for unit in word.units)) for word in aligned] == ["two", "three", "one"]
    assert [word.word.start for word in aligned] == [word.units[0].start for word in aligned]
    assert sum(len(word.units) for word in aligned) == sum(tokenizer.surfaces[t] != " " for t in tokens)


@pytest.mark.parametrize("said", list(itertools.product(LEXICON["the"], repeat=3)))
def test_the_pronunciation_that_is_heard_is_taken(said):
    numbers = {symbol: number for number, symbol in enumerate(PHONES.symbols)}
    spoken = [*said[0], "IY", *said[1], *said[2], "AH"]
    path = [token for phone in spoken for token in (numbers[phone], 0)]
    aligned = align_text(make_spiky(path, len(PHONES)), "the he the the a", PHONES, 1.0, 99.0)
    assert [unit.text for word in aligned for unit in word.units] == spoken
    assert [word.word.text for word in aligned] == ["the", "he", "the", "the", "a"]


def test_a_pronunciation_that_has_no_room_is_not_taken():
    (word,) = align_text(draw_log_probs(0, 2, len(PHONES)), "the", PHONES, 1.0, 2.0)
    assert len(word.units) == 2
    lexicon = make_lexicon([("x", ("K",)), ("x", ("EH", "K", "S"))])
    tokenizer = Tokenizer((BLANK, *lexicon.phones), lexicon=lexicon)
    assert len(align_text(draw_log_probs(0, 2, 4), "x", tokenizer, 1.0, 2.0)[0].units) == 1


@pytest.mark.parametrize(
    ("text", "tokenizer", "error", "says"),
    [
        ("", LETTERS, AlignmentError, "no words"), ("  ", PHONES, AlignmentError, "no words"),
        ("ad", LETTERS, TextError, "'d'"), ("the b", PHONES, TextError, "'b'"),
        ("abcabc", LETTERS, AlignmentError, "needs 6 frames, the recording has 5"),
        ("aaa", LETTERS, None, ""), ("aab", LETTERS, None, ""),
        ("aabb", LETTERS, AlignmentError, "needs 6 "), ("the the the", PHONES, AlignmentError, "needs 6 "),
    ],
)  # fmt: skip
def test_a_text_that_does_not_fit_is_said(text, tokenizer, error, says):
    log_probs = draw_log_probs(3, 5, len(tokenizer))
    if error is None:
        assert align_text(log_probs, text, tokenizer, 1.0, 5.0)
        return
    with pytest.raises(error, match=says):
        align_text(log_probs, text, tokenizer, 1.0, 5.0)


# --- how they are written -------------------------------------------------------------------------


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=5)
GAPS = st.sampled_from([0, 0, 1, 400, 12345])  # tenths of a millisecond


@st.composite
def alignments(draw: st.DrawFn) -> AlignedText:
    """Words of units that last, one behind the other, inside the recording."""
    now = 0
    words = []
    for _ in range(draw(st.integers(1, 4))):
        units = []
        for text in draw(st.lists(TEXTS, min_size=1, max_size=4)):
            start = now + draw(GAPS)
            now = start + 1 + draw(GAPS)
            units.append(Word(text, start / 1e4, now / 1e4, 0.5))
        whole = Word("".join(unit.text for unit in units), units[0].start, units[-1].end, 0.5)
        words.append(AlignedWord(whole, tuple(units)))
    return AlignedText("a b.wav", (now + draw(GAPS)) / 1e4, tuple(words), "phones", "digits")


@settings(deadline=None)
@given(alignments())
def test_a_textgrid_reads_back(aligned):
    end, tiers = read_textgrid(ALIGNMENT_FORMATS["textgrid"](aligned))
    assert end == pytest.approx(aligned.duration, abs=1e-9)
    assert list(tiers) == ["words", "phones"]
    units = [unit for word in aligned.words for unit in word.units]
    for intervals, marks in zip(tiers.values(), ([w.word for w in aligned.words], units), strict=True):
        assert [interval for interval in intervals if interval[2]] == [
            (m.start, m.end, m.text) for m in marks
        ]
        edges = [edge for interval in intervals for edge in interval[:2]]
        assert edges[0] == 0 and edges[-1] == end
        assert edges[1:-1:2] == edges[2::2]  # no gap, no overlap
        assert all(start < stop for start, stop, _ in intervals)


@settings(deadline=None)
@given(alignments())
def test_ctm_and_json_read_back(aligned):
    units = [unit for word in aligned.words for unit in word.units]
    for kind, marks in (("ctm", [word.word for word in aligned.words]), ("ctm-units", units)):
        rows = [line.split(" ") for line in ALIGNMENT_FORMATS[kind](aligned).splitlines()]
        assert [(row[0], row[1], row[4], row[5]) for row in rows] == [
            ("a_b", "1", m.text, "0.500") for m in marks
        ]
        assert [float(row[2]) for row in rows] == pytest.approx([m.start for m in marks], abs=6e-4)
        assert [float(row[3]) for row in rows] == pytest.approx([m.end - m.start for m in marks], abs=6e-4)
    keys = json.loads(ALIGNMENT_FORMATS["json"](aligned))
    assert [Word(**unit) for word in keys["words"] for unit in word["units"]] == units
    assert [word["text"] for word in keys["words"]] == keys["text"].split(" ")
    assert (keys["unit"], keys["duration"]) == ("phones", aligned.duration)


# --- the command line -----------------------------------------------------------------------------


def run(*arguments: object, status: int = 0, stdin: str = "") -> Result:
    done = CliRunner().invoke(cli, ["align", "--model", "digits", *map(str, arguments)], input=stdin)
    assert done.exception is None or isinstance(done.exception, SystemExit | UserError), done.exception
    assert (done.exit_code if not isinstance(done.exception, UserError) else 1) == status, done.output
    return done


def test_a_text_is_given_or_in_a_file_or_from_stdin(tmp_path):
    (tmp_path / "text").write_text("\ufeffOne, eight;\nseven -- two.\n", encoding="utf-8")
    given = run(STRING, "one eight seven two").stdout
    rows = [line.split() for line in given.splitlines()]
    assert [row[4] for row in rows] == ["one", "eight", "seven", "two"]
    edges = [float(edge) for row in rows for edge in (row[2], float(row[2]) + float(row[3]))]
    assert edges == sorted(edges) and edges[-1] < 3.6
    assert all(float(row[5]) > 0.9 for row in rows)
    as_written = given.replace("one", "One,").replace("eight", "eight;").replace("two", "two.")
    assert run(STRING, tmp_path / "text").stdout == as_written
    assert run(STRING, "-", "--threads", 1, stdin="one eight seven two").stdout == given
    assert run(STRING, "one eight seven two", "-o", tmp_path / "new" / "a.ctm").stdout == ""
    assert (tmp_path / "new" / "a.ctm").read_text() == given


def test_a_file_is_written_as_it_ends_unless_told(tmp_path):
    def written(name: str, *options: str) -> str:
        run(STRING, "one eight seven two", "-o", tmp_path / name, *options)
        return (tmp_path / name).read_text(encoding="utf-8")

    assert written("a.TextGrid").startswith('File type = "ooTextFile"')
    words = json.loads(written("a.json"))["words"]
    assert " ".join(word["text"] for word in words) == "one eight seven two"
    assert written("times") == written("a.ctm") == written("b.json", "-f", "ctm")
    assert "a.tsv: say with -f" in run(STRING, "one", "-o", tmp_path / "a.tsv", status=2).stderr
    assert written("a.srt").splitlines()[2:3] == ["one eight"]
    assert written("a.vtt").startswith("WEBVTT\n\n00:00:00.360 --> ")


def test_the_text_keeps_its_spelling_and_remarks_are_no_words(tmp_path):
    plain = run(STRING, "one eight seven two").stdout.splitlines()
    done = run(STRING, "ONE, (laughs) 8; ¿ seven — Zwölfundzwanzig 2! [end]", "-f", "json")
    aligned = json.loads(done.stdout)
    assert [word["text"] for word in aligned["words"]] == ["ONE,", "8;", "seven", "2!"]
    assert [f"{word['start']:.3f}" for word in aligned["words"]] == [line.split()[2] for line in plain]
    assert aligned["remarks"] == ["(laughs)", "[end]"]
    assert aligned["unplaced"] == ["Zwölfundzwanzig"]
    assert "what stands in brackets is no words: '(laughs)', '[end]'" in done.stderr
    assert "the model cannot spell them: 'Zwölfundzwanzig'" in done.stderr
    assert "cannot spell a word of the text" in str(run(STRING, "xylophone", status=1).exception)


def test_another_text_is_not_believed():
    rows = run(STRING, "one two three four").stdout.splitlines()
    assert float(rows[0].split()[5]) > 0.9
    assert min(float(row.split()[5]) for row in rows) < 0.01


def test_a_text_that_nobody_says_is_told():
    assert "hardly any word" in run(STRING, "five six nine zero").stderr
    assert run(STRING, "one eight seven two").stderr == ""


def test_words_have_the_times_of_a_transcript():
    import asr

    model = asr.load("digits", device="cpu")
    transcript = model.transcribe(STRING)
    aligned = model.align(io.BytesIO(STRING.read_bytes()), transcript.text)
    words = [word for segment in transcript.segments for word in segment.words]
    assert [word.word.text for word in aligned.words] == [word.text for word in words]
    for found, word in zip(aligned.words, words, strict=True):
        assert abs(found.word.start - word.start) <= model.frame_seconds + 1e-9
        assert abs(found.word.end - word.end) <= model.frame_seconds + 1e-9
    assert (aligned.audio, aligned.unit, aligned.model) == ("-", "pieces", "digits")


def test_a_long_recording_is_aligned_as_its_parts_are():
    import asr

    model = asr.load("digits", device="cpu")
    samples = read_audio(STRING, model.sample_rate)
    many = 12
    assert many * len(samples) > LONGEST_CHUNK_SECONDS * model.sample_rate
    joined = io.BytesIO()
    soundfile.write(joined, np.tile(samples, many), model.sample_rate, format="WAV", subtype="FLOAT")
    text = "one eight seven two"
    heard: list[float] = []
    once = model.align(STRING, text).words
    long = model.align(joined, " ".join([text] * many), heard.append).words
    seconds = many * len(samples) / model.sample_rate
    assert 0.8 * seconds <= sum(heard) < 1.3 * seconds  # pieces overlap, silence is left out
    assert len(long) == many * len(once)
    for place, word in enumerate(long):
        repeat, number = divmod(place, len(once))
        begin = repeat * len(samples) / model.sample_rate
        assert word.word.start - begin == pytest.approx(once[number].word.start, abs=0.1)
        assert word.word.end - begin == pytest.approx(once[number].word.end, abs=0.1)
        assert word.word.confidence > 0.5


@pytest.mark.parametrize(
    ("audio", "text", "named"),
    [
        (STRING, "", r"digits-lucas\.flac: the text has no words"), (STRING, "?!", "no words"),
        (STRING, "one " * 300, r"digits-lucas\.flac: the text is too long"),
        ("no.wav", "one", r"^no\.wav: cannot be read: no such file$"),
        (STRING, "no.txt", r"no\.txt: no such"),
        (STRING, str(STRING), r"digits-lucas\.flac: is not UTF-8"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(audio, text, named):
    done = run(audio, text, status=1)
    assert isinstance(done.exception, UserError)
    assert "\n" not in str(done.exception)
    with pytest.raises(UserError, match=named):
        raise done.exception


def test_words_that_the_lexicon_lacks_are_pronounced_as_its_own_are():
    said = "this is physically impossible when conscious"
    whole = open_recognizer("english", "cpu", lm="none", beam_size=1)
    words = whole.tokenizer.lexicon.words
    some = {word for number, word in enumerate(words) if number % 20 == 0} | set(said.split())
    lexicon = Lexicon({word: words[word] for word in some})  # all of them take long to learn
    recognizer = replace(whole, tokenizer=replace(whole.tokenizer, lexicon=lexicon))
    sample = Path(__file__).parents[2] / "samples" / "english-1272.flac"
    known = recognizer.align(sample, said)
    guessed = recognizer.align(sample, "This is fizzically impossible when conshus.")
    assert guessed.text == "This is fizzically impossible when conshus."
    for ours, theirs in zip(guessed.words, known.words, strict=True):
        assert ours.word.start == pytest.approx(theirs.word.start, abs=0.1)
        assert ours.word.end == pytest.approx(theirs.word.end, abs=0.1)
    with pytest.raises(G2PError, match="cannot be pronounced"):
        add_pronunciations(LEXICON, ["ąę"])

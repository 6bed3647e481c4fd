"""Word search over phones: what exhaustive search finds, homophones, pronunciations, long recordings."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import UserError
from asr.lm.model import NgramModel
from asr.search import SearchConfig, lexicon_beam, lexicon_beam_arrays, search_greedily
from asr.search.beam_search import make_beam_search
from asr.search.lexicon_beam import NO_TRIE, LexiconBeamSearch
from asr.search.lexicon_beam_tables import HYPOTHESIS, make_room
from asr.search.prefix_beam import PrefixBeamSearch
from asr.text.lexicon import Lexicon
from asr.text.tokenizer import BLANK, Tokenizer
from asr.transcript.values import Word
from tests.reference import every_label_sequence
from tests.tiny import estimate_bigrams

UNHURRIED = settings(deadline=None, max_examples=40)

WORDS = Lexicon(
    {
        "to": (("T", "U"),),
        "two": (("T", "U"),),  # sounds like "to"
        "toot": (("T", "U", "T"),),  # begins like it
        "tea": (("T",), ("T", "T")),  # two pronunciations
        "u": (("U",),),  # "to" is "tea u", too
        "ut": (("U", "T"),),  # the language model lacks it
    }
)
TOKENIZER = Tokenizer((BLANK, *WORDS.phones), lexicon=WORDS)
WIDE = SearchConfig(
    beam_size=4000,
    beam_threshold=500.0,
    token_threshold=-500.0,
    blank_threshold=1.0,
    unknown_score=-0.7,
    recombine=False,
)


MODEL = estimate_bigrams("to tea", "two u", "toot to u", "tea tea", "two toot")


def draw_log_probs(seed: int, frames: int, vocabulary: int = 3) -> np.ndarray:
    """Random normalised log-probs."""
    logits = np.random.default_rng(seed).normal(0, 2, (frames, vocabulary))
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def list_readings(tokens: tuple[int, ...], lexicon: Lexicon) -> list[tuple[str, ...]]:
    """All ways to read phones as words; one that can be had by several pronunciations comes as often."""
    if not tokens:
        return [()]
    phones = [TOKENIZER.symbols[token] for token in tokens]
    return [
        (word, *rest)
        for word, variants in lexicon.words.items()
        for said in variants
        if tuple(phones[: len(said)]) == said
        for rest in list_readings(tokens[len(said) :], lexicon)
    ]


def count_phrase_words(words: tuple[str, ...], phrases: list[str]) -> int:
    """How many words of ``words`` are in a phrase, one that is in several counted for each."""
    starts = range(len(words))
    split = [tuple(phrase.split()) for phrase in phrases]
    return sum(len(p) for p in split for i in starts if words[i : i + len(p)] == p)


def score_every_reading(
    log_probs: np.ndarray, config: SearchConfig, model: NgramModel | None, phrases: list[str]
):
    """The score of every word sequence, by its definition."""
    acoustic: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for tokens, log_prob in every_label_sequence(log_probs.astype(np.float64)).items():
        for words in list_readings(tokens, WORDS):
            acoustic[words].append(log_prob)
    scores = {}
    for words, parts in acoustic.items():
        heard, lm = float(np.logaddexp.reduce(parts)), 0.0
        extra = config.hotword_weight * count_phrase_words(words, phrases)
        if model is not None:
            log_probs_, state = model.score_words(words, model.begin)
            lm = sum(log_probs_) + model.score_words(["</s>"], state)[0][0]
            hot = " ".join(phrases).split()  # a hot word that the model lacks counts as known
            unknown = [w for w in words if model.vocabulary.find(w) < 0 and w not in hot]
            extra += config.unknown_score * sum(map(len, unknown))
        weight = config.lm_weight if model is not None else 0.0
        scores[words] = heard + weight * lm + config.word_bonus * len(words) + extra
    return scores


@UNHURRIED
@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(0, 5),
    lm_weight=st.floats(0.1, 2.0),
    word_bonus=st.floats(-2.0, 2.0),
    with_model=st.booleans(),
    phrases=st.sampled_from([[], ["two"], ["ut"], ["to to"], ["u tea", "tea", "tea u to"]]),
)
def test_a_wide_beam_finds_what_exhaustive_search_finds(
    seed, frames, lm_weight, word_bonus, with_model, phrases
):
    log_probs = draw_log_probs(seed, frames)
    model = MODEL if with_model else None
    config = replace(WIDE, lm_weight=lm_weight, word_bonus=word_bonus, hotword_weight=1.3)
    expected = score_every_reading(log_probs, config, model, phrases)
    found = LexiconBeamSearch(config, TOKENIZER, model, phrases).find_best(log_probs, n_best=10_000)
    assert {tuple(e.word for e in one.entries) for one in found} == set(expected)
    for one in found:
        assert one.score == pytest.approx(expected[tuple(e.word for e in one.entries)], abs=1e-4)
        assert one.tokens == tuple(t for e in one.entries for t in e.tokens)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    quick = LexiconBeamSearch(replace(config, recombine=True), TOKENIZER, model, phrases).find_best(
        log_probs
    )[0]
    assert scores[0] - 0.7 < quick.score < scores[0] + 1e-4  # what is lost is at most a rival's paths


@UNHURRIED
@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(0, 30),
    beam_size=st.sampled_from([1, 2, 5, 50, 500]),
    rivals=st.sampled_from([0, 1, 2, 5]),
    with_model=st.booleans(),
    phrases=st.sampled_from([[], ["two"], ["u tea", "tea", "tea u to"]]),
    parts=st.integers(1, 3),
)
def test_compiled_code_and_numpy_search_alike(seed, frames, beam_size, rivals, with_model, phrases, parts):
    from asr.search import lexicon_beam_kernel  # imports numba, which a test below looks for

    config = replace(WIDE, beam_size=beam_size, blank_threshold=0.8)
    search = LexiconBeamSearch(config, TOKENIZER, MODEL if with_model else None, phrases)
    trie = NO_TRIE if search.model is None else search.model.trie
    limits = search.limits._replace(rivals=rivals)
    log_probs = draw_log_probs(seed, frames)
    states = []
    for advance in (lexicon_beam_arrays.advance, lexicon_beam_kernel.advance):
        state, frame = search._make_state(), 0
        for rows in np.array_split(log_probs, parts):
            frame = advance(search.table, trie, limits, state, rows, 0)
            while frame < len(rows):
                state = make_room(state)
                frame = advance(search.table, trie, limits, state, rows, frame)
        states.append(state)
    ours, compiled = states
    size, histories = ours.numbers[:2].tolist()
    assert compiled.numbers[:2].tolist() == [size, histories]
    for name in ("blank", "token", "rank"):
        np.testing.assert_allclose(ours.beam[name][:size], compiled.beam[name][:size], atol=1e-9)
    for name in ("words_hash", "history", "node", "last", "state", "hot", "entry"):
        assert ours.beam[name][:size].tolist() == compiled.beam[name][:size].tolist()
    assert ours.parents[:histories].tolist() == compiled.parents[:histories].tolist()
    assert ours.entries[:histories].tolist() == compiled.entries[:histories].tolist()


@UNHURRIED
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 60),
    rivals=st.integers(1, 6),
    pairs=st.sampled_from([1, 9]),
)
def test_one_that_is_beaten_by_so_many_rivals_is_dropped(seed, count, rivals, pairs):
    draw = np.random.default_rng(seed)
    hypotheses = np.zeros(count, HYPOTHESIS)
    hypotheses["state"] = draw.integers(0, 3, count)
    hypotheses["blank"], hypotheses["token"] = draw.integers(-5, 0, (2, count))
    expected: list[int] = []
    for place, one in enumerate(hypotheses):
        before = hypotheses[expected]
        beaten = (before["state"] == one["state"]) & (before["blank"] >= one["blank"])
        if (beaten & (before["token"] >= one["token"])).sum() < rivals:
            expected.append(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexicon_beam_arrays, "MOST_PAIRS", pairs)
        assert lexicon_beam_arrays.find_survivors(hypotheses, rivals).tolist() == expected


def test_a_long_recording_goes_to_compiled_code_and_a_short_one_needs_none():
    program = """
import sys
import numpy as np
from asr.search import lexicon_beam
from tests.search.test_lexicon_beam import MODEL, TOKENIZER, WIDE, draw_log_probs
from dataclasses import replace
lexicon_beam.UNCOMPILED_ROWS = 60
search = lexicon_beam.LexiconBeamSearch(replace(WIDE, beam_size=20), TOKENIZER, MODEL)
before = {"asr.search.lexicon_beam_kernel"} & set(sys.modules)
short = draw_log_probs(1, 40)
texts = [search.find_best(short)[0].tokens]
between = {"asr.search.lexicon_beam_kernel"} & set(sys.modules)
texts.append(search.find_best(short)[0].tokens)
after = {"asr.search.lexicon_beam_kernel"} & set(sys.modules)
print(len(before), len(between), len(after), texts[0] == texts[1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "1", "True"]


@UNHURRIED
@given(
    seed=st.integers(0, 10**6),
    threshold=st.floats(0.5, 6.0),
    word_bonus=st.floats(-2.0, 2.0),
    with_model=st.booleans(),
    phrases=st.sampled_from([[], ["two"], ["u tea", "tea", "tea u to"]]),
)
def test_what_is_skipped_early_is_what_the_threshold_drops(seed, threshold, word_bonus, with_model, phrases):
    config = replace(WIDE, beam_size=50, beam_threshold=threshold, word_bonus=word_bonus)
    decoder = LexiconBeamSearch(config, TOKENIZER, MODEL if with_model else None, phrases)
    log_probs = draw_log_probs(seed, 12)
    found = decoder.find_best(log_probs, n_best=50)
    decoder.table = decoder.table._replace(ending=np.inf)  # nothing is skipped
    assert found == decoder.find_best(log_probs, n_best=50)


@UNHURRIED
@given(seed=st.integers(0, 10**6))
def test_a_closed_lexicon_has_only_words_of_the_language_model(seed):
    log_probs = draw_log_probs(seed, 5)
    expected = score_every_reading(log_probs, WIDE, MODEL, [])
    best = max(score for words, score in expected.items() if "ut" not in words)
    found = LexiconBeamSearch(replace(WIDE, closed=True), TOKENIZER, MODEL).find_best(log_probs)[0]
    assert found.score == pytest.approx(best, abs=1e-4)


def speak_phones(phones: str, sure: float = 0.9, frames: int = 2) -> np.ndarray:
    """Log-probs of phones, each some frames long, a blank behind it."""
    tokens = [TOKENIZER.symbols.index(phone) for phone in phones.split()]
    path = [t for token in tokens for t in [token] * frames + [0]]
    probs = np.full((len(path), len(TOKENIZER)), (1 - sure) / (len(TOKENIZER) - 1))
    probs[np.arange(len(path)), path] = sure
    return np.log(probs).astype(np.float32)


def test_the_language_model_tells_words_that_sound_alike():
    config = SearchConfig(beam_size=20)
    heard = speak_phones("T U T U")
    models = (estimate_bigrams("to two", "toot"), estimate_bigrams("two to", "toot"))
    one, other = (LexiconBeamSearch(config, TOKENIZER, m).find_hypotheses(heard, 0.04)[0] for m in models)
    assert (one.text, other.text) == ("to two", "two to")
    assert one.tokens == other.tokens == search_greedily(heard, TOKENIZER, 0.04).tokens


def test_what_comes_later_decides_which_word_it_was():
    # Alone "to" is more likely, but only "two" goes before "toot".
    model = estimate_bigrams("to", "to", "to tea", "two toot")
    decoder = LexiconBeamSearch(SearchConfig(beam_size=50, lm_weight=1.5), TOKENIZER, model)
    assert decoder.find_hypotheses(speak_phones("T U"), 0.04)[0].text == "to"
    assert decoder.find_hypotheses(speak_phones("T U T U T"), 0.04)[0].text == "two toot"


def test_hot_words_are_heard_where_they_can_be_and_nowhere_else():
    config = SearchConfig(beam_size=20, hotword_weight=2.0)
    model = estimate_bigrams("to to tea", "to toot", "to to", "two")
    plain, hot = (
        LexiconBeamSearch(config, TOKENIZER, model, phrases) for phrases in ([], ["two", "two toot"])
    )
    heard = speak_phones("T U T U T", sure=0.8)
    assert plain.find_best(heard)[0].entries[0].word == "to"
    assert [entry.word for entry in hot.find_best(heard)[0].entries] == ["two", "toot"]
    unrelated = speak_phones("T T", sure=0.98)
    assert hot.find_best(unrelated)[0].tokens == plain.find_best(unrelated)[0].tokens


def test_a_hot_word_that_the_lexicon_lacks_is_pronounced_as_its_words_are():
    words = {
        "".join(pair): (tuple(p.upper() for p in pair),) for pair in ("tu", "ut", "ta", "at", "ua", "au")
    }
    lexicon = Lexicon(words | {"tut": (("T", "U", "T"),), "tat": (("T", "A", "T"),)})
    tokenizer = Tokenizer((BLANK, *lexicon.phones), lexicon=lexicon)
    decoder = LexiconBeamSearch(SearchConfig(beam_size=20), tokenizer, None, ["tutu"])
    tokens = [tokenizer.symbols.index(phone) for phone in "TUTU"]
    probs = np.full((8, len(tokenizer)), 0.02)
    probs[np.arange(8), [t for token in tokens for t in (token, 0)]] = 0.94
    (found,) = decoder.find_best(np.log(probs).astype(np.float32))
    assert [entry.word for entry in found.entries] == ["tutu"]


def test_words_have_the_times_of_their_phones():
    model = estimate_bigrams("toot u", "tea")
    decoder = LexiconBeamSearch(SearchConfig(beam_size=20, closed=True), TOKENIZER, model)
    (hypothesis,) = decoder.find_hypotheses(speak_phones("T U T U"), 0.1)
    assert hypothesis.text == "toot u"
    first, second = hypothesis.words
    assert (first.start, first.end) == pytest.approx((0.0, 0.8))
    assert (second.start, second.end) == pytest.approx((0.9, 1.1))
    assert first.confidence == pytest.approx(0.9, abs=1e-5)


def test_an_unfinished_word_at_the_end_is_left_out():
    lexicon = Lexicon({"toot": (("T", "U", "T"),)})
    tokenizer = Tokenizer((BLANK, "T", "U"), lexicon=lexicon)
    decoder = LexiconBeamSearch(SearchConfig(beam_size=3, beam_threshold=2.0), tokenizer)
    assert decoder.find_hypotheses(speak_phones("T U T T U", 0.98), 0.04)[0].text == "toot"


@pytest.mark.parametrize("frames", [0, 1])
def test_next_to_no_recording_is_no_words(frames):
    silence = np.log(np.tile(np.array([[0.98, 0.01, 0.01]], np.float32), (frames, 1)))
    decoder = LexiconBeamSearch(SearchConfig(beam_size=4, blank_threshold=1.0), TOKENIZER, MODEL)
    assert decoder.find_hypotheses(silence, 0.04)[0].words == ()


def test_long_recordings_make_room_for_their_words():
    phones = " ".join(["T U T U"] * 400)
    model = estimate_bigrams("to two")
    decoder = LexiconBeamSearch(SearchConfig(beam_size=8, closed=True), TOKENIZER, model)
    hypothesis = decoder.find_hypotheses(speak_phones(phones), 0.04)[0]
    assert len(hypothesis.text.split()) == 800
    assert hypothesis.tokens == search_greedily(speak_phones(phones), TOKENIZER, 0.04).tokens
    assert all(isinstance(word, Word) and word.start < word.end for word in hypothesis.words)


@pytest.mark.parametrize("uncompiled", [0, 360])
def test_threads_find_the_same_as_one(monkeypatch, uncompiled):
    monkeypatch.setattr(lexicon_beam, "UNCOMPILED_ROWS", uncompiled)
    recordings = [draw_log_probs(seed, 30) for seed in range(12)]
    many, one = (
        LexiconBeamSearch(SearchConfig(beam_size=20), TOKENIZER, MODEL).search_batch(
            recordings, 0.04, threads
        )
        for threads in (4, 1)
    )
    assert many == one


def test_the_search_follows_from_the_vocabulary():
    assert isinstance(make_beam_search(WIDE, TOKENIZER), LexiconBeamSearch)
    assert isinstance(make_beam_search(WIDE, Tokenizer((BLANK, "a"))), PrefixBeamSearch)
    with pytest.raises(UserError, match="hot words: 'xyz' cannot be pronounced"):
        make_beam_search(WIDE, TOKENIZER, None, ["xyz"])
    for closed in (True, False):
        with pytest.raises(UserError, match=r"no word of the language model .* perhaps capitals"):
            make_beam_search(replace(WIDE, closed=closed), TOKENIZER, estimate_bigrams("TO TWO", "TEA"))


def test_a_beam_that_outgrows_the_slots_of_its_table_finds_the_same():
    from asr.search import lexicon_beam_kernel, lexicon_beam_tables

    search = LexiconBeamSearch(replace(WIDE, beam_size=400, recombine=True), TOKENIZER, MODEL)
    log_probs = draw_log_probs(3, 12)
    beams = []
    for slots in (4, lexicon_beam_tables.SLOTS):
        state = search._make_state()
        state.numbers[lexicon_beam_tables.SLOTS_USED] = slots
        lexicon_beam_kernel.advance(search.table, MODEL.trie, search.limits, state, log_probs, 0)
        assert not state.table.any()  # it is empty between frames
        beams.append(state.beam[: state.numbers[0]])
    assert beams[0]["words_hash"].tolist() == beams[1]["words_hash"].tolist()
    np.testing.assert_array_equal(beams[0]["rank"], beams[1]["rank"])
    assert (np.diff(beams[0]["rank"]) <= 0).all()  # best first

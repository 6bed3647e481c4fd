"""What a recogniser returns: words, hypotheses, segments, transcripts and aligned texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Word:
    """One word, its start and end in seconds, and how sure the model is of it, 0 to 1."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """What a search found: tokens without blanks, their text, its score (natural log) and words."""

    tokens: tuple[int, ...]
    text: str
    score: float
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording, in seconds, and what was said in it; ``speaker`` names a channel.

    ``written`` has each of the words as it is written, with capitals and punctuation, where that is known.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    speaker: str = ""
    written: tuple[str, ...] = ()

    @property
    def readable(self) -> str:
        """The text with capitals and punctuation, where that is known."""
        return " ".join(self.written) if self.written else self.text


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording; every output format is written from this.

    ``duration`` is in seconds. Segments and words follow each other without overlap (of each speaker, where
    channels are speakers) and lie inside the recording; ``settings`` says how it was transcribed, ``faults``
    what is missing of the recording or of its transcript, ``notes`` what else is worth knowing.
    """

    audio: str
    duration: float
    segments: tuple[Segment, ...]
    model: str
    settings: Mapping[str, object] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The words of all segments."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def readable(self) -> str:
        """The text with capitals and punctuation, where that is known."""
        return " ".join(segment.readable for segment in self.segments if segment.text)


@dataclass(frozen=True)
class AlignedWord:
    """A word of a given text with its place in a recording, and the units that spell it."""

    word: Word
    units: tuple[Word, ...]


@dataclass(frozen=True)
class AlignedText:
    """A given text in a recording; ``unit`` says what spells its words: characters, pieces or phones.

    Words are as the text writes them, with capitals, figures and punctuation. ``remarks`` are what stands in
    brackets and is no words, ``unplaced`` the words that the model cannot spell; neither has a time.
    """

    audio: str
    duration: float
    words: tuple[AlignedWord, ...]
    unit: str
    model: str
    unplaced: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The words that have a time."""
        return " ".join(aligned.word.text for aligned in self.words)

    @property
    def transcript(self) -> Transcript:
        """The same as a transcript of one segment, for the formats of transcripts."""
        words = tuple(aligned.word for aligned in self.words)
        segments = (Segment(words[0].start, words[-1].end, self.text, words),) if words else ()
        return Transcript(self.audio, self.duration, segments, self.model)


def clip_words(words: Sequence[Word], duration: float) -> tuple[Word, ...]:
    """The words, none ending behind ``duration`` seconds: the last frame of a recording may be half empty."""
    return tuple(replace(word, end=min(word.end, duration)) for word in words)


def make_words(
    surfaces: Sequence[str],
    starts: Sequence[float],
    ends: Sequence[float],
    confidences: Sequence[float],
) -> tuple[Word, ...]:
    """Put words together from tokens; each word has the times of its own tokens.

    Args:
        surfaces: the text of each token; white space separates words wherever in a token it stands.
        starts, ends: seconds, per token, never falling.
        confidences: 0 to 1, per token; that of a word is the geometric mean over its tokens.
    """
    words: list[Word] = []
    letters = ""
    members: list[int] = []

    def close() -> None:
        nonlocal letters, members
        if letters:
            confidence = 1.0
            for member in members:
                confidence *= confidences[member] ** (1 / len(members))
            words.append(Word(letters, starts[members[0]], ends[members[-1]], confidence))
        letters, members = "", []

    for index, surface in enumerate(surfaces):
        for character in surface:
            if character.isspace():
                close()
                continue
            letters += character
            if not members or members[-1] != index:
                members.append(index)
    close()
    return tuple(words)

"""The tokenizer: text to token numbers and back; the vocabulary is characters, BPE pieces or phones."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asr.core.config import option
from asr.core.files import read_text, replace_file, write_text
from asr.errors import UserError
from asr.text.lexicon import Lexicon, open_lexicon, read_lexicon, write_lexicon
from asr.text.normalise import NORMALISERS as NORMALISERS  # TextConfig names one of them

BLANK = "<blank>"
BLANK_TOKEN = 0  # its number: the place of the blank in ``symbols`` and in each row of log-probs
SPACE = "<space>"
WORD_START = "▁"  # how sentencepiece writes the space before a word

TOKENS_FILE = "tokens.txt"
BPE_FILE = "bpe.model"
LEXICON_FILE = "lexicon.txt"
PACKED_LEXICON_FILE = "lexicon.txt.gz"  # the same compressed, as in models that ship


class TextError(UserError):
    """A text that this vocabulary cannot spell; names the symbol and the utterance."""


@dataclass(frozen=True)
class TextConfig:
    """How transcripts become token sequences."""

    normaliser: Literal["none-v1", "letters-v1"] = option(
        "letters-v1", "Named, versioned normaliser applied to every transcript before tokens and scores."
    )
    tokens: Literal["char", "bpe", "phones"] = option(
        "char",
        "Single characters; sentencepiece byte-pair pieces (shorter outputs, larger vocabulary); or the "
        "phones of each word's first pronunciation, which need the least data.",
    )
    vocabulary_size: int = option(256, "Number of pieces, blank included, when tokens are 'bpe'.")
    lexicon: str = option(
        "", "A file of asr lexicon in the data folder with every word, when tokens are 'phones'."
    )


@dataclass(frozen=True)
class Tokenizer:
    """Text to token numbers and back; ``symbols[0]`` is the blank.

    ``bpe`` is a serialised sentencepiece model, empty for other vocabularies. Its piece 0 (its unknown)
    takes the blank's place, so that its numbers are the token numbers. With a ``lexicon`` the symbols are
    phones, and ``decode`` returns phones: words need a search.
    """

    symbols: tuple[str, ...]
    bpe: bytes = b""
    lexicon: Lexicon | None = None

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def surfaces(self) -> tuple[str, ...]:
        """What each token contributes to the text; the blank contributes nothing."""
        if self.lexicon is not None:
            return ("", *(" " + symbol for symbol in self.symbols[1:]))
        if self.bpe:
            return ("", *(symbol.replace(WORD_START, " ") for symbol in self.symbols[1:]))
        return ("", *(" " if symbol == SPACE else symbol for symbol in self.symbols[1:]))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {surface: number for number, surface in enumerate(self.surfaces) if surface}

    @cached_property
    def _phones(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols)}

    @cached_property
    def _pieces(self) -> Any:
        return _sentencepiece().SentencePieceProcessor(model_proto=self.bpe)

    @property
    def unit(self) -> str:
        """What its tokens are, in a word for people."""
        return "phones" if self.lexicon is not None else "pieces" if self.bpe else "characters"

    def encode_pronunciations(self, word: str) -> list[np.ndarray]:
        """The token numbers of each pronunciation of a word; raises ``TextError`` as ``encode`` does."""
        assert self.lexicon is not None
        if word not in self.lexicon:
            raise _unknown_word(word, "")
        return [
            np.array([self._phones[phone] for phone in phones], np.int32) for phones in self.lexicon[word]
        ]

    def encode(self, text: str, utterance: str = "") -> list[int]:
        """The tokens of ``text`` in Unicode's NFKC form, with each run of white space as one space.

        Raises ``TextError``, which names the symbol and the ``utterance``, for a symbol outside the
        vocabulary or, where tokens are phones, a word outside the lexicon.
        """
        text = canonicalise(text)
        if self.lexicon is not None:
            return [self._phones[phone] for phone in _pronounce(text, self.lexicon, utterance)]
        if not self.bpe:
            unknown = next((c for c in text if c not in self._numbers), None)
            if unknown is not None:
                raise _unknown_symbol(unknown, text, utterance)
            return [self._numbers[c] for c in text]
        numbers: list[int] = self._pieces.encode(text)
        if 0 in numbers:
            raise _unknown_symbol(self._pieces.encode(text, out_type=str)[numbers.index(0)], text, utterance)
        return numbers

    def can_encode(self, text: str) -> bool:
        """Whether ``encode`` takes ``text``."""
        try:
            self.encode(text)
        except TextError:
            return False
        return True

    def find_unknown(self, text: str) -> set[str]:
        """What ``encode`` would refuse: characters or, where tokens are phones, words."""
        if self.lexicon is not None:
            return set(canonicalise(text).split()) - set(self.lexicon.words)
        return set(canonicalise(text)) - set("".join(self.surfaces)) - {" "}

    def to_phones(self, text: str) -> str:
        """``text`` as ``decode`` returns it for perfect tokens: phones where tokens are phones.

        Words outside the lexicon stay, so that each counts as at least one error.
        """
        if self.lexicon is None:
            return text
        pronunciations = (
            self.lexicon[word][0] if word in self.lexicon else (word,) for word in canonicalise(text).split()
        )
        return " ".join(phone for phones in pronunciations for phone in phones)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a token sequence without blanks; leading and trailing spaces are removed."""
        return " ".join("".join(self.surfaces[token] for token in tokens).split())


def canonicalise(text: str) -> str:
    """The form in which texts are tokenised: NFKC, each run of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def learn_tokenizer(config: TextConfig, texts: Iterable[str], folder: str | Path = "") -> Tokenizer:
    """Learn the vocabulary from normalised training texts, or from a lexicon in the data ``folder``."""
    lines = [canonicalise(text) for text in texts]
    if not any(lines):
        raise TextError("no text to learn a vocabulary from: every training transcript is empty")
    if config.tokens == "phones":
        return _make_phone_tokenizer(config, Path(folder))
    if config.tokens == "bpe":
        return _learn_bpe(lines, config.vocabulary_size)
    characters = sorted(set().union(*lines))
    return Tokenizer((BLANK, *(SPACE if c == " " else c for c in characters)))


def _learn_bpe(lines: list[str], size: int) -> Tokenizer:
    model = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            character_coverage=1.0,
            normalization_rule_name="identity",  # canonicalise() has done it
            unk_id=0,  # takes the blank's place
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=1 << 20,
            minloglevel=2,
        )
    except RuntimeError as error:  # sentencepiece says how many pieces it could make
        reason = str(error).split(") ")[-1].strip()
        raise TextError(f"text.vocabulary_size = {size} does not fit the training text: {reason}") from error
    return _make_bpe_tokenizer(model.getvalue())


def _make_phone_tokenizer(config: TextConfig, folder: Path) -> Tokenizer:
    if not config.lexicon:
        raise TextError("text.tokens = 'phones' needs text.lexicon, a file that asr lexicon writes")
    lexicon = read_lexicon(folder / config.lexicon)
    return Tokenizer((BLANK, *lexicon.phones), lexicon=lexicon)


def _pronounce(text: str, lexicon: Lexicon, utterance: str) -> Iterator[str]:
    """The phones of each word's first pronunciation."""
    for word in text.split():
        if word not in lexicon:
            raise _unknown_word(word, utterance)
        yield from lexicon[word][0]


def _make_bpe_tokenizer(model: bytes) -> Tokenizer:
    pieces = _sentencepiece().SentencePieceProcessor(model_proto=model)
    return Tokenizer((BLANK, *(pieces.id_to_piece(i) for i in range(1, len(pieces)))), model)


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write ``tokens.txt`` (a symbol a line, line 0 the blank) and ``bpe.model`` or ``lexicon.txt``."""
    write_text(Path(folder) / TOKENS_FILE, "".join(symbol + "\n" for symbol in tokenizer.symbols))
    if tokenizer.bpe:
        with replace_file(Path(folder) / BPE_FILE) as temporary:
            temporary.write_bytes(tokenizer.bpe)
    if tokenizer.lexicon is not None:
        write_lexicon(tokenizer.lexicon, Path(folder) / LEXICON_FILE)
        (Path(folder) / PACKED_LEXICON_FILE).unlink(missing_ok=True)


def find_lexicon_file(folder: str | Path) -> Path | None:
    """The pronunciations of a model folder, as text or compressed; ``None`` where it has none."""
    paths = [Path(folder) / name for name in (LEXICON_FILE, PACKED_LEXICON_FILE)]
    return next((path for path in paths if path.exists()), None)


def read_symbols(folder: str | Path) -> tuple[str, ...]:
    """Read the symbols in ``tokens.txt``; raises ``TextError`` where they are not those of a tokenizer."""
    path = Path(folder) / TOKENS_FILE
    symbols = tuple(read_text(path, TextError).removesuffix("\n").split("\n"))
    if symbols[0] != BLANK or len(set(symbols)) < len(symbols):
        raise TextError(f"{path}: must begin with {BLANK} and name every symbol once")
    return symbols


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read what ``save_tokenizer`` wrote."""
    path, symbols = Path(folder) / TOKENS_FILE, read_symbols(folder)
    pronunciations = find_lexicon_file(folder)
    if pronunciations is not None:
        lexicon = open_lexicon(pronunciations)
        if symbols[1:] != lexicon.phones:
            raise TextError(f"{path}: does not list the phones of {pronunciations.name}")
        return Tokenizer(symbols, lexicon=lexicon)
    model = Path(folder) / BPE_FILE
    if not model.exists():
        return Tokenizer(symbols)
    try:
        tokenizer = _make_bpe_tokenizer(model.read_bytes())
    except (OSError, RuntimeError, ValueError) as error:  # a piece may be no UTF-8
        raise TextError(f"{model}: is not a sentencepiece model") from error
    if tokenizer.symbols != symbols:
        raise TextError(f"{path}: does not list the pieces of {model.name}")
    return tokenizer


def _unknown_word(word: str, utterance: str) -> TextError:
    where = f"utterance {utterance}: " if utterance else ""
    return TextError(
        f"{where}word {word!r} is not in the lexicon; make one of all manifests: "
        "asr lexicon --words MANIFEST --dictionary FILE"
    )


def _unknown_symbol(symbol: str, text: str, utterance: str) -> TextError:
    where = f"utterance {utterance}: " if utterance else ""
    codes = " ".join(f"U+{ord(c):04X}" for c in symbol)
    return TextError(f"{where}symbol {symbol!r} ({codes}) is not in the vocabulary; the text is {text!r}")


def _sentencepiece() -> Any:
    import sentencepiece  # only models with BPE tokens pay for it

    return sentencepiece

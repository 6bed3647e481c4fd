"""``Speller``: letters of a word to its phones, by a network that reads and one that spells.

Yao & Zweig 2015, "Sequence-to-sequence neural net models for grapheme-to-phoneme conversion": pronouncing is
translating. Letters are read from both ends, phones are written one after the other by the attention decoder
of ``asr.model.attention``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from asr.core.config import check_bounds, from_table, option, read_toml, section
from asr.core.files import check_regular, replace_file
from asr.errors import UserError
from asr.g2p.model import G2PError
from asr.model.attention import AttentionDecoder, DecoderConfig, DecoderScorer, attention_loss
from asr.model.encoders import EncoderConfig, RecurrentEncoder
from asr.model.folder import save_config, write_tensors
from asr.pretrained import CONFIG_FILE
from asr.recognition.folder import WEIGHTS_FILE
from asr.text.lexicon import Pronunciation

END_LETTER = "$"  # behind every word: there is something to look at when the last letter is done
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class SpellerConfig:
    """The network that pronounces words."""

    letters: tuple[str, ...] = option((), "Letters that it knows, those of the dictionary.")
    phones: tuple[str, ...] = option((), "Phones that it writes.")
    embedding: int = option(64, "Numbers that stand for a letter.", minimum=1, maximum=4096)
    size: int = option(128, "Hidden units that read letters, in each direction.", minimum=1, maximum=4096)
    layers: int = option(1, "Layers that read letters.", minimum=1, maximum=100)
    dropout: float = option(0.1, "Share of what they give set to zero in training.", minimum=0, below=1)
    decoder: DecoderConfig = section(DecoderConfig)

    def __post_init__(self) -> None:
        check_bounds(self, "speller")


USUAL_SPELLER = SpellerConfig(
    decoder=DecoderConfig("attention", size=256, embedding=64, attention=128, filters=8, reach=2)
)


class Speller(nn.Module):
    """Letters in, log-probs of phones out; phone 0 is the end."""

    def __init__(self, config: SpellerConfig) -> None:
        super().__init__()
        self.config = config
        self.letters = {letter: number for number, letter in enumerate((END_LETTER, *config.letters))}
        self.phones = {phone: number for number, phone in enumerate(("", *config.phones))}
        options = EncoderConfig(layers=config.layers, size=config.size, dropout=config.dropout)
        self.embedding = nn.Embedding(len(self.letters), config.embedding)
        self.encoder = RecurrentEncoder(options, config.embedding)
        decoder = replace(config.decoder, kind="attention", dropout=config.dropout)
        self.decoder = AttentionDecoder(decoder, self.encoder.output_size, len(self.phones))

    def encode_word(self, word: str) -> list[int]:
        """The numbers of a word's letters and its end; raises ``G2PError`` for a letter it does not know."""
        strange = next((letter for letter in word if letter not in self.letters), None)
        if strange is not None:
            raise G2PError(
                f"{word!r} cannot be pronounced: the dictionary has no word with {strange!r} in it"
            )
        return [*(self.letters[letter] for letter in word), self.letters[END_LETTER]]

    def encode_phones(self, phones: Pronunciation) -> list[int]:
        """The numbers of phones; raises ``KeyError`` for one that it does not write."""
        return [self.phones[phone] for phone in phones]

    def read(self, letters: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(batch, letters)`` and ``(batch,)`` to the states that the decoder looks at."""
        return self.encoder(self.embedding(letters), lengths)

    def forward(self, letters: Tensor, lengths: Tensor, phones: Tensor, sampling: float = 0.0) -> Tensor:
        """Log-probs of given phones, ``(batch, phones + 1, vocabulary)``, the last for the end."""
        log_probs, _ = self.decoder(*self.read(letters, lengths), phones, sampling)
        return log_probs

    @torch.no_grad()
    def start_spelling(self, word: str) -> DecoderScorer:
        """Start to write the phones of a word; raises ``G2PError`` for a letter it does not know."""
        numbers = torch.tensor([self.encode_word(word)])
        states, lengths = self.read(numbers, torch.tensor([numbers.shape[1]]))
        return DecoderScorer(self.decoder, self.decoder.remember(states, lengths))

    @torch.no_grad()
    def score_pronunciations(self, word: str, candidates: Sequence[Pronunciation]) -> np.ndarray:
        """Compute the natural log probability of each of several pronunciations, ``(candidates,)``."""
        numbers = torch.tensor([self.encode_word(word)])
        states, lengths = self.read(numbers, torch.tensor([numbers.shape[1]]))
        phones, counts = pad_numbers([self.encode_phones(phones) for phones in candidates])
        many = len(candidates)
        log_probs, _ = self.decoder(states.expand(many, -1, -1), lengths.expand(many), phones)
        return -attention_loss(log_probs, phones, counts).numpy()


def pad_numbers(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pad lists of numbers to ``(rows, longest)`` with zeros; also return their lengths."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True), torch.tensor([len(row) for row in rows])


# --- folders ----------------------------------------------------------------------------------------


def save_speller(speller: Speller, folder: Path) -> None:
    """Write ``config.toml`` and ``model.safetensors`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_config(speller.config, folder)
    with replace_file(folder / WEIGHTS_FILE) as temporary:
        write_tensors(speller.state_dict(), temporary)


def load_speller(folder: Path) -> Speller:
    """Read what ``save_speller`` wrote; raises ``UserError`` naming the file that is missing or wrong."""
    from safetensors.torch import load_file

    config = from_table(SpellerConfig, read_toml(folder / CONFIG_FILE))
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise UserError(f"{path}: is missing; 'asr lexicon --g2p attention' learns one and writes it")
    check_regular(path, UserError, MOST_BYTES)
    speller = Speller(config)
    try:
        speller.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: does not fit {folder / CONFIG_FILE}: {reason}") from error
    return speller.eval()

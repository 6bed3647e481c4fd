"""How to search: what a model folder keeps in its ``search.toml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr.core.config import ConfigError, check_bounds, option
from asr.errors import UserError

# Why a language model and a vocabulary may have no word in common.
OTHER_FORM = "its texts have another form, perhaps capitals (asr lm train has --normaliser)"

WIDEST_BEAM = 10_000
Phrases = Sequence[str] | Mapping[str, float]  # hot words and phrases, perhaps each with its own weight
HIGHEST = 100.0  # weight or score, a natural logarithm: nobody uses a tenth of it


class SearchError(UserError):
    """A search that cannot be made: its language model or a hot word does not fit the vocabulary."""


@dataclass(frozen=True)
class SearchConfig:
    """How hypotheses are found. Scores, weights and thresholds are natural logarithms.

    The bounds keep every score finite and every table small: compiled code relies on them.
    """

    beam_size: int = option(
        1,
        "Prefixes kept from frame to frame; 1 without a language model is greedy.",
        minimum=1,
        maximum=WIDEST_BEAM,
    )
    lm_weight: float = option(
        1.0,
        "Weight of the language model's log probability against the acoustic one.",
        minimum=0,
        maximum=HIGHEST,
    )
    word_bonus: float = option(0.0, "Added to the score for every word.", minimum=-HIGHEST, maximum=HIGHEST)
    prior_weight: float = option(
        0.0,
        "How much of each token's log_priors is taken off its log-probs: CTC finds rare tokens too seldom.",
        minimum=0,
        maximum=HIGHEST,
    )
    log_priors: tuple[float, ...] = option(
        (),
        "Log probability of each token on average over all frames, measured by asr tune.",
        minimum=-HIGHEST,
        maximum=0,
    )
    unknown_score: float = option(
        -3.0,
        "Added for every letter of a word that the language model lacks.",
        minimum=-HIGHEST,
        maximum=HIGHEST,
    )
    closed: bool = option(False, "Only words that the language model knows.")
    hotword_weight: float = option(
        8.0, "Added for every word of a hot word or phrase that was found.", minimum=0, maximum=HIGHEST
    )
    ctc_weight: float = option(
        0.3,
        "Share of CTC's scores where a model has an attention decoder; 1: CTC alone, frame by frame, as in "
        "models without a decoder.",
        minimum=0,
        maximum=1,
    )
    length_bonus: float = option(
        0.0,
        "Added for every token that an attention decoder spells; without CTC it is inclined to stop early.",
        minimum=-HIGHEST,
        maximum=HIGHEST,
    )
    coverage_weight: float = option(
        0.0,
        "Added for every frame that an attention decoder has looked at (Chorowski & Jaitly 2016).",
        minimum=-HIGHEST,
        maximum=HIGHEST,
    )
    beam_threshold: float = option(
        12.0, "Prefixes so much worse than the best of their frame are dropped.", above=0, maximum=1000
    )
    token_threshold: float = option(
        -12.0, "Tokens with a lower log-prob in a frame are not tried there.", below=0, minimum=-1000
    )
    blank_threshold: float = option(
        0.99, "Frames whose blank has at least this probability are skipped.", above=0, maximum=1
    )
    recombine: bool = option(
        True, "Drop prefixes that another one with the same future beats; false makes a wide beam exact."
    )
    rescore_size: int = option(
        50,
        "Hypotheses that a recurrent language model scores anew, where there is one.",
        minimum=1,
        maximum=1000,
    )
    rescore_weight: float = option(
        0.5, "Weight of the recurrent model's log probability.", minimum=0, maximum=HIGHEST
    )
    rescore_lm_weight: float = option(0.3, "What lm_weight becomes then.", minimum=0, maximum=HIGHEST)
    rescore_word_bonus: float = option(
        -0.5, "What word_bonus becomes then.", minimum=-HIGHEST, maximum=HIGHEST
    )
    confidence_slope: float = option(
        1.0,
        "A word's confidence is sigmoid(slope * logit(raw) + offset).",
        minimum=-HIGHEST,
        maximum=HIGHEST,
    )
    confidence_offset: float = option(
        0.0, "See confidence_slope; both are measured by asr tune.", minimum=-HIGHEST, maximum=HIGHEST
    )

    def __post_init__(self) -> None:
        check_bounds(self, "search")
        if self.prior_weight > 0 and not self.log_priors:
            raise ConfigError(
                f"'search.prior_weight' cannot be {self.prior_weight!r} without 'search.log_priors'; "
                "asr tune measures them"
            )

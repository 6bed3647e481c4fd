"""The search of models that spell with attention: rows of log-probs and states to hypotheses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np

from asr.lm.model import NgramModel
from asr.search.alignment import align_tokens, count_frames_needed
from asr.search.confidence import calibrate
from asr.search.config import Phrases, SearchConfig, SearchError
from asr.search.spelling_beam import Spelling, SpellingConfig, StepScorer, WordFusion, spell
from asr.text.tokenizer import Tokenizer
from asr.transcript.values import Hypothesis, make_words

BEAM = 8  # hypotheses, where a language model needs several and the config asks for none


class SpellingSearch:
    """A ``BeamSearch`` for one model with a decoder and one language model; threads may share it.

    ``start`` starts its decoder on the states of a recording, ``(frames, size)``. ``knows_ctc``: the model
    learned CTC, too, whose scores then have their share and whose paths say when words are spoken. Raises
    ``SearchError`` for a language model where tokens are phones.
    """

    phrases: Phrases = ()
    recurrent: None = None

    def __init__(
        self,
        config: SearchConfig,
        tokenizer: Tokenizer,
        start: Callable[[np.ndarray], StepScorer],
        knows_ctc: bool,
        model: NgramModel | None = None,
    ) -> None:
        if model is not None and tokenizer.lexicon is not None:
            raise SearchError("an attention decoder that spells phones goes with no language model of words")
        if model is not None and config.beam_size == 1:
            config = replace(config, beam_size=BEAM)
        self.config = config if knows_ctc else replace(config, ctc_weight=0.0)
        self.model = model
        self.tokenizer = tokenizer
        self.description = {
            "language_model": None if model is None else list(model.counts),
            "phrases": [],
            "decoder": "attention",
        }
        self._start = start
        self._knows_ctc = knows_ctc

    def search_batch(
        self, log_probs: Sequence[np.ndarray], frame_seconds: float, threads: int | None = None
    ) -> list[Hypothesis]:
        """Find the best hypothesis of every recording; torch has threads of its own."""
        return [self.find_hypotheses(rows, frame_seconds)[0] for rows in log_probs]

    def find_hypotheses(
        self, log_probs: np.ndarray, frame_seconds: float, n_best: int = 1
    ) -> list[Hypothesis]:
        """Find the best hypotheses of one recording, best first.

        Args:
            log_probs: ``(frames, vocabulary + size)``, of CTC, and behind them the states of the encoder.
            frame_seconds: seconds from one frame to the next.
        """
        if not len(log_probs):
            return [Hypothesis((), "", 0.0, ())]
        own = np.ascontiguousarray(log_probs[:, : len(self.tokenizer)])
        found = self.find_spellings(log_probs, n_best)
        return [self._make_hypothesis(own, result, frame_seconds) for result in found]

    def find_spellings(self, log_probs: np.ndarray, n_best: int = 1) -> list[Spelling]:
        """Find the best spellings of rows as ``find_hypotheses`` gets them, with where the decoder looked."""
        config, vocabulary = self.config, len(self.tokenizer)
        options = SpellingConfig(
            max(config.beam_size, n_best),
            len(log_probs),
            config.ctc_weight,
            config.length_bonus,
            config.coverage_weight,
            config.beam_threshold,
        )
        is_plain = self.model is None and not config.word_bonus
        fusion = None if is_plain else WordFusion(config, self.tokenizer.surfaces, self.model)
        scorer = self._start(log_probs[:, vocabulary:])
        return spell(scorer, options, log_probs[:, :vocabulary], fusion)[:n_best]

    def start_stream(self, frame_seconds: float) -> NoReturn:
        """Raise ``SearchError``: a decoder with attention looks at whole segments."""
        raise SearchError("an attention decoder cannot search block by block")

    def _make_hypothesis(self, rows: np.ndarray, result: Spelling, frame_seconds: float) -> Hypothesis:
        tokens = np.array(result.tokens, np.int32)
        if self._knows_ctc and count_frames_needed(tokens) <= len(rows):
            begins, ends, peaks = align_tokens(rows, tokens)[:3]
        else:
            begins = np.maximum.accumulate(result.weights[: len(tokens)].argmax(axis=1))
            ends, peaks = begins + 1, np.array(result.log_probs[: len(tokens)])
        words = make_words(
            [self.tokenizer.surfaces[token] for token in result.tokens],
            [float(begin) * frame_seconds for begin in begins],
            [float(end) * frame_seconds for end in ends],
            np.exp(peaks).tolist(),
        )
        text = self.tokenizer.decode(result.tokens)
        return Hypothesis(result.tokens, text, result.score, calibrate(words, self.config))

#!/usr/bin/env python3
"""Compare the beam search with its peers: word errors and milliseconds per utterance, on one thread.

    OMP_NUM_THREADS=1 python tools/bench/decode.py CTC_FOLDER TEXT \\
        --peers PEERS_ENVIRONMENT/bin/python [--build-binary kenlm/build/bin/build_binary] [--json]
    OMP_NUM_THREADS=1 python tools/bench/decode.py MANIFEST --model english --peers ...
    OMP_NUM_THREADS=1 python tools/bench/decode.py MANIFEST --model exp/mini_librispeech --lm FILE --peers ...

CTC_FOLDER has `dev-synthetic.npz` (log_probs, lengths, ids, symbols) and `dev.jsonl` (id, text, speaker);
TEXT is what the 3-gram (pruned 0 0 1) is estimated from; both sides search with it.

With `--model`, log-probs are those of a model for MANIFEST, which has the tuning and the report speakers, and
both sides search with the model's own language model or the one of `--lm`. Where its tokens are phones, both
have the model's pronunciations of the language model's words, and log-probs without label priors. Where they
are BPE pieces, flashlight has each word as sentencepiece divides it.

The peers, pyctcdecode with KenLM (no phones) and flashlight's lexicon decoder through torchaudio, need an
older numpy and torch and so an environment of their own. Each side's weights are the best of `TRIES` on a
third of the tuning speakers at beam 100; the table is measured on the report speakers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asr.core.provenance import find_processor
from asr.data.manifest import read_manifest, read_numbered_lines
from asr.lm.arpa import write_arpa
from asr.lm.estimation import EstimationConfig, estimate
from asr.lm.storage import load_model, save_model
from asr.lm.text import SentenceConfig, read_sentences
from asr.pretrained import find_model_folder
from asr.recognition.folder import find_language_model, read_search_config
from asr.recognition.recognizer import open_recognizer
from asr.scoring.counts import compare_texts, index_by_id
from asr.search import SearchConfig
from asr.search.beam_search import make_beam_search
from asr.search.lexicon_beam import ScoredWords
from asr.search.prefix_beam import ScoredTokens
from asr.search.priors import take_off_priors
from asr.text.lexicon import Lexicon
from asr.text.tokenizer import BLANK, SPACE, TOKENS_FILE, Tokenizer, load_tokenizer, save_tokenizer
from asr.training.examples import evaluation_examples, new_sample_reader
from asr.training.tuning import compute_log_probs

TUNE_SPEAKERS = {"1272", "1462", "1673", "174", "1919"}
BEAMS = (50, 100, 500)
OUR_BEAMS = (8, 15, 25, 50, 100, 500)
OURS = "asr"
# Weights of the language model and word bonuses that each side tries: the same number for all.
TRIES = {
    OURS: list(itertools.product((0.5, 0.8, 1.0, 1.3), (0.0, 1.0, 2.0))),
    "pyctcdecode": list(itertools.product((0.3, 0.5, 0.8, 1.2), (0.5, 2.0, 4.0))),
    "flashlight": list(itertools.product((1.4, 1.8, 2.2, 2.6), (0.5, 1.5, 2.5))),
}
# The same for phones; flashlight's weights are those of logarithms to base 10.
PHONE_TRIES = {
    OURS: list(itertools.product((0.6, 0.8, 1.0, 1.2), (-1.0, 0.0, 1.0))),
    "flashlight": list(itertools.product((2.0, 2.6, 3.2, 3.8), (-3.0, -1.5, 0.0))),
}
# For pieces of words: their models spell badly, and a strong language model overrules them.
PIECE_TRIES = {
    OURS: list(itertools.product((0.4, 0.5, 0.6, 0.8), (0.0, 1.0, 2.0))),
    "pyctcdecode": list(itertools.product((0.35, 0.5, 0.65, 0.8), (0.0, 0.5, 1.5))),
    "flashlight": list(itertools.product((0.6, 0.9, 1.2, 1.5), (-1.5, 0.0, 1.5))),
}
LOG_PROBS, TEXTS, LANGUAGE_MODEL = "dev-synthetic.npz", "dev.jsonl", "lm.bin"


@dataclass(frozen=True)
class Task:
    """Log-probs of utterances, and what was said."""

    arrays: list[np.ndarray]
    texts: list[str]
    tune: list[int]
    report: list[int]
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Pass:
    """One pass over some utterances."""

    wer: float
    ms: float
    mb: float


def read_task(folder: Path) -> Task:
    """Read the utterances of CTC_FOLDER, split by speaker."""
    stored = np.load(folder / LOG_PROBS)
    lines = [json.loads(line) for _, line in read_numbered_lines(folder / TEXTS)]
    by_id = {line["id"]: line for line in lines}
    ids = [str(name) for name in stored["ids"]]
    log_probs, ends = stored["log_probs"].astype(np.float32), np.cumsum(stored["lengths"])
    tune = [row for row, name in enumerate(ids) if by_id[name]["speaker"] in TUNE_SPEAKERS]
    symbols = (BLANK, *(SPACE if s == " " else str(s) for s in stored["symbols"][1:]))
    own = (folder / TOKENS_FILE).exists()
    return Task(
        arrays=[log_probs[e - n : e] for e, n in zip(ends, stored["lengths"], strict=True)],
        texts=[by_id[name]["text"] for name in ids],
        tune=tune[::3],
        report=sorted(set(range(len(ids))) - set(tune)),
        tokenizer=load_tokenizer(folder) if own else Tokenizer(symbols),
    )


def write_task(manifest: Path, name: str, lm: Path | None, folder: Path) -> None:
    """Write what ``read_task`` reads, and the language model, for a model and a manifest's utterances."""
    recognizer = open_recognizer(name, "cpu", lm="none", beam_size=1, engine="torch")
    examples = evaluation_examples(read_manifest(manifest), recognizer.tokenizer, recognizer.text)
    speech = compute_log_probs(recognizer, examples, new_sample_reader(recognizer.sample_rate, keep=False))
    config = read_search_config(find_model_folder(name))
    arrays = [take_off_priors(array, config, array.shape[1]) for array in speech.by_id.values()]
    np.savez(
        folder / LOG_PROBS,
        log_probs=np.concatenate(arrays),
        lengths=[len(array) for array in arrays],
        ids=list(speech.by_id),
        symbols=recognizer.tokenizer.symbols,
    )
    speakers = {example.utterance.id: example.utterance.speaker for example in examples}
    texts = speech.references.items()
    lines = [json.dumps({"id": key, "text": text, "speaker": speakers[key]}) for key, text in texts]
    (folder / TEXTS).write_text("\n".join(lines))
    source = lm or find_language_model(find_model_folder(name))
    if source is None:
        sys.exit(f"{name}: has no language model of its own to search with; give one with --lm")
    model = load_model(source)
    save_model(model, folder / LANGUAGE_MODEL)
    tokenizer = recognizer.tokenizer
    if tokenizer.lexicon is not None:
        said = {w: tokenizer.lexicon[w] for w in model.vocabulary.words if w in tokenizer.lexicon}
        tokenizer = replace(tokenizer, lexicon=Lexicon(said))
    save_tokenizer(tokenizer, folder)


class Ours:
    """Our side, in this process; memory is measured in another one, see ``measure_own_memory``."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task = task
        self.model = load_model(folder / LANGUAGE_MODEL)

    def answer(self, rows: Sequence[int], beam: int, lm_weight: float, word_bonus: float) -> dict[str, Any]:
        """Search ``rows``."""
        config = SearchConfig(beam_size=beam, lm_weight=lm_weight, word_bonus=word_bonus, unknown_score=-2.0)
        decoder = make_beam_search(config, self.task.tokenizer, self.model)
        decoder.find_best(self.task.arrays[rows[0]])
        started = time.perf_counter()
        texts = [self.text(decoder.find_best(self.task.arrays[row])[0]) for row in rows]
        return {"texts": texts, "ms": 1000 * (time.perf_counter() - started) / len(rows), "mb": 0.0}

    def text(self, found: ScoredTokens | ScoredWords) -> str:
        """Return the words of a result."""
        if isinstance(found, ScoredWords):
            return " ".join(entry.word for entry in found.entries)
        return self.task.tokenizer.decode(found.tokens)


class Peer:
    """A peer's side, in a process of its own."""

    def __init__(self, name: str, python: str, folder: Path) -> None:
        script = str(Path(__file__).with_name("decode_peers.py"))
        command = [python, script, name, str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def answer(self, rows: Sequence[int], beam: int, lm_weight: float, word_bonus: float) -> dict[str, Any]:
        """Search ``rows``."""
        asked = {"rows": list(rows), "beam": beam, "lm_weight": lm_weight, "word_bonus": word_bonus}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args!r} gave no answer; run it by hand to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure(task: Task, side: Ours | Peer, rows: Sequence[int], beam: int, weights: Sequence[float]) -> Pass:
    """Measure one side on ``rows``."""
    answer = side.answer(rows, beam, *weights)
    references = index_by_id((str(row), task.texts[row]) for row in rows)
    found = dict(zip(map(str, rows), answer["texts"], strict=True))
    return Pass(100 * compare_texts(references, found).words.error_rate, answer["ms"], answer["mb"])


def measure_own_memory(ctc: Path, folder: Path) -> float:
    """Measure the megabytes that our search takes with its language model, counted from after the imports."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "import decode, decode_peers\n"
        "task, folder = decode.read_task(Path(sys.argv[2])), Path(sys.argv[3])\n"
        "before = decode_peers.measure_megabytes()\n"
        "decode.Ours(task, folder).answer(task.report, 100, 0.8, 2.0)\n"
        "print(decode_peers.measure_megabytes() - before)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(ctc), str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def list_spellings(tokenizer: Tokenizer, words: Sequence[str]) -> Iterator[str]:
    """List words with their tokens for flashlight, where ``|`` separates words made of characters."""
    for word in words:
        if tokenizer.find_unknown(word):
            continue
        if tokenizer.lexicon is not None:
            yield from (f"{word} {' '.join(phones)}" for phones in tokenizer.lexicon[word])
        else:
            tokens = " ".join(tokenizer.symbols[token] for token in tokenizer.encode(word))
            yield f"{word} {tokens}" + ("" if tokenizer.bpe else " |")


def prepare_files(
    text: Path | None, tokenizer: Tokenizer, ctc: Path, folder: Path, build_binary: str | None
) -> None:
    """Write the language model in every form, and what the peers read; without ``text`` the model exists."""
    if text is not None:
        config = EstimationConfig(order=3, prune=(0, 0, 1))
        save_model(estimate(read_sentences([str(text)], SentenceConfig()), config), folder / LANGUAGE_MODEL)
    model = load_model(folder / LANGUAGE_MODEL)
    write_arpa(model, folder / "lm.arpa")
    if build_binary:
        command = [build_binary, str(folder / "lm.arpa"), str(folder / "lm.binary")]
        subprocess.run(command, check=True, capture_output=True)
    special = {"<s>", "</s>", "<unk>"}
    words = [word for word in model.vocabulary.words if word not in special]
    (folder / "words.txt").write_text("\n".join(words))
    (folder / "spellings.txt").write_text("".join(f"{line}\n" for line in list_spellings(tokenizer, words)))
    stored = np.load(ctc / LOG_PROBS)
    np.savez(folder / "task.npz", **{key: stored[key] for key in ("log_probs", "lengths", "symbols")})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ctc", type=Path, metavar="CTC_FOLDER|MANIFEST")
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--model", help="whose log-probs are searched, instead of a folder's")
    parser.add_argument("--lm", type=Path, help="that both search with, instead of the model's own")
    parser.add_argument("--peers", help="the Python that has pyctcdecode, kenlm and torchaudio's decoder")
    parser.add_argument("--build-binary", help="KenLM's program; the peers then open its binary form")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (options.model is None) == (options.text is None):
        parser.error("give either TEXT or --model")
    if options.lm and options.text:
        parser.error("--lm goes with --model")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ctc = options.ctc
        if options.model:
            ctc = folder
            write_task(options.ctc, options.model, options.lm, folder)
        task = read_task(ctc)
        prepare_files(options.text, task.tokenizer, ctc, folder, options.build_binary)
        phones = task.tokenizer.lexicon is not None
        tries = PHONE_TRIES if phones else PIECE_TRIES if task.tokenizer.bpe else TRIES
        sides: dict[str, Ours | Peer] = {OURS: Ours(task, folder)}
        if options.peers:
            sides |= {peer: Peer(peer, options.peers, folder) for peer in tries if peer != OURS}
        for side_name, side in sides.items():
            tried = [(measure(task, side, task.tune, 100, w).wer, w) for w in tries[side_name]]
            wer, weights = min(tried)
            print(f"{side_name}: best of {len(tried)} tries: {weights}, {wer:.2f} %", file=sys.stderr)
            for beam in OUR_BEAMS if side_name == OURS else BEAMS:
                result = measure(task, side, task.report, beam, weights)
                rows.append({"search": side_name, "beam": beam, "weights": weights, **vars(result)})
        memory = measure_own_memory(ctc, folder)
        for row in rows:
            if row["search"] == OURS:
                row["mb"] = memory
    if options.json:
        print(json.dumps({"hardware": find_processor(), "rows": rows}))
        return
    print(f"{find_processor()}, one thread; {len(task.report)} utterances")
    print(f"{'search':12} {'beam':>5} {'WER %':>7} {'ms':>8} {'MB':>7}   ours at that WER")
    for row in rows:
        print(f"{row['search']:12} {row['beam']:5} {row['wer']:7.2f} {row['ms']:8.2f} {row['mb']:7.0f}   "
              + format_comparison(row, rows))  # fmt: skip


def format_comparison(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Format how many times faster we are at the WER of a peer, within 0.1 absolute."""
    good = [own for own in rows if own["search"] == OURS and own["wer"] <= row["wer"] + 0.1]
    if row["search"] == OURS or not good:
        return ""
    best = min(good, key=lambda own: own["ms"])
    return f"{row['ms'] / best['ms']:.1f} times as fast (beam {best['beam']}, {best['wer']:.2f} %)"


if __name__ == "__main__":
    main()

"""``asr punctuation``: train and measure models of punctuation and capitals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from asr.cli._options import (
    device_option,
    require_libraries,
    set_option,
    set_torch_threads,
    threads_option,
)
from asr.cli._progress import new_utterance_bar
from asr.errors import UserError

TEXTS = click.argument("texts", metavar="TEXT...", nargs=-1, required=True, type=click.Path(path_type=Path))
WORDS_AT_ONCE = 5000  # that are measured as one text


@click.group()
def punctuation() -> None:
    """Punctuation and capitals for transcripts: train a model on prose, and measure one.

    TEXT is prose with its punctuation, a paragraph a line, perhaps compressed with gzip or xz.
    """


@punctuation.command()
@TEXTS
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="FILE.")
@set_option
@click.option("--print-config", is_flag=True, help="Print every key of --set, and stop.")
@require_libraries("torch")
def train(texts: tuple[Path, ...], out: Path, assignments: tuple[str, ...], print_config: bool) -> None:
    """Train a model on TEXT: a bidirectional LSTM that tags words.

    As punctuation.safetensors in a model folder it punctuates what the model transcribes. OUT.run beside OUT
    has checkpoints and metrics.jsonl: Ctrl-C saves and stops, and the same command resumes.
    """
    from asr.cli._training import Say, train_into_file
    from asr.text.punctuation import Tagger, save_tagger
    from asr.training.punctuation import PunctuationExperiment, train_tagger

    def train_on_prose(experiment: PunctuationExperiment, folder: Path, say: Say) -> Tagger:
        return train_tagger(experiment, read_paragraphs(texts), folder, say)

    train_into_file(PunctuationExperiment, assignments, print_config, out, train_on_prose, save_tagger)


@punctuation.command()
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, help="A model folder with punctuation.safetensors.")
@click.option(
    "--key", default="raw", show_default=True,
    help="The key with an utterance's written text; text, where it has no such key.",
)  # fmt: skip
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the result there.  [default: the file in the model folder]",
)  # fmt: skip
@device_option
@threads_option
def pauses(
    manifests: tuple[Path, ...], model: str, key: str, out: Path | None, device: str, threads: int | None
) -> None:
    """Teach the punctuation of MODEL what pauses say.

    MANIFESTs have recordings with their texts as they are written. They are transcribed; how much likelier a
    pause of some length is behind a word with a mark than behind one without becomes part of the file.
    """
    from asr.core.cores import choose_threads
    from asr.data.manifest import read_manifest
    from asr.pretrained import SHIPPED, find_model_folder
    from asr.recognition.folder import PUNCTUATION_FILE
    from asr.recognition.model_files import renew_checksums
    from asr.recognition.recognizer import open_recognizer
    from asr.text.marks import read_marked_words
    from asr.text.punctuation import PAUSES, save_tagger
    from asr.training.examples import evaluation_examples, new_sample_reader
    from asr.training.judgement import choose_judge
    from asr.training.pauses import learn_pauses

    folder = find_model_folder(model)
    if folder.parent == SHIPPED and out is None:
        raise UserError(f"{model}: is part of the program; give -o FILE")
    cores = choose_threads(threads)
    recognizer = open_recognizer(model, device, threads=cores)
    if recognizer.tagger is None:
        raise UserError(f"{folder / PUNCTUATION_FILE}: is missing; asr punctuation train makes it")
    set_torch_threads(cores)
    utterances = [one for manifest in manifests for one in read_manifest(manifest)]
    texts = {one.id: read_marked_words(str(one.extra.get(key, one.text))) for one in utterances}
    utterances = [one for one in utterances if texts[one.id]]
    if not utterances:
        raise UserError(f"{', '.join(map(str, manifests))}: no utterance has a written text")
    read = new_sample_reader(recognizer.sample_rate, keep=False)
    examples = evaluation_examples(utterances, recognizer.tokenizer, recognizer.text)
    with new_utterance_bar(len(examples)) as bar:
        judge = choose_judge(recognizer)
        found = judge(recognizer, examples, read, progress=bar.update).hypotheses
    gains = learn_pauses((texts[one.id], found[one.id].words) for one in utterances)
    for place, gain in enumerate(gains):
        click.echo(f"{(0.0, *PAUSES)[place]:4.2f} s and more: {gain:+.2f}")
    tagger = recognizer.tagger
    taught = replace(tagger, config=replace(tagger.config, pauses=gains))
    file = out or folder / PUNCTUATION_FILE
    save_tagger(taught, file)
    if out is None:
        renew_checksums(folder)
    click.echo(f"written: {file}", err=True)


@punctuation.command()
@click.argument("model", metavar="FILE", type=click.Path(path_type=Path))
@TEXTS
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, provenance included.")
def score(model: Path, texts: tuple[Path, ...], as_json: bool) -> None:
    """Measure FILE on the words of TEXT: precision, recall and F1 of each mark and of capitals."""
    from asr.core.provenance import describe_machine, make_provenance
    from asr.scoring.punctuation import count_marks
    from asr.text.marks import MARKS, MarkedWord, read_marked_words
    from asr.text.punctuation import open_tagger

    tagger = open_tagger(model)
    words = [word for paragraph in read_paragraphs(texts) for word in read_marked_words(paragraph)]
    if not words:
        raise UserError(f"{', '.join(map(str, texts))}: has no prose")
    pairs = []
    for first in range(0, len(words), WORDS_AT_ONCE):
        part = words[first : first + WORDS_AT_ONCE]
        rows = tagger.tag([word.text for word in part])
        marks, cases = rows[:, : len(MARKS)].argmax(1), rows[:, len(MARKS) :].argmax(1)
        found = [MarkedWord(*one) for one in zip((w.text for w in part), marks, cases, strict=True)]
        pairs.append((part, found))
    counts = count_marks(pairs)
    if as_json:
        marks_table = {
            name: {**vars(count), "precision": count.precision, "recall": count.recall, "f1": count.f1}
            for name, count in counts.items()
        }
        table = {"model": str(model), "texts": [str(text) for text in texts], "words": len(words)}
        click.echo(
            json.dumps({**table, "marks": marks_table, **make_provenance(describe_machine(1))}, indent=2)
        )
        return
    for name, count in counts.items():
        click.echo(
            f"{name:13} precision {100 * count.precision:6.2f} %  recall {100 * count.recall:6.2f} %  "
            f"F1 {100 * count.f1:6.2f} %"
        )
    click.echo(f"{len(words)} words")


def read_paragraphs(texts: tuple[Path, ...]) -> Iterator[str]:
    """Yield the lines of texts; raises ``UserError`` naming a file that cannot be read or is not UTF-8."""
    from asr.lm.text import name_path, open_text

    for path in texts:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8").strip()
                except UnicodeDecodeError as error:
                    raise UserError(f"{name_path(path)}:{number}: is not UTF-8 text") from error

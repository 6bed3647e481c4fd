"""``asr score``: compare hypotheses with references and print error rates and what went wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from asr.cli._json import difference_to_json, intervals_to_json, system_to_json
from asr.cli._tables import (
    escape,
    format_breakdown,
    format_changes,
    format_confusions,
    format_difference,
    format_intervals,
    format_rate_table,
    format_worst,
)
from asr.scoring.counts import ScoringError, list_names, squeeze_spaces
from asr.scoring.files import (
    FORMATS,
    Texts,
    group_utterances,
    read_hypotheses,
    read_texts,
    take_speakers_from_ids,
)
from asr.scoring.lines import STDIN
from asr.scoring.pairing import looks_like_kaldi
from asr.scoring.report import Report, write_report
from asr.scoring.significance import DRAWS
from asr.scoring.systems import (
    compare_all_pairs,
    compare_system,
    compute_intervals,
    list_speakers,
    prepare_references,
)
from asr.text.normalise import NORMALISERS, SPELLERS, Normaliser, add_substitutions, read_substitutions

FORMAT = click.Choice(FORMATS)


@click.command()
@click.argument("reference", metavar="REF", type=click.Path(path_type=Path, allow_dash=True))
@click.argument(
    "hypotheses",
    metavar="HYP...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
)
@click.option("--ref-format", type=FORMAT, help="Format of REF, if its name does not tell.")
@click.option("--hyp-format", type=FORMAT, help="Format of every HYP, if its name does not tell.")
@click.option("--ref-text", metavar="KEY", help="Key or column of the references' text.  [default: text]")
@click.option("--hyp-text", metavar="KEY", help="The same of the hypotheses; pred_text where they have it.")
@click.option("--ref-id", metavar="KEY", help="Key or column of the references' ids.  [default: id, audio]")
@click.option("--hyp-id", metavar="KEY", help="The same of the hypotheses.")
@click.option(
    "--normaliser",
    type=click.Choice(list(NORMALISERS)),
    default="basic-v2",
    show_default=True,
    help="What makes texts comparable; none-v1 scores the texts only as they are.",
)
@click.option(
    "--substitutions",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Your own table, applied after the normaliser: a phrase, a tab, its replacement.",
)
@click.option("--show-normalised", is_flag=True, help="Print every text that normalisation changed.")
@click.option(
    "--by",
    metavar="KEY",
    multiple=True,
    help="Break down by speaker, recording, duration or any key of the references; may be repeated.",
)
@click.option(
    "--speaker-from",
    metavar="REGEX",
    help="Take speakers from the ids: the part that the first group matches, as in '^([^-]+)'.",
)
@click.option(
    "--confusions",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Show the N most frequent substitutions, deletions and insertions.",
)
@click.option(
    "--alignments",
    metavar="N",
    type=click.IntRange(min=-1),
    default=10,
    help="Show N utterances with errors, the worst first; -1 shows all.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=100),
    default=DRAWS,
    help="Bootstrap samples of utterances and speakers for the intervals.",
)
@click.option(
    "--report", metavar="FILE.html", type=click.Path(path_type=Path), help="Write a page to browse."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and no alignments.")
def score(
    reference: Path,
    hypotheses: tuple[Path, ...],
    ref_format: str | None,
    hyp_format: str | None,
    ref_text: str | None,
    hyp_text: str | None,
    ref_id: str | None,
    hyp_id: str | None,
    normaliser: str,
    substitutions: Path | None,
    show_normalised: bool,
    by: tuple[str, ...],
    speaker_from: str | None,
    confusions: int,
    alignments: int,
    draws: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Compare every HYP with REF: word, character and sentence error rate.

    The files are JSONL with an "id" and a "text" (manifests, or the output of asr evaluate --hyp-out),
    Kaldi's text, trn, CTM against STM, TSV, CSV, or plain lines; the name tells which. All that asr
    transcribe writes is read, too: json, jsonl, tsv, srt, vtt, and a folder of such files or of txt; - is
    stdin. Of a HYP with "pred_text", as a transcribed manifest or NeMo's has it, that is the text. Texts are
    paired by id or else by the names of their recordings, plain lines by position, CTM by time. A reference
    without a hypothesis counts as deletions.

    The scores of the texts as they are come first, those of the normalised texts below them.
    Breakdowns, confusions and marked sentences are those of the normalised texts.

    Intervals say where a word error rate may lie with other utterances or other speakers. For two
    systems the last lines say whether their difference is significant.

    Errors are marked inside the sentence: [-word-] is a deletion, {+word+} an insertion,
    [-reference-]{+hypothesis+} a substitution.

    The exit status is 1 when the files do not belong together or REF has no words, not when rates
    are high.
    """
    if (reference, *hypotheses).count(STDIN) > 1:
        raise click.UsageError("- is stdin, which can be read once only")
    normalise, normaliser_name = choose_normaliser(normaliser, substitutions)
    references = read_texts(reference, ref_format, ref_text, ref_id)
    if speaker_from is not None:
        references = take_speakers_from_ids(references, parse_pattern(speaker_from))
    with name_file_in_errors(reference):
        prepared = prepare_references(references, normalise, SPELLERS.get(normaliser, squeeze_spaces))
    breakdowns = {key: group_utterances(references, key) for key in by}
    systems = []
    for path in hypotheses:
        texts = read_hypotheses(path, hyp_format, hyp_text, hyp_id)
        with name_file_in_errors(path):
            refuse_kaldi_as_lines(references, texts, ref_format, hyp_format)
            systems.append(compare_system(prepared, texts, str(path)))
    for system in systems:
        if missing := system.raw.missing:
            note = f"no hypothesis for {list_names(missing)}: their words are deletions"
            click.echo(f"{escape(system.name)}: {note}", err=True)
    speakers = list_speakers(references.utterances)
    found = [compute_intervals(system.comparison, speakers, draws) for system in systems]
    between = compare_all_pairs(systems, speakers, draws)
    if as_json:
        results = [
            {**system_to_json(system, breakdowns, show_normalised), "intervals": intervals_to_json(ends)}
            for system, ends in zip(systems, found, strict=True)
        ]
        head = {"reference": str(reference), "normaliser": normaliser_name}
        tail = {"differences": [difference_to_json(difference) for difference in between]}
        click.echo(json.dumps({**head, "results": results, **tail}, indent=2))
    else:
        for system, ends in zip(systems, found, strict=True):
            lines = [
                *(format_changes(system) if show_normalised else ()),
                escape(system.name),
                *format_rate_table(system, normaliser_name),
                *format_intervals(ends),
                *(line for key, of in breakdowns.items() for line in format_breakdown(key, system, of)),
                *format_confusions(system.comparison, confusions),
                *format_worst(system.comparison, alignments),
            ]
            click.echo("\n".join(lines))
        for difference in between:
            click.echo("\n".join(format_difference(difference)))
    if report is not None:
        write_report(report, Report(references, normaliser_name, normalise, systems, found, between))
    if any(comparison.rates["wer"] is None for s in systems for comparison in (s.raw, s.comparison)):
        raise ScoringError(f"{reference}: has no words: an error rate is not defined")


def choose_normaliser(name: str, substitutions: Path | None) -> tuple[Normaliser, str]:
    """The normaliser that the options ask for, and its name."""
    if substitutions is None:
        return NORMALISERS[name], name
    table = read_substitutions(substitutions)
    return add_substitutions(table, NORMALISERS[name]), f"{name} + {substitutions.name}"


def parse_pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression of the command line; raises ``BadParameter``."""
    try:
        return re.compile(text)
    except re.error as error:
        raise click.BadParameter(
            f"{text!r} is not a regular expression: {error}", param_hint="--speaker-from"
        ) from error


def refuse_kaldi_as_lines(
    references: Texts, hypotheses: Texts, ref_format: str | None, hyp_format: str | None
) -> None:
    """Raise ``ScoringError`` for lines that begin with ids: taken for words, they would change every rate.

    Whoever names the format, in ``ref_format`` or ``hyp_format``, is believed.
    """
    if "lines" not in (ref_format, hyp_format) and looks_like_kaldi(references, hypotheses):
        sides = {"--ref-format": references, "--hyp-format": hypotheses}
        options = " ".join(f"{option} kaldi" for option, texts in sides.items() if texts.format == "lines")
        raise ScoringError(
            f"lines begin with the ids of {references.path}: pair by them with {options}, "
            "or say lines if these are words"
        )


@contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Put the name of the file before every ``ScoringError`` raised in the block."""
    try:
        yield
    except ScoringError as error:
        raise ScoringError(f"{path}: {error}") from error

#!/usr/bin/env python3
"""Turn the corpora of the English recipe into one set of manifests.

    python recipes/english/prepare.py CORPORA_DIR --out data/english [--held-out SENTENCES.sha1]

CORPORA_DIR holds the folders that `SOURCES` lists, each laid out as it is published, or with a
`manifest.jsonl` of its own; what is missing is left out with a warning, so that a person with LibriSpeech
alone can begin. Speech without transcripts lies in `untranscribed/NAME`, what a teacher heard in it in
`labels/NAME.jsonl`: `id`, `text`, `score` and, where they are known, `no_speech` (the probability that nobody
speaks) and `disagreement` (the share of the text's phones that another model hears otherwise). Writes, texts
in `letters-v1`:

- `train.jsonl`, and its random subsets `train-2h.jsonl` and `train-5h.jsonl` for a learning curve;
- `dev-tune.jsonl` and `dev-report.jsonl` (LibriSpeech dev-clean, by speaker), `cv-dev.jsonl` (by
  sentence), `speechocean-dev.jsonl`, `cv24-dev.jsonl` and `telephone-dev.jsonl` (by speaker): none of
  their recordings is trained on;
- `train.txt`: the training sentences that people wrote, each once, for the language model;
- `left-out.jsonl`: the training clips that are not learned from, each with the reason;
- `sources.json` and `sources.md`: what each source brings.

People and sentences that are kept for a final measure are left out of everything: SHA-1 digests of
speakers in `CORPORA_DIR/held-out-speakers.sha1`, of sentences in the file that `--held-out` names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from asr.core.files import write_text
from asr.data import corpora
from asr.data.corpora.recordings import CorpusError, fill_in_durations
from asr.data.manifest import ManifestError, Utterance, read_manifest, write_manifest
from asr.text.normalise import normalise_letters

TUNE_SPEAKERS = {"1272", "1462", "1673", "174", "1919"}
REPORT_SPEAKERS = {"1988", "1993", "2035", "2078", "2086"}

# Characters a second: people read at 8 to 20. Beyond these bounds a clip was cut off, holds another
# text or is mostly silence; a single word may stand in a few seconds of it.
SLOWEST, FASTEST = 4.0, 26.0
SILENCE_SECONDS = 4.0
LONGEST_SECONDS = 25.0  # a few clips this long would set the length of a whole batch
SUBSET_HOURS = (2, 5)

# A teacher's labels: its mean log probability of a token, how often it may say the same again, how sure it
# may be that nobody speaks, and how far another model may be from it.
LOWEST_SCORE = -0.7
MOST_REPETITIONS = 3
MOST_NO_SPEECH = 0.5
MOST_DISAGREEMENT = 0.6
SHORTEST_LOOP = 3  # words
JUDGEMENTS = ("score", "no_speech", "disagreement")  # of a label

Sets = dict[str, list[Utterance]]


def digest(text: str) -> str:
    """SHA-1, hex."""
    return hashlib.sha1(text.encode()).hexdigest()


# --- what the splits of a source are used for ---------------------------------------------------------


def librispeech(splits: Sets) -> Sets:
    """The training sets there are, and dev-clean in its two halves."""
    sets = {"train": [u for name, part in splits.items() if name.startswith("train") for u in part]}
    dev = splits.get("dev-clean", [])
    return sets | {
        "dev-tune": [u for u in dev if u.speaker in TUNE_SPEAKERS],
        "dev-report": [u for u in dev if u.speaker in REPORT_SPEAKERS],
    }


def commonvoice(splits: Sets) -> Sets:
    """By sentence, because one sentence is read by several people."""
    everything = together(splits)
    return {
        "train": [u for u in everything if not in_cv_dev(u)],
        "cv-dev": [u for u in everything if in_cv_dev(u)],
    }


def in_cv_dev(utterance: Utterance) -> bool:
    """Whether the sentence is one that Common Voice's validation holds."""
    return digest(utterance.text).startswith("0")


def speechocean(splits: Sets) -> Sets:
    """The speakers of ``train`` whose number ends in 0 are for validation."""
    train = splits.get("train", [])
    return {
        "train": [u for u in train if not u.speaker.endswith("0")] + splits.get("test", []),
        "speechocean-dev": [u for u in train if u.speaker.endswith("0")],
    }


def by_speaker(dev: str) -> Callable[[Sets], Sets]:
    """One speaker in eight, the digest of whose name begins with 0 or 1, is for validation."""

    def use(splits: Sets) -> Sets:
        everything = together(splits)
        held = {u.speaker for u in everything if digest(u.speaker)[0] in "01"}
        return {
            "train": [u for u in everything if u.speaker not in held],
            dev: [u for u in everything if u.speaker in held],
        }

    return use


def to_learn(splits: Sets) -> Sets:
    """All of it for training, but for the sentences of Common Voice's validation."""
    return {"train": [u for u in together(splits) if not in_cv_dev(u)]}


def one_speaker(name: str) -> Callable[[Sets], Sets]:
    """All of a corpus by one reader, whom the corpus itself may not name."""
    return lambda splits: {"train": [replace(u, speaker=name) for u in together(splits)]}


def together(splits: Sets) -> list[Utterance]:
    """The utterances of all splits."""
    return [utterance for part in splits.values() for utterance in part]


# --- the sources --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A corpus: where it lies, how it is laid out, what it is used for."""

    folder: str  # below the folder of corpora
    layout: str  # one of `asr prepare`, or "manifest" or "labelled"
    use: Callable[[Sets], Sets]
    kind: str
    licence: str
    speaker_hours: float = 1000.0  # the most that one speaker brings; more are left out at random


SOURCES = [
    Source("LibriSpeech", "librispeech", librispeech, "books, read aloud", "CC BY 4.0"),
    Source("CommonVoice-v1", "commonvoice", commonvoice, "sentences, recorded by volunteers", "CC0"),
    Source(
        "cv-delta", "manifest", by_speaker("cv24-dev"), "sentences, recorded by volunteers in 2024", "CC0"
    ),
    Source("cv-delta-13", "manifest", to_learn, "encyclopedia, recorded by volunteers in 2023", "CC0", 0.1),
    Source("speechocean762", "kaldi", speechocean, "sentences, read by learners", "free for any use"),
    Source("minds14-checked", "manifest", by_speaker("telephone-dev"), "telephone, to a bank", "CC BY 4.0"),
    Source("minds14-more", "manifest", by_speaker("telephone-dev-more"), "telephone, to a bank", "CC BY 4.0"),
    Source("dataset-voice-kathleen", "folder", one_speaker("kathleen"), "prompts, one reader", "CC0"),
    Source("LJSpeech-1.1", "ljspeech", one_speaker("LJ"), "books, one reader", "public domain"),
    Source("lj-extra", "manifest", one_speaker("LJ"), "books, one reader", "public domain"),
    Source("cv-delta-13-unlabelled", "labelled", to_learn, "encyclopedia, by volunteers in 2023", "CC0"),
    Source("obs", "labelled", one_speaker("obs-narrator"), "stories, one narrator", "CC BY-SA 4.0"),
    Source("robotutor", "manifest", to_learn, "read slowly to children", "CC BY 4.0"),
    Source("asterisk", "manifest", one_speaker("allison-smith"), "telephone prompts, one", "CC BY-SA 3.0"),
    Source("callie", "labelled", one_speaker("callie"), "telephone prompts, one", "CC BY 3.0 or MPL 1.1"),
    Source("queen", "labelled", to_learn, "game dialogue, some 25 actors", "free to distribute"),
    Source("sky", "labelled", to_learn, "game dialogue, some 30 actors", "free to distribute"),
    Source("drascula", "labelled", to_learn, "game dialogue", "free to distribute"),
    Source("an4", "manifest", to_learn, "names, numbers, letters spelled", "free to download, none named"),
]


def splits_of(source: Source, folder: Path, out: Path) -> Sets:
    """What a source holds by split; raises ``CorpusError`` or ``ManifestError`` when it is not there."""
    if source.layout == "manifest":
        return {"all": read_manifest(folder / source.folder / "manifest.jsonl")}
    if source.layout == "labelled":
        speech = read_manifest(folder / "untranscribed" / source.folder / "manifest.jsonl")
        said = {u.id: u for u in read_labels(folder / "labels" / f"{source.folder}.jsonl")}
        return {"all": [labelled(u, said[u.id]) for u in speech if u.id in said]}
    return corpora.prepare(source.layout, folder / source.folder, out)


def read_labels(path: Path) -> list[Utterance]:
    """What a teacher heard: utterances without audio."""
    if not path.is_file():
        raise CorpusError(f"{path}: is not there: what a teacher heard")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Utterance(row["id"], "", text=row["text"], extra={key: row[key] for key in JUDGEMENTS if key in row})
        for row in rows
    ]


def labelled(utterance: Utterance, label: Utterance) -> Utterance:
    """Speech with a teacher's words."""
    judged = {f"teacher_{key}": value for key, value in ({"score": 0.0} | label.extra).items()}
    return replace(utterance, text=cut_loop(label.text), extra=judged)


def cut_loop(text: str) -> str:
    """The text once where a teacher went round in a circle and said all of it again, at last in part."""
    words = text.split()
    for size in range(SHORTEST_LOOP, len(words) // 2 + 1):
        if len(set(words[:size])) > 1 and all(
            word == words[place % size] for place, word in enumerate(words)
        ):
            return " ".join(words[:size])
    return text


def all_sets(corpora_folder: Path, out: Path) -> Sets:
    """The utterances of every set, ids unique across corpora, texts in ``letters-v1``."""
    sets: Sets = {}
    for source in SOURCES:
        try:
            splits = fill_in_durations(splits_of(source, corpora_folder, out))
        except (CorpusError, ManifestError) as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        texts = {
            name: [
                replace(
                    u, id=f"{source.folder}/{u.id}", text=normalise_letters(u.text), extra=kept(u, source)
                )
                for u in part
            ]
            for name, part in splits.items()
        }
        for name, part in source.use(texts).items():
            sets.setdefault(name, []).extend(part)
    if not sets.get("train"):
        sys.exit(f"{corpora_folder}: holds none of {', '.join(source.folder for source in SOURCES)}")
    return sets


def kept(utterance: Utterance, source: Source) -> dict[str, object]:
    """What else a line says; where the letters lost something, also the text as it was."""
    lost = re.search(r"\d", utterance.text)
    known = {"accent", "raw", *(f"teacher_{key}" for key in JUDGEMENTS)}
    extra = {key: value for key, value in utterance.extra.items() if key in known}
    return extra | {"source": source.folder} | ({"original_text": utterance.text} if lost else {})


# --- what is left out ---------------------------------------------------------------------------------


def fault(utterance: Utterance) -> str:
    """Why an utterance cannot be trained on; empty when it can."""
    seconds = utterance.duration or 0.0
    letters_spoken = len(utterance.text)
    if "original_text" in utterance.extra:
        return "the text has figures, whose words are not known"
    if not utterance.text:
        return "the text is empty"
    if seconds > LONGEST_SECONDS:
        return f"lasts {seconds:.1f} s"
    if not letters_spoken / FASTEST <= seconds <= letters_spoken / SLOWEST + SILENCE_SECONDS:
        return f"{letters_spoken} characters in {seconds:.1f} s"
    score = utterance.extra.get("teacher_score")
    if score is not None and score < LOWEST_SCORE:
        return f"the teacher was not sure ({score:.2f})"
    if utterance.extra.get("teacher_no_speech", 0.0) > MOST_NO_SPEECH:
        return "the teacher hears no speech"
    if utterance.extra.get("teacher_disagreement", 0.0) > MOST_DISAGREEMENT:
        return "another model hears something else"
    if score is not None and repetitions(utterance.text.split()) > MOST_REPETITIONS:
        return "the teacher says the same again and again"
    return ""


def repetitions(words: Sequence[str]) -> int:
    """How often at most a stretch of one to four words is said in a row."""
    most = 1 if words else 0
    for size in range(1, 5):
        run = 0
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            most = max(most, run // size + 1)
    return most


def digests(path: Path | None) -> set[str]:
    """The lines of a file; nothing where there is none."""
    return set(path.read_text().split()) if path is not None and path.is_file() else set()


def without_held_out(sets: Sets, speakers: set[str], sentences: set[str]) -> Sets:
    """The sets without speakers and sentences that are kept for a final measure."""
    return {
        name: [u for u in part if digest(u.speaker) not in speakers and digest(u.text) not in sentences]
        for name, part in sets.items()
    }


def capped(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Those that stay, and those of speakers of whom their source has more than it may bring."""
    most = {source.folder: 3600 * source.speaker_hours for source in SOURCES}
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    over = set()
    for index in np.random.default_rng(1).permutation(len(utterances)).tolist():
        utterance = utterances[index]
        key = (str(utterance.extra["source"]), utterance.speaker)
        seconds[key] += utterance.duration or 0.0
        if utterance.speaker and seconds[key] > most[key[0]]:
            over.add(index)
    stay = [u for i, u in enumerate(utterances) if i not in over]
    return stay, [utterances[i] for i in sorted(over)]


def subset(utterances: list[Utterance], hours: float) -> list[Utterance]:
    """Utterances drawn at random until they last ``hours``, in their own order."""
    order = np.random.default_rng(1).permutation(len(utterances))
    ends = np.cumsum([utterances[i].duration or 0.0 for i in order])
    chosen = sorted(order[: int(np.searchsorted(ends, 3600 * hours)) + 1])
    return [utterances[i] for i in chosen]


# --- what comes out -----------------------------------------------------------------------------------


def hours_of(utterances: Iterable[Utterance]) -> float:
    """Hours of audio."""
    return sum(u.duration or 0.0 for u in utterances) / 3600


def source_table(train: Sequence[Utterance]) -> list[dict[str, object]]:
    """A row for each source that training has something of."""
    rows: list[dict[str, object]] = []
    for source in SOURCES:
        own = [u for u in train if u.extra["source"] == source.folder]
        if own:
            speakers = {u.speaker for u in own if u.speaker}
            rows.append({
                "source": source.folder,
                "kind": source.kind,
                "licence": source.licence,
                "utterances": len(own),
                "hours": round(hours_of(own), 2),
                "speakers": len(speakers) or None,
                "words": "a teacher's" if source.layout == "labelled" else "a person's",
            })  # fmt: skip
    return rows


def as_markdown(rows: Sequence[dict[str, object]]) -> str:
    """A table, one row a line."""
    if not rows:
        return ""
    head = f"| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}\n"
    values = ([("not known" if v is None else str(v)) for v in row.values()] for row in rows)
    return head + "".join(f"| {' | '.join(row)} |\n" for row in values)


def main() -> None:
    """Read the corpora and write the manifests."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, help="SHA-1 digests of sentences to leave out, one a line")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    speakers = digests(arguments.corpora / "held-out-speakers.sha1")
    sets = without_held_out(all_sets(arguments.corpora, arguments.out), speakers, digests(arguments.held_out))
    validated = {u.speaker for name in sets if "dev" in name for u in sets[name]} - {""}
    faults = {
        u.id: "its speaker is kept for validation" if u.speaker in validated else fault(u)
        for u in sets["train"]
    }
    stay, over = capped([u for u in sets["train"] if not faults[u.id]])
    faults |= {u.id: "its speaker has said enough" for u in over}
    left_out = [
        replace(u, extra=dict(u.extra) | {"reason": faults[u.id]}) for u in sets["train"] if faults[u.id]
    ]
    sets["train"] = stay
    sets |= {f"train-{hours}h": subset(sets["train"], hours) for hours in SUBSET_HOURS}
    sets["left-out"] = left_out
    for name, utterances in sets.items():
        write_manifest(arguments.out / f"{name}.jsonl", utterances)
        print(f"{name}: {len(utterances)} utterances, {hours_of(utterances):.2f} hours")
    sentences = dict.fromkeys(u.text for u in sets["train"] if "teacher_score" not in u.extra)
    write_text(arguments.out / "train.txt", "".join(f"{sentence}\n" for sentence in sentences))
    rows = source_table(sets["train"])
    write_text(arguments.out / "sources.json", json.dumps(rows, indent=1) + "\n")
    write_text(arguments.out / "sources.md", as_markdown(rows))
    print(as_markdown(rows))


if __name__ == "__main__":
    main()

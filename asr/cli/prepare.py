"""``asr prepare``: turn a public corpus into manifests."""

from __future__ import annotations

from pathlib import Path

import click

from asr.data import corpora
from asr.data.manifest import write_manifest


@click.command()
@click.argument("layout", type=click.Choice(list(corpora.LAYOUTS)))
@click.argument("corpus", metavar="CORPUS", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder for the manifests.",
)
def prepare(layout: str, corpus: Path, out: Path) -> None:
    """Write a manifest {split}.jsonl for every split of the corpus in the folder CORPUS.

    LAYOUT says how the corpus is laid out; of csv, CORPUS may be the table itself. The audio stays where
    it is. Of a folder of your own there is one split, all, or, where everything is below train, dev, valid
    and test, these. Recordings that are missing or cannot be read are named and left out.
    """
    for split, utterances in corpora.prepare(layout, corpus, out).items():
        manifest = out / f"{split}.jsonl"
        write_manifest(manifest, utterances)
        hours = sum(utterance.duration or 0.0 for utterance in utterances) / 3600
        click.echo(f"{manifest}: {len(utterances)} utterances, {hours:.2f} hours")

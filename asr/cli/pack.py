"""``asr pack``: a manifest's recordings in tar files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from asr.core.places import find_name, is_url, join_place


@click.command()
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--out", required=True, metavar="DIR", type=click.Path(),
    help="Folder or URL for the tar files, and for the manifest where it is a folder.",
)  # fmt: skip
@click.option(
    "--manifest-out", metavar="FILE", type=click.Path(path_type=Path),
    help="The manifest to write.  [default: in --out, under its own name]",
)  # fmt: skip
@click.option(
    "--tar-size", default=1000, type=click.IntRange(1), metavar="N", help="Utterances in a tar file."
)
@click.option("--seed", default=1, type=int, help="Decides in which order the utterances are packed.")
def pack(manifest: Path, out: str, manifest_out: Path | None, tar_size: int, seed: int) -> None:
    """Pack the recordings of MANIFEST into tar files that are read front to back.

    The utterances are shuffled, whole recordings keep their bytes, and stretches of longer ones become FLAC.
    The new manifest names a recording as TAR/MEMBER; asr train, evaluate, transcribe --shard and validate
    read it. The tar files are a WebDataset.
    """
    from asr.data.manifest import read_manifest, write_manifest
    from asr.data.tars import pack_utterances

    if manifest_out is None and is_url(out):
        raise click.UsageError("Tar files behind a URL need --manifest-out FILE: a manifest stays here.")
    target = manifest_out or Path(out) / find_name(manifest)
    if target.resolve() == manifest.resolve():
        raise click.UsageError(f"{manifest} would be overwritten: choose another -o or --manifest-out.")
    utterances = read_manifest(manifest)
    folder = out if is_url(out) else str(Path(out).resolve())
    done = []
    count = 0
    for packed in pack_utterances(utterances, folder, target.stem, tar_size, seed):
        done += [replace(utterance, audio=join_place(folder, utterance.audio)) for utterance in packed]
        count += 1
    write_manifest(target, done)
    hours = sum(utterance.duration or 0.0 for utterance in done) / 3600
    click.echo(f"{target}: {len(done)} utterances, {hours:.2f} hours, in {count} tar files")

"""``--threads`` as the verbs have it: those that only hear, and those that compute as training does."""

from __future__ import annotations

import click

cores_option = click.option(
    "--threads", default=0, type=click.IntRange(0), help="Processor cores to use; 0: all there are."
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads for the model.  [default: OMP_NUM_THREADS, or all cores]",
)

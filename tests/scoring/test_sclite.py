"""The totals of NIST's ``sclite`` (Debian's sctk) are ours."""

from __future__ import annotations

import random
import re
import shutil
import subprocess

import pytest

from asr.scoring.counts import compare_texts, index_by_id

SCTK = shutil.which("sctk")


@pytest.mark.skipif(SCTK is None, reason="needs sctk (apt-get install sctk)")
def test_totals_are_those_of_sclite(tmp_path):
    """Texts with about one error in four words; where costs of 4/3/3 part from ours is in ``aligned``."""
    generator = random.Random(7)
    vocabulary = [f"w{number}" for number in range(200)]
    references, hypotheses = {}, {}
    for number in range(400):
        words = [generator.choice(vocabulary) for _ in range(generator.randint(1, 25))]
        said: list[str] = []
        for word in words:
            draw = generator.random()
            if draw < 0.12:
                said.append(generator.choice(vocabulary))
            elif draw < 0.18:
                continue
            else:
                said.append(word)
            if draw > 0.94:
                said.append(generator.choice(vocabulary))
        name = f"spk{number % 7}_{number:04d}"
        references[name], hypotheses[name] = " ".join(words), " ".join(said)
    for kind, texts in (("ref", references), ("hyp", hypotheses)):
        lines = (f"{text} ({name})\n" for name, text in texts.items())
        (tmp_path / f"{kind}.trn").write_text("".join(lines))
    sides = ["-r", "ref.trn", "trn", "-h", "hyp.trn", "trn"]
    command = [str(SCTK), "sclite", *sides, "-i", "rm", "-o", "rsum", "stdout"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    row = next(line for line in done.stdout.splitlines() if re.match(r"\s*\|\s*Sum\s", line))
    _, words, _, substitutions, deletions, insertions, errors, wrong = map(int, re.findall(r"\d+", row))
    ours = compare_texts(index_by_id(references.items()), hypotheses)
    assert (ours.words.reference_length, ours.words.errors) == (words, errors)
    assert ours.words.wrong_utterances == wrong
    split = (ours.words.substitutions, ours.words.deletions, ours.words.insertions)
    for own, theirs in zip(split, (substitutions, deletions, insertions), strict=True):
        assert abs(own - theirs) <= 0.02 * words

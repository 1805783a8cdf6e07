"""What a run was trained on, so that going on with other data is refused."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from xtoken_jax.data import Example


def fingerprints(examples: Sequence[Example]) -> dict[str, str]:
    """A hash for each source of the examples, of all that training reads of it.

    A source is what comes before the last colon of a record's name: a file, or a generator.
    """
    hashes: dict[str, hashlib._Hash] = {}
    for example in examples:
        source = example.record.rpartition(":")[0] or example.record
        digest = hashes.setdefault(source, hashlib.sha256())
        digest.update(example.record.encode())
        _add(digest, example.student_ids)
        _add(digest, example.loss_mask)
        for name, teacher in example.teachers.items():
            digest.update(name.encode())
            _add(digest, teacher.ids)
            _add(digest, teacher.student_chunk)
            _add(digest, teacher.teacher_chunk)
    return {source: digest.hexdigest() for source, digest in hashes.items()}


def _add(digest: "hashlib._Hash", array: np.ndarray) -> None:
    digest.update(len(array).to_bytes(8, "little"))
    digest.update(array.tobytes())


def changed_sources(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The sources that are new, gone or different."""
    return sorted(name for name in saved.keys() | now.keys() if saved.get(name) != now.get(name))

"""What a run was trained on, so that going on with other data is refused."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from xtoken_jax.data import Example


class Fingerprints:
    """A hash for each source of some examples, of all that training reads of it.

    A source is what comes before the last colon of a record's name: a file, or a generator.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, hashlib._Hash] = {}

    def add(self, examples: Iterable[Example]) -> None:
        """More examples, of sources known or new."""
        for example in examples:
            source = example.record.rpartition(":")[0] or example.record
            digest = self._hashes.setdefault(source, hashlib.sha256())
            digest.update(example.record.encode())
            _add(digest, example.student_ids)
            _add(digest, example.loss_mask)
            for name, teacher in example.teachers.items():
                digest.update(name.encode())
                _add(digest, teacher.ids)
                _add(digest, teacher.student_chunk)
                _add(digest, teacher.teacher_chunk)

    def hexdigests(self) -> dict[str, str]:
        """Of all that was added, by source."""
        return {source: digest.hexdigest() for source, digest in self._hashes.items()}


def _add(digest: "hashlib._Hash", array: np.ndarray) -> None:
    digest.update(len(array).to_bytes(8, "little"))
    digest.update(array.tobytes())


def changed_sources(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The sources that are new, gone or different."""
    return sorted(name for name in saved.keys() | now.keys() if saved.get(name) != now.get(name))

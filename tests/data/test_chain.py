"""Terms of C-KL in packed rows, against those of each document by itself."""

from collections import Counter

import numpy as np

from tests.data.test_batches import LENGTHS, NAME, batches_of, examples_of
from tests.tiny import sentences
from xtoken_jax.align import align
from xtoken_jax.data import batch_dataset, build_piece_tries
from xtoken_jax.projection import chain_terms


def test_a_packed_row_has_the_terms_of_its_documents(tokenizers):
    texts = [f"{text} {text}" for text in sentences(6, seed=3)]
    examples = examples_of(texts, tokenizers)
    tries = build_piece_tries(*tokenizers)
    dataset = batch_dataset(examples, batch_size=2, seed=0, tries={NAME: tries}, **LENGTHS)
    batch = next(iter(dataset))
    side = batch.teachers[NAME]
    found = terms_in(batch.student, side, side.chain.first)
    found += terms_in(batch.student, side, side.chain.later)
    expected = Counter()
    for record in batch.records:
        encoded = [t.encode([texts[int(record)]], bos=True, eos=True) for t in tokenizers]
        chunks_N4 = align(*encoded, *tokenizers)[0]
        terms = chain_terms(chunks_N4, encoded[0][0], encoded[1][0], *tries)
        expected += Counter(
            (int(encoded[0][0][s]), int(encoded[1][0][t]), int(node), int(node > 0))
            for s, t, node in zip(
                terms.student_position_N, terms.teacher_position_N, terms.node_N, strict=True
            )
        )
    # Numbers are one token of the student and several of the teacher.
    assert sum(count for key, count in expected.items() if key[3]) > 10
    assert found == expected
    assert not (side.chain.in_student_space.node_BM >= 0).any()


def terms_in(student, side, group):
    """Each term by the tokens before it, its node, and whether that is a later one."""
    counts = Counter()
    for row, term in zip(*np.nonzero(group.chunk_BM >= 0), strict=True):
        s, t = group.student_at_BM[row, term], group.teacher_at_BM[row, term]
        node = int(group.node_BM[row, term])
        ids = student["ids_BS"][row, s], side.tokens["ids_BS"][row, t]
        counts[int(ids[0]), int(ids[1]), node, int(node > 0)] += 1
        # The chunk that a term is of begins right after its first prediction.
        chunk = group.chunk_BM[row, term]
        assert side.spans["mask_BN"][row, chunk]
        assert s == side.spans["student_start_BN"][row, chunk] - 1
        assert t >= side.spans["teacher_start_BN"][row, chunk] - 1
    return counts


def test_without_tries_there_are_none(tokenizers):
    batch = next(batches_of(examples_of(sentences(4), tokenizers), batch_size=1))
    assert batch.teachers[NAME].chain is None

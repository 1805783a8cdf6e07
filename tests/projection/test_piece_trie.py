"""The sorted vocabulary and its prefixes; the terms of chain KL in aligned texts."""

import dataclasses

import numpy as np
import pytest

from xtoken_jax.align import align
from xtoken_jax.projection import Pieces, retokenise
from xtoken_jax.projection.piece_trie import (
    STUDENT_SPACE,
    TEACHER_SPACE,
    build_piece_trie,
    chain_terms,
)


def pieces_of(rows):
    lengths = [len(row) for row in rows]
    ids = [id for row in rows for id in row]
    return Pieces(
        np.array(ids, np.int32), np.cumsum([0, *lengths]), np.array(lengths, np.int64) == 1
    )


def random_rows(seed, num_tokens=300, num_pieces=4, longest=5):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(0, longest + 1, num_tokens)
    return [tuple(draw.integers(0, num_pieces, length).tolist()) for length in lengths]


def spelled(trie, node):
    """The pieces on the way to a node."""
    pieces = ()
    while node > 0:
        pieces = (int(trie.piece_M[node]), *pieces)
        node = trie.parent_M[node]
    return pieces


@pytest.mark.parametrize("rows", [random_rows(0), random_rows(1, 7), [(3,), (), (3, 1, 1)]])
def test_every_prefix_is_a_node_and_its_tokens_are_a_range(rows):
    trie = build_piece_trie(pieces_of(rows), num_teacher_tokens=4)
    nodes = {spelled(trie, node): node for node in range(len(trie.parent_M))}
    expected = {row[:depth] for row in rows for depth in range(len(row) + 1)} | {()}
    assert set(nodes) == expected
    assert len(trie.parent_M) == len(expected)
    for prefix, node in nodes.items():
        below = {s for s, row in enumerate(rows) if row[: len(prefix)] == prefix}
        assert set(trie.order_V[trie.start_M[node] : trie.stop_M[node]].tolist()) == below
        ends = {s for s, row in enumerate(rows) if row == prefix}
        assert set(trie.order_V[trie.start_M[node] : trie.ends_M[node]].tolist()) == ends
        children = range(trie.children_M[node], trie.children_M[node + 1])
        assert {spelled(trie, child) for child in children} == {
            other for other in expected if len(other) == len(prefix) + 1 and other[:-1] == prefix
        }
        assert trie.is_inner_M[node] == bool(children)
        assert trie.depth_M[node] == len(prefix)


def test_paths_lead_along_the_pieces():
    rows = random_rows(2)
    trie = build_piece_trie(pieces_of(rows), num_teacher_tokens=4)
    for place, token in enumerate(trie.order_V.tolist()):
        path = trie.path_P[trie.offsets_V[place] : trie.offsets_V[place + 1]]
        assert [spelled(trie, node) for node in path] == [
            rows[token][: depth + 1] for depth in range(len(rows[token]))
        ]


def test_a_child_is_found_by_its_piece_and_else_there_is_none():
    rows = random_rows(3, 40)
    trie = build_piece_trie(pieces_of(rows), num_teacher_tokens=4)
    nodes = {spelled(trie, node): node for node in range(len(trie.parent_M))}
    node_N = np.repeat(np.arange(len(nodes)), 4)
    piece_N = np.tile(np.arange(4), len(nodes))
    expected = [
        nodes.get((*spelled(trie, node), int(piece)), -1)
        for node, piece in zip(node_N, piece_N, strict=True)
    ]
    assert trie.child(node_N, piece_N).tolist() == expected
    assert -1 in expected


def test_longer_tokens_count_as_their_first_pieces():
    rows = [(0, 1, 2, 3), (0, 1, 2), (0, 1), (0, 1, 3)]
    trie = build_piece_trie(pieces_of(rows), num_teacher_tokens=4, max_length=2)
    cut = build_piece_trie(pieces_of([row[:2] for row in rows]), num_teacher_tokens=4)
    for field in dataclasses.fields(trie):
        np.testing.assert_array_equal(getattr(trie, field.name), getattr(cut, field.name))


def test_arrays_are_int32():
    trie = build_piece_trie(pieces_of(random_rows(4)), num_teacher_tokens=4)
    for field in dataclasses.fields(trie):
        if field.name != "num_teacher_tokens":
            assert getattr(trie, field.name).dtype == np.int32, field.name


def test_what_cannot_be_a_trie_is_named():
    with pytest.raises(ValueError, match="`max_length` must be at least 1, got 0"):
        build_piece_trie(pieces_of([(0,)]), num_teacher_tokens=4, max_length=0)
    with pytest.raises(ValueError, match="`pieces` must spell at least one token"):
        build_piece_trie(pieces_of([(), ()]), num_teacher_tokens=4)
    with pytest.raises(ValueError, match="the teacher's 4 tokens, got ids from 0 to 4"):
        build_piece_trie(pieces_of([(0, 4)]), num_teacher_tokens=4)


class Toy:
    """Student tokens by id: 0 `2`, 1 `0`, 2 `1`, 3 `201`, 4 `20`. Teacher tokens: 0 `2`, 1 `0`,
    2 `1`, 3 `01`, 4 `012`."""

    student_by_teacher = build_piece_trie(
        pieces_of([(0,), (1,), (2,), (0, 3), (0, 1)]), num_teacher_tokens=5
    )
    teacher_by_student = build_piece_trie(
        pieces_of([(0,), (1,), (2,), (1, 2), (1, 2, 0)]), num_teacher_tokens=5
    )

    def terms(self, chunks, student_ids, teacher_ids):
        terms = chain_terms(
            np.array(chunks, np.int32).reshape(-1, 4),
            np.array(student_ids, np.int32),
            np.array(teacher_ids, np.int32),
            self.student_by_teacher,
            self.teacher_by_student,
        )
        assert {field.dtype for field in vars(terms).values()} <= {np.dtype(np.int32)}
        tries = {
            TEACHER_SPACE: self.student_by_teacher,
            STUDENT_SPACE: self.teacher_by_student,
        }
        return [
            (int(chunk), int(side), int(student), int(teacher), spelled(tries[side], node))
            for chunk, side, student, teacher, node in zip(
                terms.chunk_N.tolist(),
                terms.side_N.tolist(),
                terms.student_position_N,
                terms.teacher_position_N,
                terms.node_N,
                strict=True,
            )
        ]


def test_one_to_one_and_many_to_many_chunks_have_their_first_term_only():
    chunks = [(1, 2, 1, 2), (2, 4, 2, 4)]
    terms = Toy().terms(chunks, [9, 0, 4, 2, 1], [9, 0, 0, 3, 1])
    assert terms == [(0, TEACHER_SPACE, 0, 0, ()), (1, TEACHER_SPACE, 1, 1, ())]


def test_one_token_against_several_has_a_term_for_each():
    terms = Toy().terms([(1, 2, 1, 3)], [9, 3], [9, 0, 3])
    assert terms == [(0, TEACHER_SPACE, 0, 0, ()), (0, TEACHER_SPACE, 0, 1, (0,))]


def test_several_tokens_against_one_compare_in_student_space():
    terms = Toy().terms([(1, 2, 1, 2), (2, 5, 2, 3)], [9, 0, 1, 2, 0], [9, 0, 4])
    assert terms == [
        (0, TEACHER_SPACE, 0, 0, ()),
        (1, STUDENT_SPACE, 1, 1, ()),
        (1, STUDENT_SPACE, 2, 1, (1,)),
        (1, STUDENT_SPACE, 3, 1, (1, 2)),
    ]


def test_terms_end_where_the_text_is_cut_unlike_the_token_alone():
    # `201` alone is 2, 01; in the text it is 2, 0, 1. After 2 all is well; 2, 0 leads to `20`,
    # after which nothing comes.
    terms = Toy().terms([(1, 2, 1, 4)], [9, 3], [9, 0, 1, 2])
    assert terms == [(0, TEACHER_SPACE, 0, 0, ()), (0, TEACHER_SPACE, 0, 1, (0,))]


def test_chunks_that_nothing_predicts_have_no_terms():
    assert Toy().terms([(0, 1, 1, 3), (1, 2, 0, 1)], [3, 0, 0], [0, 3, 0]) == []
    assert Toy().terms([], [3], [0]) == []
    assert [term[0] for term in Toy().terms([(0, 1, 0, 2), (1, 2, 2, 3)], [3, 0], [0, 3, 0])] == [1]


@pytest.fixture(scope="module")
def digits(tokenizer):
    """Llama-3, which packs three digits, and SmolLM2, which has one a token, with their tries."""
    packed, single = tokenizer("llama3"), tokenizer("smollm2-135m")
    by_single = build_piece_trie(retokenise(packed, single), num_teacher_tokens=single.num_tokens)
    by_packed = build_piece_trie(retokenise(single, packed), num_teacher_tokens=packed.num_tokens)
    return packed, single, by_single, by_packed


def test_a_numeral_is_supervised_on_all_its_digits(digits):
    packed, single, by_single, by_packed = digits
    two, zero, one = (single.id_of_bytes[digit] for digit in (b"2", b"0", b"1"))
    node = by_single.child(np.array([0]), np.array([two]))
    node = by_single.child(node, np.array([zero]))
    children = slice(*by_single.children_M[node[0] : node[0] + 2])
    assert node[0] > 0
    assert one in by_single.piece_M[children]
    below = by_single.order_V[by_single.start_M[node[0]] : by_single.stop_M[node[0]]]
    numerals = [b"20", *(b"20%d" % digit for digit in range(10))]
    assert {packed.id_of_bytes[numeral] for numeral in numerals} <= set(below.tolist())

    texts = ["It cost 201 yen."]
    left, right = packed.encode(texts), single.encode(texts)
    chunks = align(left, right, packed, single)[0]
    terms = chain_terms(chunks, left[0], right[0], by_single, by_packed)
    at = [tuple(right[0][position : position + 2]) for position in terms.teacher_position_N]
    of_numeral = [k for k, (_, predicted) in enumerate(at) if predicted in (two, zero, one)]
    assert [spelled(by_single, terms.node_N[k]) for k in of_numeral] == [(), (two,), (two, zero)]
    assert len(set(terms.student_position_N[of_numeral].tolist())) == 1
    # The other way round the same positions are compared, the roles exchanged.
    swapped = chain_terms(chunks[:, [2, 3, 0, 1]], right[0], left[0], by_packed, by_single)
    np.testing.assert_array_equal(swapped.node_N, terms.node_N)
    np.testing.assert_array_equal(swapped.student_position_N, terms.teacher_position_N)
    np.testing.assert_array_equal(swapped.teacher_position_N, terms.student_position_N)


def test_a_real_vocabulary(digits):
    _, _, by_single, _ = digits
    assert len(by_single.parent_M) == 147334
    assert int(by_single.is_inner_M.sum()) == 40066  # with the root
    assert int(by_single.depth_M.max()) == 16

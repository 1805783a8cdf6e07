"""W: its two passes, its options, and every real pair."""

import numpy as np
import pytest

from xtoken_jax.projection import build_projection, hybrid_pairs, retokenise, save_projection

PAIRS = [("llama3", "qwen3"), ("llama3", "smollm2-135m")]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_rows_of_real_pairs_are_stochastic(tokenizer, pair):
    student, teacher = map(tokenizer, pair)
    projection = build_projection(student, teacher)
    sums = projection.weights_VK.sum(axis=1, dtype=np.float64)
    filled = np.ones(student.num_tokens, bool)
    filled[projection.empty_rows] = False
    np.testing.assert_allclose(sums[filled], 1, atol=1e-6)
    assert not sums[~filled].any()


def test_two_builds_give_files_of_equal_bytes(tokenizer, tmp_path):
    student, teacher = tokenizer("smollm2-135m"), tokenizer("mistral-v3")
    for name in ("one", "two"):
        projection = build_projection(student, teacher, reverse=True, special_similarity=True)
        save_projection(projection, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_options_decide_what_is_stored(tokenizer):
    student, teacher = tokenizer("smollm2-135m"), tokenizer("mistral-v3")
    lengths = retokenise(student, teacher).lengths_V
    kept = build_projection(student, teacher, max_pieces=3, gamma=0.5)
    assert kept.ids_VK.shape == (student.num_tokens, 3)
    assert kept.options == {
        "beta": 0.9,
        "gamma": 0.5,
        "max_pieces": 3,
        "long_pieces": "truncate",
        "canonicalization": "exact",
        "reverse": False,
        "special_similarity": False,
    }
    word = student.id_of_bytes[b" syllabus"]  # " sy", "ll", "ab", "us"
    assert lengths[word] == 4
    np.testing.assert_allclose(kept.weights_VK[word], [4 / 7, 2 / 7, 1 / 7], rtol=1e-6)
    np.testing.assert_array_equal(kept.empty_rows, np.flatnonzero(lengths == 0))
    dropped = build_projection(student, teacher, max_pieces=3, long_pieces="drop")
    is_long = lengths > 3
    assert is_long.any()
    np.testing.assert_array_equal(dropped.empty_rows, np.flatnonzero(is_long | (lengths == 0)))


def test_a_tokenizer_projects_onto_itself(tokenizer):
    side = tokenizer("smollm2-135m")
    projection = build_projection(side, side)
    filled = np.ones(side.num_tokens, bool)
    filled[projection.empty_rows] = False
    assert projection.empty_rows.tolist() == [id for id, role in side.roles.items() if not role]
    content = np.array([bool(content) for content in side.token_bytes])
    np.testing.assert_array_equal(projection.ids_VK[content, 0], np.flatnonzero(content))
    assert (projection.weights_VK[filled, 0] == 1).all()
    assert projection.reachable_U[content].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0}, "`beta` must be positive, got 0"),
        ({"beta": float("nan")}, "`beta` must be positive, got nan"),
        ({"beta": float("inf")}, "`beta` must be positive, got inf"),
        ({"gamma": 1.5}, r"`gamma` must be in \[0, 1\], got 1.5"),
        ({"max_pieces": 0}, "`max_pieces` must be at least 1, got 0"),
        ({"long_pieces": "keep"}, r"`long_pieces` must be one of \('truncate', 'drop'\), got keep"),
        ({"canonicalization": "nfc"}, "`canonicalization` must be one of .*'paper'.*, got nfc"),
    ],
)
def test_bad_options_are_named(tokenizer, options, message):
    side = tokenizer("smollm2-135m")
    with pytest.raises(ValueError, match=message):
        build_projection(side, side, **options)


def entries(student, teacher, projection, token):
    row = student.id_of_bytes[token]
    pieces = [teacher.display(id) for id in projection.ids_VK[row] if id >= 0]
    return dict(zip(pieces, projection.weights_VK[row].tolist(), strict=False))


def test_the_papers_rules_match_more(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("llama4")
    exact = build_projection(student, teacher)
    paper = build_projection(student, teacher, canonicalization="paper")
    assert entries(student, teacher, exact, b"_PO").keys() == {"_P", "O"}
    assert entries(student, teacher, paper, b"_PO") == {" PO": 1.0}
    changed = (exact.ids_VK != paper.ids_VK).any(axis=1)
    assert changed.sum() == 1435
    assert (paper.ids_VK[changed, 1] < 0).all()
    # Most of the 1,435 find a teacher token that already has an equal student token.
    assert paper.exact_pair_V.sum() - exact.exact_pair_V.sum() == 37
    assert not paper.exact_pair_V[student.id_of_bytes[b"_PO"]]


def test_the_reverse_pass_reaches_more_and_leaves_exact_rows(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("qwen3")
    plain = build_projection(student, teacher)
    both = build_projection(student, teacher, reverse=True)
    # The student cuts "iếc" into "iế" and "c", and has no other token for it.
    token = "iế".encode()
    np.testing.assert_allclose(
        list(entries(student, teacher, both, token).values()),
        [10 / 21, 10 / 21, 1 / 21],
        rtol=1e-6,
    )
    assert entries(student, teacher, both, token).keys() == {"i", "iếc", "ế"}
    assert entries(student, teacher, plain, token).keys() == {"i", "ế"}
    changed = (plain.ids_VK != both.ids_VK).any(axis=1)
    assert changed.sum() == 1000
    assert not (changed & retokenise(student, teacher).exact_V).any()
    assert (~plain.reachable_U).sum() == 41839
    assert (~both.reachable_U).sum() == 40545
    sums = both.weights_VK.sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(sums[changed], 1, atol=1e-6)
    assert (np.diff(both.weights_VK[changed], axis=1) <= 0).all()


def test_control_tokens_of_like_names_are_paired_if_wanted(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("llama4")
    plain = build_projection(student, teacher)
    paired = build_projection(student, teacher, special_similarity=True)
    assert len(plain.empty_rows) == 248
    assert len(paired.empty_rows) == 0
    reserved = [id for id in student.roles if student.display(id).endswith("_token_7|>")]
    assert len(reserved) == 1
    assert teacher.display(paired.ids_VK[reserved[0], 0]) == student.display(reserved[0])
    np.testing.assert_array_equal(paired.exact_pair_V, plain.exact_pair_V)  # a guess is not exact
    assert len(hybrid_pairs(paired)) == len(hybrid_pairs(plain)) + 248


def test_pairs_are_equal_tokens_and_equal_roles(tokenizer):
    student, teacher = tokenizer("llama3"), tokenizer("qwen3")
    projection = build_projection(student, teacher)
    pairs = {
        (student.display(id), teacher.display(projection.ids_VK[id, 0]))
        for id in student.roles
        if projection.exact_pair_V[id]
    }
    assert pairs >= {
        ("<|eot_id|>", "<|im_end|>"),
        ("<|start_header_id|>", "<|im_start|>"),
        ("<|end_of_text|>", "<|endoftext|>"),
    }
    ordinary = [id for id in np.flatnonzero(projection.exact_pair_V) if id not in student.roles]
    assert len(ordinary) == 109566
    for id in ordinary:
        assert teacher.token_bytes[projection.ids_VK[id, 0]] == student.token_bytes[id]


def test_of_two_tokens_for_the_same_bytes_the_canonical_one_is_in_a_pair(tokenizer):
    student, teacher = tokenizer("mistral-v3"), tokenizer("llama3")
    projection = build_projection(student, teacher)
    doubled = [id for id, content in enumerate(student.token_bytes) if content == b"A"]
    assert len(doubled) == 2
    canonical = student.id_of_bytes[b"A"]
    assert [id for id in doubled if projection.exact_pair_V[id]] == [canonical]
    assert len({*projection.ids_VK[doubled, 0]}) == 1

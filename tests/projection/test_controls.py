"""Control tokens by the likeness of their names."""

from xtoken_jax.projection.controls import similar_names


def test_the_likest_names_are_paired_once():
    student = {10: "<|eom_id|>", 11: "<|image|>", 12: "<|vision_start|>", 13: "<|x|>"}
    teacher = {1: "[IMAGE]", 2: "<|eom|>", 3: "<|image_start|>", 4: "<|y|>"}
    # "image" is as good as "[IMAGE]"; "vision start" shares " start" and more with "image start".
    assert similar_names(student, teacher) == {10: 2, 11: 1, 12: 3}


def test_numbers_must_be_equal():
    student = {1: "<|reserved_special_token_12|>", 2: "<|reserved_special_token_13|>"}
    teacher = {5: "<|reserved_special_token_13|>", 6: "<|reserved_special_token_2|>"}
    assert similar_names(student, teacher) == {2: 5}


def test_a_taken_name_leaves_the_next_best():
    student = {1: "<tool_call>", 2: "<tool_calls>"}
    assert similar_names(student, {7: "<tool_calls>", 8: "<tool_cell>"}) == {2: 7, 1: 8}
    assert similar_names(student, {7: "<tool_calls>"}) == {2: 7}


def test_ties_go_to_the_lower_ids():
    assert similar_names({4: "<pad>", 3: "[PAD]"}, {9: "<|pad|>", 8: "PAD"}) == {3: 8, 4: 9}


def test_names_without_ascii_have_no_likeness():
    assert similar_names({1: "｜▁｜"}, {2: "｜▁｜"}) == {}

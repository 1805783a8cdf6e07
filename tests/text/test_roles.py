"""Roles of control tokens: the table, and what the tokenizer declares."""

from xtoken_jax.text.roles import Role, roles_of_control_tokens


def test_the_table_knows_the_families():
    control = {"<|begin_of_text|>": 1, "<|eot_id|>": 2, "<start_of_turn>": 3, "</s>": 4}
    assert roles_of_control_tokens(control, {}) == {
        1: Role.BOS,
        2: Role.TURN_END,
        3: Role.TURN_START,
        4: Role.EOS,
    }


def test_declarations_add_roles():
    control = {"<|im_end|>": 7, "<|endoftext|>": 8}
    declared = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    assert roles_of_control_tokens(control, declared) == {
        7: Role.TURN_END | Role.EOS,
        8: Role.EOS | Role.PAD,
    }


def test_unknown_and_reserved_tokens_have_no_role():
    control = {"<|mystery|>": 0, "<|reserved_special_token_3|>": 1, "<SPECIAL_17>": 2}
    assert set(roles_of_control_tokens(control, {}).values()) == {Role.NONE}


def test_a_declared_token_that_is_not_a_control_token_is_ignored():
    assert roles_of_control_tokens({}, {"eos_token": "."}) == {}

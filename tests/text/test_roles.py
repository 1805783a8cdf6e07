"""Roles of control tokens: the table, and what the tokenizer declares."""

import pytest

from xtoken_jax.text.roles import ROLE_OF_TOKEN, Role, is_frame, roles_of_control_tokens


def test_the_table_knows_the_families():
    control = {"<|begin_of_text|>": 1, "<|eot_id|>": 2, "<start_of_turn>": 3, "</s>": 4}
    assert roles_of_control_tokens(control, {}) == {
        1: Role.BOS,
        2: Role.TURN_END,
        3: Role.TURN_START,
        4: Role.EOS | Role.TURN_END,
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


# What a chat needs of each family: where a turn begins and ends, and who speaks. A family either
# names the speaker in a header or has a token for it.
CHATS = {
    "Llama 3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "Llama 4": ("<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>"),
    "Qwen, SmolLM": (None, "<|im_start|>", None, "<|im_end|>"),
    "Phi 4": (None, "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    "Phi 3, Phi 4 mini": (None, "<|user|>", None, "<|end|>"),
    "Gemma": ("<bos>", "<start_of_turn>", None, "<end_of_turn>"),
    "Mistral": ("<s>", "[INST]", None, "</s>"),
    "gpt-oss": ("<|startoftext|>", "<|start|>", "<|message|>", "<|end|>"),
    "DeepSeek": ("<｜begin▁of▁sentence｜>", "<｜User｜>", None, "<｜end▁of▁sentence｜>"),
}


@pytest.mark.parametrize("family", CHATS)
def test_every_family_can_frame_a_turn(family):
    begin, start, header_end, end = CHATS[family]
    for token, role in (
        (begin, Role.BOS),
        (start, Role.TURN_START | Role.USER),
        (header_end, Role.HEADER_END),
        (end, Role.TURN_END),
    ):
        if token is not None:
            assert ROLE_OF_TOKEN[token] & role, token
            assert is_frame(token), token


@pytest.mark.parametrize("token", ["<think>", "</think>", "<tool_call>", "<｜tool▁calls▁begin｜>"])
def test_what_a_model_itself_writes_is_no_frame(token):
    assert ROLE_OF_TOKEN[token]
    assert not is_frame(token)


@pytest.mark.parametrize("token", ["[REFERENCE_DOC_0]", "<|mystery|>", ".", "<unk>"])
def test_no_frame_either(token):
    assert not is_frame(token)


def test_each_role_but_none_is_in_the_table_of_two_families_or_declared():
    spellings = {role: [t for t, roles in ROLE_OF_TOKEN.items() if roles & role] for role in Role}
    assert all(len(found) >= 2 for found in spellings.values()), spellings


def test_the_first_roles_keep_their_numbers():
    """A stored mask would else mean something else, and another role would win a pairing."""
    names = "BOS EOS PAD UNK TURN_START HEADER_END TURN_END SYSTEM USER ASSISTANT TOOL_CALL"
    assert [role.name for role in Role][:11] == names.split()
    assert (Role.BOS, Role.FIM_SUFFIX) == (1, 1 << 13)

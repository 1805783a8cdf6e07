"""When two tokenizers are one."""

import copy

from xtoken_jax.text.same_tokenizer import same_token_ids


def test_a_tokenizer_is_the_same_as_its_copy_and_as_no_other(tokenizer):
    smollm = tokenizer("smollm2-135m")
    assert same_token_ids(smollm, copy.copy(smollm))
    assert not same_token_ids(smollm, tokenizer("llama3"))


def test_one_token_of_other_bytes_is_enough(tokenizer):
    student = tokenizer("smollm2-135m")
    teacher = copy.copy(student)
    teacher.token_bytes = list(student.token_bytes)
    teacher.token_bytes[1000], teacher.token_bytes[1001] = teacher.token_bytes[1001:999:-1]
    assert len(teacher.token_bytes) == len(student.token_bytes)
    assert not same_token_ids(student, teacher)


def test_one_control_token_of_another_name_is_enough(tokenizer, monkeypatch):
    student = tokenizer("smollm2-135m")
    teacher = copy.copy(student)
    renamed = next(iter(student.roles))
    plain = type(student).display
    monkeypatch.setattr(
        teacher, "display", lambda id: "<|other|>" if id == renamed else plain(student, id)
    )
    assert not same_token_ids(student, teacher)
    assert student.token_bytes == teacher.token_bytes

"""An alignment as JSON."""

import json

from xtoken_jax.align import align, alignment_record


def record_of(student, teacher, texts, index=0, **options):
    encoded = [side.encode(texts, **options) for side in (student, teacher)]
    alignment = align(*encoded, student, teacher)
    record = alignment_record(alignment, *encoded, student, teacher, index=index)
    assert json.loads(json.dumps(record)) == record  # plain values throughout
    return record


def test_a_packed_numeral_pairs_with_its_digits(tokenizer):
    record = record_of(tokenizer("llama3"), tokenizer("smollm2-135m"), ["201 apples"])
    assert record == {
        "student": {"ids": [679, 41776], "pieces": ["201", " apples"]},
        "teacher": {"ids": [34, 32, 33, 13855], "pieces": ["2", "0", "1", " apples"]},
        "chunks": [[0, 1, 0, 3], [1, 2, 3, 4]],
        "gaps": {"student": [], "teacher": []},
        "path": "bytes",
    }


def test_control_tokens_have_names_and_bytes_have_escapes(tokenizer):
    llama, mistral = tokenizer("llama3"), tokenizer("mistral-v3")
    record = record_of(llama, mistral, ["x", "\U0001f9ff"], index=1, bos=True, eos=True)
    assert record["student"]["pieces"] == [
        "<|begin_of_text|>",
        r"\xf0\x9f",
        r"\xa7",
        r"\xbf",
        "<|end_of_text|>",
    ]
    assert record["teacher"]["pieces"][:1] == ["<s>"]
    assert record["teacher"]["pieces"][-5:] == [r"\xf0", r"\x9f", r"\xa7", r"\xbf", "</s>"]
    # The space that the teacher put before the text is a token of its own here, and a gap.
    assert record["gaps"] == {"student": [], "teacher": [1]}

import pytest

from tests.tiny import sentences
from xtoken_jax.data import Document, Lengths, make_examples, pack, row_batches, shown_documents

LENGTHS = Lengths(64, {"one": 96, "two": 70})


@pytest.fixture(scope="module")
def shown(tokenizers):
    """What is shown of a batch, and the examples that are in it by record."""
    student, teacher = tokenizers
    teachers = {"one": teacher, "two": student}
    documents = [Document(text, f"f:{i}", 5 * (i % 2)) for i, text in enumerate(sentences(20))]
    lengths = {"student_length": LENGTHS.student, "teacher_lengths": LENGTHS.teachers}
    examples = make_examples(documents, student, teachers, **lengths)
    rows = pack(examples, LENGTHS)
    batch = next(iter(row_batches(rows, batch_size=4, seed=0)))
    by_record = {example.record: example for example in examples}
    return shown_documents(batch, student, teachers), by_record, batch


def test_every_document_of_the_batch_is_shown_in_its_row(shown):
    documents, by_record, batch = shown
    assert [document["record"] for document in documents] == batch.records
    assert len(documents) > 4
    assert sorted({document["row"] for document in documents}) == [0, 1, 2, 3]
    for document in documents:
        example = by_record[document["record"]]
        assert document["student"]["ids"] == example.student_ids.tolist()
        for name, side in document["teachers"].items():
            assert side["ids"] == example.teachers[name].ids.tolist()


def test_tokens_chunks_and_gaps(shown, tokenizers):
    student, teacher = tokenizers
    for document in shown[0]:
        own, other = document["student"], document["teachers"]["one"]
        for side, tokenizer in ((own, student), (other, teacher)):
            assert side["pieces"] == [tokenizer.display(id) for id in side["ids"]]
            assert side["bytes"] == [tokenizer.token_bytes[id].hex() for id in side["ids"]]
        for a, b, c, d in other["chunks"]:
            assert "".join(own["bytes"][a:b]) == "".join(other["bytes"][c:d])
        assert any(d - c > 1 for _, _, c, d in other["chunks"])
        assert other["gaps"] == {"student": [0], "teacher": []}  # the student's bos
        in_chunks = [i for a, b, _, _ in other["chunks"] for i in range(a, b)]
        assert in_chunks == list(range(1, len(own["ids"])))


def test_what_is_learnt_and_scored(shown):
    documents, by_record, _ = shown
    for document in documents:
        mask = by_record[document["record"]].loss_mask.tolist()
        assert document["student"]["learnt"] == [False, *mask[1:]]
        for side in document["teachers"].values():
            assert side["scored"] == [
                a > 0 and c > 0 and all(mask[a:b]) for a, b, c, _ in side["chunks"]
            ]
    assert {is_scored for d in documents for is_scored in d["teachers"]["one"]["scored"]} == {
        True,
        False,
    }

import gzip
import json

import pytest

from xtoken_jax.data import (
    Chat,
    Document,
    Problem,
    Tally,
    gsm_symbolic,
    hf_dataset,
    jsonl_files,
    parquet_files,
    part_of,
    python_docs,
    text_files,
)
from xtoken_jax.errors import UsageError, XTokenError


def texts_of(items):
    return [item.text for item in items]


class TestTextFiles:
    def test_each_file_is_one_document_in_the_order_of_names(self, tmp_path):
        (tmp_path / "b.txt").write_text("zwei\n\nAbsätze", encoding="utf-8")
        (tmp_path / "a.txt").write_text("one")
        (tmp_path / "c.md").write_text("not matched")
        documents = list(text_files(f"{tmp_path}/*.txt"))
        assert [d.text for d in documents] == ["one", "zwei\n\nAbsätze"]
        assert [d.record for d in documents] == [f"{tmp_path}/a.txt", f"{tmp_path}/b.txt"]

    def test_the_order_is_that_of_names_whatever_the_file_system_says(self, tmp_path):
        names = ["e", "b", "g", "a", "d", "c", "f"]
        for name in names:
            (tmp_path / name).write_text(name)
        assert texts_of(text_files(f"{tmp_path}/*")) == sorted(names)

    def test_a_glob_may_cross_directories_and_skips_them(self, tmp_path):
        (tmp_path / "deep" / "er.txt").mkdir(parents=True)
        (tmp_path / "deep" / "er.txt" / "x.txt").write_text("found")
        assert texts_of(text_files(f"{tmp_path}/**/*.txt")) == ["found"]

    def test_home_is_expanded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "a.txt").write_text("at home")
        assert texts_of(text_files("~/a.txt")) == ["at home"]

    def test_nothing_matches(self, tmp_path):
        with pytest.raises(UsageError, match=r"nothing matches .*/\*\.txt"):
            list(text_files(f"{tmp_path}/*.txt"))

    def test_empty_file(self, tmp_path):
        (tmp_path / "a.txt").write_text("")
        message = f"{tmp_path}/a.txt must hold text, but is empty"
        assert list(text_files(f"{tmp_path}/a.txt")) == [Problem("empty", message)]

    def test_not_utf8(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"abc\xe9")
        message = f"{tmp_path}/a.txt must be UTF-8, got a bad byte at 3"
        assert list(text_files(f"{tmp_path}/a.txt")) == [Problem("not UTF-8", message)]


class TestJsonlFiles:
    def write(self, tmp_path, *lines: bytes):
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
        return str(tmp_path / "a.jsonl")

    def test_a_document_a_line_named_by_file_and_line(self, tmp_path):
        lines = [json.dumps({"body": text}).encode() for text in ("one", "two\u2028lines")]
        path = self.write(tmp_path, lines[0], b"", lines[1], b"")
        documents = list(jsonl_files(path, field="body"))
        assert [d.text for d in documents] == ["one", "two\u2028lines"]
        assert [d.record for d in documents] == [f"{path}:1", f"{path}:3"]

    @pytest.mark.parametrize(
        ("line", "kind", "message"),
        [
            (b'{"text": "cut', "not JSON", "must be JSON"),
            (b'{"text": "\xff"}', "not UTF-8", "must be UTF-8, got a bad byte at 10"),
            (b"[" * 100_000, "not JSON", "must be JSON"),
            (
                b'{"body": "b"}',
                "missing field",
                "`text` must be a string that is not empty, got None",
            ),
            (b'{"text": 3}', "wrong type", "`text` must be a string that is not empty, got 3"),
            (b'{"text": ""}', "empty", "`text` must be a string that is not empty, got ''"),
            (b'["text"]', "wrong type", "must be an object, got ['text']"),
            (b'{"text": "\\ud800"}', "not UTF-8", "`text` must not have half a surrogate pair"),
        ],
        ids=["json", "utf8", "deep", "missing", "type", "empty", "list", "surrogate"],
    )
    def test_a_bad_line_is_named_and_the_others_are_read(self, tmp_path, line, kind, message):
        path = self.write(tmp_path, b'{"text": "good"}', line, b'{"text": "too"}')
        first, problem, last = jsonl_files(path)
        assert [first, last] == [Document("good", f"{path}:1"), Document("too", f"{path}:3")]
        assert problem.kind == kind
        assert problem.message.startswith(f"{path}:2: {message}")

    @pytest.mark.parametrize("content", [b"", b"\n \n"])
    def test_a_file_without_records(self, tmp_path, content):
        (tmp_path / "full.jsonl").write_text('{"text": "full"}')
        (tmp_path / "empty.jsonl").write_bytes(content)
        problem, document = jsonl_files(f"{tmp_path}/*.jsonl")
        assert problem.kind == "empty"
        assert "empty.jsonl must hold at least one record" in problem.message
        assert document.text == "full"

    def test_nothing_matches(self, tmp_path):
        with pytest.raises(UsageError, match="nothing matches"):
            list(jsonl_files(f"{tmp_path}/none.jsonl"))


LINES = [json.dumps({"text": f"number {i}", "n": i}).encode() for i in range(3000)]


def packed(kind: str) -> bytes:
    content = b"\n".join(LINES)
    if kind == "gz":
        return gzip.compress(content)
    zstandard = pytest.importorskip("zstandard", reason="the extra `data` is not installed")
    half = len(content) // 2  # two frames, end to end, as `cat a.zst b.zst` makes
    return zstandard.compress(content[:half]) + zstandard.compress(content[half:])


@pytest.mark.parametrize("kind", ["gz", "zst"])
class TestCompressed:
    def test_is_read_as_what_it_holds(self, tmp_path, kind):
        (tmp_path / f"a.jsonl.{kind}").write_bytes(packed(kind))
        expected = [f"number {i}" for i in range(3000)]
        assert texts_of(jsonl_files(f"{tmp_path}/*")) == expected
        (tmp_path / f"a.jsonl.{kind}").rename(tmp_path / f"a.txt.{kind}")
        assert texts_of(text_files(f"{tmp_path}/*")) == [b"\n".join(LINES).decode()]

    def test_a_truncated_file_is_a_problem_and_the_next_is_read(self, tmp_path, kind):
        (tmp_path / f"a.jsonl.{kind}").write_bytes(packed(kind)[:-200])
        (tmp_path / "b.jsonl").write_bytes(LINES[0])
        *read, problem, last = jsonl_files(f"{tmp_path}/*")
        assert texts_of(read) == [f"number {i}" for i in range(len(read))]
        assert 1000 < len(read) < 3000
        assert problem.kind == "damaged file"
        assert f"a.jsonl.{kind}:{len(read) + 1}: must be a whole file" in problem.message
        assert last.text == "number 0"

    def test_a_file_that_is_not_what_its_name_says(self, tmp_path, kind):
        (tmp_path / f"a.txt.{kind}").write_text("plain")
        (problem,) = text_files(f"{tmp_path}/*")
        assert problem.kind == "damaged file"


class TestTables:
    def write(self, tmp_path, rows, name="a.parquet"):
        pyarrow = pytest.importorskip("pyarrow", reason="the extra `data` is not installed")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
        return f"{tmp_path}/{name}"

    def test_parquet(self, tmp_path):
        path = self.write(tmp_path, [{"text": "one", "n": 1}, {"text": None, "n": 2}])
        document, problem = parquet_files(path)
        assert document == Document("one", f"{path}:1")
        assert problem.kind == "missing field"
        assert problem.message.startswith(f"{path}:2: `text` must be a string")

    def test_parquet_without_the_field_or_not_parquet(self, tmp_path):
        path = self.write(tmp_path, [{"body": "one"}])
        (problem,) = parquet_files(path)
        assert problem.kind == "missing field"
        (tmp_path / "b.parquet").write_bytes(b"PAR1 but no more")
        (problem,) = parquet_files(f"{tmp_path}/b.parquet")
        assert problem.kind == "damaged file"
        assert problem.message.startswith(f"{tmp_path}/b.parquet:1: must be whole Parquet")

    def test_parquet_of_messages_leaves_out_what_a_message_does_not_have(self, tmp_path):
        messages = [
            {"role": "user", "content": "a", "name": None},
            {"role": "assistant", "content": "b", "name": "B"},
        ]
        path = self.write(tmp_path, [{"messages": messages}])
        (chat,) = parquet_files(path, format="messages")
        assert chat.messages[0] == {"role": "user", "content": "a"}
        assert chat.messages[1] == messages[1]

    def test_a_data_set_from_its_directory(self, tmp_path, monkeypatch):
        datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        (tmp_path / "files").mkdir()
        self.write(tmp_path / "files", [{"text": "one"}, {"text": ""}], "train.parquet")
        path = str(tmp_path / "files")
        document, problem = hf_dataset(path, name=None, split="train")
        assert document == Document("one", f"{path}:train:0")
        assert problem.kind == "empty"
        with pytest.raises(UsageError, match="split 'test'"):
            list(hf_dataset(path, name=None, split="test"))

    def test_a_data_set_that_cannot_be_read_to_its_end(self, tmp_path, monkeypatch):
        datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / "train.jsonl").write_text('{"text": "one"}\n{"text": "tw')
        with pytest.raises(XTokenError) as error:
            list(hf_dataset(f"{tmp_path}/files", name=None, split="train"))
        assert f"{tmp_path}/files:train must be readable to its end, but after 0 records" in str(
            error.value
        )

    def test_a_data_set_saved_to_disk(self, tmp_path):
        datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
        path = str(tmp_path / "saved")
        datasets.Dataset.from_list([{"body": "one"}]).save_to_disk(path)
        assert texts_of(hf_dataset(path, name=None, split="train", field="body")) == ["one"]


def one_record(content, **options):
    from xtoken_jax.data.records import read_record

    return read_record(content, "f:1", **{"format": "messages", "field": "text", **options})


USER = {"role": "user", "content": "a"}
ASSISTANT = {"role": "assistant", "content": "b"}


class TestRecords:
    def test_a_prompt_and_its_completion(self):
        content = {"prompt": "1 + 1 = ", "completion": "2"}
        assert one_record(content, format="completion") == Document("1 + 1 = 2", "f:1", 8)

    def test_a_conversational_completion_is_a_chat_of_which_the_prompt_is_not_learnt(self):
        content = {"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]}
        chat = one_record(content, format="completion")
        assert chat == Chat((USER, ASSISTANT, USER, ASSISTANT), "f:1", first_learnt=3)

    @pytest.mark.parametrize("calls", [None, []])
    def test_no_calls_are_none(self, calls):
        chat = one_record({"messages": [{**ASSISTANT, "tool_calls": calls}]})
        assert chat.messages == (ASSISTANT,)

    def test_a_chat_with_tools_and_parts_of_text(self):
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        content = {"messages": [{"role": "user", "content": parts}], "tools": [{"name": "f"}]}
        chat = one_record(content)
        assert chat.messages == ({"role": "user", "content": "ab"},)
        assert chat.tools == ({"name": "f"},)

    @pytest.mark.parametrize(
        ("content", "kind", "message"),
        [
            ({}, "missing field", "f:1: `messages` must be a list, got None"),
            ({"messages": "hi"}, "wrong type", "f:1: `messages` must be a list, got 'hi'"),
            ({"messages": []}, "empty", "f:1: `messages` must not be empty"),
            ({"messages": ["hi"]}, "wrong type", "f:1: message 0 must be an object, got 'hi'"),
            (
                {"messages": [USER, {"role": "robot", "content": ""}]},
                "unknown role",
                "f:1: message 1: `role` must be one of system, user, assistant, tool, got 'robot'",
            ),
            ({"messages": [{"content": "a"}]}, "missing field", "f:1: message 0: `role` must be"),
            (
                {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
                "wrong type",
                "f:1: message 0: `content` must be a string or parts of text",
            ),
        ],
    )
    def test_a_bad_chat_is_named(self, content, kind, message):
        problem = one_record(content)
        assert problem.kind == kind
        assert problem.message.startswith(message)


class TestParts:
    def test_heldout_and_train_share_the_records_and_both_see_the_bad_ones(self):
        good = [Document(str(i), str(i)) for i in range(45)]
        bad = Problem("empty", "bad")
        items = [*good[:3], bad, *good[3:]]
        heldout, train = (list(part_of(items, part)) for part in ("heldout", "train"))
        assert [item for item in heldout if item is not bad] == [good[0], good[20], good[40]]
        assert bad in heldout
        assert bad in train
        assert len(heldout) + len(train) == 47
        assert list(part_of(items, "all")) == items


class TestTally:
    BAD = Problem("not JSON", "f:7: must be JSON")

    def test_the_first_bad_record_is_an_error(self):
        with pytest.raises(XTokenError, match="f:7: must be JSON"):
            list(Tally().good([self.BAD]))

    def test_bad_records_are_counted_by_kind(self):
        tally = Tally(on_error="skip", max_error_share=1)
        good = Document("a", "a")
        assert list(tally.good([good, self.BAD, Problem("empty", "f:9"), self.BAD])) == [good]
        assert tally.dropped == {"not JSON": 2, "empty": 1}
        assert str(tally) == "2 not JSON, the first: f:7: must be JSON; 1 empty, the first: f:9"

    def test_too_many_stop_the_run_as_soon_as_the_share_says_something(self):
        tally = Tally(on_error="skip", max_error_share=0.01)
        good = Document("a", "a")
        list(tally.good([good] * 990 + [self.BAD] * 9))
        tally.check()
        with pytest.raises(XTokenError, match=r"11 of 1001 records were bad .* 11 not JSON"):
            list(tally.good([self.BAD, self.BAD, good]))

    def test_few_records_are_judged_in_the_end(self):
        tally = Tally(on_error="skip", max_error_share=0.2)
        list(tally.good([self.BAD, Document("a", "a")]))
        with pytest.raises(XTokenError, match="1 of 2 records"):
            tally.check()


class TestGenerators:
    def test_problems_are_a_function_of_the_seed(self):
        pytest.importorskip("reasoning_gym", reason="the extra `quickstart` is not installed")
        first, again, other = (list(gsm_symbolic(5, seed=seed)) for seed in (1, 1, 1_000_003))
        assert first == again
        assert {d.text for d in first}.isdisjoint({d.text for d in other})
        assert all(d.text.startswith("Question: ") and "\nAnswer: " in d.text for d in first)
        assert [d.record for d in first] == [f"gsm_symbolic:1:{i}" for i in range(5)]

    def test_without_reasoning_gym_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
        with pytest.raises(UsageError, match=r"pip install 'xtoken_jax\[quickstart\]'"):
            list(gsm_symbolic(1, seed=0))

    def test_passages_are_whole_paragraphs_and_none_is_lost(self):
        from pydoc_data.topics import topics

        documents = list(python_docs(max_bytes=600))
        of_topic = {name: [] for name in topics}
        for document in documents:
            of_topic[document.record.split(":")[1]].append(document.text)
        for name, passages in of_topic.items():
            assert "\n\n".join(passages).strip() == topics[name].strip()
            assert all(len(p.encode()) <= 600 or "\n\n" not in p.strip("\n") for p in passages)
        assert len({d.record for d in documents}) == len(documents)

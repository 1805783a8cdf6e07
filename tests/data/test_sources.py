import json

import pytest

from xtoken_jax.data import gsm_symbolic, jsonl_files, python_docs, text_files
from xtoken_jax.errors import UsageError, XTokenError


class TestTextFiles:
    def test_each_file_is_one_document_in_the_order_of_names(self, tmp_path):
        (tmp_path / "b.txt").write_text("zwei\n\nAbsätze", encoding="utf-8")
        (tmp_path / "a.txt").write_text("one")
        (tmp_path / "c.md").write_text("not matched")
        documents = text_files(f"{tmp_path}/*.txt")
        assert [d.text for d in documents] == ["one", "zwei\n\nAbsätze"]
        assert [d.record for d in documents] == [f"{tmp_path}/a.txt", f"{tmp_path}/b.txt"]

    def test_the_order_is_that_of_names_whatever_the_file_system_says(self, tmp_path):
        names = ["e", "b", "g", "a", "d", "c", "f"]
        for name in names:
            (tmp_path / name).write_text(name)
        assert [d.text for d in text_files(f"{tmp_path}/*")] == sorted(names)

    def test_a_glob_may_cross_directories_and_skips_them(self, tmp_path):
        (tmp_path / "deep" / "er.txt").mkdir(parents=True)
        (tmp_path / "deep" / "er.txt" / "x.txt").write_text("found")
        assert [d.text for d in text_files(f"{tmp_path}/**/*.txt")] == ["found"]

    def test_home_is_expanded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "a.txt").write_text("at home")
        assert text_files("~/a.txt")[0].text == "at home"

    def test_nothing_matches(self, tmp_path):
        with pytest.raises(UsageError, match=r"nothing matches .*/\*\.txt"):
            text_files(f"{tmp_path}/*.txt")

    def test_empty_file(self, tmp_path):
        (tmp_path / "a.txt").write_text("")
        with pytest.raises(XTokenError, match=r"a\.txt must hold text, but is empty"):
            text_files(f"{tmp_path}/a.txt")

    def test_not_utf8(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"abc\xe9")
        with pytest.raises(XTokenError, match=r"a\.txt must be UTF-8, got a bad byte at 3"):
            text_files(f"{tmp_path}/a.txt")


class TestJsonlFiles:
    def write(self, tmp_path, *lines: bytes):
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
        return str(tmp_path / "a.jsonl")

    def test_a_document_a_line_named_by_file_and_line(self, tmp_path):
        lines = [json.dumps({"body": text}).encode() for text in ("one", "two\u2028lines")]
        path = self.write(tmp_path, lines[0], b"", lines[1], b"")
        documents = jsonl_files(path, field="body")
        assert [d.text for d in documents] == ["one", "two\u2028lines"]
        assert [d.record for d in documents] == [f"{path}:1", f"{path}:3"]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b'{"text": "cut', "must be JSON"),
            (b'{"text": "\xff"}', "must be JSON"),
            (b"[" * 100_000, "must be JSON"),
            (b'{"body": "b"}', "`text` must be a string that is not empty, got None"),
            (b'{"text": 3}', "`text` must be a string that is not empty, got 3"),
            (b'{"text": ""}', "`text` must be a string that is not empty, got ''"),
            (b'["text"]', "`text` must be a string that is not empty, got None"),
            (b'{"text": "\\ud800"}', "`text` must not have half a surrogate pair"),
        ],
        ids=["json", "utf8", "deep", "missing", "type", "empty", "list", "surrogate"],
    )
    def test_a_bad_line_is_named(self, tmp_path, line, message):
        path = self.write(tmp_path, b'{"text": "good"}', line)
        with pytest.raises(XTokenError) as error:
            jsonl_files(path)
        assert str(error.value).startswith(f"{path}:2: {message}")

    @pytest.mark.parametrize("content", [b"", b"\n \n"])
    def test_a_file_without_records(self, tmp_path, content):
        (tmp_path / "full.jsonl").write_text('{"text": "full"}')
        (tmp_path / "empty.jsonl").write_bytes(content)
        with pytest.raises(XTokenError, match=r"empty\.jsonl must hold at least one record"):
            jsonl_files(f"{tmp_path}/*.jsonl")

    def test_nothing_matches(self, tmp_path):
        with pytest.raises(UsageError, match="nothing matches"):
            jsonl_files(f"{tmp_path}/none.jsonl")


class TestGenerators:
    def test_problems_are_a_function_of_the_seed(self):
        pytest.importorskip("reasoning_gym", reason="the extra `quickstart` is not installed")
        first, again = gsm_symbolic(5, seed=1), gsm_symbolic(5, seed=1)
        other = gsm_symbolic(5, seed=1_000_003)
        assert first == again
        assert {d.text for d in first}.isdisjoint({d.text for d in other})
        assert all(d.text.startswith("Question: ") and "\nAnswer: " in d.text for d in first)
        assert [d.record for d in first] == [f"gsm_symbolic:1:{i}" for i in range(5)]

    def test_without_reasoning_gym_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
        with pytest.raises(UsageError, match=r"pip install 'xtoken_jax\[quickstart\]'"):
            gsm_symbolic(1, seed=0)

    def test_passages_are_whole_paragraphs_and_none_is_lost(self):
        from pydoc_data.topics import topics

        documents = python_docs(max_bytes=600)
        of_topic = {name: [] for name in topics}
        for document in documents:
            of_topic[document.record.split(":")[1]].append(document.text)
        for name, passages in of_topic.items():
            assert "\n\n".join(passages).strip() == topics[name].strip()
            assert all(len(p.encode()) <= 600 or "\n\n" not in p.strip("\n") for p in passages)
        assert len({d.record for d in documents}) == len(documents)

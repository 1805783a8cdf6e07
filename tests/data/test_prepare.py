import functools
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import sentences, tiny_tokenizer
from xtoken_jax.data import Document, Lengths, PreparedRows, Problem, Tally, check_plan, row_batches
from xtoken_jax.data import prepare as prepare_rows
from xtoken_jax.data.prepare import Plan
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import ByteTokenizer

LENGTHS = Lengths(64, {"one": 96})


def make_plan(directory: Path, **options) -> Plan:
    """Runs in worker processes too."""
    student, teacher = (
        ByteTokenizer.load(tiny_tokenizer(directory / str(packs), packs_digits=packs))
        for packs in (True, False)
    )
    description = {
        "lengths": {"student": 64, "teachers": {"one": 96}},
        "sources": ["first", "second"],
        **options,
    }
    return Plan(student, {"one": teacher}, LENGTHS, None, description)


def first_source():
    return [Document(text, f"first:{i}") for i, text in enumerate(sentences(90))]


def second_source():
    return [Document(text, f"second:{i}") for i, text in enumerate(sentences(20, seed=1))]


SOURCES = [first_source, second_source]


def prepared(tmp_path, name="rows", *, sources=SOURCES, tally=None, workers=1, **options):
    shards = []
    manifest = prepare_rows(
        tmp_path / name,
        sources,
        functools.partial(make_plan, tmp_path, **options),
        tally or Tally(),
        workers=workers,
        block_bytes=2000,  # several shards a source
        progress=shards.append,
    )
    return manifest, shards


class TestRows:
    def test_every_document_is_in_one_row_as_it_is_made_in_memory(self, tmp_path):
        from xtoken_jax.data import make_examples

        manifest, _ = prepared(tmp_path)
        rows = PreparedRows(tmp_path / "rows")
        arrays, records = rows.read(range(len(rows)))
        documents = {document.record: document for read in SOURCES for document in read()}
        assert sorted(records) == sorted(documents)
        assert len(manifest["shards"]) > 3
        plan = make_plan(tmp_path)
        (example,) = make_examples(
            [documents[records[0]]],
            plan.student,
            plan.teachers,
            student_length=64,
            teacher_lengths={"one": 96},
        )
        size = len(example.student_ids)
        np.testing.assert_array_equal(arrays[0]["student:ids"][:size], example.student_ids)
        chunk = arrays[0]["teacher:one:student_chunk"][:size]
        np.testing.assert_array_equal(chunk, example.teachers["one"].student_chunk)

    def test_rows_of_each_source_are_counted(self, tmp_path):
        prepared(tmp_path)
        rows = PreparedRows(tmp_path / "rows")
        first, second = rows.num_rows
        assert {record.split(":")[0] for record in rows.read(range(first))[1]} == {"first"}
        assert {record.split(":")[0] for record in rows.read(range(first, len(rows)))[1]} == {
            "second"
        }
        assert second > 0

    def test_parallel_processes_write_the_same(self, tmp_path):
        one, _ = prepared(tmp_path, "one")
        two, _ = prepared(tmp_path, "two", workers=2)
        assert one == two
        for shard in one["shards"]:
            paths = [tmp_path / name / shard["file"] for name in ("one", "two")]
            assert paths[0].read_bytes() == paths[1].read_bytes()


class TestHosts:
    def test_hosts_share_one_order(self, tmp_path):
        prepared(tmp_path)
        rows = PreparedRows(tmp_path / "rows")

        def batches(host, num_hosts):
            options = {"batch_size": 4, "seed": 3, "weights": [1.0, 1.0]}
            dataset = row_batches(rows, **options, host=host, num_hosts=num_hosts)
            return islice(dataset, 8)

        whole = batches(0, 1)
        for one, *parts in zip(whole, *(batches(host, 2) for host in range(2)), strict=True):
            assert one.records == [record for part in parts for record in part.records]
            ids = np.concatenate([part.student["ids_BS"] for part in parts])
            np.testing.assert_array_equal(one.student["ids_BS"], ids)
        with pytest.raises(ValueError, match="multiple of 3 hosts, got 4"):
            batches(0, 3)

    def test_a_saved_place_goes_on_in_a_new_process_and_with_other_hosts(self, tmp_path):
        prepared(tmp_path)

        def iterator(**options):
            rows = PreparedRows(tmp_path / "rows")
            return iter(row_batches(rows, batch_size=4, seed=3, **options))

        batches = iterator()
        list(islice(batches, 5))
        state = json.loads(json.dumps(batches.get_state()))
        expected = next(batches).records
        halves = []
        for host in range(2):
            resumed = iterator(host=host, num_hosts=2)
            resumed.set_state(state)
            halves += next(resumed).records
        assert halves == expected


class TestResume:
    def test_finished_shards_are_kept(self, tmp_path):
        manifest, shards = prepared(tmp_path)
        lost = tmp_path / "rows" / shards[1]["file"]
        cut = tmp_path / "rows" / shards[2]["file"]
        kept = tmp_path / "rows" / shards[0]["file"]
        content = {path: path.read_bytes() for path in (lost, cut, kept)}
        lost.unlink()
        lost.with_suffix(".json").unlink()
        cut.write_bytes(content[cut][:-10])
        inode = kept.stat().st_ino
        again, _ = prepared(tmp_path)
        assert again == manifest
        assert kept.stat().st_ino == inode  # not written again
        assert {path: path.read_bytes() for path in (lost, cut, kept)} == content

    def test_an_interrupted_preparation_is_none(self, tmp_path):
        def interrupted():
            yield from first_source()[:60]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path, sources=[interrupted, second_source])
        assert list((tmp_path / "rows").glob("*.json"))
        with pytest.raises(UsageError, match=r"`xtoken prepare` has finished.*manifest\.json"):
            PreparedRows(tmp_path / "rows")
        prepared(tmp_path)
        assert len(PreparedRows(tmp_path / "rows")) > 0

    def test_other_documents_and_other_options_are_made_anew(self, tmp_path):
        manifest, _ = prepared(tmp_path)
        changed = [lambda: [Document("new", "first:0"), *first_source()[1:]], second_source]
        again, _ = prepared(tmp_path, sources=changed)
        before, after = ({s["file"]: s["block"] for s in m["shards"]} for m in (manifest, again))
        assert [name for name in after if before.get(name) != after[name]] != []
        assert before["source-01-00000.arrayrecord"] == after["source-01-00000.arrayrecord"]
        other, _ = prepared(tmp_path, loss_roles=["user"])
        assert not {s["block"] for s in other["shards"]} & set(after.values())


class TestManifest:
    def test_another_plan_is_refused_and_says_what_differs(self, tmp_path):
        manifest, _ = prepared(tmp_path, tokenizers={"student": "abc", "teacher one": "def"})
        plan = make_plan(tmp_path, tokenizers={"student": "abc", "teacher one": "xyz"}).description
        with pytest.raises(XTokenError) as error:
            check_plan(manifest, plan, tmp_path / "rows")
        assert str(error.value).endswith("directory: tokenizers.teacher one: def -> xyz")

    def test_a_shard_that_is_not_whole_is_named(self, tmp_path):
        manifest, _ = prepared(tmp_path)
        path = tmp_path / "rows" / manifest["shards"][0]["file"]
        path.write_bytes(path.read_bytes()[:-1])
        size = manifest["shards"][0]["bytes"]
        with pytest.raises(XTokenError, match=rf"{path} must have {size} bytes, got {size - 1}"):
            PreparedRows(tmp_path / "rows")


class TestBadRecords:
    def bad_source(self):
        good = [Document(text, f"bad:{i}") for i, text in enumerate(sentences(30))]
        return [*good, Problem("not JSON", "bad:30: must be JSON"), Document("201" * 99, "bad:31")]

    def test_are_errors(self, tmp_path):
        with pytest.raises(XTokenError, match="bad:30: must be JSON"):
            prepared(tmp_path, sources=[self.bad_source])

    @pytest.mark.parametrize("run", ["first", "again"])
    def test_are_counted_by_kind_in_every_step_also_those_of_kept_shards(self, tmp_path, run):
        plan = functools.partial(make_plan, tmp_path)
        for _ in range(1 + (run == "again")):
            tally = Tally(on_error="skip", max_error_share=0.1)
            source = [*self.bad_source(), Document("", "bad:32")]
            manifest = prepare_rows(tmp_path / "rows", [lambda s=source: s], plan, tally)
        assert manifest["dropped"] == {"not JSON": 1}
        assert tally.num_good == 32
        assert manifest["examples"]["not JSON"] == "bad:30: must be JSON"

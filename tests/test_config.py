import dataclasses

import pytest
import yaml

from xtoken_jax.config import (
    ExperimentConfig,
    OptimConfig,
    SourceConfig,
    check_config,
    differences,
    flat,
    load_config,
    to_dict,
)
from xtoken_jax.errors import UsageError

SMALLEST = {
    "run_dir": "runs/x",
    "teachers": {"smollm2": {"model": "asset:smollm2-135m"}},
    "student": {"model": "asset:smollm2-135m"},
    "data": {"train": [{"kind": "text", "path": "*.txt"}]},
}


def checked(**changes) -> ExperimentConfig:
    return check_config(SMALLEST | changes, name="test")


def complaint(**changes) -> str:
    with pytest.raises(UsageError) as error:
        checked(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


class TestDefaults:
    def test_what_is_left_out_has_its_default(self):
        config = checked()
        assert config.data.batch_size == 8
        assert config.teachers["smollm2"].loss.kind == "p_kl"
        assert config.teachers["smollm2"].projection.path is None
        assert config.loss.scaling == "dynamic"
        assert config.student.layers is None
        assert config.evaluation.sources == ()
        assert (config.mesh.data, config.mesh.fsdp, config.mesh.tensor) == (1, 1, 1)

    def test_what_is_given_is_kept_and_its_section_keeps_the_other_defaults(self):
        config = checked(optim={"steps": 7}, student={"model": "m", "layers": [0, 3]})
        assert config.optim == OptimConfig(steps=7)
        assert config.student.layers == (0, 3)

    def test_yaml_spells_small_numbers_as_text(self):
        assert checked(optim={"learning_rate": "1e-4"}).optim.learning_rate == 1e-4


class TestUnknownKeys:
    def test_at_the_top(self):
        assert complaint(optimizer={}).startswith(
            "test: `optimizer` is not a field; there are run_dir, student, teachers, data,"
        )

    def test_in_a_section_its_fields_are_listed(self):
        assert complaint(mesh={"model": 2}) == (
            "test: `mesh.model` is not a field; there are data, fsdp, tensor"
        )

    def test_in_a_teacher(self):
        teacher = {"model": "m", "loss": {"name": "p_kl"}}
        assert complaint(teachers={"qwen": teacher}).startswith(
            "test: `teachers.qwen.loss.name` is not a field; there are kind, chunk_merge,"
        )

    def test_in_a_source(self):
        source = {"kind": "text", "path": "x", "glob": "y"}
        assert complaint(data={"train": [source]}) == (
            "test: `data.train.0.glob` is not a field; "
            "there are kind, path, format, field, name, split, size, seed, max_bytes, part, weight"
        )


class TestBadValues:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"optim": {"steps": 0}}, "`optim.steps`: input should be greater than 0, got 0"),
            ({"optim": {"learning_rate": float("inf")}}, "should be a finite number, got inf"),
            ({"optim": {"learning_rate": "fast"}}, "should be a valid number"),
            ({"optim": 3}, "`optim`: input should be a dictionary"),
            (
                {"teachers": {"t": {"model": "m", "loss": {"chunk_merge": "sum"}}}},
                "input should be 'chain_rule', 'first' or 'mean', got 'sum'",
            ),
            ({"student": {"model": "m", "layers": [0, -1]}}, "`student.layers.1`"),
            ({"data": {"train": []}}, "`data.train`: tuple should have at least 1 item"),
            (
                {"data": {"train": [{"kind": "csv"}]}},
                "`data.train.0.kind`: input should be 'text',",
            ),
            ({"teachers": {"t": {}}}, "`teachers.t.model`: field required"),
            ({"teachers": {"a b": {"model": "m"}}}, "`teachers.a b.[key]`: string should match"),
            ({"run_dir": 3}, "`run_dir`: input should be a valid string, got 3"),
            (
                {"teachers": {"t": {"model": "m", "loss": {"kind": "kl"}}}},
                "input should be 'p_kl', 'h_kl', 'gold', 'uld', 'c_kl' or",
            ),
            (
                {"teachers": {"t": {"model": "m", "loss": {"kind": "gold", "top_k": 5}}}},
                "`teachers.t.loss`: `top_k` is of p_kl, got 5 for gold",
            ),
        ],
    )
    def test_the_field_what_is_allowed_and_what_was_found(self, changes, message):
        assert message in complaint(**changes)

    def test_every_problem_is_in_the_one_line(self):
        message = complaint(optim={"steps": 0, "lr": 1}, seed="x")
        assert all(f"`{field}`" in message for field in ("optim.steps", "optim.lr", "seed"))

    def test_a_bad_source_does_not_make_the_list_too_short_as_well(self):
        assert "at least 1 item" not in complaint(data={"train": [{"kind": "csv"}]})


class TestFieldsAgainstEachOther:
    def test_warmup_ends_before_the_run(self):
        checked(optim={"steps": 5, "warmup_steps": 4})
        assert "`warmup_steps` must be below `steps` (5), got 5" in complaint(
            optim={"steps": 5, "warmup_steps": 5}
        )

    def test_a_batch_splits_over_the_mesh(self):
        mesh = {"data": 2, "fsdp": 3, "tensor": 5}
        data = SMALLEST["data"] | {"batch_size": 12}
        checked(mesh=mesh, data=data, evaluation={"batch_size": 6})
        assert (
            "`data.batch_size` must be a multiple of mesh.data x mesh.fsdp x "
            "optim.accumulation_steps (6), got 8"
        ) in complaint(mesh=mesh, evaluation={"batch_size": 6})
        message = "`evaluation.batch_size` must be a multiple of mesh.data x mesh.fsdp (6), got 8"
        assert message in complaint(mesh=mesh, data=data)

    def test_a_batch_splits_into_parts_that_split_over_the_mesh(self):
        mesh, parts = {"data": 2}, {"accumulation_steps": 4}
        checked(mesh=mesh, optim=parts)
        data = SMALLEST["data"] | {"batch_size": 12}
        assert "optim.accumulation_steps (8), got 12" in complaint(
            mesh=mesh, optim=parts, data=data
        )

    def test_only_p_kl_teaches_w(self):
        teacher = {"model": "m", "projection": {"learned": True}, "loss": {"kind": "h_kl"}}
        assert "`projection.learned` needs `loss.kind` p_kl, got h_kl" in complaint(
            teachers={"t": teacher}
        )

    def test_weights_of_teachers_do_not_sum_to_0(self):
        nothing = {"model": "m", "weight": 0}
        checked(teachers={"a": nothing, "b": {"model": "m"}})
        assert "the weights must not sum to 0" in complaint(teachers={"a": nothing, "b": nothing})

    def test_a_mean_of_logits_is_compared_in_one_way(self):
        teachers = {"a": {"model": "m"}, "b": {"model": "n", "loss": {"kind": "uld"}}}
        assert "mean_logits needs teachers of one `loss`, `projection` and `length`" in complaint(
            loss={"combine": "mean_logits"}, teachers=teachers
        )

    @pytest.mark.parametrize("kind", ["text", "jsonl"])
    def test_files_need_a_path(self, kind):
        with pytest.raises(ValueError, match="`path` must be given"):
            SourceConfig(kind=kind)

    @pytest.mark.parametrize("kind", ["gsm_symbolic", "python_docs"])
    def test_generators_take_none(self, kind):
        SourceConfig(kind=kind)
        with pytest.raises(ValueError, match="`path` must not be given"):
            SourceConfig(kind=kind, path="x")


class TestFiles:
    def test_round_trip(self, tmp_path):
        config = checked(
            student={"model": "m", "layers": [1, 2], "tokenizer": "asset:llama3"},
            evaluation={"sources": [{"kind": "gsm_symbolic", "size": 3}]},
            optim={"learning_rate": 2e-5},
        )
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(to_dict(config)))
        assert load_config(path) == config

    def test_every_default_is_written_out(self):
        content = to_dict(checked())
        for field in dataclasses.fields(ExperimentConfig):
            assert field.name in content
        assert content["optim"] == dataclasses.asdict(OptimConfig())

    def test_the_quickstart_config_is_valid(self, request):
        config = load_config(request.config.rootpath / "configs" / "quickstart.yaml")
        assert config.teachers["smollm2"].model == "asset:smollm2-135m"
        assert config.teachers["smollm2"].loss.kind == "p_kl"
        assert config.student.tokenizer == "asset:llama3"

    def test_missing_file(self, tmp_path):
        with pytest.raises(UsageError, match=r"config .*none\.yaml does not exist"):
            load_config(tmp_path / "none.yaml")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a: [", "must be a YAML file"),
            (b"run_dir: abc\xe9", "must be a YAML file"),
            (b"run: !!python/object:os.system x", "must be a YAML file"),
            (b"", "must be a mapping of fields, got None"),
            (b"- a", "must be a mapping of fields, got ['a']"),
            (b"1: 2", "`1`: keys should be strings"),
        ],
    )
    def test_not_a_config(self, tmp_path, content, message):
        path = tmp_path / "bad.yaml"
        path.write_bytes(content)
        with pytest.raises(UsageError) as error:
            load_config(path)
        assert message in str(error.value)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_directory_is_no_config(self, tmp_path):
        with pytest.raises(UsageError, match="must be a YAML file"):
            load_config(tmp_path)


class TestFlat:
    def test_lists_of_sections_are_numbered_and_other_lists_are_values(self):
        content = {"data": {"train": [{"kind": "a"}, {"kind": "b", "seed": 1}]}, "layers": [0, 2]}
        assert flat(content) == {
            "data.train.0.kind": "a",
            "data.train.1.kind": "b",
            "data.train.1.seed": 1,
            "layers": [0, 2],
        }

    def test_an_empty_list_is_a_value(self):
        assert flat({"evaluation": {"sources": []}}) == {"evaluation.sources": []}


class TestDifferences:
    def test_none_between_a_config_and_what_was_saved_of_it(self):
        config = checked(student={"model": "m", "layers": [1, 2]})
        assert differences(to_dict(config), config) == []

    def test_each_is_named_with_both_values(self):
        saved = to_dict(checked(seed=1, optim={"learning_rate": 0.5}))
        assert differences(saved, checked(seed=2)) == [
            "optim.learning_rate: 0.5 -> 0.0001",
            "seed: 1 -> 2",
        ]

    def test_data_and_layers_count(self):
        saved = to_dict(checked(student={"model": "m", "layers": [1, 2]}))
        found = differences(saved, checked(data={"train": [{"kind": "python_docs"}]}))
        assert [line.split(":")[0] for line in found] == [
            "data.train.0.kind",
            "data.train.0.path",
            "student.layers",
            "student.model",
        ]

    @pytest.mark.parametrize(
        "changes",
        [
            {"run_dir": "elsewhere"},
            {"mesh": {"data": 2}},
            {"checkpoint": {"every_steps": 1}},
            {"evaluation": {"length": 9}},
            {"optim": {"max_skipped_steps": 3}},
        ],
    )
    def test_what_does_not_change_the_losses_is_free(self, changes):
        assert differences(to_dict(checked()), checked(**changes)) == []

"""Whole runs of a tiny pair: meshes, resuming, stopping, and what goes wrong."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.tiny import tiny_config, with_teacher
from xtoken_jax.config import MeshConfig
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.projection import load_projection
from xtoken_jax.text import ByteTokenizer
from xtoken_jax.train import loop, run
from xtoken_jax.train.run import train

# Names and documents of the whole of a run's losses.
LOSSES = ("loss", "cross_entropy", "distillation", "gradient_norm")


def losses(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    return np.array([[record[name] for name in LOSSES] for record in records])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A config and the directory of its uninterrupted run."""
    config = tiny_config(tmp_path_factory.mktemp("pair"))
    result = train(config)
    assert result.step == config.optim.steps
    assert result.stopped_by is None
    return config, result.run_dir


def in_new_directory(config, tmp_path):
    """The same experiment, which has not begun."""
    return dataclasses.replace(config, run_dir=str(tmp_path / "run"))


def test_the_student_learns_and_everything_is_written(finished):
    config, run_dir = finished
    values = losses(run_dir)
    assert len(values) == config.optim.steps
    assert np.isfinite(values).all()
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert evaluation["student after"]["all"] < evaluation["student before"]["all"]
    assert (run_dir / "student" / "model.safetensors").is_file()
    assert (run_dir / "config.yaml").is_file()
    assert (run_dir / "projections" / "tiny.safetensors").is_file()
    assert [path.name for path in (run_dir / "checkpoints").iterdir()].count("6") == 1


def test_dynamic_scaling_doubles_cross_entropy(finished):
    loss, cross_entropy = losses(finished[1])[:, :2].T
    np.testing.assert_allclose(loss, 2 * cross_entropy, rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1), (1, 1, 8), (2, 2, 2)])
def test_every_mesh_gives_the_losses_of_one_device(finished, tmp_path, shape):
    config, run_dir = finished
    data, fsdp, tensor = shape
    other = dataclasses.replace(
        in_new_directory(config, tmp_path), mesh=MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
    )
    result = train(other)
    np.testing.assert_allclose(losses(result.run_dir), losses(run_dir), rtol=1e-5)


def test_a_second_start_of_a_finished_run_changes_nothing(finished):
    config, run_dir = finished
    before = (run_dir / "metrics.jsonl").read_text()
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert train(config).step == config.optim.steps
    assert (run_dir / "metrics.jsonl").read_text() == before
    assert json.loads((run_dir / "evaluation.json").read_text()) == evaluation


def interrupt_after_one_step(monkeypatch, number):
    class Interrupting(loop.MetricsLog):
        def write(self, record):
            super().write(record)
            if record["step"] == 1:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(loop, "MetricsLog", Interrupting)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_next_start_goes_on_bit_for_bit(
    finished, tmp_path, monkeypatch, number
):
    config, run_dir = finished
    config = in_new_directory(config, tmp_path)

    interrupt_after_one_step(monkeypatch, number)
    stopped = train(config)
    assert stopped.stopped_by == signal.Signals(number).name
    assert 1 <= stopped.step < 3  # before the first save that was due anyway
    assert not (stopped.run_dir / "student").exists()
    monkeypatch.undo()
    resumed = train(config, resume=True)
    assert resumed.stopped_by is None
    np.testing.assert_array_equal(losses(resumed.run_dir), losses(run_dir))
    weights = (resumed.run_dir / "student" / "model.safetensors").read_bytes()
    assert weights == (run_dir / "student" / "model.safetensors").read_bytes()


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(finished, tmp_path, capfd):
    config, run_dir = finished
    config = in_new_directory(config, tmp_path)
    shutil.copytree(run_dir, config.run_dir)
    arrays = tmp_path / "run" / "checkpoints" / "6" / "state" / "_METADATA"
    arrays.write_bytes(arrays.read_bytes()[:100])
    resumed = train(config, resume=True)
    said = capfd.readouterr().err
    assert "checkpoints/6 is damaged (state/_METADATA must have" in said
    assert "going on from step 3\n" in said
    # Lines past the checkpoint are not kept twice.
    np.testing.assert_array_equal(losses(resumed.run_dir), losses(run_dir))


def test_other_data_is_refused_by_the_name_of_its_file(finished):
    config, run_dir = finished
    path = run_dir.parent / "train.jsonl"
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(text.replace("more", "less", 1), encoding="utf-8")
        with pytest.raises(XTokenError, match=f"6 was trained on other data: {path} must be"):
            train(config)
    finally:
        path.write_text(text, encoding="utf-8")


def test_a_lack_of_device_memory_is_advice(finished, tmp_path, monkeypatch):
    config = in_new_directory(finished[0], tmp_path)
    monkeypatch.setattr(run, "run_steps", lambda *_, **__: jax.numpy.zeros(1 << 44))
    with pytest.raises(XTokenError, match=r"out of device memory .* `data.batch_size` 4, .*remat"):
        train(config)


def test_resuming_on_another_mesh_agrees(finished, tmp_path):
    config, run_dir = finished
    config = dataclasses.replace(
        in_new_directory(config, tmp_path), mesh=MeshConfig(data=2, fsdp=2, tensor=2)
    )
    shutil.copytree(run_dir, config.run_dir)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    resumed = train(config)
    np.testing.assert_allclose(losses(resumed.run_dir), losses(run_dir), rtol=1e-5)


def test_a_checkpoint_of_another_config_is_refused(finished):
    config, run_dir = finished
    other = dataclasses.replace(config, optim=dataclasses.replace(config.optim, learning_rate=1.0))
    with pytest.raises(XTokenError, match=r"another config.*optim\.learning_rate: 0\.003 -> 1\.0"):
        train(other)
    assert len(losses(run_dir)) == config.optim.steps


def test_resume_needs_a_checkpoint(finished, tmp_path):
    config = in_new_directory(finished[0], tmp_path)
    with pytest.raises(UsageError, match="--resume needs a checkpoint"):
        train(config, resume=True)
    assert not (tmp_path / "run").exists()


def test_a_non_finite_loss_stops_the_run_with_the_state_from_before(
    finished, tmp_path, monkeypatch
):
    config, run_dir = finished
    config = in_new_directory(config, tmp_path)
    real = run.make_step

    def breaking(*args, **kwargs):
        step = real(*args, **kwargs)

        def broken(state, frozen, batch):
            # The fifth update sees a projection of NaN.
            if int(state.step) == 4:
                tables = jax.tree.map(
                    lambda x: x * float("nan") if x.dtype == np.float32 else x, frozen.tables
                )
                frozen = frozen._replace(tables=tables)
            return step(state, frozen, batch)

        return broken

    monkeypatch.setattr(run, "make_step", breaking)
    with pytest.raises(XTokenError, match=r"step 5 must have a finite loss.*train\.jsonl:\d+"):
        train(config)
    monkeypatch.undo()
    assert len(losses(tmp_path / "run")) == 4
    resumed = train(config)
    np.testing.assert_array_equal(losses(resumed.run_dir), losses(run_dir))


def test_a_start_without_a_checkpoint_makes_the_student_anew(finished, tmp_path):
    config = in_new_directory(finished[0], tmp_path)
    body = config.teachers["tiny"].model  # has another vocabulary than the tokenizer
    student = dataclasses.replace(
        config.student, model=body, tokenizer=config.student.model, layers=(0,)
    )
    config = dataclasses.replace(config, student=student)
    first = losses(train(config).run_dir)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    other = dataclasses.replace(config, student=dataclasses.replace(student, layers=(1,)))
    train(with_teacher(other, loss={"kind": "none"}))
    second = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert second["cross_entropy"] != first[0][LOSSES.index("cross_entropy")]
    # What the earlier run in this directory evaluated is gone, its teacher too.
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation.keys() == {"student before", "student after"}
    layers = json.loads((tmp_path / "run" / "student" / "config.json").read_text())
    assert layers["num_hidden_layers"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "h_kl"},
        {"kind": "gold", "chunk_merge": "mean"},
        {"kind": "uld", "chunk_merge": "first"},
        {"kind": "c_kl"},
        {"unreachable": "fold", "top_k": 100, "reverse": True},
    ],
    ids=str,
)
def test_every_loss_trains(finished, tmp_path, options):
    config = in_new_directory(finished[0], tmp_path)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, steps=2))
    config = with_teacher(config, loss=options)
    values = losses(train(config).run_dir)
    assert np.isfinite(values).all()
    assert (values[:, LOSSES.index("distillation")] > 0).all()
    # The first batch is the same; another loss has another gradient.
    np.testing.assert_allclose(values[0, 1], losses(finished[1])[0, 1], rtol=1e-6)
    assert values[0, 3] != losses(finished[1])[0, 3]


def test_a_learned_w_trains_resumes_and_is_exported(finished, tmp_path, monkeypatch):
    config = in_new_directory(finished[0], tmp_path)
    config = with_teacher(config, projection={"learned": True})
    whole = train(config).run_dir
    student, teacher = (
        ByteTokenizer.load(section.model) for section in (config.student, config.teachers["tiny"])
    )
    tokenizers = {"student": student, "teacher": teacher}
    fixed = load_projection(whole / "projections" / "tiny.safetensors", **tokenizers)
    learned = load_projection(whole / "projections" / "tiny_learned.safetensors", **tokenizers)
    np.testing.assert_array_equal(learned.ids_VK, fixed.ids_VK)
    assert np.abs(learned.weights_VK - fixed.weights_VK).max() > 1e-3
    several_V = (fixed.ids_VK >= 0).sum(axis=1) > 1
    np.testing.assert_array_equal(learned.weights_VK[~several_V], fixed.weights_VK[~several_V])
    assert learned.options["learned"]
    # The first step is made with W as it was built.
    np.testing.assert_allclose(losses(whole)[0], losses(finished[1])[0], rtol=1e-5)
    # Stopped and started again, it ends the same.
    again = dataclasses.replace(config, run_dir=str(tmp_path / "again"))
    interrupt_after_one_step(monkeypatch, signal.SIGTERM)
    assert train(again).stopped_by
    monkeypatch.undo()
    resumed = train(again).run_dir
    np.testing.assert_array_equal(losses(resumed), losses(whole))
    assert (resumed / "projections" / "tiny_learned.safetensors").read_bytes() == (
        whole / "projections" / "tiny_learned.safetensors"
    ).read_bytes()


def test_a_top_k_above_the_teachers_vocabulary_is_refused_in_one_line(finished, tmp_path):
    config = in_new_directory(finished[0], tmp_path)
    message = r"`teachers\.tiny\.loss`: `top_k` must be at most the teacher's 313 tokens"
    with pytest.raises(UsageError, match=message):
        train(with_teacher(config, loss={"top_k": 100_000}))


def test_cross_entropy_alone_on_the_batches_of_a_teacher(finished, tmp_path):
    config = in_new_directory(finished[0], tmp_path)
    result = train(with_teacher(config, loss={"kind": "none"}))
    record = json.loads((result.run_dir / "metrics.jsonl").read_text().splitlines()[0])
    assert record["loss"] == record["cross_entropy"]
    assert "distillation" not in record
    # The first step's cross-entropy does not depend on what is added to it.
    np.testing.assert_allclose(record["cross_entropy"], losses(finished[1])[0, 1], rtol=1e-6)


def test_cross_entropy_alone_without_any_teacher(finished, tmp_path):
    config = in_new_directory(finished[0], tmp_path)
    run_dir = train(dataclasses.replace(config, teachers={})).run_dir
    record = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])
    assert record["loss"] == record["cross_entropy"]
    assert "student after" in json.loads((run_dir / "evaluation.json").read_text())


def two_teachers(config, *, steps=2, **loss):
    """The tiny teacher twice, the second by GOLD and of more weight."""
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, steps=steps))
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, **loss))
    teachers = {"tiny": config.teachers["tiny"], "second": config.teachers["tiny"]}
    return dataclasses.replace(config, teachers=teachers)


def first_record(run_dir):
    return json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])


def test_two_teachers_add_up_by_their_weights(finished, tmp_path):
    config = two_teachers(in_new_directory(finished[0], tmp_path))
    config = with_teacher(config, "second", loss={"kind": "gold"}, weight=3.0)
    record = first_record(train(config).run_dir)
    first, second = (record[f"{name}/distillation"] for name in ("tiny", "second"))
    # Beside another, each teacher's loss is what it is alone.
    np.testing.assert_allclose(
        first, losses(finished[1])[0, LOSSES.index("distillation")], rtol=1e-5
    )
    assert second != first
    np.testing.assert_allclose(record["distillation"], first + 3 * second, rtol=1e-5)
    assert record["tiny/num_chunks"] == record["second/num_chunks"]
    assert "second/agreement" not in record


@pytest.mark.parametrize("combine", ["trust", "select", "mean_logits"])
def test_two_teachers_that_are_one_teach_as_one(finished, tmp_path, combine):
    config = two_teachers(in_new_directory(finished[0], tmp_path), combine=combine)
    run_dir = train(config).run_dir
    np.testing.assert_allclose(losses(run_dir), losses(finished[1])[:2], rtol=2e-5)
    record = first_record(run_dir)
    weights = [record.get(f"{name}/weight") for name in ("tiny", "second")]
    assert weights == {"trust": [0.5, 0.5], "select": [1, 0], "mean_logits": [None, None]}[combine]


def test_logits_of_different_tokenizers_have_no_mean(finished, tmp_path):
    config = two_teachers(in_new_directory(finished[0], tmp_path), combine="mean_logits")
    config = with_teacher(config, "second", model=config.student.model)
    with pytest.raises(UsageError, match="mean_logits needs teachers of one tokenizer, got"):
        train(config)


def test_the_export_loads_in_transformers_and_agrees(finished):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference here")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, run_dir = finished
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(run_dir / "student")
    model = AutoModelForCausalLM.from_pretrained(run_dir / "student")
    text = (run_dir.parent / "heldout.txt").read_text(encoding="utf-8")
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        logits = model(ids).logits[0, :-1, : len(tokenizer)].double()
    nats = -torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None]).sum().item()
    bits = nats / np.log(2) / len(text.encode())
    assert ids[0, 0] == tokenizer.bos_token_id
    np.testing.assert_allclose(bits, evaluation["student after"]["all"], rtol=1e-4)


def with_adapters(config, **options):
    lora = dataclasses.replace(config.student.lora, rank=4, **options)
    return dataclasses.replace(config, student=dataclasses.replace(config.student, lora=lora))


def test_adapters_alone_are_trained_resumed_and_merged(finished, tmp_path, monkeypatch):
    config = with_adapters(in_new_directory(finished[0], tmp_path), targets=("q_proj", "down_proj"))
    whole = train(config).run_dir
    np.testing.assert_allclose(losses(whole)[0, :3], losses(finished[1])[0, :3], rtol=1e-5)
    evaluation = json.loads((whole / "evaluation.json").read_text())
    assert evaluation["student after"]["all"] < evaluation["student before"]["all"]
    # Of the exported student, which has no adapters, two matrices a layer are others than before.
    before = load_file(Path(config.student.model) / "model.safetensors")
    after = load_file(whole / "student" / "model.safetensors")
    changed = {name for name in before if np.abs(after[name] - before[name]).max() > 0}
    assert before.keys() == after.keys()
    assert changed == {
        f"model.layers.{layer}.{name}.weight"
        for layer in range(2)
        for name in ("self_attn.q_proj", "mlp.down_proj")
    }
    # Stopped and started again, it ends the same.
    again = dataclasses.replace(config, run_dir=str(tmp_path / "again"))
    interrupt_after_one_step(monkeypatch, signal.SIGTERM)
    assert train(again).stopped_by
    monkeypatch.undo()
    resumed = train(again).run_dir
    np.testing.assert_array_equal(losses(resumed), losses(whole))
    assert (resumed / "student" / "model.safetensors").read_bytes() == (
        whole / "student" / "model.safetensors"
    ).read_bytes()


def test_adapters_and_embeddings_on_a_mesh(finished, tmp_path):
    config = with_adapters(finished[0], embeddings=True)
    one = losses(train(in_new_directory(config, tmp_path / "one")).run_dir)
    mesh = MeshConfig(data=1, fsdp=2, tensor=2)
    other = dataclasses.replace(in_new_directory(config, tmp_path / "four"), mesh=mesh)
    run_dir = train(other).run_dir
    np.testing.assert_allclose(losses(run_dir), one, rtol=1e-5)
    before = load_file(Path(config.student.model) / "model.safetensors")
    after = load_file(run_dir / "student" / "model.safetensors")
    name = "model.embed_tokens.weight"
    assert np.abs(after[name] - before[name]).max() > 0
    assert after.keys() == before.keys()

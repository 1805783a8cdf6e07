"""What a run advises after its first step."""

import dataclasses

from tests.tiny import tiny_config, with_teacher
from xtoken_jax.train.run import train


def test_it_is_said_once_that_much_of_a_teacher_is_out_of_reach(tmp_path, capsys):
    # The student splits digits here and the teacher packs them, so that W reaches no `201`.
    config = tiny_config(tmp_path, optim={"steps": 3}, evaluation={"sources": []})
    student = dataclasses.replace(config.student, model=config.teachers["tiny"].model)
    teacher = dataclasses.replace(config.teachers["tiny"], model=config.student.model)
    config = dataclasses.replace(config, student=student, teachers={"tiny": teacher})
    train(config)
    told = capsys.readouterr()
    assert (told.out + told.err).count("`teachers.tiny.loss.unreachable` fold would count it") == 1

    config = with_teacher(config, loss={"unreachable": "fold"})
    train(dataclasses.replace(config, run_dir=str(tmp_path / "fold")))
    told = capsys.readouterr()
    assert "cannot reach" not in told.out + told.err

"""W on disk: round trip, wrong pairings, damage."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from xtoken_jax.errors import XTokenError
from xtoken_jax.projection import (
    Projection,
    build_projection,
    load_projection,
    save_projection,
)


@pytest.fixture
def projection():
    ids = np.array([[0, 1], [2, -1], [-1, -1]], np.int32)
    weights = np.array([[0.9, 0.1], [1, 0], [0, 0]], np.float32)
    options = {"beta": 0.9, "gamma": 0.1}
    pairs = np.array([False, True, False])
    return Projection(ids, weights, 3, 4, "a" * 64, "b" * 64, options, pairs)


def tensors_of(projection):
    names = ("ids_VK", "weights_VK", "exact_pair_V")
    return {name: getattr(projection, name) for name in names}


def test_round_trip_and_equal_bytes(projection, tmp_path):
    save_projection(projection, tmp_path / "one")
    options = dict(reversed(projection.options.items()))
    save_projection(dataclasses.replace(projection, options=options), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    loaded = load_projection(tmp_path / "one")
    for field in dataclasses.fields(Projection):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(projection, field.name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


SAVE_ONE = """
import sys
import numpy as np
from xtoken_jax.projection import Projection, save_projection

path, sys.argv[:] = sys.argv[1], ["xtoken"]
ids, weights, pairs = np.array([[0]], np.int32), np.array([[1]], np.float32), np.array([True])
options = {"beta": 0.9, "gamma": 0.1}
save_projection(Projection(ids, weights, 1, 1, "a", "b", options, pairs), path)
"""


def test_two_processes_write_equal_bytes(tmp_path):
    for name in ("one", "two", "three"):
        subprocess.run([sys.executable, "-c", SAVE_ONE, tmp_path / name], check=True)
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1


def test_others_may_read_what_was_saved(projection, tmp_path):
    save_projection(projection, tmp_path / "w")
    (tmp_path / "plain").touch()
    assert (tmp_path / "w").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_save_leaves_the_old_file(projection, tmp_path, monkeypatch):
    save_projection(projection, tmp_path / "w")
    before = (tmp_path / "w").read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_projection(projection, tmp_path / "w")
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert (tmp_path / "w").read_bytes() == before


def test_another_tokenizer_is_named_with_both_fingerprints(tokenizer, tmp_path):
    smollm, mistral = tokenizer("smollm2-135m"), tokenizer("mistral-v3")
    save_projection(build_projection(smollm, mistral), tmp_path / "w")
    load_projection(tmp_path / "w", student=smollm, teacher=mistral)
    for side, wrong, right in (("student", mistral, smollm), ("teacher", smollm, mistral)):
        with pytest.raises(XTokenError, match=f"another {side} tokenizer") as error:
            load_projection(tmp_path / "w", **{side: wrong})
        assert wrong.fingerprint[:12] in str(error.value)
        assert right.fingerprint[:12] in str(error.value)


def test_missing_and_truncated_files(projection, tmp_path):
    with pytest.raises(XTokenError, match="does not exist; `xtoken project` writes it"):
        load_projection(tmp_path / "none")
    save_projection(projection, tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    (tmp_path / "w").write_bytes(content[: len(content) - 4])
    with pytest.raises(XTokenError, match="w must be a whole safetensors file"):
        load_projection(tmp_path / "w")


def test_a_file_without_metadata_is_not_a_projection(projection, tmp_path):
    save_file(tensors_of(projection), tmp_path / "w")
    with pytest.raises(XTokenError, match=r"must be a projection.* 'xtoken_projection' is missing"):
        load_projection(tmp_path / "w")


@pytest.mark.parametrize("name", ["ids_VK", "weights_VK", "exact_pair_V"])
def test_a_missing_tensor_is_named(projection, tmp_path, name):
    save_projection(projection, tmp_path / "w")
    with safe_open(tmp_path / "w", framework="numpy") as file:
        metadata = file.metadata()
    tensors = tensors_of(projection)
    del tensors[name]
    save_file(tensors, tmp_path / "w", metadata=metadata)
    with pytest.raises(XTokenError, match=f"w must be a projection, but '{name}' is missing in it"):
        load_projection(tmp_path / "w")


@pytest.mark.parametrize("name", ["student_fingerprint", "num_teacher_tokens", "options"])
def test_missing_metadata_is_named(projection, tmp_path, name):
    metadata = {
        "student_fingerprint": "a",
        "teacher_fingerprint": "b",
        "num_student_tokens": 3,
        "num_teacher_tokens": 4,
        "options": {},
    }
    header = {"xtoken_projection": json.dumps(metadata)}
    save_file(tensors_of(projection), tmp_path / "w", metadata=header)
    assert load_projection(tmp_path / "w").options == {}  # what older versions did not record
    del metadata[name]
    header = {"xtoken_projection": json.dumps(metadata)}
    save_file(tensors_of(projection), tmp_path / "w", metadata=header)
    with pytest.raises(XTokenError, match=f"w must be a projection, but '{name}' is missing in it"):
        load_projection(tmp_path / "w")


def test_what_does_not_say_its_exact_rows_is_not_saved(projection, tmp_path):
    with pytest.raises(ValueError, match="must say which rows are exact"):
        save_projection(dataclasses.replace(projection, exact_pair_V=None), tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "its metadata: "),
        ("[]", "its metadata: "),
        ("{}", "'num_student_tokens' is missing"),
    ],
)
def test_damaged_metadata_is_one_line(projection, tmp_path, metadata, message):
    header = {"xtoken_projection": metadata}
    save_file(tensors_of(projection), tmp_path / "w", metadata=header)
    with pytest.raises(XTokenError, match=f"must be a projection, but {message}"):
        load_projection(tmp_path / "w")


def test_metadata_of_a_wrong_type_is_one_line(projection, tmp_path):
    save_projection(dataclasses.replace(projection, num_teacher_tokens="four"), tmp_path / "w")
    with pytest.raises(XTokenError, match=r"its metadata: invalid literal for int.* 'four'"):
        load_projection(tmp_path / "w")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"ids_VK": np.array([[0, 4], [2, -1], [-1, -1]], np.int32)},
            r"in \[-1, 4\), got \[0, 4\] in row 0",
        ),
        (
            {"weights_VK": np.array([[0.9, 0.2], [1, 0], [0, 0]], np.float32)},
            r"rows must sum to 1, got 1\.09.* in row 0",
        ),
        (
            {"weights_VK": np.array([[0.9, 0.1], [0, 0], [0, 0]], np.float32)},
            r"weights must be positive, and 0 at the pads, got \[0\.0, 0\.0\] in row 1",
        ),
        (
            {"weights_VK": np.array([[1.5, -0.5], [1, 0], [0, 0]], np.float32)},
            r"weights must be positive.* got \[1\.5, -0\.5\] in row 0",
        ),
        (
            {"weights_VK": np.array([[0.9, 0.1], [0.5, 0.5], [0, 0]], np.float32)},
            r"0 at the pads, got \[0\.5, 0\.5\] in row 1",
        ),
        (
            {"weights_VK": np.array([[np.inf, 0.1], [1, 0], [0, 0]], np.float32)},
            "rows must sum to 1, got inf in row 0",
        ),
        (
            {"weights_VK": np.array([[0.9, np.nan], [1, 0], [0, 0]], np.float32)},
            r"weights must be positive.* got \[0\.89.*, nan\] in row 0",
        ),
        (
            {
                "ids_VK": np.array([[0, 1], [-1, 2], [-1, -1]], np.int32),
                "weights_VK": np.array([[0.9, 0.1], [0, 1], [0, 0]], np.float32),
            },
            r"pads must come after the entries of a row, got \[-1, 2\] in row 1",
        ),
        (
            {"ids_VK": np.zeros((3, 2), np.int64)},
            "ids must be int32 and weights float32, got int64",
        ),
        ({"ids_VK": np.zeros(3, np.int32)}, r"must both have 3 rows, got shapes \(3,\)"),
        ({"num_student_tokens": 5}, "must both have 5 rows"),
        (
            {"exact_pair_V": np.array([0, 1, 0], np.int32)},
            r"exact pairs must be 3 booleans, got int32 of shape \(3,\)",
        ),
        ({"exact_pair_V": np.array([True])}, r"must be 3 booleans, got bool of shape \(1,\)"),
        (
            {"exact_pair_V": np.array([True, False, False])},
            r"rows of exact pairs must have one entry, got \[0, 1\] in row 0",
        ),
        (
            {"exact_pair_V": np.array([False, False, True])},
            r"rows of exact pairs must have one entry, got \[-1, -1\] in row 2",
        ),
        (
            {
                "ids_VK": np.array([[2, -1], [2, -1], [-1, -1]], np.int32),
                "weights_VK": np.array([[1, 0], [1, 0], [0, 0]], np.float32),
                "exact_pair_V": np.array([True, True, False]),
            },
            r"a teacher token must be in one exact pair at most, got \[2, -1\] in row 1",
        ),
    ],
)
def test_impossible_contents_are_refused(projection, tmp_path, change, message):
    save_projection(dataclasses.replace(projection, **change), tmp_path / "w")
    with pytest.raises(XTokenError, match=message) as error:
        load_projection(tmp_path / "w")
    assert str(error.value).startswith(f"{tmp_path / 'w'}: ")

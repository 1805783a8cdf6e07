"""Files that are written whole or not at all."""

import pytest

from xtoken_jax.files import replaced_file


def test_the_new_file_takes_the_old_ones_place(tmp_path):
    path = tmp_path / "made" / "curves.png"
    for content in ("old", "new"):
        with replaced_file(path) as temporary:
            assert temporary.suffix == ".png"
            temporary.write_text(content)
    assert path.read_text() == "new"
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "w"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        _fail_half_way(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _fail_half_way(path):
    with replaced_file(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")

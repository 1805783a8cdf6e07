import pytest

from tests.tiny import tiny_tokenizer
from xtoken_jax.text import ByteTokenizer


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory):
    """A student that packs digits and begins with a bos, and a teacher that does neither."""
    directory = tmp_path_factory.mktemp("tokenizers")
    return tuple(
        ByteTokenizer.load(tiny_tokenizer(directory / str(packs), packs_digits=packs))
        for packs in (True, False)
    )

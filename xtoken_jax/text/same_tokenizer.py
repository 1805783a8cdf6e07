"""Whether two tokenizers number the same tokens alike."""

from xtoken_jax.text.byte_tokenizer import ByteTokenizer


def same_token_ids(student: ByteTokenizer, teacher: ByteTokenizer) -> bool:
    """Whether each id stands for the same token on both sides: its bytes, a control token's name.

    Two vocabularies of one size may be different ones, and models of one tokenizer may have
    unembeddings of different sizes, so neither size decides. Nor does this say that both sides cut
    a text at the same places: for position by position, they must be given the same ids.
    """
    return _tokens(student) == _tokens(teacher)


def _tokens(tokenizer: ByteTokenizer) -> list[bytes | str]:
    return [content or tokenizer.display(id) for id, content in enumerate(tokenizer.token_bytes)]

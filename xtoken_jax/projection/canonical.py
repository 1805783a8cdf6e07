"""Which student token and which teacher token count as the same."""

from xtoken_jax.projection.options import Canonicalization, check_choice
from xtoken_jax.text import ByteTokenizer

_SPACELESS = {b" " + mark: mark for mark in (b",", b".", b";", b":")}


def canonical_bytes(content: bytes) -> bytes:
    r"""What a token is compared by under the paper's rules, which lose distinctions.

    A leading underscore is a space; a space before a lone comma, full stop, semicolon, colon or
    newline is nothing; a lone tab is a newline, and so are a backslash and an n in any place.

    Source: the reference implementation of X-Token (NeMo-RL), whose rules for other spellings of
    the same bytes have nothing left to do here.
    """
    if content.startswith(b"_"):
        content = b" " + content[1:]
    if content in (b"\t", b" \n"):
        return b"\n"
    content = content.replace(b"\\n", b"\n")
    return _SPACELESS.get(content, content)


def exact_counterparts(
    student: ByteTokenizer, teacher: ByteTokenizer, canonicalization: Canonicalization
) -> list[int]:
    """The teacher token that each student token equals, -1 for none.

    Equal bytes always come first; `"paper"` then compares what `canonical_bytes` leaves.

    Raises:
        ValueError: `canonicalization` is unknown.
    """
    check_choice("canonicalization", canonicalization, Canonicalization)
    id_of_bytes = teacher.id_of_bytes
    exact_ids = [id_of_bytes.get(content, -1) for content in student.token_bytes]
    if canonicalization == "exact":
        return exact_ids
    id_of_form = _id_of_form(teacher)
    return [
        id_of_form.get(canonical_bytes(content), -1) if id < 0 and content else id
        for id, content in zip(exact_ids, student.token_bytes, strict=True)
    ]


def _id_of_form(teacher: ByteTokenizer) -> dict[bytes, int]:
    """The token that stands for a form: the one with just these bytes, else the lowest id."""
    in_order = sorted(teacher.id_of_bytes.items(), key=lambda item: item[1], reverse=True)
    forms = [(canonical_bytes(content), content, id) for content, id in in_order]
    id_of_form = {form: id for form, _, id in forms}
    return id_of_form | {form: id for form, content, id in forms if form == content}

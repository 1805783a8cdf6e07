"""Bytes of tokens, roles of control tokens, and the references that name tokenizers and models."""

from xtoken_jax.text.byte_tokenizer import ByteTokenizer, Encoded, declared_tokens
from xtoken_jax.text.references import resolve
from xtoken_jax.text.roles import Role

__all__ = ["ByteTokenizer", "Encoded", "Role", "declared_tokens", "resolve"]

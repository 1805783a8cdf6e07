"""Bytes of tokens, roles of control tokens, and the references that name tokenizers and models."""

from xtoken_jax.text.byte_tokenizer import ByteTokenizer, Encoded
from xtoken_jax.text.references import resolve
from xtoken_jax.text.roles import Role
from xtoken_jax.text.same_tokenizer import same_token_ids
from xtoken_jax.text.tokenizer_files import declared_tokens

__all__ = ["ByteTokenizer", "Encoded", "Role", "declared_tokens", "resolve", "same_token_ids"]

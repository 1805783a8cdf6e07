"""The byte alphabet, and vocabulary spellings."""

from tokenizers import pre_tokenizers

from xtoken_jax.text.codecs import unknown_piece
from xtoken_jax.text.pieces import PieceCodec, byte_alphabet


def test_the_byte_alphabet_is_the_one_of_the_tokenizers_library():
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == 256
    assert set(alphabet) == set(pre_tokenizers.ByteLevel.alphabet())
    step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in (" ", "\n", "~", "é", "\x00", "日", "👩"):
        spelled = "".join(piece for piece, _ in step.pre_tokenize_str(text))
        assert spelled == "".join(alphabet[byte] for byte in text.encode())


def test_byte_level_pieces_become_their_bytes():
    codec = PieceCodec(None, byte_level=True, byte_fallback=False)
    for content in (b" apples", bytes(range(256)), "日".encode()[:2]):
        assert codec.to_bytes("".join(byte_alphabet()[byte] for byte in content)) == content
    assert codec.to_bytes("▁x") == b""  # no text can produce it


def test_sentencepiece_pieces_become_their_bytes():
    codec = PieceCodec(None, byte_level=False, byte_fallback=True)
    assert codec.to_bytes("▁naïve▁") == " naïve ".encode()
    assert codec.to_bytes("<0x0A>") == b"\n"
    assert codec.to_bytes("<0x0a>") == b"<0x0a>"
    without = PieceCodec(None, byte_level=False, byte_fallback=False)
    assert without.to_bytes("<0x0A>") == b"<0x0A>"


def test_what_a_model_emits_for_the_unknown():
    assert unknown_piece({"unk_token": "[UNK]"}) == "[UNK]"
    assert unknown_piece({"unk_token": None}) is None
    assert unknown_piece({"unk_id": 1, "vocab": [["a", 0.0], ["<unk>", 0.0]]}) == "<unk>"
    assert unknown_piece({"unk_id": None, "vocab": []}) is None

"""The tokenizers behind one `ByteTokenizer`: control tokens kept out of a text, or read from it."""

import functools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer

_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
_HOPELESS = 100.0  # below the worst score; a path of single characters is better than that


class Engines:
    """Up to three instances of one tokenizer, the second and third made when first needed.

    Whether control tokens are read from a text is mutable state of the Rust library, so that each
    way of reading has an instance of its own. With that off, a model may still emit a control
    token that is a piece of its vocabulary, as Unigram does: such a text is cut again by an
    instance in which no text can spell those pieces.

    Attributes:
        tokenizer: The first instance, which takes control tokens in a text for text.
    """

    def __init__(
        self, tokenizer: Tokenizer, model: Mapping[str, Any], control_ids: Collection[int]
    ) -> None:
        """Take over `tokenizer`.

        Args:
            tokenizer: Changed here, and not to be changed elsewhere any more.
            model: Of the parsed `tokenizer.json`.
            control_ids: What a text must not make, whatever it spells; the token for what cannot
                be spelled is made for that alone.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        # Only what is in the model's own vocabulary can come out of the model.
        self._control_ids = frozenset(control_ids) & set(_ids_of(model).values())
        # Unigram takes the six characters `<0x0A>` in a text for its piece of that name.
        self._matches_byte_pieces = model["type"] == "Unigram" and bool(model.get("byte_fallback"))

    def ids(self, texts: Sequence[str], *, parse_control: bool = False) -> list[list[int]]:
        """Ids of each text; a control token that it spells is text, or itself if so asked."""
        engine = self._parsing if parse_control else self.tokenizer
        encodings = engine.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        if parse_control or not (self._control_ids or self._matches_byte_pieces):
            return rows
        misread = [index for index, text in enumerate(texts) if self._misreads(text, rows[index])]
        if misread:
            wanted = [texts[index] for index in misread]
            again = self._strict.encode_batch_fast(wanted, add_special_tokens=False)
            for index, encoding in zip(misread, again, strict=True):
                rows[index] = encoding.ids
        return rows

    def starts(self, text: str, *, parse_control: bool = False) -> list[int]:
        """The character of the text at which each of the tokens that `ids` gives begins."""
        engine = self._parsing if parse_control else self.tokenizer
        encoding: Encoding = engine.encode(text, add_special_tokens=False)
        if not parse_control and self._misreads(text, encoding.ids):
            encoding = self._strict.encode(text, add_special_tokens=False)
        return [start for start, _ in encoding.offsets]

    def model_ids(self, spelling: str) -> list[int]:
        """Ids from the model alone, past normaliser and pre-tokeniser; no control token but unk."""
        ids = [token.id for token in self.tokenizer.model.tokenize(spelling)]
        if self._misreads(spelling, ids):
            ids = [token.id for token in self._strict.model.tokenize(spelling)]
        return ids

    def _misreads(self, text: str, ids: Sequence[int]) -> bool:
        if not self._control_ids.isdisjoint(ids):
            return True
        return self._matches_byte_pieces and _BYTE_PIECE.search(text) is not None

    @functools.cached_property
    def _parsing(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer.to_str())  # which does not write the flag

    @functools.cached_property
    def _strict(self) -> Tokenizer:
        serialised = json.loads(self.tokenizer.to_str())
        strict = _without_pieces(serialised, self._control_ids, self._matches_byte_pieces)
        tokenizer = Tokenizer.from_str(json.dumps(strict))
        tokenizer.encode_special_tokens = True
        return tokenizer


def _ids_of(model: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = model["vocab"]
    if model["type"] == "Unigram":  # pairs of a piece and its score
        return {piece: id for id, (piece, _) in enumerate(vocabulary)}
    return vocabulary


def _without_pieces(
    serialised: dict[str, Any], control_ids: Collection[int], matches_byte_pieces: bool
) -> dict[str, Any]:
    """A `tokenizer.json` whose model has the same ids, with control pieces that no text spells."""
    model = dict(serialised["model"])
    # Vocabularies write a space as another character, so that none of their texts has such a name.
    renamed = {piece: f" {id}" for piece, id in _ids_of(model).items() if id in control_ids}
    if model["type"] == "Unigram":
        worst = min(score for _, score in model["vocab"])
        unlikely = _BYTE_PIECE.fullmatch if matches_byte_pieces else lambda _: None
        model["vocab"] = [
            (renamed.get(piece, piece), worst - _HOPELESS if unlikely(piece) else score)
            for piece, score in model["vocab"]
        ]
    else:
        model["vocab"] = {renamed.get(piece, piece): id for piece, id in model["vocab"].items()}
        model["unk_token"] = renamed.get(model["unk_token"], model["unk_token"])
        pairs = model.get("merges", ())
        model["merges"] = [pair for pair in pairs if not _makes_any(pair, renamed)]
    added = [token for token in serialised["added_tokens"] if token["content"] not in renamed]
    return {**serialised, "model": model, "added_tokens": added, "post_processor": None}


def _makes_any(pair: list[str] | str, pieces: Collection[str]) -> bool:
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return left in pieces or right in pieces or left + right in pieces

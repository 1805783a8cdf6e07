"""`xtoken eval`."""

from dataclasses import dataclass

from xtoken_jax.cli.compilation import use_compilation_cache
from xtoken_jax.cli.output import OUT, print_json
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import ByteTokenizer, resolve


@dataclass(frozen=True)
class Eval:
    """Measure a model's bits per byte on text files."""

    model: str
    """Local directory, `asset:NAME` or hub id."""
    text: str
    """Glob of UTF-8 files; paragraphs are evaluated one by one."""
    max_texts: int = 64
    """Paragraphs read, the first ones."""
    length: int = 512
    """Longest paragraph, in tokens; longer ones are left out."""
    batch_size: int = 8
    """Paragraphs at a time."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Evaluate and print."""
        from xtoken_jax.data import documents_of, text_files
        from xtoken_jax.evaluate import bits_per_byte, fitting_texts
        from xtoken_jax.models.weights import load_model

        for name in ("max_texts", "length", "batch_size"):
            if (value := getattr(self, name)) < 1:
                option = name.replace("_", "-")
                raise UsageError(f"`--{option}` must be at least 1, got {value}")
        documents = documents_of(text_files(self.text))
        paragraphs = [p for d in documents for p in d.text.split("\n\n") if p.strip()]
        tokenizer = ByteTokenizer.load(self.model)
        texts = fitting_texts(paragraphs, [tokenizer], length=self.length)[: self.max_texts]
        if not texts:
            raise XTokenError(f"no paragraph of {self.text} fits in {self.length} tokens")
        use_compilation_cache()
        result = bits_per_byte(
            load_model(resolve(self.model)),
            tokenizer,
            texts,
            batch_size=self.batch_size,
            length=self.length,
            block_tokens=512,
        )
        if self.json:
            print_json(result.to_dict())
        else:
            from xtoken_jax.report import evaluation_table

            OUT.print(evaluation_table({self.model: result.to_dict()}))

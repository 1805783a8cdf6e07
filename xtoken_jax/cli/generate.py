"""`xtoken generate`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xtoken_jax.cli.compilation import use_compilation_cache
from xtoken_jax.cli.output import OUT, print_json
from xtoken_jax.cli.texts import checked_utf8
from xtoken_jax.errors import UsageError
from xtoken_jax.text import ByteTokenizer, resolve

if TYPE_CHECKING:
    import numpy as np

    from xtoken_jax.models.decoder import Decoder


@dataclass(frozen=True)
class Generate:
    """Let a model go on from a prompt, or answer it."""

    model: str
    """Local directory, `asset:NAME` or hub id."""
    prompt: tuple[str, ...]
    """One or several texts."""
    chat: bool = False
    """Each prompt is a user's message, put as the model's chat template puts it."""
    system: str | None = None
    """System message, with `--chat`."""
    max_new_tokens: int = 128
    """Tokens at most, for each prompt."""
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    seed: int = 0
    """Of what is drawn."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> None:
        """Generate and print."""
        from xtoken_jax.evaluate import generate_from
        from xtoken_jax.models.generate import Sampling
        from xtoken_jax.models.weights import load_model

        if self.max_new_tokens < 1:
            raise UsageError(f"`--max-new-tokens` must be at least 1, got {self.max_new_tokens}")
        if self.system is not None and not self.chat:
            raise UsageError("`--system` needs `--chat`")
        try:
            sampling = Sampling(self.temperature, self.top_p)
        except ValueError as error:
            raise UsageError(str(error)) from error
        prompts = [checked_utf8(prompt, option="--prompt") for prompt in self.prompt]
        tokenizer = ByteTokenizer.load(self.model)
        rendered = self._rendered(prompts) if self.chat else None
        use_compilation_cache()
        model = load_model(resolve(self.model))
        texts = generate_from(
            model,
            tokenizer,
            _rows(model, tokenizer, prompts, rendered),
            max_new_tokens=self.max_new_tokens,
            batch_size=len(prompts),
            sampling=sampling,
            seed=self.seed,
        )
        answers = [{"prompt": p, "text": t} for p, t in zip(prompts, texts, strict=True)]
        if self.json:
            print_json(answers)
            return
        for number, answer in enumerate(answers):
            if number:
                OUT.rule()
            OUT.print(answer["text"] if self.chat else answer["prompt"] + answer["text"])

    def _rendered(self, prompts: list[str]) -> list[str]:
        """What the model reads of each conversation."""
        from xtoken_jax.data import ChatTemplate

        try:
            template = ChatTemplate.load(resolve(self.model, weights=False))
        except UsageError as error:
            told = f"`--chat` needs a chat template beside the tokenizer, but {self.model} has none"
            raise UsageError(told) from error
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [template.opened([*system, {"role": "user", "content": text}]) for text in prompts]


def _rows(
    model: "Decoder", tokenizer: ByteTokenizer, prompts: list[str], rendered: list[str] | None
) -> list["np.ndarray"]:
    from xtoken_jax.evaluate.rows import started_rows

    if rendered is None:
        return started_rows(tokenizer.encode(prompts), model, tokenizer)
    # The template has written the token that begins a document.
    encoded = tokenizer.encode(rendered, parse_control=True)
    return [encoded[index] for index in range(len(encoded))]

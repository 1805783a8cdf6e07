"""A training step of TRL's GOLDTrainer, off-policy, in its own loop."""

import json
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"}

import torch
from datasets import Dataset
from serve import serve
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.experimental.gold import GOLDConfig, GOLDTrainer


class Turns(TrainerCallback):
    """Lets the trainer take one step at a time."""

    def __init__(self) -> None:
        self.asked: queue.Queue[None] = queue.Queue()
        self.done: queue.Queue[float | Exception] = queue.Queue()

    def on_step_begin(self, args, state, control, **kwargs):
        """Wait to be asked; the batch has been fetched by now."""
        self.asked.get()

    def on_step_end(self, args, state, control, **kwargs):
        """Say that the step is over."""
        self.done.put(0.0)


class Clock:
    """Seconds spent in some calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def timed(self, name: str, call: Callable) -> Callable:
        """The same call, timed."""

        def wrapped(*args, **kwargs):
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds.setdefault(name, []).append(time.perf_counter() - start)

        return wrapped


def _record(text: str) -> dict[str, str]:
    """A text as prompt and completion: the trainer refuses one without a prompt."""
    first, rest = text.split(" ", 1)
    return {"prompt": first, "completion": " " + rest}


def build(case: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    """Start the trainer in a thread; the first step is taken here."""
    torch.set_num_threads(case["threads"])
    texts = [json.loads(line)["text"] for line in Path(case["texts"]).read_text().splitlines()]
    student, teacher = (
        AutoModelForCausalLM.from_pretrained(case[name], dtype=torch.float32)
        for name in ("student", "teacher")
    )
    tokenizer = AutoTokenizer.from_pretrained(case["student"])
    tokenizer.pad_token = tokenizer.eos_token
    config = GOLDConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=case["batch_size"],
        max_length=case["length"],
        max_steps=1000,
        learning_rate=1e-4,
        lmbda=0.0,  # off-policy
        use_uld_loss=True,
        use_extended_uld=True,
        uld_use_hybrid_loss=True,
        uld_crossentropy_weight=1.0,
        uld_distillation_weight=1.0,
        teacher_tokenizer_name_or_path=case["teacher"],
        gradient_checkpointing=case["checkpointing"],
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    turns, clock = Turns(), Clock()
    trainer = GOLDTrainer(
        model=student,
        teacher_model=teacher,
        args=config,
        train_dataset=Dataset.from_list([_record(text) for text in texts]),
        processing_class=tokenizer,
        callbacks=[turns],
    )
    tokens: list[int] = []
    whole = trainer.compute_loss

    def counting(model, inputs, *args, **kwargs):
        tokens.append(int(inputs["attention_mask"].sum()))
        return whole(model, inputs, *args, **kwargs)

    trainer.compute_loss = clock.timed("student, teacher and loss", counting)
    trainer.training_step = clock.timed("these and the backward pass", trainer.training_step)
    trainer.teacher_model.forward = clock.timed("teacher", trainer.teacher_model.forward)
    loss_class = type(trainer.uld_loss_fn)
    loss_class.__call__ = clock.timed("loss", loss_class.__call__)

    def train() -> None:
        try:
            trainer.train()
        except Exception as error:  # of any kind: it belongs to whoever waits for a step
            turns.done.put(error)

    threading.Thread(target=train, daemon=True).start()

    def once() -> float:
        turns.asked.put(None)
        if isinstance(outcome := turns.done.get(), Exception):
            raise RuntimeError(str(outcome)) from outcome
        return outcome

    once()
    del tokens[:]
    clock.seconds.clear()
    return once, {"more": lambda: {"tokens": tokens, "parts": clock.seconds}}


if __name__ == "__main__":
    serve(build)

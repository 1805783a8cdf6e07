"""The losses in a loop of your own: SmolLM2 teaches what follows each token of one sentence.

The student is a table of logits over Llama-3's vocabulary; your model's logits go in its place.

python examples/own_loop.py
"""

import jax
import jax.numpy as jnp
import optax

from xtoken_jax.align import align
from xtoken_jax.losses import ModelOutput, Tables, distillation_sums, mean_over
from xtoken_jax.models.weights import load_model
from xtoken_jax.ops import spans_of, to_device
from xtoken_jax.projection import build_projection
from xtoken_jax.text import ByteTokenizer, resolve

student = ByteTokenizer.load("asset:llama3")
teacher = ByteTokenizer.load("asset:smollm2-135m")
tables = Tables(to_device(build_projection(student, teacher)))

text = ["One hundred and one plus one hundred is 201."]
left, right = student.encode(text), teacher.encode(text)
student_ids_BS, teacher_ids_BT = jnp.asarray(left[0][None]), jnp.asarray(right[0][None])
lengths = {"student_length": len(left[0]), "teacher_length": len(right[0])}
spans = spans_of(align(left, right, student, teacher), **lengths)

model = load_model(resolve("asset:smollm2-135m"))
positions_BT = jnp.arange(teacher_ids_BT.shape[1])[None]
hidden_BTD = model(teacher_ids_BT, positions_BT, jnp.ones_like(teacher_ids_BT))
teacher_logits_BTU = model.logits(hidden_BTD)


def loss(student_logits_BSV, teacher_logits_BTU):
    """Nats a chunk, and the share of chunks of which both like the same best."""
    student_output = ModelOutput(student_logits_BSV, None, student_ids_BS)
    teacher_output = ModelOutput(teacher_logits_BTU, None, teacher_ids_BT)
    sums = distillation_sums(student_output, teacher_output, spans, tables)
    agreement = mean_over(sums.agreement, sums.num_chunks)
    return mean_over(sums.distillation, sums.num_chunks), agreement


logits_BSV = jnp.zeros((*student_ids_BS.shape, student.num_tokens))
optimiser = optax.adam(0.5)
state = optimiser.init(logits_BSV)
value_and_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
for step in range(31):
    (value, agreement), gradient_BSV = value_and_gradient(logits_BSV, teacher_logits_BTU)
    if step % 10 == 0:
        print(f"step {step}: {value:.3f} nats a chunk, {agreement:.0%} of chunks agree")
    updates_BSV, state = optimiser.update(gradient_BSV, state)
    logits_BSV = optax.apply_updates(logits_BSV, updates_BSV)

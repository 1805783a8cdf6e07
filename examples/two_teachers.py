"""Two teachers, each trusted as far as it is sure of the text: SmolLM2, and its first 20 layers.

The student is a table of logits over Llama-3's vocabulary; your model's logits go in its place.

python examples/two_teachers.py
"""

import jax.numpy as jnp

from xtoken_jax.align import align
from xtoken_jax.losses import (
    ModelOutput,
    Tables,
    distillation_sums,
    mean_over,
    sum_losses,
    teacher_scores,
    trust_weights,
)
from xtoken_jax.models.weights import load_model
from xtoken_jax.ops import spans_of, to_device
from xtoken_jax.projection import build_projection
from xtoken_jax.text import ByteTokenizer, resolve

student = ByteTokenizer.load("asset:llama3")
teacher = ByteTokenizer.load("asset:smollm2-135m")  # here of both; each may have its own
tables = Tables(to_device(build_projection(student, teacher)))
text = ["The capital of France is Paris, and the capital of Italy is Rome."]
left, right = student.encode(text), teacher.encode(text)
ids_BS, ids_BT = jnp.asarray(left[0][None]), jnp.asarray(right[0][None])
lengths = {"student_length": ids_BS.shape[1], "teacher_length": ids_BT.shape[1]}
spans = spans_of(align(left, right, student, teacher), **lengths)
is_followed_BT = jnp.arange(ids_BT.shape[1])[None] < ids_BT.shape[1] - 1

outputs = {}
for name, layers in (("whole", range(30)), ("20 layers", range(20))):
    model = load_model(resolve("asset:smollm2-135m"), layers=layers)
    hidden_BTD = model(ids_BT, jnp.arange(ids_BT.shape[1])[None], jnp.ones_like(ids_BT))
    outputs[name] = ModelOutput(hidden_BTD, model.unembedding_VD, ids_BT)
scores = [
    teacher_scores(output, is_followed_BT, num_tokens=teacher.num_tokens)
    for output in outputs.values()
]
weights_N = trust_weights(scores, alpha=0.1)  # 1 is the default, and sharper


def loss(student_logits_BSV):
    """Nats a chunk, of both teachers by their weights, and of each."""
    sums = [
        distillation_sums(ModelOutput(student_logits_BSV, None, ids_BS), output, spans, tables)
        for output in outputs.values()
    ]
    losses = [mean_over(each.distillation, each.num_chunks) for each in sums]
    return sum_losses(losses, weights_N), losses


value, losses = loss(jnp.zeros((*ids_BS.shape, student.num_tokens)))
for name, score, weight, each in zip(outputs, scores, weights_N, losses, strict=True):
    print(f"{name}: {score.cross_entropy:.2f} nats a token, weight {weight:.3f}, loss {each:.3f}")
print(f"together: {value:.3f} nats a chunk")

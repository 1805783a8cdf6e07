"""What Llama-3's and SmolLM2's tokenizers make of one text, and what W makes of the difference.

python examples/align_two_tokenizers.py ["a text of yours"]
"""

import sys

from xtoken_jax.align import align
from xtoken_jax.projection import audit, build_projection
from xtoken_jax.text import ByteTokenizer

text = sys.argv[1] if len(sys.argv) > 1 else "In 2024 she paid 1,201 yen for three cafés."
student = ByteTokenizer.load("asset:llama3")
teacher = ByteTokenizer.load("asset:smollm2-135m")

student_tokens, teacher_tokens = student.encode([text]), teacher.encode([text])
chunks = align(student_tokens, teacher_tokens, student, teacher)[0]
print(f"{len(student_tokens[0])} student tokens, {len(teacher_tokens[0])} teacher tokens")
for a, b, c, d in chunks:
    left = " ".join(repr(student.display(id)) for id in student_tokens[0][a:b])
    right = " ".join(repr(teacher.display(id)) for id in teacher_tokens[0][c:d])
    print(f"  {left:24} {right}")

W = build_projection(student, teacher)
print("rows of W:")
for content in (b"201", b" three", b"2024"):
    if (id := student.id_of_bytes.get(content)) is None:
        print(f"  {content.decode()!r} is no student token")
        continue
    row = zip(W.ids_VK[id], W.weights_VK[id], strict=True)
    told = ", ".join(f"{teacher.display(u)!r} {weight:.4f}" for u, weight in row if u >= 0)
    print(f"  {content.decode()!r}: {told}")

recommendation = audit(student, teacher, W)["recommendation"]
print(f"use {recommendation['loss']}: {recommendation['reason']}")

"""The peers in PyTorch: TRL's losses, and P-KL by torch.sparse over the top teacher columns."""

import os
from collections.abc import Callable
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from serve import arrays, serve
from transformers import AutoTokenizer

TOP_COLUMNS = 8192


def sparse_p_kl(case: dict[str, Any]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """P-KL over the teacher's columns of largest logit in the batch, as NeMo-RL has it.

    The student's probabilities are projected by a sparse matrix of those columns alone; both
    sides are normalised within them.
    """
    stored = load_file(case["projection"])
    row_N, rank_N = torch.nonzero(stored["ids_VK"] >= 0, as_tuple=True)
    column_N = stored["ids_VK"][row_N, rank_N].long()
    weights_N = stored["weights_VK"][row_N, rank_N]
    num_rows, num_columns = case["student_vocab_size"], case["teacher_vocab_size"]

    def loss(student_NV, teacher_NU):
        top_K = teacher_NU.max(dim=0).values.topk(TOP_COLUMNS).indices
        place_U = torch.full((num_columns,), -1)
        place_U[top_K] = torch.arange(TOP_COLUMNS)
        place_N = place_U[column_N]
        kept_N = place_N >= 0
        W_KV = torch.sparse_coo_tensor(
            torch.stack([place_N[kept_N], row_N[kept_N]]),
            weights_N[kept_N],
            (TOP_COLUMNS, num_rows),
        ).coalesce()
        z_NK = torch.sparse.mm(W_KV, F.softmax(student_NV, dim=-1).T).T
        z_NK = z_NK / z_NK.sum(dim=-1, keepdim=True).clamp_min(1e-10)
        log_q_NK = F.log_softmax(teacher_NU[:, top_K], dim=-1)
        return F.kl_div(torch.log(z_NK + 1e-10), log_q_NK, reduction="batchmean", log_target=True)

    return loss


def trl_loss(case: dict[str, Any]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """TRL's ULD, or its hybrid with forward KL on the matched tokens, called as its trainer does.

    Tokens are of one byte on both sides, so that every token is a chunk.
    """
    from trl.experimental.gold import GOLDConfig
    from trl.experimental.gold.gold_trainer import ULDLoss

    config = GOLDConfig(
        output_dir=os.devnull,
        report_to="none",
        bf16=False,
        use_uld_loss=True,
        uld_use_hybrid_loss=case["loss"] != "uld",
        uld_skip_student_eos=False,
        uld_skip_teacher_eos=False,
        beta=0.0,
    )
    tokenizers = [AutoTokenizer.from_pretrained(case[side]) for side in ("student", "teacher")]
    function = ULDLoss(config, *tokenizers, device=torch.device("cpu"))
    tokens = torch.arange(case["tokens"])
    ids_1N, offsets_1N2 = tokens[None], torch.stack([tokens, tokens + 1], dim=-1)[None]

    def loss(student_NV, teacher_NU):
        return function(
            student_NV[None],
            teacher_NU[None],
            ids_1N,
            ids_1N,
            ids_1N,
            ids_1N,
            student_byte_offsets=offsets_1N2,
            teacher_byte_offsets=offsets_1N2,
        )

    return loss


LOSSES = {"p_kl": sparse_p_kl, "p_kl_chain_rule": sparse_p_kl}


def build(case: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    """A loss with its gradient for the student's logits, or hidden states and unembedding."""
    torch.set_num_threads(case["threads"])
    given = [torch.from_numpy(array) for array in arrays(case)]
    learned, held = given[: len(given) // 2], given[len(given) // 2 :]
    loss = LOSSES.get(case["loss"], trl_loss)(case)
    for tensor in learned:
        tensor.requires_grad_()

    def logits(tensors):
        return tensors[0] if len(tensors) == 1 else tensors[0] @ tensors[1].T

    def run():
        for tensor in learned:
            tensor.grad = None
        with torch.no_grad():
            teacher_NU = logits(held)
        value = loss(logits(learned), teacher_NU)
        value.backward()
        return float(value.detach())

    return run, {"torch": torch.__version__}


if __name__ == "__main__":
    serve(build)

"""PyTorch in eager mode, with dense or with sparse gradients of the tables."""

from typing import Any

import torch

from benchmarks.harness import time_repeatedly
from benchmarks.step.job import EPSILON, INITIAL_SLOT, LEARNING_RATE, load_job


def train(folder: str, *, sparse: bool) -> dict[str, Any]:
    """The losses of two epochs, and then the seconds of an epoch."""
    job = load_job(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    embeddings = [
        torch.nn.Embedding.from_pretrained(torch.from_numpy(table).clone(), freeze=False, sparse=sparse).to(device)
        for table in (job.query_table, job.item_table)
    ]
    optimizer = torch.optim.Adagrad(
        [parameter for embedding in embeddings for parameter in embedding.parameters()],
        lr=LEARNING_RATE,
        initial_accumulator_value=INITIAL_SLOT,
        eps=EPSILON,
    )
    labels = torch.from_numpy(job.labels).to(device)
    batches = list(
        zip(
            torch.from_numpy(job.queries).long().to(device),
            torch.from_numpy(job.items).long().to(device),
            labels.clamp(min=0.0),
            labels >= 0,
            job.num_lists.tolist(),
            strict=True,
        )
    )

    def take_epoch() -> float:
        total = torch.zeros([], dtype=torch.float64, device=device)
        for queries, items, relevance, is_real, num_lists in batches:
            scores = torch.einsum("bd,bld->bl", embeddings[0](queries), embeddings[1](items))
            log_probabilities = torch.log_softmax(scores.masked_fill(~is_real, -1e9), dim=1)
            loss = -(relevance * log_probabilities).sum()
            optimizer.zero_grad()
            (loss / num_lists).backward()
            optimizer.step()
            total += loss.detach()
        return float(total) / float(job.num_lists.sum())

    losses = [take_epoch(), take_epoch()]
    return {"losses": losses, "seconds": time_repeatedly(take_epoch), "device": "GPU" if device == "cuda" else "CPU"}

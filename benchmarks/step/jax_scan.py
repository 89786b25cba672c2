"""JAX: one compiled `scan` over the steps of an epoch."""

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import time_repeatedly
from benchmarks.step.job import EPSILON, INITIAL_SLOT, LEARNING_RATE, load_job


def train(folder: str) -> dict[str, Any]:
    """The losses of two epochs, and then the seconds of an epoch."""
    job = load_job(folder)
    batches = tuple(map(jnp.asarray, (job.queries, job.items, job.labels, job.num_lists)))

    def summed_loss(tables, queries, items, labels):
        scores = jnp.einsum("bd,bld->bl", tables[0][queries], tables[1][items])
        log_probabilities = jax.nn.log_softmax(jnp.where(labels >= 0, scores, -1e9))
        return -jnp.sum(jnp.maximum(labels, 0.0) * log_probabilities)

    def take_step(state, batch):
        tables, slots = state
        *features, num_lists = batch
        loss, gradients = jax.value_and_grad(lambda tables: summed_loss(tables, *features) / num_lists)(tables)
        slots = jax.tree.map(lambda slot, gradient: slot + gradient**2, slots, gradients)
        tables = jax.tree.map(
            lambda table, gradient, slot: table - LEARNING_RATE * gradient * jax.lax.rsqrt(slot + EPSILON),
            tables,
            gradients,
            slots,
        )
        return (tables, slots), loss * num_lists

    take_steps = jax.jit(lambda state, batches: jax.lax.scan(take_step, state, batches), donate_argnums=0)
    tables = (jnp.asarray(job.query_table), jnp.asarray(job.item_table))
    state = (tables, jax.tree.map(lambda table: jnp.full_like(table, INITIAL_SLOT), tables))

    def take_epoch() -> float:
        nonlocal state
        state, losses = take_steps(state, batches)
        return float(losses.sum()) / float(job.num_lists.sum())

    losses = [take_epoch(), take_epoch()]
    return {"losses": losses, "seconds": time_repeatedly(take_epoch), "device": jax.default_backend().upper()}

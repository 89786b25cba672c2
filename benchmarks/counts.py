"""What a training step has to compute and move, counted from its shapes. Achieved rates are these counts per second."""


def step_flops(*, batch_size: int, list_size: int, size: int, num_updated_rows: int) -> int:
    """The floating-point operations of a step of the dot-product model with Adagrad.

    The scores, the gradients of the queries and the gradients of the items each have a multiplication and an addition
    for each number of each entry. Adagrad has 7 operations for each number that it updates.

    Args:
      batch_size: the number of lists.
      list_size: the number of entries of a list.
      size: of the embeddings.
      num_updated_rows: the rows of all tables that the optimizer updates.
    """
    return 6 * batch_size * list_size * size + 7 * num_updated_rows * size


def step_bytes(*, batch_size: int, list_size: int, size: int, num_updated_rows: int) -> int:
    """The bytes that a step has to read and write at the least, if nothing stays in a cache between its parts.

    The vector of each entry is read once, and its gradient is added once to the gradient of its row, which is read and
    written. The gradient of each updated row is set to 0 and read, and its value and its slot are read and written.
    The arguments are those of `step_flops`.
    """
    return 4 * size * (3 * batch_size * list_size + 6 * num_updated_rows)


def all_reduce_bytes(*, num_replicas: int, num_numbers: int) -> int:
    """The bytes that each replica sends in a step to sum gradients of `num_numbers` float32 over all replicas.

    A ring sends each part of the gradients twice to the next replica but one time: 2 · (R − 1) / R of all numbers
    ([Patarasuk and Yuan, 2009](https://doi.org/10.1016/j.jpdc.2008.09.002)).
    """
    return 8 * num_numbers * (num_replicas - 1) // num_replicas

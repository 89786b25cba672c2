"""The names of variables, and a copy of their values that later updates do not change."""

import numpy as np
import pytest

from trainer.compat import tf
from trainer.training import snapshot


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
def test_a_snapshot_keeps_its_values_while_training_updates_the_variables(jit_compile, is_sparse):
    table = tf.Variable(tf.zeros([50, 4]))

    @tf.function(jit_compile=jit_compile, autograph=False)
    def update():
        if is_sparse:
            table.scatter_add(tf.IndexedSlices(tf.ones([2, 4]), tf.constant([3, 3])))
        else:
            table.assign_add(tf.ones([50, 4]))

    for step in range(3):
        before = table.numpy()
        taken = snapshot.take({"table": table})
        for _ in range(2):
            update()
        np.testing.assert_array_equal(taken["table"], before, err_msg=str(step))
        assert not np.array_equal(table, before)


def test_variables_are_named_by_the_shortest_path_and_once():
    module = tf.Module()
    module.inner, module._private = tf.Module(), [tf.Variable(1.0)]
    module.inner.first, module.all = tf.Variable(2.0), []
    module.all.append(module.inner)
    module.shared = module.inner.first
    named = snapshot.named_variables(model=module)
    assert {name: variable.numpy() for name, variable in named.items()} == {"model/shared": 2.0, "model/private/0": 1.0}

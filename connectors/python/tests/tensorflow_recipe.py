"""docs/tensorflow.md with TensorFlow itself, in its own environment: test_recipes.py has this run there, since it is not for the others'."""

import re
from pathlib import Path

import forebay
import forebay.layout
import forebay.shares
import numpy as np
import pyarrow as pa
import pytest

ROWS = 5000


@pytest.fixture
def tf(server):
    """Comes after the server, whose start forks."""
    import tensorflow

    return tensorflow


def rows(start, end):
    x = np.arange(start * 2, end * 2, dtype=np.float32) / (2 * ROWS)
    table = {"x": pa.FixedSizeListArray.from_arrays(pa.array(x), 2), "label": pa.array(range(start, end), pa.int64())}
    return pa.table(table | {"s": [f"größe {k}" for k in range(start, end)], "flag": [k % 2 == 0 for k in range(start, end)]})


@pytest.fixture
def recipe(server, path, tf):
    """What the page's code makes, run against the server; by then the dataset has begun."""

    def run(*columns):
        [code] = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[3] / "docs/tensorflow.md").read_text(), re.S)
        for theirs, ours in {"grpc://127.0.0.1:47470": server.flight, "/features/day=1": path}.items():
            assert theirs in code
            code = code.replace(theirs, ours)
        if columns:  # others than the page's, which are none that its model could learn from
            code = code.replace('["x", "label"]', repr(list(columns))).partition("model = ")[0]
        names = {}
        exec(compile(code, "docs/tensorflow.md", "exec"), names)
        return names

    return run


def labels(dataset):
    return [label for batch in dataset.as_numpy_iterator() for label in batch["label"].tolist()]


def test_a_model_has_every_row_in_every_epoch(client, path, recipe, tf):
    client.put(path, [rows(0, 3000), rows(3000, ROWS)])
    made = recipe()
    assert made["dataset"].element_spec == {"x": tf.TensorSpec([None, 2], tf.float32), "label": tf.TensorSpec([None], tf.int64)}
    passes = [labels(made["dataset"]) for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(ROWS)) and passes[0] != passes[1], "every row in each, shuffled anew"
    history = made["model"].history
    assert history.epoch == [0, 1, 2] and history.history["loss"][2] < history.history["loss"][0]
    assert made["model"].input_shape == (None, 2)


def test_tensors_have_the_values_and_types_of_their_columns(client, path, recipe, tf):
    client.put(path, rows(0, 100))
    made = recipe("x", "label", "s", "flag")
    [batch] = tf.data.Dataset.from_generator(made["batches"], output_signature=made["shape"])
    assert {name: (tensor.dtype, tensor.shape.as_list()) for name, tensor in batch.items()} == {
        "x": (tf.float32, [100, 2]),
        "label": (tf.int64, [100]),
        "s": (tf.string, [100]),
        "flag": (tf.bool, [100]),
    }
    want = rows(0, 100)
    assert batch["x"].numpy().tolist() == want["x"].to_pylist() and batch["flag"].numpy().tolist() == want["flag"].to_pylist()
    assert [text.decode() for text in batch["s"].numpy()] == want["s"].to_pylist()


def follows(made, tf):
    return tf.data.Dataset.from_generator(lambda: made["batches"](follow=True), output_signature=made["shape"]).as_numpy_iterator()


def test_batches_come_while_nothing_is_published_and_end_at_the_publish(client, path, recipe, tf):
    with client.session(path) as session:
        session.put(rows(0, 10))
        follower = follows(recipe("x", "label"), tf)
        assert next(follower)["label"].tolist() == list(range(10))
        with pytest.raises(forebay.NotFound):
            client.scan(path)
        session.put(rows(10, 20))
        assert next(follower)["x"].tolist() == rows(10, 20)["x"].to_pylist()
    assert list(follower) == []


def test_an_abort_is_an_error_of_the_step(client, path, recipe, tf):
    session = client.session(path)
    session.put(rows(0, 10))
    follower = follows(recipe("x", "label"), tf)
    assert len(next(follower)["label"]) == 10
    session.abort()
    with pytest.raises(tf.errors.OpError, match="Aborted"):
        next(follower)


@pytest.mark.parametrize("world", [2, 3])
def test_workers_have_their_shares_at_once(client, path, recipe, tf, world):
    client.put(path, [rows(0, 1000), rows(1000, 1500), rows(1500, ROWS)])
    made = recipe("x", "label")
    layout = forebay.layout.Layout(client.connection, path, 1, ["x", "label"], None)
    shares = [forebay.shares.of_rank(layout.rows, world, rank) for rank in range(world)]

    def share(rank):
        for span in shares[rank]:
            yield from map(made["tensors"], layout.read(*span))

    def of_rank(rank):
        return tf.data.Dataset.from_generator(share, args=(rank,), output_signature=made["shape"])

    each = [labels(of_rank(rank)) for rank in range(world)]
    assert sum(each, []) == list(range(ROWS)) and max(map(len, each)) - min(map(len, each)) <= 1
    together = tf.data.Dataset.range(world).interleave(of_rank, cycle_length=world, num_parallel_calls=world)
    assert sorted(labels(together)) == list(range(ROWS))


def test_a_token_goes_on_behind_the_batch_that_was_trained_last(client, path, recipe, tf):
    client.put(path, [rows(k, k + 100) for k in range(0, 1000, 100)])
    made, tokens = recipe("x", "label"), []

    def batches(resume=None):
        scan = client.scan(path, columns=["x", "label"], resume=resume)
        for batch in scan:
            tokens.append(scan.token)
            yield made["tensors"](batch)

    def read(resume=None):
        return tf.data.Dataset.from_generator(lambda: batches(resume), output_signature=made["shape"])

    before = labels(read().take(4))
    assert before == list(range(400))
    assert labels(read(tokens[3])) == list(range(400, 1000))

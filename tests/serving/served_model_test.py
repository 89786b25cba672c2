"""The model for servers, called as TensorFlow Serving calls it: by protocol buffers, rows of JSON, and batches."""

import json

import numpy as np
import pytest
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tests.serving.planted import VOCABULARY
from trainer.compat import tf
from trainer.evaluation.item_lists import ItemLists
from trainer.serving.export import load_export
from trainer.serving.served_model import LOWEST_SCORE, ServedModel
from trainer.serving.serving_layout import write_version

# The items by index are a, b, c, d, e. What u has seen, and v.
SEEN = ItemLists(np.array([0, 0, 3, 4]), np.array([5, 1, 3, 2], np.int32))
K = 3


@pytest.fixture(scope="module")
def exported(pooled_folder):
    return load_export(str(pooled_folder))


@pytest.fixture(scope="module")
def version(exported, pooled_folder, tmp_path_factory):
    """The planted model with a pooled history as version 1, checked in a fresh process."""
    folder = tmp_path_factory.mktemp("served") / "planted"
    return write_version(
        exported,
        VOCABULARY,
        SEEN,
        model_folder=str(pooled_folder),
        folder=str(folder),
        k=K,
        default_signature="recommend",
        model_name="planted",
        with_warm_up=True,
    )


@pytest.fixture(scope="module")
def signatures(version):
    return tf.saved_model.load(version).signatures


def ids(found):
    return [[item.decode() for item in row] for row in found["item_ids"].numpy()]


# For each signature two requests whose lists have the same length.
REQUESTS = {
    "score": [
        {"user_ids": ["u", "stranger"], "item_ids": [["a", "no such item"], ["", "b"]]},
        {"user_ids": ["v"], "item_ids": [["e", "c"]]},
    ],
    "recommend": [{"user_ids": ["u", "stranger"]}, {"user_ids": ["v"]}],
    "recommend_excluding": [
        {"user_ids": ["u", "stranger"], "excluded_item_ids": [["b", ""], ["a", "b"]]},
        {"user_ids": ["v"], "excluded_item_ids": [["", ""]]},
    ],
    "recommend_from_history": [
        {"item_ids": [["e", "a", "c"], ["?", "", ""]], "ratings": [[1.0, 5.0, 2.5], [5.0, 0.0, 0.0]]},
        {"item_ids": [["b", "", ""]], "ratings": [[4.0, 0.0, 0.0]]},
    ],
    "recommend_from_history_excluding": [
        {"item_ids": [["a", "c"]], "ratings": [[5.0, 2.5]], "excluded_item_ids": [["b"]]},
        {"item_ids": [["b", ""]], "ratings": [[4.0, 0.0]], "excluded_item_ids": [[""]]},
    ],
    "similar_items": [{"item_ids": ["a", "no such item"]}, {"item_ids": ["e"]}],
}
REQUESTS["serving_default"] = REQUESTS["recommend"]


def tensors(request):
    return {name: tf.constant(values) for name, values in request.items()}


def test_what_a_user_has_seen_is_left_out(signatures):
    """The scores of u are 16/3, 10/3, 16/3, 10/3, 0, and of v 20, 16, 12, 8, 4."""
    found = signatures["recommend"](user_ids=tf.constant(["u", "v", "stranger"]))
    assert ids(found) == [["b", "d", ""], ["a", "c", "d"], ["a", "b", "c"]]
    expected = [[10 / 3, 10 / 3, LOWEST_SCORE], [20, 12, 8], [5, 4, 3]]
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)
    assert found["known"].numpy().tolist() == [True, True, False]
    assert found["titles"].numpy()[1, 0].decode() == "Film «a»"


def test_more_items_can_be_excluded(signatures):
    excluded = tf.constant([["b", "?"], ["", ""], ["a", "c"]])
    found = signatures["recommend_excluding"](user_ids=tf.constant(["u", "v", "stranger"]), excluded_item_ids=excluded)
    assert ids(found) == [["d", "", ""], ["a", "c", "d"], ["b", "d", "e"]]


def test_seen_items_can_be_included(exported):
    signature = ServedModel(exported, ItemLists.empty(3), k=K).build_signatures()["recommend"]
    assert ids(signature(user_ids=tf.constant(["u", "v"]))) == [["a", "c", "b"], ["a", "b", "c"]]


def test_scores_say_what_is_known_and_are_finite(signatures):
    found = signatures["score"](**tensors(REQUESTS["score"][0]))
    np.testing.assert_allclose(found["scores"], [[16 / 3, LOWEST_SCORE], [LOWEST_SCORE, 4]], rtol=1e-5)
    assert found["known"].numpy().tolist() == [[True, False], [False, False]]


def test_histories_and_similar_items_are_those_of_the_exported_model(signatures, exported):
    for name, excluded in (("recommend_from_history", [[], []]), ("recommend_from_history_excluding", None)):
        request = tensors(REQUESTS[name][0])
        found = signatures[name](**request)
        expected = exported.recommend_from_history(
            **{"excluded_item_ids": tf.zeros([2, 0], tf.string), **request} if excluded else request, k=tf.constant(K)
        )
        assert ids(found) == ids(expected)
        assert found["known"].numpy().tolist() == expected["known"].numpy().tolist() == [True, False][: len(ids(found))]
    found = signatures["similar_items"](item_ids=tf.constant(["a", "no such item"]))
    assert ids(found) == ids(exported.similar_items(tf.constant(["a", "no such item"]), K))
    assert found["scores"].numpy()[1].tolist() == [LOWEST_SCORE] * K


def test_the_first_axis_of_everything_is_the_batch_and_k_is_fixed(version):
    saved_model = tf.compat.v1.saved_model.load
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        definitions = saved_model(session, ["serve"], version).signature_def
    assert definitions.keys() - {"__saved_model_init_op"} == REQUESTS.keys()
    for name, definition in definitions.items():
        if name not in REQUESTS:
            continue
        assert definition.method_name == "tensorflow/serving/predict"
        assert definition.inputs.keys() == REQUESTS[name][0].keys()
        for info in (*definition.inputs.values(), *definition.outputs.values()):
            assert info.tensor_shape.dim[0].size == -1
        assert {output: tf.as_dtype(info.dtype) for output, info in definition.outputs.items()} == {
            "scores": tf.float32,
            "known": tf.bool,
            **({} if name == "score" else {"item_ids": tf.string, "titles": tf.string}),
        }
        if name != "score":
            sizes = [
                [dim.size for dim in definition.outputs[output].tensor_shape.dim] for output in ("item_ids", "known")
            ]
            assert sizes == [[-1, K], [-1]]


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_can_be_put_together_by_the_server(signatures, name):
    """A batching server joins the arguments along the first axis, and splits the results."""
    first, second = map(tensors, REQUESTS[name])
    joined = signatures[name](**{each: tf.concat([first[each], second[each]], axis=0) for each in first})
    apart = [signatures[name](**request) for request in (first, second)]
    for result, values in joined.items():
        expected = tf.concat([answer[result] for answer in apart], axis=0)
        assert values.shape == expected.shape and np.array_equal(values, expected), result


def rest(signatures, body):
    """Answers the body of a REST request in row format by the rules of TensorFlow Serving."""
    signature = signatures[body.get("signature_name", "serving_default")]
    specs = signature.structured_input_signature[1]
    rows = body["instances"]
    if not isinstance(rows[0], dict):  # Only with one argument.
        (name,) = specs
        rows = [{name: row} for row in rows]
    assert all(row.keys() == specs.keys() for row in rows)
    found = signature(**{name: tf.constant([row[name] for row in rows], spec.dtype) for name, spec in specs.items()})
    assert {len(values) for values in found.values()} == {len(rows)}

    def plain(values):
        return [value.decode() if isinstance(value, bytes) else value for value in np.ravel(values).tolist()]

    predictions = [
        {name: plain(values.numpy()[row]) if values.shape.rank > 1 else plain(values.numpy()[row])[0]
         for name, values in found.items()}
        for row in range(len(rows))
    ]  # fmt: skip
    return json.loads(json.dumps({"predictions": predictions}, allow_nan=False))


def test_rest_takes_rows(signatures):
    (answer,) = rest(signatures, {"instances": ["u"]})["predictions"]
    assert answer["item_ids"] == ["b", "d", ""] and answer["known"] is True
    rows = [{"user_ids": "u", "item_ids": ["a", "no such item"]}, {"user_ids": "stranger", "item_ids": ["", "b"]}]
    first, second = rest(signatures, {"signature_name": "score", "instances": rows})["predictions"]
    assert (first["known"], second["known"]) == ([True, False], [False, False])
    assert second["scores"] == [LOWEST_SCORE, 4]
    for name, requests in REQUESTS.items():
        for request in requests:
            columns = zip(*request.values(), strict=True)
            rows = [dict(zip(request, values, strict=True)) for values in columns]
            assert len(rest(signatures, {"signature_name": name, "instances": rows})["predictions"]) == len(rows)


def predict(session, definitions, request):
    """Answers a gRPC request as the server does: by running the graph in a session."""
    definition = definitions[request.model_spec.signature_name]
    feeds = {}
    assert request.inputs.keys() == definition.inputs.keys()
    for name, proto in request.inputs.items():
        info = definition.inputs[name]
        assert proto.dtype == info.dtype
        feeds[info.name] = tf.make_ndarray(proto)
        assert tf.TensorShape(info.tensor_shape).is_compatible_with(feeds[info.name].shape)
    found = session.run({name: info.name for name, info in definition.outputs.items()}, feeds)
    response = predict_pb2.PredictResponse()
    for name, values in found.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
    return predict_pb2.PredictResponse.FromString(response.SerializeToString())


def test_protocol_buffers_give_the_same_as_python(version, signatures):
    """In a session, where a lookup table has to be filled by the operation that initializes the model."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        definitions = tf.compat.v1.saved_model.load(session, ["serve"], version).signature_def
        answers = {}
        for name, requests in REQUESTS.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = name
            for argument, values in requests[0].items():
                request.inputs[argument].CopyFrom(tf.make_tensor_proto(values))
            # Twice, because a table that each request makes anew would be empty.
            answers[name] = [predict(session, definitions, request) for _ in range(2)]
    for name, (first, second) in answers.items():
        expected = signatures[name](**tensors(REQUESTS[name][0]))
        assert first == second
        assert first.outputs.keys() == expected.keys()
        for output, values in expected.items():
            np.testing.assert_array_equal(tf.make_ndarray(first.outputs[output]), values)


def test_the_warm_up_requests_run_through_every_signature(version):
    path = f"{version}/assets.extra/tf_serving_warmup_requests"
    logs = [prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset([path])]
    assert all(log.WhichOneof("log_type") == "predict_log" for log in logs)
    requests = [log.predict_log.request for log in logs]
    assert {request.model_spec.name for request in requests} == {"planted"}
    names = [request.model_spec.signature_name for request in requests]
    assert sorted(set(names)) == sorted(REQUESTS.keys() - {"serving_default"}) and len(names) == 12
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        definitions = tf.compat.v1.saved_model.load(session, ["serve"], version).signature_def
        for request in requests:
            answer = predict(session, definitions, request)
            assert tf.make_ndarray(answer.outputs["known"]).all()
            assert len(tf.make_ndarray(answer.outputs["scores"])) in (1, 8)

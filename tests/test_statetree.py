"""A state tree comes back as it went in, and nothing else can be put into it."""

import json
import math

import numpy as np
import pytest
import torch

from robotrl.statetree import flatten, unflatten


def there_and_back(tree):
    nodes, tensors = flatten(tree)
    return unflatten(json.loads(json.dumps(nodes)), tensors.__getitem__)


def test_plain_values_keep_value_and_type():
    tree = {
        "scalars": [None, True, -3, 2**200 + 1, 0.1, "a\u00e9\n"],
        "containers": {"list": [1, [2.5]], "tuple": (1, ("x",)), "empty": {}},
        "$": "a key that looks like a tag",
        "keys": {0: {"step": 1}, (1, 2): None},
    }
    back = there_and_back(tree)
    assert back == tree
    assert type(back["scalars"][1]) is bool
    assert type(back["containers"]["tuple"]) is tuple
    assert list(back["keys"]) == [0, (1, 2)]


def test_non_finite_floats_survive_strict_json():
    nodes, _ = flatten([math.inf, -math.inf, math.nan])
    text = json.dumps(nodes, allow_nan=False)
    inf, minus, nan = unflatten(json.loads(text), {}.__getitem__)
    assert inf == math.inf
    assert minus == -math.inf
    assert math.isnan(nan)


NUMBERS = ["bool", "uint8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", [*NUMBERS, "float16", "float32", "float64", "complex64"])
def test_numpy_arrays_and_scalars_keep_dtype_shape_and_bits(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for value in (array, array.T, array[:, :0], array[1, 2], np.array(array[1, 1])):
        back = there_and_back({"x": value})["x"]
        assert type(back) is type(value)
        assert back.dtype == value.dtype
        assert back.shape == value.shape
        assert back.tobytes() == value.tobytes()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64, torch.bfloat16])
def test_tensors_keep_dtype_shape_and_values(dtype):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    for value in (tensor, tensor.T, tensor[0, 1], tensor[:0]):
        back = there_and_back([value])[0]
        assert back.dtype == dtype
        assert torch.equal(back, value)


def test_random_generator_states_continue_the_same_stream():
    for kind in (np.random.PCG64, np.random.Philox, np.random.MT19937):
        source = np.random.Generator(kind(3))
        source.random(7)
        copy = np.random.Generator(kind(0))
        copy.bit_generator.state = there_and_back(source.bit_generator.state)
        assert np.array_equal(copy.random(5), source.random(5))


def test_an_optimiser_state_with_integer_keys_comes_back():
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([weight])
    weight.sum().backward()
    optimiser.step()
    back = there_and_back(optimiser.state_dict())
    assert list(back["state"]) == [0]
    assert torch.equal(back["state"][0]["exp_avg"], optimiser.state_dict()["state"][0]["exp_avg"])


def test_two_paths_that_read_alike_stay_apart():
    back = there_and_back({"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1)})
    assert back["a"]["b"].item() == 0
    assert back["a/b"].item() == 1


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", np.array(["text"]), np.array([None]), lambda: 0])
def test_other_values_are_refused_by_path_and_type(value):
    with pytest.raises(TypeError, match=r"state at 'learner/odd' is an? "):
        flatten({"learner": {"odd": value}})


def test_unknown_tags_and_changed_shapes_are_refused():
    with pytest.raises(ValueError, match="unknown kind of value 'call'"):
        unflatten({"$": "call", "name": "os.system"}, {}.__getitem__)
    nodes, _ = flatten({"x": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"tensor 'x' is float64\[2\], recorded as float32\[2\]"):
        unflatten(nodes, {"x": torch.zeros(2, dtype=torch.float64)}.__getitem__)

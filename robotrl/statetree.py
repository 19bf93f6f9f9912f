"""A tree of state (dictionaries, lists, tensors, numbers) as JSON plus tensors by name, and back. It runs no code.

Plain JSON values stand for themselves. What JSON lacks is an object whose first key is `$`: a tensor, a NumPy array or
scalar, a tuple, a non-finite float, or a dictionary with keys that are no strings (optimiser states have integer keys).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

TAG = "$"
_KINDS = ("tensor", "array", "scalar")


def flatten(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a tree into JSON-ready values and its tensors by path name.

    Tensors are detached and moved to the CPU, not copied where they are there already: write them before they change.

    Raises:
        TypeError: a value of another kind; the message names its path and type.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(tree, "", tensors), tensors


def unflatten(node: Any, tensor: Callable[[str], Tensor]) -> Any:
    """The tree that `flatten` split; `tensor(name)` gives a tensor of its own for each name.

    Raises:
        ValueError: an unknown tag, or a tensor whose dtype or shape is not the one recorded.
    """
    if isinstance(node, list):
        return [unflatten(item, tensor) for item in node]
    if not isinstance(node, dict):
        return node
    if TAG not in node:
        return {key: unflatten(value, tensor) for key, value in node.items()}
    kind = node[TAG]
    if kind in _KINDS:
        return _tensor_from(node, tensor)
    if kind == "tuple":
        return tuple(unflatten(item, tensor) for item in node["items"])
    if kind == "dict":
        return {unflatten(key, tensor): unflatten(value, tensor) for key, value in node["items"]}
    if kind == "float":
        return float(node["value"])
    raise ValueError(f"unknown kind of value {kind!r}")


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):  # before float: np.float64 is one, and would come back as another type
        return _reference("scalar", torch.from_numpy(np.array(value)), path, tensors)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {TAG: "float", "value": repr(value)}
    if isinstance(value, Tensor):
        return _reference("tensor", value.detach().cpu().contiguous(), path, tensors)
    if isinstance(value, np.ndarray):
        return _reference("array", _from_numpy(value, path), path, tensors)
    if isinstance(value, tuple):
        return {TAG: "tuple", "items": [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _encode_mapping(value, path, tensors)
    raise TypeError(f"state at '{path.lstrip('/')}' is a {type(value).__name__}, which a checkpoint cannot hold")


def _encode_mapping(value: Mapping[Any, Any], path: str, tensors: dict[str, Tensor]) -> Any:
    if all(isinstance(key, str) for key in value) and TAG not in value:
        return {key: _encode(item, f"{path}/{key}", tensors) for key, item in value.items()}
    pairs = [[_encode(key, path, tensors), _encode(item, f"{path}/{key}", tensors)] for key, item in value.items()]
    return {TAG: "dict", "items": pairs}


def _from_numpy(value: np.ndarray[Any, Any], path: str) -> Tensor:
    if value.dtype.kind not in "biufc":
        raise TypeError(f"state at '{path.lstrip('/')}' is an array of {value.dtype}, which a checkpoint cannot hold")
    native = value.astype(value.dtype.newbyteorder("="), order="C", copy=False)
    if not native.flags.writeable:  # torch warns about sharing memory that it must not write
        native = native.copy()
    return torch.from_numpy(native)


def _reference(kind: str, tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    name = unique = path.lstrip("/") or "value"
    number = 1
    while unique in tensors:  # {"a": {"b": x}, "a/b": y} gives one path twice
        number += 1
        unique = f"{name}#{number}"
    tensors[unique] = tensor
    return {TAG: kind, "name": unique, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def _tensor_from(node: dict[str, Any], tensor: Callable[[str], Tensor]) -> Any:
    value = tensor(node["name"])
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype != node["dtype"] or list(value.shape) != node["shape"]:
        found, recorded = f"{dtype}{list(value.shape)}", f"{node['dtype']}{node['shape']}"
        raise ValueError(f"the tensor '{node['name']}' is {found}, recorded as {recorded}")
    if node[TAG] == "tensor":
        return value
    return value.numpy() if node[TAG] == "array" else value.numpy()[()]


__all__ = ["flatten", "unflatten"]

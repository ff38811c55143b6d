"""How judge and sandbox speak: values as bytes, without pickle, so that no answer can run code.

A message is JSON with its tensors beside it (safetensors). Functions do not travel: the sandbox
gets a number for each, and asks the judge to call it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

LARGEST = 64_000_000  # bytes of one message
HEADER = struct.Struct("<QQ")  # bytes of JSON, bytes of tensors


class Garbled(ValueError):
    """A message cannot be read, or is larger than any honest one."""


@dataclass(frozen=True)
class Handle:
    """A function that lives on the other side, by its number there."""

    number: int


def encode(message: Any, functions: list[Callable] | None = None) -> bytes:
    """A message as bytes; functions in it are put into `functions` and travel as numbers.

    Raises TypeError for what cannot travel.
    """
    tensors: list[Tensor] = []

    def tree(value: Any) -> Any:
        if isinstance(value, Handle):
            return {"handle": value.number}
        if isinstance(value, Tensor):
            plain = value.detach().as_subclass(Tensor).cpu().contiguous().clone()
            tensors.append(plain)
            return {"tensor": len(tensors) - 1, "grad": bool(value.requires_grad)}
        if isinstance(value, np.ndarray):
            tensors.append(torch.from_numpy(np.ascontiguousarray(value)).clone())
            return {"array": len(tensors) - 1, "shape": list(value.shape)}
        if isinstance(value, dict):
            return {"dict": [[tree(key), tree(held)] for key, held in value.items()]}
        if isinstance(value, list | tuple):
            return {type(value).__name__: [tree(held) for held in value]}
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if callable(value) and functions is not None:
            functions.append(value)
            return {"handle": len(functions) - 1}
        raise TypeError(f"a {type(value).__name__} cannot be sent")

    text = json.dumps(tree(message)).encode()
    data = save({str(i): tensor for i, tensor in enumerate(tensors)}) if tensors else b""
    return HEADER.pack(len(text), len(data)) + text + data


def decode(text: bytes, data: bytes, function: Callable[[int], Any] = Handle) -> Any:
    """The message in two strings of bytes; `function` makes something of each function's number.

    Raises Garbled for whatever is no message.
    """
    try:
        tensors = load(data) if data else {}

        def value(tree: Any) -> Any:
            if not isinstance(tree, dict):
                return tree
            if "tensor" in tree:
                return tensors[str(tree["tensor"])].requires_grad_(bool(tree["grad"]))
            if "array" in tree:
                return tensors[str(tree["array"])].numpy().reshape(tree["shape"])
            if "handle" in tree:
                return function(int(tree["handle"]))
            if "dict" in tree:
                return {value(key): value(held) for key, held in tree["dict"]}
            ((kind, held),) = tree.items()
            return {"list": list, "tuple": tuple}[kind](map(value, held))

        return value(json.loads(text))
    except (Exception, RecursionError) as error:
        raise Garbled(f"{type(error).__name__}: {error}") from None


def receive(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """The two strings of bytes of the next message; None at the end. Raises Garbled."""
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    sizes = HEADER.unpack(head)
    if sum(sizes) > LARGEST:
        raise Garbled(f"a message of {sum(sizes) / 1e6:.0f} MB")
    text, data = (stream.read(size) for size in sizes)
    return (text, data) if (len(text), len(data)) == sizes else None

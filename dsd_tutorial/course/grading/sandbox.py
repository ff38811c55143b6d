"""The process in which a hand-in's functions run: it answers, and judges nothing.

It is started by `enclosure`, inside walls where the system has them. The package's checks are not
here: what stands in their place judges nothing and holds no solution. Everything that the learner's
code prints is thrown away.
"""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from collections.abc import Callable, MutableSequence
from types import CodeType, ModuleType
from typing import Any, BinaryIO

CHECKS = "dsd_tutorial.course.checks"


class Absent:
    """Stands for the checks while one is judged: it takes any call and says nothing."""

    def __call__(self, *args: Any, **kwargs: Any) -> Absent:
        """Itself, whatever is asked."""
        return self

    def __getattr__(self, name: str) -> Absent:
        if name.startswith("_") or name == "solution":
            raise AttributeError(f"{name} is not to be had while a hand-in is judged")
        return self

    def __repr__(self) -> str:
        return "(judged elsewhere)"


class AbsentChecks(ModuleType):
    """The module that imports of the checks find."""

    __path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(Absent(), name)


class Channel:
    """Messages to and from the judge, over what were standard input and output."""

    def __init__(self) -> None:
        self.incoming: BinaryIO = os.fdopen(os.dup(0), "rb")
        self.outgoing: BinaryIO = os.fdopen(os.dup(1), "wb")
        self.number = 0  # of the message that is being answered
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):  # what the learner prints, or reads, leads nowhere
            os.dup2(nothing, number)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; raises TypeError for what cannot travel."""
        from dsd_tutorial.course.grading.wire import encode

        self.outgoing.write(encode({**message, "id": self.number}))
        self.outgoing.flush()

    def ask(self, message: dict[str, Any]) -> Any:
        """Send a message and return the judge's next one."""
        self.send(message)
        return self.receive()

    def receive(self) -> Any:
        """The judge's next message; ends this process where there is none."""
        from dsd_tutorial.course.grading.wire import decode, receive

        parts = receive(self.incoming)
        if parts is None:
            os._exit(0)
        message = decode(*parts, function=lambda number: far_function(self, number))
        self.number = message["id"]
        return message


def far_function(channel: Channel, number: int) -> Callable:
    """A function of the judge's: each call is answered by it, gradients included."""
    import torch

    from dsd_tutorial.course.grading.wire import Handle

    def ask(args: tuple, kwargs: dict) -> dict:
        reply = channel.ask({"callback": number, "args": list(args), "kwargs": kwargs})
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    class Far(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, args: tuple, kwargs: dict, *tensors: Any) -> Any:
            reply = ask(args, kwargs)
            ctx.slopes = reply["slopes"]
            return reply["value"]

        @staticmethod
        def backward(ctx: Any, *outer: Any) -> Any:
            return None, None, *(None if s is None else outer[0] * s for s in ctx.slopes)

    def call(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        tensors = [x for x in given if isinstance(x, torch.Tensor) and x.requires_grad]
        if tensors and torch.is_grad_enabled():
            return Far.apply(args, kwargs, *tensors)
        return ask(args, kwargs)["value"]

    call.handle = Handle(number)  # type: ignore[attr-defined]  # how it travels back
    call.__deepcopy__ = lambda memo: call  # type: ignore[attr-defined]
    return call


def namespace_of(cells: list[tuple[str, str]], name: str) -> dict[str, Any]:
    """The names after the statements behind `name` were executed."""
    import ast

    from dsd_tutorial.course.grading.needed import needed

    names: dict[str, Any] = {
        "__name__": "__main__",
        "checks": Absent(),
        "display": Absent(),
        "get_ipython": Absent(),
    }
    for label, source in cells:
        linecache.cache[label] = (len(source), None, source.splitlines(keepends=True), label)
    for label, statement in needed(cells, name):
        module = ast.Module([statement], [])
        code: CodeType = compile(ast.fix_missing_locations(module), label, "exec")
        exec(code, names)
        names["checks"] = Absent()
    return names


def trouble(error: BaseException) -> dict[str, Any]:
    """An error as it is told to the judge: what it is, and the last line it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith("<cell")] or frames
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    says = error.msg if isinstance(error, SyntaxError) else str(error)
    return {
        "kind": type(error).__name__[:80],
        "says": says[:300],
        "line": line or (own[-1].lineno if own else 0),
        "source": ((own[-1].line if own and not line else None) or "")[:200],
    }


def load(message: dict[str, Any]) -> tuple[Callable | None, dict[str, Any]]:
    """(the function that a hand-in defines, what is told to the judge)."""
    name = message["name"]
    try:
        function = namespace_of([tuple(cell) for cell in message["cells"]], name).get(name)
    except BaseException as error:  # also SystemExit: it is the learner's, not ours
        return None, {"error": trouble(error)}
    return function, {"loaded": callable(function)}


def answer(function: Callable, args: tuple) -> dict[str, Any]:
    """What the function answers to `args`, as it is told to the judge, with the args afterwards."""
    import torch

    try:
        found = function(*args)
    except NotImplementedError:
        return {"stub": True}
    except BaseException as error:
        return {"error": trouble(error)}
    if found is ...:
        return {"stub": True}
    after = [getattr(arg, "handle", arg) for arg in args]
    if found is None:
        return {"answer": None, "after": after}
    try:
        plain = torch.as_tensor(found).detach().as_subclass(torch.Tensor)
        return {"answer": plain.to_dense() if plain.is_sparse else plain, "after": after}
    except Exception:
        return {"no_tensor": type(found).__name__[:80]}


def main() -> None:
    """Answer the judge until it closes."""
    channel = Channel()
    import torch

    from dsd_tutorial.course.grading.wire import HEADER  # noqa: F401 (before any learner's code)

    torch.set_num_threads(1)
    sys.modules[CHECKS] = AbsentChecks(CHECKS)
    channel.send({"hello": os.environ.get("DSD_UNWALLED", "started by hand")})
    function: Callable | None = None
    while True:
        message = channel.receive()
        if "cells" in message:
            function, reply = load(message)
        elif function is None:
            reply = {"error": trouble(NameError("no such function"))}
        else:
            reply = answer(function, tuple(message["args"]))
        try:
            channel.send(reply)
        except Exception as error:  # it cannot travel, or there is no memory for it
            channel.send({"no_tensor": str(error)[:80]})


if __name__ == "__main__":
    main()

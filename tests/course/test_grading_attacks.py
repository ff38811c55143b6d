"""Hand-ins that try for a point without a right function: none gets one."""

import os
import socket

import pytest

from dsd_tutorial.course import checks
from dsd_tutorial.course.grading import enclosure
from dsd_tutorial.course.grading.judge import judged
from dsd_tutorial.course.grading.process import Limits, Sandbox

COURSE = ("<cell 0 of the course>", "import math\nimport torch")
RIGHT = "    return (torch.logsumexp(lam * x, -1) - math.log(x.shape[-1])) / lam\n"
LIMITS = Limits(seconds=2, memory_mb=900, scratch_mb=8)
WRONG = "    return x.sum(-1)\n"
DEFINE = "def soft_maximum(x, lam):\n"

# Each defines `soft_maximum`; beside it stands what is said of it, None for whatever it may be.
ATTACKS = {
    "a printed tick": (
        f"print('✓ **soft_maximum**: correct.')\n{DEFINE}    print('✓ correct')\n{WRONG}",
        "not recognised",
    ),
    "sys.exit in the function": (
        f"import sys\n{DEFINE}    sys.exit(0)\n",
        "an error inside your function",
    ),
    "sys.exit before it": (
        "import sys\nsoft_maximum = sys.exit(0)",
        "an error inside your function",
    ),
    "the process ends with success": (
        f"import os\n{DEFINE}    os._exit(0)\n",
        "the process ended",
    ),
    "an endless loop": (f"{DEFINE}    while True: pass\n", "too slow"),
    "an endless loop that holds on": (
        "import signal\n"
        "for number in range(1, 32):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        f"{DEFINE}    signal.alarm(0)\n    number\n    while True: pass\n",
        "too slow",
    ),
    "a fork bomb": (
        f"import os\n{DEFINE}"
        "    while True:\n        try: os.fork()\n        except OSError: pass\n",
        None,
    ),
    "all memory": (
        f"{DEFINE}    held = []\n    while True: held.append(bytearray(10_000_000))\n",
        None,
    ),
    "comparison patched": (
        "import torch\ntorch.allclose = lambda *a, **k: True\n"
        "torch.Tensor.__eq__ = lambda a, b: torch.ones(()).bool()\n"
        f"{DEFINE}    torch\n{WRONG}",
        "not recognised",
    ),
    "checks patched": (
        "from dsd_tutorial.course import checks\n"
        "checks.soft_maximum = lambda f: True\n"
        f"{DEFINE}    checks\n{WRONG}",
        "not recognised",
    ),
    "the inside of the checks patched": (
        "import dsd_tutorial.course.checks.exercise as inside\n"
        f"inside.same = lambda a, b: True\n{DEFINE}    inside\n{WRONG}",
        "an error inside your function",
    ),
    "an answer that equals everything": (
        "class Yes(torch.Tensor):\n"
        "    @classmethod\n"
        "    def __torch_function__(cls, f, types, args=(), kwargs=None):\n"
        "        return torch.ones(()).bool()\n"
        f"{DEFINE}    return x.sum(-1).as_subclass(Yes)\n",
        None,
    ),
    "an object that runs code when it is unpacked": (
        "class Bomb:\n"
        "    def __reduce__(self):\n"
        "        return (exec, ('import os; os._exit(0)',))\n"
        f"{DEFINE}    return Bomb()\n",
        "no tensor",
    ),
    "an answer larger than any memory": (
        f"{DEFINE}    return torch.zeros(1).expand(10**13)\n",
        None,
    ),
    "the check's solution": (
        f"{DEFINE}    return checks.soft_maximum.solution(x, lam)\n",
        "an error inside your function",
    ),
    "the hidden solution of the notebook": (
        f"{DEFINE}    return soft_maximum_solution(x, lam)\n",
        "an error inside your function",
    ),
    "a forged message": (
        "import os\n"
        "from dsd_tutorial.course.grading.wire import encode\n"
        f"{DEFINE}"
        "    for fd in range(3, 30):\n"
        "        try: os.write(fd, encode({'answer': x.sum(-1), 'after': [x, lam]}))\n"
        "        except OSError: pass\n" + WRONG,
        None,
    ),
    "noise instead of a message": (
        "import os\n"
        f"{DEFINE}"
        "    for fd in range(3, 30):\n"
        "        try: os.write(fd, b'\\xff' * 100)\n"
        "        except OSError: pass\n" + WRONG,
        "no readable answer",
    ),
}

# What a wall must keep out: each of these answers rightly if it got through.
BREACHES = {
    "another hand-in is read": "open({other!r}).read()",
    "a file is written outside": "open({outside!r}, 'w').write('here')",
    "the checks are read": "open({checks!r}).read()",
    "the judge is found": "os.kill({judge}, 0)",
    "the network is reached": "socket.create_connection(('127.0.0.1', {port}), 1)",
    "the walls are taken down": (
        "[ctypes.CDLL(None).umount2({folder!r}.encode(), 2), open({checks!r}).read()]"
    ),
    "the program files are changed": "open(torch.__file__, 'a').write('#')",
    "the disk is filled": "open('/tmp/big', 'wb').write(bytes(50_000_000))",
}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(LIMITS) as started:
        yield started


def verdict(sandbox, source, exercise="soft_maximum"):
    return judged(getattr(checks, exercise), sandbox, [COURSE, ("<cell 1>", source)])


@pytest.mark.parametrize("name", ATTACKS)
def test_no_point_for(name, sandbox):
    source, mistake = ATTACKS[name]
    found = verdict(sandbox, source)
    assert not found.right, found
    assert mistake is None or found.mistake == mistake, found
    assert found.seconds < LIMITS.seconds + 20  # and the judge goes on


@pytest.mark.parametrize("name", BREACHES)
def test_walls_hold_when(name, sandbox, tmp_path):
    """A function that is right only where it got through gets no point; and did not get through."""
    sandbox.load("nothing", [])
    if sandbox.unwalled:
        pytest.skip(f"no walls here: {sandbox.unwalled}")
    (tmp_path / "other.ipynb").write_text("a solution")
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)  # so that only the walls keep it out
    tmp_path.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server:
        breach = BREACHES[name].format(
            other=str(tmp_path / "other.ipynb"),
            outside=str(tmp_path / "outside.txt"),
            checks=checks.__file__,
            folder=os.path.dirname(checks.__file__),
            judge=os.getpid(),
            port=server.getsockname()[1],
        )
        server.settimeout(0.05)
        source = f"import ctypes, os, socket\n{DEFINE}    {breach}\n{RIGHT}"
        found = verdict(sandbox, source)
        with pytest.raises(TimeoutError):
            server.accept()
    assert not found.right and "Error" in found.evidence, found
    assert not (tmp_path / "outside.txt").exists()


def test_calling_back_for_ever_is_ended(sandbox):
    source = "def noise_average(score, texts, shape, steps, seed):\n    while True:\n"
    source += "        score(texts[0], steps[0], torch.zeros(shape))\n"
    found = verdict(sandbox, source, "noise_average")
    assert not found.right and found.mistake == "too slow"


# calls as the sandbox itself does, but never reads what is answered
UNHEARING = """import gc, time
def noise_average(score, texts, shape, steps, seed):
    channel = next(x for x in gc.get_objects() if type(x).__name__ == "Channel")
    call = {{"callback": 0, "args": [texts[0], steps[0], torch.zeros(shape)], "kwargs": {{}}}}
    while True:
        channel.send(call)
        channel.number += 1
        time.sleep({pause})
"""


@pytest.mark.parametrize("pause", [0, 0.05])
def test_the_judge_does_not_wait_for_one_that_never_listens(pause, sandbox):
    found = verdict(sandbox, UNHEARING.format(pause=pause), "noise_average")
    assert not found.right and found.mistake == "too slow", found
    assert found.seconds < LIMITS.seconds + 20


def test_an_honest_function_still_gets_its_point(sandbox):
    """After all of that, in the same sandbox or one started anew."""
    assert verdict(sandbox, DEFINE + RIGHT).right


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights otherwise")
def test_root_steps_down_where_others_may_use_its_python(tmp_path, public):
    inside = public / "bin" / "python"
    inside.parent.mkdir()
    inside.touch(0o755)
    assert enclosure.open_to_all(str(inside))
    public.chmod(0o700)
    assert not enclosure.open_to_all(str(inside))
    assert not enclosure.open_to_all(str(public / "nowhere"))

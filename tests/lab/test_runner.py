"""The runner: a row that was computed is never computed again, whatever killed the run."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field, PositiveInt

from dsd_tutorial.course.records import read_table
from lab.measuring.customization import CustomizationPlan
from lab.measuring.editing import EditingPlan
from lab.measuring.few_shot import FewShotPlan
from lab.measuring.runner import Item, Options, Plan, Runner, interrupts

COLUMNS = ("item", "square")


class SquaresPlan(Plan):
    n: PositiveInt
    seed: int = 0
    only: tuple[int, ...] = Field((), exclude=True)


def squares(tiny, folder, calls, output="t.csv", kill=None, **options):
    """Measure the squares of three numbers, two of one call."""
    version = options.pop("version", 1)
    values = {"n": 3, "output": folder / output, "cache": folder / "cache", "progress": False}
    plan, how = Options.split(SquaresPlan, values | options)
    runner = Runner("squares", tiny, plan, how, version=version)
    table = runner.table(COLUMNS, ("item",))

    def measure(i):
        calls.append(i)
        if i == kill:
            raise KeyboardInterrupt
        return [{"item": j, "square": j * j} for j in (i, i + 10)]

    runner.run([Item({"item": i}, lambda i=i: measure(i), cost=2) for i in range(3)], table)
    return table.frame()


def test_every_item_is_measured_once(tiny, tmp_path):
    calls = []
    with pytest.raises(KeyboardInterrupt):
        squares(tiny, tmp_path, calls, kill=1)
    table = squares(tiny, tmp_path, calls)
    assert calls == [0, 1, 1, 2] and table["item"].tolist() == [0, 10, 1, 11, 2, 12]
    assert squares(tiny, tmp_path, calls).equals(table) and len(calls) == 4
    (tmp_path / "t.csv").unlink()  # the cache has them, for another file too
    assert squares(tiny, tmp_path, calls).equals(table)
    assert squares(tiny, tmp_path, calls, output="other.csv", only=(1,)).equals(table)
    assert len(calls) == 4
    squares(tiny, tmp_path, calls, output="seed.csv", seed=1)
    squares(tiny, tmp_path, calls, output="version.csv", version=2)
    assert len(calls) == 10  # other settings, or another version of the code: measured anew


def test_the_plan_says_what_it_costs(tiny, tmp_path, capsys):
    squares(tiny, tmp_path, [], progress=True)
    assert "squares: 3 measurements, 0 are there; to do: 3 (6 images)\n" in capsys.readouterr().out
    squares(tiny, tmp_path, [], progress=True)
    assert "squares: 3 measurements, 3 are there\n" in capsys.readouterr().out


def test_a_plan_is_checked_in_one_line():
    assert SquaresPlan(n=2, only=(1,)).settings == "n 2, seed 0"
    with pytest.raises(ValueError, match=r"^n=0: Input should be greater than 0; m=1: Extra"):
        SquaresPlan(n=0, m=1)


KILLED = """
import os, signal, sys
from types import SimpleNamespace
from lab.measuring.runner import Item, Options, Plan, Runner

class NoPlan(Plan):
    pass

def measure(i):
    with open("calls", "a") as file:
        file.write(f"{i}\\n")
    if i == 1 and not os.path.exists("again"):
        open("again", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return [{"item": i, "square": i * i}]

options = Options(output="t.csv", cache="cache")
runner = Runner("killed", SimpleNamespace(sha256="a"), NoPlan(), options)
table = runner.table(("item", "square"), ("item",))
runner.run([Item({"item": i}, lambda i=i: measure(i)) for i in range(3)], table)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_a_run_that_was_killed_goes_on(tmp_path):
    def run():
        root = Path(__file__).resolve().parents[2]
        command = [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(root)!r})\n" + KILLED,
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True).returncode

    assert run() == -signal.SIGKILL and (tmp_path / "t.csv").read_text().count("\n") == 2
    assert run() == 0 and (tmp_path / "t.csv").read_text().count("\n") == 4
    assert (tmp_path / "calls").read_text().split() == ["0", "1", "1", "2"]
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]


def test_ctrl_c_that_a_method_swallowed_is_heard():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts() as check:
        check()
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        check()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("name", "plan"), [
    ("few_shot_items", FewShotPlan()), ("editing_items", EditingPlan(steps=12)),
    ("customization_items", CustomizationPlan()),
])  # fmt: skip
def test_a_run_goes_on_with_the_shipped_tables(name, plan):
    assert set(read_table(name).settings) == {plan.settings}

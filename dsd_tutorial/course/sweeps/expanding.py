"""From a plan to its runs: every one checked before the first starts, never all at once in memory.

A run is known by its *key*, a digest of all that it depends on: the notebook's source, the value of
every parameter, the model's weights. Two runs with one key are one run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from dsd_tutorial.course.notebooks import find_notebook
from dsd_tutorial.course.parameters import ParameterError, defaults, located, parameters_of
from dsd_tutorial.course.parameters import validate as validated
from dsd_tutorial.course.sweeps.lines import Lines, PlanError
from dsd_tutorial.course.sweeps.plans import Plan
from dsd_tutorial.saving import file_sha256

SHOWN = 5  # mistakes that are told at once


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its number in the plan, its notebook, the values it is given, its key."""

    number: int
    notebook: str
    values: dict[str, Any]
    key: str

    @property
    def file(self) -> str:
        """The name of its executed notebook."""
        return f"{self.notebook}-{self.key}.ipynb"


@dataclass(frozen=True)
class Source:
    """A notebook that runs: its file and source, what it takes, its own defaults."""

    path: Path
    text: str
    sha256: str
    accepts: Any
    defaults: dict[str, Any]


def source_of(name: str) -> Source:
    """The notebook given by number, name or path; raises where there is none, or none like it."""
    path = find_notebook(name).resolve()
    text = path.read_text(encoding="utf-8-sig")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Source(path, text, digest, parameters_of(path), defaults(path))


@cache
def weights_of(model: str) -> str:
    """What tells a model's weights from others: of its files, or the revision on the hub."""
    from dsd_tutorial.stable_diffusion.registry import resolve

    entry, folder = resolve(model)
    if folder is None:
        return f"{entry.repo_id}@{entry.revision or 'main'}"
    listing = folder / "checksums.json"  # loading holds the files to it
    if listing.is_file():
        files = json.loads(listing.read_text(encoding="utf-8"))
    else:
        found = sorted(folder.rglob("*.safetensors"))
        files = {path.relative_to(folder).as_posix(): file_sha256(path) for path in found}
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()  # as stable_diffusion.combined_sha256


class Runs:
    """The runs of a plan, in its order; each time they are asked for they are made anew."""

    def __init__(self, plan: Plan, lines: Lines):
        self.plan, self.lines = plan, lines
        self.sources: dict[str, Source] = {}
        for i, name in enumerate(plan.notebooks):
            try:
                source = source_of(name)
            except (ValueError, FileNotFoundError) as error:
                lines.refuse(lines.of_place(("notebooks", i)), str(error).rstrip("."))
            self.sources[source.path.stem] = source
        for part in ("cases", "exclude"):
            for i, rule in enumerate(getattr(plan, part)):
                if all(self._other_notebook(rule, notebook) for notebook in self.sources):
                    line, names = lines.of_place((part, i)), ", ".join(self.sources)
                    lines.refuse(line, f"{rule['notebook']} does not run here; {names} do")
        self.repeated = 0  # runs that were the same as an earlier one, when last counted
        self.left_out: set[int] = set()  # the rules of `exclude` that have fitted a run

    def __iter__(self) -> Iterator[Run]:
        """Yield every run; two with the same key are yielded once."""
        seen: set[bytes] = set()
        self.repeated = 0
        for notebook, values in self._combinations():
            key = self._key(notebook, values)
            if (mark := bytes.fromhex(key)) in seen:
                self.repeated += 1
                continue
            seen.add(mark)
            yield Run(len(seen), notebook, values, key)

    def _combinations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        plan = self.plan
        rows = list(zip(*plan.zip.values(), strict=True)) or [()]
        beside = [dict(zip(plan.zip, row, strict=True)) for row in rows]
        axes = plan.grid if plan.seeds is None else {**plan.grid, "seed": plan.seeds}
        for notebook, case, zipped in product(self.sources, plan.cases or [{}], beside):
            if self._other_notebook(case, notebook):
                continue
            own = {name: value for name, value in case.items() if name != "notebook"}
            for combined in product(*axes.values()):
                grid = dict(zip(axes, combined, strict=True))
                values = {**plan.set, **own, **zipped, **grid}
                fits = [i for i, x in enumerate(plan.exclude) if self._is(x, notebook, values)]
                self.left_out.update(fits)
                if not fits:
                    yield notebook, values

    def _other_notebook(self, said: Mapping[str, Any], notebook: str) -> bool:
        name = said.get("notebook")
        name = f"{name:02d}" if isinstance(name, int) else name
        return name is not None and not notebook.startswith(Path(str(name)).stem)

    def _is(self, rule: Mapping[str, Any], notebook: str, values: Mapping[str, Any]) -> bool:
        """Whether a run is one of those that a rule leaves out."""
        if self._other_notebook(rule, notebook):
            return False
        full = {**self.sources[notebook].defaults, **values}
        return all(full.get(k) == v for k, v in rule.items() if k != "notebook")

    def _key(self, notebook: str, values: Mapping[str, Any]) -> str:
        source = self.sources[notebook]
        full = {**source.defaults, **values}
        said = json.dumps([source.sha256, weights_of(str(full.get("model"))), full], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def check(self) -> int:
        """The number of runs, after every value of every run was checked; nothing has started.

        Raises:
            PlanError: values are refused, or nothing is left to run; with file, line, run, value.
        """
        mistakes: dict[str, None] = {}
        number = first = 0
        for number, (notebook, values) in enumerate(self._combinations(), start=1):
            source = self.sources[notebook]
            try:
                validated(notebook, {**source.defaults, **values})
            except ParameterError as error:
                for name, said in error.said:
                    line = self.lines.of_value(name, values.get(name))
                    where = f"{self.lines.file}, line {line}" if line else self.lines.file
                    mistakes.setdefault(f"{where}, {notebook}: {said}", None)
                    first = first or number
                if len(mistakes) > SHOWN:
                    break
        if mistakes:
            told = list(mistakes)[:SHOWN]
            told[0] = told[0].replace(": ", f", run {first}: ", 1)
            raise PlanError("\n".join([*told, "Nothing was started."]))
        for i in set(range(len(self.plan.exclude))) - self.left_out:
            line = self.lines.of_place(("exclude", i))
            self.lines.refuse(line, f"no run has {self.plan.exclude[i]}: nothing is left out")
        if number == 0:
            raise PlanError(f"{self.lines.file}: no run is left: `exclude` takes all.")
        return sum(1 for _ in self)

    def injected(self, run: Run) -> dict[str, Any]:
        """The values a run's notebook is given, with folders named in full."""
        return {name: located(name, value) for name, value in run.values.items()}

"""One run of a sweep again, exactly: the same source, the same values; do the figures agree?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsd_tutorial.course.sweeps.expanding import weights_of
from dsd_tutorial.course.sweeps.folder import SweepFolder
from dsd_tutorial.course.sweeps.jobs import carry_out, differing
from dsd_tutorial.course.sweeps.results import SweepError, read_sweep


def repeat(folder: str | Path, number: int) -> dict[str, Any]:
    """What came of a run when it was done again: `status`, `error`, `differing`, `provenance`.

    `differing` maps a figure to (then, now) where these are not the same, `provenance` what it came
    from likewise. It is remembered in `repeats.jsonl`, and the executed notebook in `repeats/`.

    Raises:
        SweepError: there is no such run, or it has not ended well.
    """
    import zlib

    row, executed = _run_of(Path(folder), number)
    source = json.loads(executed.read_text(encoding="utf-8"))
    given = source["metadata"].get("papermill", {}).get("parameters", row["parameters"])
    job = {
        "key": row["key"], "notebook": row["notebook"], "source": json.dumps(source),
        "values": given, "parameters": row["parameters"],
        "weights": weights_of(str(row["parameters"].get("model"))),
        "memory_mb": None, "minutes": None, "threads": row["provenance"].get("threads", 1),
    }  # fmt: skip
    now, packed = carry_out(job)
    now["provenance"] |= {"plan": row["provenance"].get("plan")}
    said = {
        "run": number,
        "key": row["key"],
        "status": now["status"],
        "error": now["error"],
        "differing": differing(row["figures"], now["figures"]),
        "provenance": differing(row["provenance"], now["provenance"]),
    }
    file = Path(folder) / "repeats.jsonl"
    if packed is not None:
        kept = Path(folder) / "repeats"
        kept.mkdir(exist_ok=True)
        count = len(list(kept.glob(f"{number}-*.ipynb")))
        (kept / f"{number}-{count + 1}.ipynb").write_bytes(zlib.decompress(packed))
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(said) + "\n")
    return said


def _run_of(folder: Path, number: int) -> tuple[dict[str, Any], Path]:
    runs = read_sweep(folder).runs
    chosen = runs[runs.run == number]
    if chosen.empty:
        raise SweepError(f"{folder} has no run {number}: it has runs 1 to {len(runs)}.")
    (row,) = SweepFolder(folder).rows([str(chosen.key.iloc[0])])
    if row is None or row["status"] != "ok":
        status = chosen.status.iloc[0]
        raise SweepError(f"Run {number} is {status}: only what ended well is done again.")
    return row, folder / row["output"]

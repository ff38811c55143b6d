"""The JSON schema of plans, from the classes that read them, so that editors complete and check.

`python -m lab.upkeep.plan_schema` writes `docs/plan.schema.json`.
"""

import json
import sys

from dsd_tutorial.course.sweeps import Plan
from dsd_tutorial.saving import write_text
from lab.upkeep.blocks import ROOT

PAGE = ROOT / "docs" / "plan.schema.json"


def schema() -> str:
    """Return the schema as JSON text."""
    said = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Plan.model_json_schema()}
    said["title"] = "A plan of many runs: dsd-tutorial sweep PLAN.yaml"
    return json.dumps(said, indent=2) + "\n"


def main() -> int:
    """The exit status, after the schema was written."""
    write_text(PAGE, schema())
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Puts the course's own files into the wheel: notebooks, results, parameters for a quick look.

They live at the root of the repository, once; a build copies them beside the package's data, in
the same order as in a clone. An editable installation reads them where they are.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CARRIED = ("notebooks/*.ipynb", "results/**/*", "tests/params/fast.yaml")
PLACE = Path("dsd_tutorial") / "data" / "course"  # dsd_tutorial.course.records knows it too


class BuildWithCourse(build_py):
    """Builds the package, and what a clone has beside it."""

    def run(self) -> None:
        """Copy the package's files, then the course's."""
        super().run()
        if self.editable_mode:
            return
        found = {path for pattern in CARRIED for path in ROOT.glob(pattern) if path.is_file()}
        for path in sorted(found):
            target = Path(self.build_lib) / PLACE / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildWithCourse})

"""Is this machine ready for the course, or for a class? One finding per line, each with a remedy.

`dsd-tutorial doctor` prints them; `examine` yields them as they are made, quick ones first, and
`examine_room` what a class of N people needs beside.
"""

from dsd_tutorial.doctor.classroom import examine_room
from dsd_tutorial.doctor.examining import examine
from dsd_tutorial.doctor.finding import Finding

__all__ = ["Finding", "examine", "examine_room"]

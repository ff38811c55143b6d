"""The files around the package: what is generated is current, what is named exists."""

import ast
import base64
import configparser
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import time
import tomllib
from itertools import chain, product
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lab.upkeep import blocks, environments, lock, readme

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = [
    Requirement(line)
    for line in lock.LOCK.read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = list(product(lock.SYSTEMS, lock.PYTHONS))


def read(name: str) -> str:
    """The text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", environments.files())
def test_conda_files_are_what_pyproject_says(name):
    assert read(name) == environments.files()[name], "run `make environments`"
    listed = yaml.safe_load(read(name))
    assert listed["dependencies"][0] == f"python={environments.PYTHON}"
    packages = {
        Requirement(line).name
        for line in listed["dependencies"][-1]["pip"]
        if not line.startswith("-e")
    }
    core = {Requirement(line).name for line in PROJECT["dependencies"]} - {"torch"}
    assert core <= packages


@pytest.mark.parametrize("target", TARGETS, ids="-".join)
def test_lock_holds_every_dependency_in_its_range(target):
    environment = lock.marker_environment(target)
    pinned = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in PINS
        if pin.marker is None or pin.marker.evaluate(environment)
    }
    for wanted in lock.direct():
        version = pinned.get(canonicalize_name(wanted.name))
        assert version, f"{wanted.name} is not locked: run `make lock`"
        assert wanted.specifier.contains(version), f"{wanted} against {version}: run `make lock`"


@pytest.mark.parametrize("target", TARGETS, ids="-".join)
def test_lock_holds_what_its_packages_need(target):
    """As far as they are installed here: nothing is left for pip to choose."""
    environment = lock.marker_environment(target)
    pinned = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in PINS
        if pin.marker is None or pin.marker.evaluate(environment)
    }
    for name in pinned:
        try:
            needs = lock.metadata.distribution(name).requires or ()
        except lock.metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({**environment, "extra": ""}):
                assert canonicalize_name(need.name) in pinned, f"{name} needs {need}"


def test_lock_is_plain():
    names = [canonicalize_name(pin.name) for pin in PINS]
    assert names == sorted(set(names))
    for pin in PINS:
        (only,) = pin.specifier
        assert only.operator == "==" and "+" not in only.version and pin.url is None
    assert not re.search(r"https?:|--hash|--index|nvidia|triton", read("requirements.lock"))


def test_unwanted_packages_are_not_asked_for():
    """They break imports of the ones that the course is built on."""
    names = {canonicalize_name(pin.name) for pin in PINS}
    assert not names & {"torchvision", "open-clip-torch", "timm", "xformers", "torchao"}


def test_every_import_is_a_declared_dependency():
    modules = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
    extras = PROJECT["optional-dependencies"]
    of_developers = ("test", "mutants", "book")  # tools that the package never imports
    asked = [lines for name, lines in extras.items() if name not in of_developers]
    lines = [*PROJECT["dependencies"], *chain(*asked)]
    allowed = {canonicalize_name(Requirement(line).name) for line in lines}
    allowed |= {"huggingface-hub"}  # diffusers and transformers are built on it
    allowed |= {"jupyter-client", "ipython", "cycler"}  # as ipykernel and matplotlib are
    for path in (ROOT / "dsd_tutorial").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in {name.split(".")[0] for name in names}:
                if name in sys.stdlib_module_names or name == "dsd_tutorial":
                    continue
                package = canonicalize_name(modules.get(name, name))
                assert package in allowed, f"{path.name} imports {name}: declare it in pyproject"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_is_valid(path):
    check("vendor.github-workflows", path)


def test_citation_is_valid():
    check("vendor.citation-file-format", ROOT / "CITATION.cff")


def check(schema: str, path: Path) -> None:
    """Fail with check-jsonschema's words unless a file follows a schema it ships with."""
    out = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)],
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stdout + out.stderr


def test_workflows_cover_three_systems_and_both_ends_of_the_ranges():
    jobs = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"]
    systems = {name.split("-")[0] for name in jobs["course"]["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}
    versions = jobs["versions"]["strategy"]["matrix"]["include"]
    named = {entry["which"]: entry["packages"] for entry in versions}
    ranges = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    for package in ("diffusers", "transformers"):
        lowest = next(s.version for s in ranges[package] if s.operator == ">=")
        highest = next(s for s in ranges[package] if s.operator == "<")
        oldest = re.search(rf"{package}==(\S+)", named["oldest"]).group(1)
        assert Version(oldest) == Version(lowest)
        assert f"{package}{highest}" in named["newest"]


def test_makefile_offers_what_make_py_does():
    out = subprocess.run(
        [sys.executable, ROOT / "make.py", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = re.search(r"^COMMANDS := (.+)$", read("Makefile"), re.M).group(1).split()
    for command in commands:
        assert re.search(rf"^  {command} ", out, re.M), f"make.py has no {command}"


def test_make_py_needs_the_standard_library_only():
    tree = ast.parse(read("make.py"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(alias.name in sys.stdlib_module_names for alias in node.names)
        assert not isinstance(node, ast.ImportFrom) or node.module in sys.stdlib_module_names


@pytest.fixture
def make():
    """make.py as a module."""
    spec = importlib.util.spec_from_file_location("make_py", ROOT / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("system", "asked", "device", "build"),
    [
        ("linux", None, False, "cpu"),
        ("linux", None, True, "cuda"),
        ("linux", "cuda", False, "cuda"),
        ("linux", "cpu", True, "cpu"),
        ("linux", "auto", False, "cpu"),
        ("darwin", "cuda", True, "plain"),
        ("win32", None, False, "plain"),
    ],
)
def test_linux_gets_the_small_torch_unless_a_device_is_seen(
    make, system, asked, device, build, monkeypatch
):
    monkeypatch.setattr(make.sys, "platform", system)
    monkeypatch.setattr(make, "nvidia_device", lambda: device)
    monkeypatch.delenv("TORCH", raising=False)
    if asked:
        monkeypatch.setenv("TORCH", asked)
    assert make.torch_build() == build


def test_an_unknown_build_of_torch_is_refused(make, monkeypatch):
    monkeypatch.setenv("TORCH", "rocm")
    with pytest.raises(SystemExit, match="cpu, cuda or auto"):
        make.torch_build()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_small_torch_comes_from_pip_or_through_uv(make, failing, monkeypatch, capsys):
    """pip where it is set up for it, else uv, which knows the place; no address is written here."""
    called = []

    def call(*command, check):
        called.append([str(part) for part in command])
        return int(len(called) <= failing)

    monkeypatch.setattr(make, "call", call)
    make.install_cpu_torch("pip", "install")
    (version,) = [str(pin.specifier) for pin in PINS if pin.name == "torch"]
    assert called[0] == ["pip", "install", f"torch{version}+cpu"]
    assert [command[-1] for command in called[1:]] == [[], ["uv", f"torch{version}"], ["uv"]][
        failing
    ]
    assert ("gigabytes" in capsys.readouterr().out) == (failing == 2)
    assert not re.search(r"https?:", Path(make.__file__).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("user", "told"), [(0, True), (1000, False), (None, False)])
def test_lab_opens_the_first_notebook_for_root_too(make, user, told, monkeypatch):
    called = []
    monkeypatch.setattr(make, "call", lambda *command: called.append(command) or 0)
    if user is None:  # Windows
        monkeypatch.delattr(os, "geteuid", raising=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    assert make.lab(Path("python"), ["--no-browser"]) == 0
    (command,) = called
    assert command[3].name == "00_orientation.ipynb" and command[-1] == "--no-browser"
    assert ("--allow-root" in command) == told


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
@pytest.mark.parametrize("name", [".ci/run", "binder/postBuild"])
def test_scripts_can_be_executed(name):
    assert os.access(ROOT / name, os.X_OK)


def test_readme_table_is_what_was_measured():
    text = read("README.md")
    made = blocks.with_blocks(text, "make readme", {"notebooks": readme.table()})
    assert text == made, "run `make readme`"


def test_what_nbval_leaves_out_is_found_in_no_time():
    """Each pattern searches every output, images among them: megabytes of base64 in a line."""
    patterns = configparser.RawConfigParser()
    patterns.read(ROOT / "tests" / "nbval_sanitize.cfg", encoding="utf-8")
    image = base64.b64encode(random.Random(0).randbytes(300_000)).decode()
    for name in patterns.sections():
        begun = time.process_time()
        re.sub(patterns[name]["regex"], patterns[name]["replace"], image, flags=re.DOTALL)
        assert time.process_time() - begun < 0.5, name
    cell = patterns["temporary files of the kernel"]
    assert (
        re.sub(cell["regex"], "CELL", "/tmp/ipykernel_12/345.py:6: Warning")
        == "/tmp/CELL:6: Warning"
    )


def test_a_run_of_some_notebooks_leaves_the_minutes_of_all(tmp_path, monkeypatch, capsys):
    record = (ROOT / readme.RECORD).read_text(encoding="utf-8")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "write_blocks", lambda *a: None)
    monkeypatch.setattr(readme, "with_passes", lambda record, before: record)
    monkeypatch.setattr(readme.workshop, "main", lambda: None)
    for path, text in ((readme.RECORD, record), ("build/run.json", '{"notebooks": []}')):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert readme.main() == 0 and "lacks 00_orientation" in capsys.readouterr().out
    assert (tmp_path / readme.RECORD).read_text(encoding="utf-8") == record


def test_readme_table_refuses_a_failed_run():
    entry = {"notebook": "a", "status": "failed", "seconds": 1.0, "peak_mb": 1.0}
    with pytest.raises(ValueError, match="a failed"):
        readme.record_from({"machine": {}, "notebooks": [entry]})


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)\)", read(name)):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), f"{name} links to {target}"


def test_the_dev_container_makes_the_environment_and_names_no_address():
    container = json.loads(read(".devcontainer/devcontainer.json"))
    assert "make.py venv" in container["postCreateCommand"]
    assert container["hostRequirements"]["memory"] == "4gb"
    dockerfile = read(f".devcontainer/{container['build']['dockerfile']}")
    assert f"FROM python:{environments.PYTHON}" in dockerfile
    kernel = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert kernel.endswith(".venv/bin/python")


def test_package_data_takes_in_the_weights():
    setup = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]
    assert "models/**/*" in setup["package-data"]["dsd_tutorial"]

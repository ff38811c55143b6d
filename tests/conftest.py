"""Fixtures shared by all tests: a tiny random model, and the embedded one where it exists."""

import os
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from jaxtyping import config, install_import_hook

# Shapes and types of signatures are checked at every call in the tests, and only there.
# It has to stand before the package is first imported.
METHODS = [
    "attention",
    "customization",
    "datasets",
    "features",
    "grounding",
    "information",
    "matching",
    "projection",
    "prompt_learning",
    "quality",
    "retrieval",
    "shapes.judge",  # of shapes what handles tensors: drawing lots of scenes would take minutes
    "shapes.render",
    "shapes.segments",
    "shapes.tasks",
    "stable_diffusion",
    "variation",
]
if not config.jaxtyping_disable:  # its finder would import files past any other finder
    install_import_hook([f"dsd_tutorial.{room}" for room in METHODS], "typechecker.check")

import tiny_model as tiny_models  # noqa: E402
from tiny_model import tiny_model  # noqa: E402

from dsd_tutorial.course.notebooks import hasten_nbformat  # noqa: E402
from dsd_tutorial.stable_diffusion.checksums import state_sha256  # noqa: E402

hasten_nbformat()

# Files that take a minute and more, the longest first: begun last, one of them would keep a process
# busy for minutes while the other has nothing left to do.
LONG = (
    "test_sweeps_running",
    "test_evaluation_few_shot",
    "test_training",
    "test_bad_inputs",
    "test_evaluation_in_short",
    "test_precision",
    "test_evaluation_features",
    "test_evaluation_grounding",
    "test_evaluation_customization",
    "test_bench",
)
SECONDS: Counter[str] = Counter()  # of the tests, by room
SHARED = []  # the shared model, once it is made, and its weights' digest


def pytest_collection_modifyitems(items):
    """Begin with the long files; all others keep their order."""
    rank = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


def pytest_runtest_logreport(report):
    """Add a test's seconds, set-up included, to those of its room: tests/<wing>/<room>."""
    *folders, _ = report.nodeid.split("::")[0].split("/")
    SECONDS["/".join(folders[:3])] += report.duration


def pytest_terminal_summary(terminalreporter):
    """Print what each room's tests took, the longest first."""
    terminalreporter.section("seconds of each room's tests")
    for room, seconds in SECONDS.most_common():
        terminalreporter.write_line(f"{seconds:8.1f}  {room}")


@pytest.fixture(scope="session")
def tiny():
    """A `StableDiffusion` with seeded random weights: 64 pixels, 16 x 16 x 4 latents, 32 tokens."""
    SHARED[:] = [model := tiny_model(), state_sha256(model.unet.state_dict())]
    return model


@pytest.fixture(scope="session")
def short():
    """A model with fewer positions than numbers per state, so that no axis passes for another."""
    with pytest.MonkeyPatch.context() as patch:
        plain = tiny_models.tiny_tokenizer
        patch.setattr(tiny_models, "tiny_tokenizer", lambda: plain(24))
        return tiny_models.tiny_model()


@pytest.fixture(scope="module", autouse=True)
def leaves_the_shared_model_alone():
    """Fails at the end of a module that left the shared U-Net changed."""
    yield
    if SHARED:
        model, was = SHARED
        SHARED[1] = now = state_sha256(model.unet.state_dict())
        assert now == was, "this module left the shared `tiny` model with other weights"


@pytest.fixture(scope="session")
def shapes_sd():
    """The embedded model, trained; tests that need it are skipped where the weights are absent."""
    from dsd_tutorial.stable_diffusion import load_model
    from dsd_tutorial.stable_diffusion.registry import MissingModelError

    try:
        return load_model("shapes-sd", device="cpu")
    except MissingModelError as error:
        pytest.skip(f"the embedded weights are absent: {error}")


@pytest.fixture
def unchecked():
    """Annotations are not checked, as for users: what is of another type meets our own errors."""
    was = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", was)


@pytest.fixture
def nobody():
    """A context in which this process may not write everywhere, though it may run as root."""
    if not hasattr(os, "seteuid"):
        pytest.skip("this system has no user that may not write")

    @contextmanager
    def other_user():
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            if was == 0:
                os.seteuid(0)

    return other_user


@pytest.fixture
def public():
    """A folder that everybody may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)

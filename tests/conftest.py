"""Fixtures shared by all tests: a tiny random model, and the embedded one where it exists."""

import pytest
from tiny_model import tiny_model


@pytest.fixture(scope="session")
def tiny():
    """A `StableDiffusion` with seeded random weights: 64 pixels, 16 x 16 x 4 latents, 32 tokens."""
    return tiny_model()


@pytest.fixture(scope="session")
def shapes_sd():
    """The embedded model, trained; tests that need it are skipped where the weights are absent."""
    from dsd_tutorial.registry import MissingModelError
    from dsd_tutorial.stable_diffusion import load_model

    try:
        return load_model("shapes-sd", device="cpu")
    except MissingModelError as error:
        pytest.skip(f"the embedded weights are absent: {error}")

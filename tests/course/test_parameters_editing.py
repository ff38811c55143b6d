"""Notebook 04's own parameters: an edit, a domain or a folder, an alpha or "auto"."""

import subprocess
import sys

import pytest

from dsd_tutorial.course.parameters import (
    DOMAINS,
    PARAMETERS,
    ParameterError,
    validate,
)
from dsd_tutorial.course.parameters.reading import typed
from dsd_tutorial.shapes import HELD_OUT_COLORS, HELD_OUT_SHAPES, HELD_OUT_TEXTURES

NAME = "04_editing_and_customization"
GOOD = {
    "model": "shapes-sd", "device": "auto", "dtype": "float32", "seed": 0,
    "references": "", "n_references": 12,
    "text": "a blue object", "alpha": "auto", "domain": "striped", "n_images": 64,
    "ft_steps": 60, "ft_lr": 0.003, "ct_steps": 30, "lr": 0.0, "guidance": "auto", "steps": 10,
}  # fmt: skip


def test_the_domains_are_what_the_world_holds_out():
    assert set(DOMAINS) == {*HELD_OUT_TEXTURES, *HELD_OUT_SHAPES, *HELD_OUT_COLORS}


def test_numbers_and_words_are_both_read():
    texts = {"alpha": "0.5", "guidance": "7.5", "lr": "0.01", "ct_steps": "100"}
    given = {name: typed(PARAMETERS[NAME], name, text) for name, text in texts.items()}
    read = validate(NAME, {**GOOD, **given})
    assert (read.alpha, read.guidance, read.lr, read.ct_steps) == (0.5, 7.5, 0.01, 100)
    assert validate(NAME, {**GOOD, "alpha": 0.0}).alpha == 0
    assert validate(NAME, {**GOOD, "domain": "heart"}).domain == "heart"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"alpha": -0.5}, "greater than or equal to 0"), ({"alpha": "loud"}, "'auto'"),
     ({"text": ""}, "text"), ({"text": "  "}, "needs words"),
     ({"domain": "spotted"}, "neither a domain .striped, diamond"), ({"n_images": 3}, "from 4"),
     ({"ft_steps": 0}, "from 1"), ({"ft_lr": 0.0}, "above 0"),
     ({"ct_steps": 2.5}, "integer"), ({"lr": -1.0}, "from 0"),
     ({"references": "no such folder"}, "no images"), ({"guidance": 0.0}, "greater than 0")],
)  # fmt: skip
def test_what_is_refused_and_why(wrong, said):
    with pytest.raises(ParameterError, match=said):
        validate(NAME, {**GOOD, **wrong})


def test_a_folder_may_stand_for_a_domain_if_it_holds_pictures(tmp_path):
    with pytest.raises(ParameterError, match="no images"):
        validate(NAME, {**GOOD, "domain": str(tmp_path)})
    (tmp_path / "b.TIFF").touch()
    both = {"domain": str(tmp_path), "references": str(tmp_path)}
    assert validate(NAME, {**GOOD, **both}).domain == str(tmp_path)


def test_checking_parameters_needs_no_torch():
    code = "import sys, dsd_tutorial.course.parameters; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

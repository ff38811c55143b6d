"""Notebook parameters: what is refused, and that the refusal says what to do."""

import pytest
from course_files import small_clone
from hypothesis import given
from hypothesis import strategies as st

from dsd_tutorial.course.parameters import (
    PARAMETERS,
    ParameterError,
    check_overrides,
    check_parameters,
    located,
    validate,
)
from dsd_tutorial.course.parameters.reading import typed

GOOD = {
    "model": "shapes-sd",
    "device": "auto",
    "dtype": "float32",
    "seed": 0,
    "prompt": "a red circle",
    "steps": 25,
    "guidance": 3.0,
    "n_images": 8,
}


def test_every_class_explains_every_parameter():
    for name, accepts in PARAMETERS.items():
        for field, information in accepts.model_fields.items():
            assert information.description, f"{name}: {field} has no description"
            assert information.is_required(), f"{name}.{field}: the notebook has it"


def test_good_values_come_back_unchanged():
    assert validate("00_orientation", GOOD).model_dump() == GOOD


@given(st.integers())
def test_steps_are_accepted_exactly_in_their_range(steps):
    if 1 <= steps <= 1000:
        assert validate("00_orientation", {**GOOD, "steps": steps}).steps == steps
    else:
        with pytest.raises(ParameterError, match="from 1 to 1000"):
            validate("00_orientation", {**GOOD, "steps": steps})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("device", "gpu", "auto, cpu, mps, cuda or cuda:N"),
        ("dtype", "float8", "'float32', 'bfloat16', 'float16' or 'auto'"),
        ("model", "shapes-ds", "Nearest: shapes-sd"),
        ("model", "./no-such-folder", "no model folder"),
        ("steps", 2.5, "integer"),
        ("steps", True, "integer"),
        ("steps", "25", "integer"),
        ("guidance", -1.0, "from 0 to 50"),
        ("prompt", "", "caption"),
        ("seed", -1, "from 0"),
    ],
)
def test_bad_value_is_named_with_what_is_allowed(name, value, says):
    with pytest.raises(ParameterError) as error:
        validate("00_orientation", {**GOOD, name: value})
    assert f"{name} = {value!r}" in str(error.value)
    assert says in str(error.value)


def test_a_precision_that_the_device_lacks_is_refused_before_a_model_is_read(monkeypatch):
    from dsd_tutorial.stable_diffusion import precision

    monkeypatch.setattr(precision, "_has", lambda dtype, device: False)
    with pytest.raises(ParameterError, match="dtype = 'bfloat16'.*does not compute in it"):
        validate("00_orientation", {**GOOD, "dtype": "bfloat16"})
    assert validate("00_orientation", {**GOOD, "dtype": "auto"}).dtype == "auto"


def test_all_errors_are_told_at_once():
    with pytest.raises(ParameterError) as error:
        validate("00_orientation", {**GOOD, "steps": 0, "guidance": 99.0, "stepz": 3})
    for said in ("steps = 0", "guidance = 99.0", "did you mean 'steps'"):
        assert said in str(error.value)


def test_unknown_notebook_is_named():
    with pytest.raises(ParameterError, match="known: 00_orientation"):
        validate("99_nothing", {})


def test_running_notebook_finds_its_names_among_others():
    namespace = {**GOOD, "unrelated": object(), "In": ["", "steps = 25"]}
    assert check_parameters("00_orientation", namespace).steps == 25


def test_running_notebook_refuses_what_papermill_injected():
    namespace = {**GOOD, "stepz": 3, "In": ["", "steps = 25", "# Parameters\nstepz = 3\n"]}
    with pytest.raises(ParameterError, match="did you mean 'steps'"):
        check_parameters("00_orientation", namespace)


def test_missing_parameter_is_named():
    namespace = {name: value for name, value in GOOD.items() if name != "steps"}
    with pytest.raises(ParameterError, match="steps is missing"):
        check_parameters("00_orientation", namespace)


def test_command_line_texts_get_their_types(tmp_path):
    path = small_clone(tmp_path)
    typed = check_overrides(path, {"steps": "7", "guidance": "2", "prompt": "3"})
    assert typed == {"steps": 7, "guidance": 2.0, "prompt": "3"}
    assert type(typed["guidance"]) is float


def test_command_line_lists():
    attention, orientation = PARAMETERS["01_attention_scores"], PARAMETERS["00_orientation"]
    assert typed(attention, "steps", "[100, 500]") == [100, 500]
    assert typed(attention, "steps", "[broken") == "[broken"
    assert typed(orientation, "prompt", "a red circle: 3") == "a red circle: 3"
    assert typed(orientation, "prompt", "5") == "5"


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), (" 5 ", 5), ("+5", 5), ("5.0", 5), ("-0", 0), ("010", "010"), ("0x10", "0x10"),
     ("1_0", "1_0"), ("1:30", "1:30"), ("no", "no"), ("true", "true"), ("nan", "nan"), ("", "")],
)  # fmt: skip
def test_a_number_is_decimal_and_nothing_else_is_taken_for_one(text, value):
    assert typed(PARAMETERS["00_orientation"], "steps", text) == value
    if text.strip():
        entry = [text.strip()] if isinstance(value, str) and text != "true" else [value]
        entry = [True] if text == "true" else entry
        assert typed(PARAMETERS["01_attention_scores"], "steps", f"[{text}]") == entry


def test_a_number_in_quotes_is_text():
    steps = typed(PARAMETERS["01_attention_scores"], "steps", "['300']")
    assert steps == ["300"]


def test_a_folder_is_named_in_full_since_the_kernel_works_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "shapes", "shapes-sd"):
        (tmp_path / name).mkdir()
    assert located("dataset", "mine") == str((tmp_path / "mine").resolve())
    assert located("dataset", "shapes") == "shapes" and located("references", "") == ""
    assert located("model", "shapes-sd") == "shapes-sd" and located("model", "a/b") == "a/b"
    assert located("prompt", "mine") == "mine"

"""The exercises of notebook 04: right answers written in other ways pass, wrong ones are named.

That every listed mistake is recognised, and that hints grow, `test_checks` holds for all exercises.
"""

import pytest
import torch

from dsd_tutorial.course import checks
from dsd_tutorial.course.checks.customizing import NAMES

EXERCISES = (
    checks.edit_states, checks.joint_score, checks.insert_prompts, checks.trained, checks.tune,
)  # fmt: skip


@pytest.fixture(autouse=True)
def fresh():
    for exercise in EXERCISES:
        exercise.reset()


# -- other ways to be right -----------------------------------------------------------------------


def edit_in_a_loop(text, image, end, alpha):
    return torch.stack([t if at < end else image + alpha * t for at, t in enumerate(text)])


def edit_by_mask(text, image, end, alpha):
    behind = (torch.arange(len(text)) >= end)[:, None]
    return torch.where(behind, image + alpha * text, text)


def edit_in_place_of_a_copy(text, image, end, alpha):
    prompt = text.clone()
    prompt[end:] *= alpha
    prompt[end:] += image
    return prompt


def joint_by_products(changed, kept):
    return (changed.float() * kept.float().prod(-1)).mean(1)


def joint_in_a_loop(changed, kept):
    rows = []
    for asked, facts in zip(changed, kept, strict=True):
        rows.append(sum(bool(a) and bool(f.all()) for a, f in zip(asked, facts, strict=True)))
    return torch.tensor(rows) / changed.shape[1]


def insert_by_hand(tokens, prompts, old):
    batch, length, width = tokens.shape
    new = tokens.new_zeros(batch, length - old + len(prompts), width)
    new[:, 0] = tokens[:, 0]
    new[:, 1 : 1 + len(prompts)] = prompts
    new[:, 1 + len(prompts) :] = tokens[:, 1 + old :]
    return new


def trained_by_parts(names):
    return [n.split(".")[-3:-1] in (["attn2", "to_k"], ["attn2", "to_v"]) for n in names]


def trained_as_list(names):
    return [("attn2.to_k" in n) or ("attn2.to_v" in n) for n in names]


def tune_with_an_optimizer(state, loss, lr, steps):
    h = state.clone().requires_grad_()
    optimizer = torch.optim.SGD([h], lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        loss(h, step).backward()
        optimizer.step()
    return h


def tune_by_backward(state, loss, lr, steps):
    for step in range(steps):
        state = state.detach().requires_grad_()
        loss(state, step).backward()
        state = state - lr * state.grad
    return state


RIGHT = [
    (checks.edit_states, edit_in_a_loop), (checks.edit_states, edit_by_mask),
    (checks.edit_states, edit_in_place_of_a_copy),
    (checks.joint_score, joint_by_products), (checks.joint_score, joint_in_a_loop),
    (checks.insert_prompts, insert_by_hand),
    (checks.trained, trained_by_parts), (checks.trained, trained_as_list),
    (checks.tune, tune_with_an_optimizer), (checks.tune, tune_by_backward),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "function"), RIGHT, ids=lambda x: getattr(x, "__name__", ""))
def test_another_right_way_passes(exercise, function):
    assert exercise(function), exercise(function).message


# -- mistakes as learners write them --------------------------------------------------------------


def words_overwritten(text, image, end, alpha):
    prompt = text.clone()
    prompt[1:] = image + alpha * text[1:]
    return prompt


def interpolated(text, image, end, alpha):
    return torch.cat([text[:end], torch.lerp(image.expand_as(text), text, alpha)[end:]])


def independent(changed, kept):
    return changed.float().mean(1) * kept.all(2).float().mean(1)


def patches_overwritten(tokens, prompts, old):
    tokens = tokens.clone()
    tokens[:, 1 : 1 + len(prompts)] = prompts
    return tokens


def never_zeroed(state, loss, lr, steps):
    h = state.clone().requires_grad_()
    for step in range(steps):
        loss(h, step).backward()
        with torch.no_grad():
            h -= lr * h.grad
    return h


def lost_update(state, loss, lr, steps):
    for step in range(steps):
        h = state.detach().requires_grad_()
        loss(h, step).backward()
        h = h - lr * h.grad
    return state


WRONG = [
    (checks.edit_states, words_overwritten, "words overwritten"),
    (checks.edit_states, interpolated, "a blend of the two"),
    (checks.joint_score, independent, "product of two averages"),
    (checks.insert_prompts, patches_overwritten, "patches overwritten"),
    (checks.trained, lambda names: ["to_k" in n or "to_v" in n for n in names],
     "self-attention trained too"),
    (checks.tune, never_zeroed, "gradients piled up"),
    (checks.tune, lost_update, "nothing moved"),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "wrong", "name"), WRONG)
def test_a_mistake_is_named(exercise, wrong, name):
    assert exercise(wrong).mistake == name


def test_the_name_that_is_judged_wrongly_is_shown():
    said = checks.trained(lambda names: ["attn2" in n for n in names]).message
    assert "to_q.weight` is trained, but it stays frozen" in said
    assert "(3,) came back" in checks.trained(lambda names: [True] * 3).message


def test_where_tuning_went_is_shown_in_figures():
    said = checks.tune(lambda h, f, lr, n: h + 1).message
    assert "after 1 step(s) of size 0.1, your state is [1], not [0.3]" in said
    assert "(2,)" in checks.tune(lambda h, f, lr, n: torch.zeros(2)).message


def test_names_are_those_of_a_real_unet(tiny):
    ends = {".".join(n.split(".")[-3:]) for n, _ in tiny.unet.named_parameters()}
    for name in NAMES:
        if "attn" in name:
            assert ".".join(name.split(".")[-3:]) in ends
    own = [n for n, _ in tiny.unet.named_parameters()]
    chosen = checks.trained.solution(own)
    assert int(chosen.sum()) == 2 * sum(n.endswith("attn2.to_q.weight") for n in own)


def test_the_edit_is_the_packages(tiny):
    import inspect

    editing = pytest.importorskip("dsd_tutorial.variation")
    assert "copies" in inspect.signature(editing.edit_prompt).parameters
    from dsd_tutorial.projection import fit_random

    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    inverse, text = fit_random(tiny, 0), "a blue square"
    (want,) = editing.edit_prompt(tiny, image, text, inverse, alpha=0.7, copies="all")
    (h,) = inverse(tiny.encode_clip_image(image))
    end = int(tiny.eos_positions([text])[0])
    got = checks.edit_states.solution(tiny.encode_text(text)[0], h, end, 0.7)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)

"""The exercises of notebook 05 on features: right answers written in other ways pass.

That every listed mistake is recognised, and that hints grow, `test_checks` holds for all exercises.
"""

import pytest
import torch

from dsd_tutorial.course import checks


@pytest.fixture(autouse=True)
def fresh():
    checks.sparse_codes.reset()
    checks.unit_f1.reset()


def codes_by_threshold(drive, k):
    least = drive.sort(dim=1, descending=True).values[:, k - 1 : k]
    return torch.where((drive >= least) & (drive > 0), drive, torch.zeros(()))


def codes_in_a_loop(drive, k):
    codes = torch.zeros_like(drive)
    for row, code in zip(drive, codes, strict=True):
        for unit in row.argsort(descending=True)[:k]:
            code[unit] = max(float(row[unit]), 0.0)
    return codes


@pytest.mark.parametrize("answer", [codes_by_threshold, codes_in_a_loop])
def test_other_ways_to_sparse_codes_pass(answer):
    assert checks.sparse_codes(answer)


def f1_from_rates(active, true):
    right = (active & true).sum()
    if right == 0:
        return torch.tensor(0.0)
    precision, recall = right / active.sum(), right / true.sum()
    return 2 / (1 / precision + 1 / recall)


def f1_of_scikit_learn(active, true):
    from sklearn.metrics import f1_score

    return f1_score(true.numpy(), active.numpy(), zero_division=0)


@pytest.mark.parametrize("answer", [f1_from_rates, f1_of_scikit_learn])
def test_other_ways_to_f1_pass(answer):
    assert checks.unit_f1(answer)


def test_a_shifted_answer_is_wrong_without_a_name():
    result = checks.unit_f1(lambda active, true: checks.unit_f1.solution(active.roll(1), true))
    assert not result.passed and result.mistake == "not recognised"

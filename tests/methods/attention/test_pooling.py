"""The log-sum-exp keeps its digits: any lambda, any size of logits, masked or not, and gradients.

Each value is held to the same formula in float64 with long sums, in units of the logits' size.
"""

import math

import pytest
import torch

from dsd_tutorial.attention.pooling import gated_gain, log_sum_exp

LAMBDAS = [10.0**power for power in range(-6, 7)]
SIZES = [1e-3, 1e-1, 1.0, 10.0, 100.0]
COUNTS = [1, 2, 20, 77]


def case(size, n, masked, offset):
    """Logits (64, n) of about `size` in float32, all shifted by `offset` sizes, and a mask."""
    generator = torch.Generator().manual_seed(n)
    logits = size * (torch.randn(64, n, generator=generator) + offset)
    keep = torch.rand(64, n, generator=generator) < 0.5
    keep[:, 0] = True
    return logits, keep if masked else None


def in_float64(logits, lam, mask, form="mean"):
    """The definition, shifted by the maximum, in float64; the mean of numbers close to 1 is
    taken by their Taylor series where float64 itself would lose digits."""
    x = logits.double()
    keep = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    top = x.masked_fill(~keep, -math.inf).amax(-1, keepdim=True)
    y = (lam * (x - top)).masked_fill(~keep, 0.0)
    count = keep.sum(-1)
    mean = torch.log1p(torch.expm1(y).sum(-1) / count) / lam + top[..., 0]
    return mean if form == "mean" else mean + count.double().log() / lam


@pytest.mark.parametrize("offset", [0.0, 5.0, -5.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradient_are_those_of_float64(size, masked, offset):
    for n in COUNTS:
        logits, mask = case(size, n, masked, offset)
        largest = logits.abs().max().item()
        for lam in LAMBDAS:
            for form in ("mean", "sum"):
                ours = logits.clone().requires_grad_()
                got = log_sum_exp(ours, lam, mask, normalise=form)
                true = logits.double().requires_grad_()
                want = in_float64(true, lam, mask, form)
                unit = largest if form == "mean" else max(largest, want.abs().max().item())
                assert got.dtype == torch.float32
                assert (got - want).abs().max() <= 1e-5 * unit, (n, lam, form)
                (slope,) = torch.autograd.grad(got.sum(), ours)
                (expected,) = torch.autograd.grad(want.sum(), true)
                sharp = max(1.0, lam * largest)  # a softmax of logits known to that much
                assert (slope - expected).abs().max() <= 1e-5 * sharp, (n, lam, form)
                assert torch.allclose(slope.sum(-1), torch.ones(64), atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_monotone_in_lambda_and_between_mean_and_maximum(size, masked):
    for n in COUNTS:
        logits, mask = case(size, n, masked, 1.0)
        slack = 1e-6 * logits.abs().max()
        lams = [0.0, *LAMBDAS, math.inf]
        values = [log_sum_exp(logits, lam, mask, normalise="mean") for lam in lams]
        for lower, higher in zip(values, values[1:], strict=False):
            assert (higher >= lower - slack).all()
        for value in values:
            assert (value >= values[0] - slack).all() and (value <= values[-1] + slack).all()
        assert (values[1] - values[0]).abs().max() <= 1e-5 * max(1.0, size) * logits.abs().max()


@pytest.mark.parametrize("lam", LAMBDAS)
def test_a_shift_of_all_logits_is_a_shift_of_the_value(lam):
    logits, mask = case(1.0, 20, True, 0.0)
    moved = log_sum_exp(logits + 8.0, lam, mask) - 8.0
    assert torch.allclose(moved, log_sum_exp(logits, lam, mask), atol=1e-5)


@pytest.mark.parametrize("lam", [1e-6, 1e-3, 1.0, 100.0])
def test_extra_logits_behind_a_closed_gate_change_nothing(lam):
    logits, mask = case(1.0, 20, True, 0.0)
    extra = torch.randn(64, 3)
    closed = log_sum_exp(logits, lam, mask, extra=extra, gate=torch.zeros(3))
    assert torch.equal(closed, log_sum_exp(logits, lam, mask))
    ajar = log_sum_exp(logits, lam, mask, extra=extra, gate=torch.full((3,), 1e-3))
    total = torch.logsumexp((lam * logits).masked_fill(~mask, -math.inf), -1)
    gain = gated_gain(total.double(), lam * extra.double(), torch.full((3,), 1e-3).double()) / lam
    assert torch.allclose((ajar - closed).double(), gain, rtol=1e-4, atol=1e-5)


def test_the_maximum_takes_in_what_stands_behind_open_gates():
    logits, extra = torch.randn(6, 4), torch.randn(6, 3)
    for gate in ([0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1e-9, 2.0]):
        found = log_sum_exp(logits, math.inf, extra=extra, gate=torch.tensor(gate))
        for row in range(6):
            open_ones = [x for x, g in zip(extra[row].tolist(), gate, strict=True) if g > 0]
            assert found[row].item() == max([*logits[row].tolist(), *open_ones])


def test_the_plain_partition_is_bit_for_bit_the_one_of_torch():
    logits, _ = case(10.0, 77, False, 0.0)
    assert torch.equal(log_sum_exp(logits), torch.logsumexp(logits, -1))


def test_the_log_partition_is_torchs_to_the_last_bit_and_any_axis_may_come_before():
    x = 5 * torch.randn(4, 3, 50, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(log_sum_exp(x, 1.0, normalise="sum"), torch.logsumexp(x, -1))
    for lam in (0.7, 2.0):
        want = (torch.logsumexp(lam * x.double(), -1) / lam).float()
        torch.testing.assert_close(log_sum_exp(x, lam, normalise="sum"), want)


def test_the_hardest_maximum_sees_open_gates_alone():
    x = torch.zeros(2, 3, 5, 4)
    extra = torch.arange(30.0).view(1, 3, 5, 2) - 3
    gate = torch.tensor([1.0, 0.0])
    want = extra[..., 0].clamp(min=0).expand(2, 3, 5)
    torch.testing.assert_close(log_sum_exp(x, math.inf, extra=extra, gate=gate), want)


@pytest.mark.parametrize("lam", [0.0, 1.0, math.inf])
@pytest.mark.parametrize("alone", ["extra", "gate"])
def test_further_logits_and_their_weights_are_given_together(alone, lam):
    with pytest.raises(ValueError, match="given together"):
        log_sum_exp(torch.zeros(2, 3), lam, **{alone: torch.zeros(2, 1)})

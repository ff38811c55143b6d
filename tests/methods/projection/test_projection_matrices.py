"""Inverses as matrices: properties, independent formulas, and the real ViT-L/14."""

import time
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsd_tutorial.projection.matrices import (
    OrientationError,
    automatic_threshold,
    check_orientation,
    gaussian_inverse,
    ridge_inverse,
    round_trip_error,
    singular_values,
    truncated_pseudo_inverse,
    vit_l_14_singular_values,
)

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "clip-vit-l-14"
few = settings(max_examples=25, deadline=None)
sizes = st.integers(2, 12)
seeds = st.integers(0, 2**31)


def kept(values: torch.Tensor, threshold: float) -> int:
    """The rank of the cut inverse."""
    return int((values >= threshold).sum())


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=numbers, dtype=torch.float64)


@few
@given(sizes, sizes, seeds)
def test_nothing_cut_is_the_moore_penrose_inverse(rows, columns, seed):
    w = matrix(rows, columns, seed)
    plus = truncated_pseudo_inverse(w)
    scale = float(plus.norm() * w.norm())
    torch.testing.assert_close(w @ plus @ w, w, atol=1e-12 * scale * float(w.norm()), rtol=0)
    np.testing.assert_allclose(plus, scipy.linalg.pinv(w.numpy()), rtol=1e-6, atol=1e-9 * scale)
    torch.testing.assert_close(plus @ w, (plus @ w).T, atol=1e-12 * scale, rtol=0)


@few
@given(sizes, seeds, st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_rank_falls_with_the_threshold_and_the_kept_space_returns(size, seed, shares):
    w = matrix(size, size, seed)
    u, s, vt = torch.linalg.svd(w)
    ranks = []
    for share in sorted(shares):
        threshold = share * float(s[0])
        plus = truncated_pseudo_inverse(w, threshold)
        ranks.append(int(torch.linalg.matrix_rank(plus)))
        assert ranks[-1] == kept(s, threshold)
        keep = s >= threshold
        h = vt[keep].T @ matrix(int(keep.sum()), 1, seed + 1)  # a state in the kept row space
        scale = 1e-10 * float(h.norm()) * float(s[0] / s[keep].min())
        torch.testing.assert_close(plus @ (w @ h), h, atol=scale, rtol=0)
        assert float((plus @ u[:, ~keep]).abs().sum()) < 1e-9 * float(plus.norm()) * size
    assert ranks == sorted(ranks, reverse=True)


@few
@given(sizes, sizes, seeds, st.floats(1e-6, 10))
def test_ridge_agrees_with_the_normal_equations(rows, columns, seed, lam):
    w = matrix(rows, columns, seed)
    n = w.numpy()
    want = np.linalg.solve(n.T @ n + lam * np.eye(columns), n.T)
    found = ridge_inverse(w, lam).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@few
@given(sizes, seeds)
def test_ridge_tends_to_the_pseudo_inverse(size, seed):
    w = matrix(size, size, seed)
    plus = truncated_pseudo_inverse(w)
    least = float(singular_values(w)[-1])
    apart = [
        float((ridge_inverse(w, lam * least**2) - plus).norm()) for lam in (1, 1e-2, 1e-4, 1e-6)
    ]
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] <= 2e-6 * float(plus.norm())
    assert torch.equal(ridge_inverse(w, 0.0), plus)


@few
@given(sizes, sizes, seeds, st.floats(1e-3, 10))
def test_the_gaussian_prior_agrees_with_the_joint_normal(rows, columns, seed, lam):
    w, m = matrix(rows, columns, seed), matrix(1, columns, seed + 1)[0]
    root = matrix(columns, columns, seed + 2)
    k = root @ root.T
    v = matrix(rows, 1, seed + 3)[:, 0]
    # the information form, another formula: (K^-1 + W^T W / lam) h = K^-1 m + W^T v / lam
    inside = np.linalg.inv(k.numpy())
    precision = inside + w.numpy().T @ w.numpy() / lam
    want = np.linalg.solve(precision, inside @ m.numpy() + w.numpy().T @ v.numpy() / lam)
    scale = np.abs(want).max() * max(1.0, np.linalg.cond(k.numpy()) * 1e-9)
    found = gaussian_inverse(w, m, k, lam)
    np.testing.assert_allclose(found.matrix @ v + found.offset, want, rtol=1e-6, atol=1e-6 * scale)
    plain = gaussian_inverse(w, torch.zeros(columns), torch.eye(columns), lam)
    torch.testing.assert_close(plain.matrix, ridge_inverse(w, lam), atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(plain.offset, torch.zeros(columns, dtype=torch.float64))


@few
@given(st.integers(4, 12), seeds, st.floats(0, 0.5))
def test_a_transposed_inverse_is_told_from_a_right_one(size, seed, share):
    w = matrix(size, size, seed)
    plus = truncated_pseudo_inverse(w, share * float(singular_values(w)[0]))
    assert check_orientation(w, plus) == pytest.approx(round_trip_error(w, plus))
    with pytest.raises(OrientationError, match="transposed"):
        check_orientation(w, plus.T)
    whole = truncated_pseudo_inverse(w)
    assert round_trip_error(w, whole) < 1e-5 < round_trip_error(w, whole.T)


def test_shapes_tell_where_the_weight_is_not_square():
    w = matrix(5, 3, 0)
    plus = truncated_pseudo_inverse(w, 0.1)
    assert plus.shape == (3, 5) and check_orientation(w, plus) < 1
    with pytest.raises(OrientationError, match="transpose it"):
        check_orientation(w, plus.T)
    with pytest.raises(OrientationError, match="another's"):
        check_orientation(w, torch.zeros(4, 4))


def test_zero_directions_do_not_become_infinite():
    w = torch.diag(torch.tensor([2.0, 1.0, 0.0]))
    for plus in (truncated_pseudo_inverse(w), truncated_pseudo_inverse(w, 0.0)):
        assert torch.equal(plus, torch.diag(torch.tensor([0.5, 1.0, 0.0], dtype=torch.float64)))


def test_matrices_that_cannot_be_inverted_are_named(unchecked):
    w = matrix(3, 3, 0)
    for call, message in (
        (lambda: truncated_pseudo_inverse(w[0]), "need a matrix"),
        (lambda: truncated_pseudo_inverse(w / 0), "infinite"),
        (lambda: truncated_pseudo_inverse(w, 1e9), "largest singular value"),
        (lambda: ridge_inverse(w, -1.0), "0 or more"),
        (lambda: ridge_inverse(w, float("nan")), "0 or more"),
        (lambda: gaussian_inverse(w, torch.zeros(2), torch.eye(2), 1.0), r"must be \(3,\)"),
        (lambda: automatic_threshold(torch.tensor([])), "one or more"),
        (lambda: automatic_threshold(torch.tensor([1.0, 0.0, 0.0])), "give a threshold"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@few
@given(sizes, seeds, st.floats(0.1, 10))
def test_the_automatic_threshold_scales_with_the_weight(size, seed, factor):
    s = singular_values(matrix(size, size, seed))
    assert automatic_threshold(factor * s) == pytest.approx(factor * automatic_threshold(s))
    gain = (float(s.quantile(0.5)) / s) ** 2  # power of the inverse, relative to the typical
    assert kept(s, automatic_threshold(s)) == int((gain <= 2 + 1e-9).sum())


def test_the_stored_spectrum_and_the_papers_threshold():
    s = vit_l_14_singular_values()
    assert len(s) == 768 and bool((s.diff() <= 0).all()) and kept(s, 0.3) == 607
    assert automatic_threshold(s) == pytest.approx(0.3, abs=0.01)
    assert abs(kept(s, automatic_threshold(s)) - 607) <= 5


@pytest.fixture(scope="module")
def real():
    if not REAL.is_dir():
        pytest.skip(f"the real ViT-L/14 matrices are not at {REAL}")
    from safetensors.torch import load_file

    weight = load_file(REAL / "projections.safetensors")["text_projection.weight"]
    return weight.double(), load_file(REAL / "image_embeddings.safetensors")[
        "image_embeds"
    ].double()


def test_the_real_vit_l_14(real):
    weight, images = real
    s = singular_values(weight)
    torch.testing.assert_close(s, vit_l_14_singular_values(), atol=1e-8, rtol=1e-8)
    assert kept(s, 0.3) == 607
    cut, plain = truncated_pseudo_inverse(weight, 0.3), truncated_pseudo_inverse(weight)
    assert float((images @ cut.T).norm(dim=1).mean()) == pytest.approx(1.56, abs=0.005)
    assert float((images @ plain.T).norm(dim=1).mean()) == pytest.approx(1433, abs=1)
    assert check_orientation(weight, cut) < 0.2
    with pytest.raises(OrientationError, match="transposed"):
        check_orientation(weight, cut.T)


def test_vit_h_takes_about_a_second_and_little_memory():
    """1024 x 1024: the inverse alone; five matrices of 8 MB are alive at most."""
    w = matrix(1024, 1024, 0) / 32
    start = time.process_time()
    plus = truncated_pseudo_inverse(w, 0.3)
    seconds = time.process_time() - start
    assert plus.shape == (1024, 1024) and plus.dtype == torch.float64
    rank = float((plus * w.T).sum())  # P W projects on what is kept: its trace is its rank
    assert rank == pytest.approx(kept(singular_values(w), 0.3), abs=1e-6)
    assert seconds < 4, f"{seconds:.1f} s of processor time"  # about 1 s on an idle core


def test_a_direction_at_the_threshold_is_kept():
    weight = torch.diag(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))
    for threshold, inverted in ((2.0, [0.25, 0.5, 0.0]), (4.0, [0.25, 0.0, 0.0])):
        found = truncated_pseudo_inverse(weight, threshold)
        torch.testing.assert_close(found, torch.diag(torch.tensor(inverted, dtype=torch.float64)))
        assert kept(torch.tensor([4.0, 2.0, 1.0]), threshold) == sum(x > 0 for x in inverted)


def test_the_automatic_threshold_takes_any_scale():
    for scale in (1e-20, 1e-6, 1e6, 1e20):
        want = pytest.approx(scale / 2**0.5)
        assert automatic_threshold(scale * torch.tensor([2.0, 1.0, 0.5], dtype=float)) == want


def test_an_inverse_that_gives_nothing_misses_everything():
    weight = torch.diag(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))
    assert round_trip_error(weight, torch.zeros(3, 3)) == 1.0
    assert round_trip_error(weight, weight.inverse()) == pytest.approx(0, abs=1e-7)


def test_what_is_zero_in_float64_is_cut_relative_to_the_largest():
    """numpy's rule for the rank: below max(shape) x eps x the largest singular value."""
    eps = torch.finfo(torch.float64).eps
    s = torch.tensor([1.0, *[1e-3] * 10, 6 * eps], dtype=torch.float64)
    found = truncated_pseudo_inverse(torch.diag(s))
    np.testing.assert_allclose(found, np.linalg.pinv(np.diag(s), rcond=12 * eps), atol=1e-9)
    assert float(found[-1, -1]) == 0
    assert not truncated_pseudo_inverse(torch.zeros(3, 2)).any()


def test_a_prior_of_another_size_is_refused_whichever_part_it_is(unchecked):
    w, m, k = matrix(4, 3, 0), torch.zeros(3), torch.eye(3)
    gaussian_inverse(w, m, k, 0.1)
    for mean, covariance in ((torch.zeros(4), k), (m, torch.eye(4))):
        with pytest.raises(ValueError, match="must be"):
            gaussian_inverse(w, mean, covariance, 0.1)


@few
@given(sizes, seeds, st.floats(0.01, 10))
def test_the_round_trip_error_is_the_sine_between_what_returns_and_the_weight(size, seed, lam):
    w = matrix(size, size, seed)
    inverse = ridge_inverse(w, lam)
    returned = (w @ inverse @ w).flatten()
    best = float(returned @ w.flatten()) / float(w.norm()) ** 2
    missed = float((returned - best * w.flatten()).norm() / returned.norm())
    assert round_trip_error(w, inverse) == pytest.approx(missed, abs=1e-7)


def test_a_symmetric_weight_has_no_wrong_side():
    w = matrix(5, 5, 0)
    w = w + w.T
    assert check_orientation(w, ridge_inverse(w, 0.5)) > 0


def test_no_threshold_comes_from_zeros_alone():
    with pytest.raises(ValueError, match="half of the singular values are zero"):
        automatic_threshold(torch.zeros(3))

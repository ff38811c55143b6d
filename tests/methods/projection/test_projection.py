"""Inverses fitted to a model: calibration, every method, files, and what is refused."""

import dataclasses
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from real_sizes import real_model

from dsd_tutorial.projection import (
    METHODS,
    Inverse,
    OrientationError,
    PenultimateLayerError,
    WrongClipError,
    automatic_threshold,
    calibrate,
    calibration,
    collect_pairs,
    eos_states,
    fit_inverse,
    fit_random,
    fitting,
    load_inverse,
    save_inverse,
    singular_values,
    text_weight,
    truncated_pseudo_inverse,
)
from dsd_tutorial.projection.inverse import clip_digest, refine
from dsd_tutorial.shapes import full_description

TEXTS = [
    "a red circle",
    "a blue square on a gray background",
    "a ring above a star",
    "a green cross",
]


@pytest.fixture(scope="module")
def known(tiny):
    return calibrate(tiny, n=40, progress=False)


@pytest.fixture(scope="module")
def pairs(tiny):
    return collect_pairs(tiny, n=80, progress=False)


@pytest.fixture(scope="module")
def seen(tiny):
    numbers = torch.Generator().manual_seed(3)
    return tiny.encode_clip_image(torch.rand(3, 3, 64, 64, generator=numbers))


def test_calibration_measures_what_it_says(tiny):
    found = calibrate(tiny, TEXTS, progress=False)
    h = torch.stack([tiny.encode_text(t)[0, int(tiny.eos_positions(t)[0])] for t in TEXTS]).double()
    torch.testing.assert_close(eos_states(tiny, TEXTS).double(), h, atol=1e-5, rtol=1e-5)
    assert found.length == pytest.approx(float(h.norm(dim=1).mean()), rel=1e-6)
    projected = tiny.encode_clip_text(TEXTS).norm(dim=1).mean()
    assert found.projected_length == pytest.approx(float(projected), rel=1e-5)
    torch.testing.assert_close(
        found.covariance, torch.from_numpy(np.cov(h.T.numpy())), atol=1e-5, rtol=1e-4
    )
    assert float(found.agreement[0]) == pytest.approx(1, abs=1e-6)
    assert 1 <= found.repeats <= len(found.agreement) < tiny.context_length
    with pytest.raises(ValueError, match="two or more"):
        calibrate(tiny, ["a star"], progress=False)


def test_two_texts_are_enough_to_calibrate_and_one_is_not(tiny):
    found = calibrate(tiny, TEXTS[:2], progress=False)
    assert found.spread > 0 and len(found.agreement) > 0
    for few in ([], TEXTS[:1]):
        with pytest.raises(ValueError, match=f"{len(few)} captions: need two or more"):
            calibrate(tiny, few, progress=False)


def test_repeats_stop_at_the_first_stranger(known):
    from dataclasses import replace

    profile = torch.tensor([1.0, 0.9, 0.72, 0.6, 0.8])
    assert replace(known, agreement=profile).repeats == 3
    assert replace(known, agreement=torch.tensor([1.0])).repeats == 1


def test_pairs_belong_together(tiny, pairs):
    assert len(pairs) == 80
    weight = tiny.clip.text_projection.weight
    torch.testing.assert_close(pairs.projected, pairs.state @ weight.T)
    torch.testing.assert_close(pairs.embedding, pairs.pooled @ tiny.clip.visual_projection.weight.T)
    picture = torch.rand(2, 3, 64, 64)
    own = collect_pairs(tiny, picture, TEXTS[:2], progress=False)
    torch.testing.assert_close(own.pooled, tiny.encode_clip_image(picture).pooled)
    with pytest.raises(ValueError, match="neither"):
        collect_pairs(tiny, picture, progress=False)
    with pytest.raises(ValueError, match="2 images and 4 texts"):
        collect_pairs(tiny, picture, TEXTS, progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_states_of_the_calibrated_length(tiny, known, pairs, seen, method):
    inverse = fit_inverse(tiny, method, calibration=known, pairs=pairs)
    states = inverse(seen)
    assert states.shape == (3, 32) and states.dtype == torch.float32
    torch.testing.assert_close(states.norm(dim=1), torch.full((3,), known.length))
    assert torch.equal(states, inverse(getattr(seen, inverse.reads)))
    assert inverse.reads == ("pooled" if method == "direct" else "embedding")
    assert inverse.copies == tiny.context_length - 1  # not the embedded model: as in the paper
    assert method in repr(inverse)
    longer = fit_inverse(tiny, method, calibration=known, pairs=pairs, length=5.0, copies=2)
    torch.testing.assert_close(longer(seen), states * 5 / known.length)
    assert longer.copies == 2


def test_the_papers_formula_by_hand(tiny, known, seen):
    weight = text_weight(tiny).numpy()
    cut = automatic_threshold(singular_values(torch.from_numpy(weight)))
    u, s, vt = np.linalg.svd(weight)
    plus = vt.T @ np.diag(np.where(s >= cut, 1 / s, 0)) @ u.T
    h = seen.embedding.double().numpy() @ plus.T
    h = known.length * h / np.linalg.norm(h, axis=1, keepdims=True)
    found = fit_inverse(tiny, calibration=known)(seen)
    np.testing.assert_allclose(found.double().numpy(), h, rtol=1e-5, atol=1e-6)


def test_the_affine_methods_by_hand(tiny, known, pairs, seen):
    shared = {"calibration": known, "pairs": pairs}
    x, y = (F.normalize(t.double(), dim=1).numpy() for t in (pairs.embedding, pairs.projected))
    new = F.normalize(seen.embedding.double(), dim=1).numpy()
    plus = truncated_pseudo_inverse(text_weight(tiny), 0.4).numpy()
    shifted = (new + y.mean(0) - x.mean(0)) @ plus.T
    u, _, vt = np.linalg.svd((x - x.mean(0)).T @ (y - y.mean(0)))
    turn = u @ vt
    turned = ((new - x.mean(0)) @ turn + y.mean(0)) @ plus.T
    f, h = pairs.pooled.double().numpy(), pairs.state.double().numpy()
    df, dh = f - f.mean(0), h - h.mean(0)
    square = df.T @ df / len(f) + 0.02 * np.eye(f.shape[1])
    slope = np.linalg.solve(square, df.T @ dh / len(f))
    mapped = (seen.pooled.double().numpy() - f.mean(0)) @ slope + h.mean(0)
    k = known.projected_length
    inverted = k * (x @ plus.T)
    a = known.length / np.linalg.norm(inverted, axis=1).mean()
    centered = a * (k * (new - x.mean(0)) @ plus.T) + known.mean.numpy()
    want = {
        "mean_shift": shifted, "centered": centered, "procrustes": turned, "direct": mapped,
    }  # fmt: skip
    for method, by_hand in want.items():
        own = {"lam": 0.02} if method == "direct" else {"threshold": 0.4}
        found = fit_inverse(tiny, method, **shared, **own)(seen)
        unit = by_hand / np.linalg.norm(by_hand, axis=1, keepdims=True)
        np.testing.assert_allclose(found.numpy(), known.length * unit, rtol=1e-4, atol=1e-5)


def test_centering_reads_means_alone(tiny, known, pairs, seen):
    order = torch.arange(len(pairs)).flip(0)
    unpaired = type(pairs)(
        pairs.pooled, pairs.embedding, pairs.state[order], pairs.projected[order]
    )
    a, b = (
        fit_inverse(tiny, "centered", calibration=known, pairs=p)(seen) for p in (pairs, unpaired)
    )
    torch.testing.assert_close(a, b)


def test_k_cancels_for_the_linear_inverse_and_not_for_the_prior(tiny, known, pairs, seen):
    from dataclasses import replace

    for method, cancels in (("truncated", True), ("gaussian", False)):
        inverse = fit_inverse(tiny, method, calibration=known, pairs=pairs)
        other = replace(inverse, input_length=3 * inverse.input_length)
        assert torch.allclose(inverse(seen), other(seen), atol=1e-5) is cancels


@pytest.mark.parametrize("rate", [1e-3, 1.0, 1e3])
def test_refinement_is_the_gradient_of_the_cosine_with_halved_rates(rate):
    """Row by row, with the gradient of autograd."""
    numbers = torch.Generator().manual_seed(5)
    start, target, weight = (
        torch.randn(n, k, generator=numbers, dtype=torch.float64)
        for n, k in ((4, 6), (4, 5), (5, 6))
    )
    found = refine(start, target, weight, 7, rate)
    for row, v, got in zip(start, target, found, strict=True):
        h, pace = row / row.norm(), rate
        for _ in range(7):
            h.requires_grad_()
            cosine = F.cosine_similarity(weight @ h, v, dim=0)
            (uphill,) = torch.autograd.grad(cosine, h)
            with torch.no_grad():
                trial = F.normalize(h.detach() + pace * uphill, dim=0)
                if F.cosine_similarity(weight @ trial, v, dim=0) > cosine:
                    h = trial
                else:
                    h, pace = h.detach(), pace / 2
        torch.testing.assert_close(got, row.norm() * h.detach(), atol=1e-9, rtol=1e-6)


def test_a_fit_keeps_no_graph(known):
    """Of a text tower that learns too: states, pairs and figures are numbers alone."""
    from tiny_model import tiny_model

    model = tiny_model()
    for part in (model.text_encoder, model.clip):
        part.requires_grad_()
    collected = collect_pairs(model, n=3, progress=False)
    found = [eos_states(model, TEXTS), collected.state, collected.embedding, collected.projected]
    measured = calibrate(model, TEXTS, progress=False)
    assert not any(x.requires_grad for x in [*found, measured.mean, measured.covariance])


def test_a_calibration_is_measured_where_none_is_given(tiny, known, monkeypatch):
    asked = []

    def measured(model, *, progress):
        asked.append(progress)
        return known

    monkeypatch.setattr(fitting, "calibrate", measured)
    for make in (
        lambda **how: fit_random(tiny, **how),
        lambda **how: fit_inverse(tiny, progress=False, **how),
    ):
        given, found = make(calibration=known), make()
        assert found.length == given.length == known.length and asked.pop() is False
        assert torch.equal(found.matrix, given.matrix) and not asked


def test_what_an_inverse_says_of_itself(tiny, known, pairs):
    fitted = fit_inverse(tiny, "direct", calibration=known, pairs=pairs, copies=3)
    variance = pairs.pooled.double().var(0, correction=0).mean()
    assert fitted.settings == {"lam": pytest.approx(0.01 * float(variance)), "pairs": 80}
    assert repr(fitted) == (
        f"Inverse(direct: pooled 48 -> text state 32, length {known.length:.4g}, 3 copies, "
        f"lam={fitted.settings['lam']:.4g}, pairs=80)"
    )
    own = Inverse("own", torch.linalg.pinv(text_weight(tiny)), known.length, copies=31)
    assert repr(own).endswith(f"length {known.length:.4g}, 31 copies)")


def test_refinement_starts_where_it_says_and_only_improves(tiny, known, seen):
    start = fit_inverse(tiny, calibration=known)
    none = fit_inverse(tiny, "refined", steps=0, calibration=known)
    assert torch.equal(none(seen), start(seen))
    weight = text_weight(tiny)

    def objective(states):
        return 1 - F.cosine_similarity(states.double() @ weight.T, seen.embedding.double(), dim=1)

    values = [
        objective(fit_inverse(tiny, "refined", steps=k, calibration=known)(seen))
        for k in (0, 1, 5, 20)
    ]
    for before, after in zip(values, values[1:], strict=False):
        assert bool((after < before).all())
    wild = refine(start(seen).double(), seen.embedding.double(), weight, 8, rate=1e6)
    assert bool((objective(wild) <= values[0] + 1e-12).all())  # too long a step is not taken


def test_gradients_reach_the_picture_and_batches_do_not_matter(tiny, known, seen):
    inverse = fit_inverse(tiny, calibration=known)
    rows = seen.embedding.clone().requires_grad_()
    inverse(rows)[:, 0].sum().backward()
    assert rows.grad.abs().sum() > 0
    torch.testing.assert_close(inverse(seen.embedding[1:2]), inverse(seen)[1:2])


def test_a_random_inverse_knows_nothing_but_the_length(tiny, known, seen):
    first, again, other = (fit_random(tiny, seed, known) for seed in (0, 0, 1))
    assert torch.equal(first(seen), again(seen)) and not torch.equal(first(seen), other(seen))
    torch.testing.assert_close(first(seen).norm(dim=1), torch.full((3,), known.length))


def test_a_transposed_inverse_is_refused(tiny, known):
    matrix = truncated_pseudo_inverse(text_weight(tiny), 0.3)
    weight = text_weight(tiny)
    Inverse("truncated", matrix, known.length, weight=weight)
    with pytest.raises(OrientationError, match="transposed"):
        Inverse("truncated", matrix.T, known.length, weight=weight)


@pytest.mark.parametrize("method", ["truncated", "gaussian", "direct", "refined"])
def test_a_saved_inverse_is_the_same_to_the_last_bit(tiny, known, pairs, seen, method, tmp_path):
    inverse = fit_inverse(tiny, method, calibration=known, pairs=pairs)
    save_inverse(inverse, tmp_path / "deep" / "inverse.safetensors")
    again = load_inverse(tmp_path / "deep" / "inverse.safetensors", tiny)
    assert torch.equal(again(seen), inverse(seen)) and repr(again) == repr(inverse)
    assert again.matrix.dtype == torch.float64 and again.clip == clip_digest(tiny)


def test_files_that_do_not_fit_are_refused(tiny, known, tmp_path):
    from safetensors.torch import save_file
    from tiny_model import tiny_model

    path = tmp_path / "inverse.safetensors"
    with pytest.raises(FileNotFoundError, match="save_inverse"):
        load_inverse(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_inverse(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="holds no inverse"):
        load_inverse(path)
    save_inverse(fit_inverse(tiny, calibration=known), path)
    with pytest.raises(WrongClipError, match="fit it again"):
        load_inverse(path, tiny_model(seed=1))


def test_arguments_out_of_range_are_named(tiny, known, seen):
    for options, message in (
        ({"method": "magic"}, "truncated, ridge"),
        ({"method": "ridge", "threshold": 0.3}, "no part in 'ridge'"),
        ({"lam": 0.1}, "no part in 'truncated'"),
        ({"threshold": "best"}, "'auto'"),
        ({"threshold": 1e6}, "largest singular value"),
        ({"threshold": -1.0}, "largest singular value"),
        ({"length": 0.0}, "length 0.0: need a number above 0"),
        ({"copies": 0}, "copies 0"),
        ({"method": "refined", "steps": -1}, "steps -1"),
        ({"method": "gaussian", "lam": 0.0}, "above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_inverse(tiny, **{"calibration": known, **options})
    inverse = fit_inverse(tiny, calibration=known)
    with pytest.raises(ValueError, match=r"W_i f_i.*\(batch, 32\), not \(3, 48\)"):
        inverse(seen.pooled)
    with pytest.raises(ValueError, match="reads 'both'"):
        Inverse("own", torch.eye(2), 1.0, reads="both")


def test_sd_2_stops_with_an_explanation_and_sd_1_does_not():
    with pytest.raises(PenultimateLayerError, match="layer 23 of 24.*sd-1.5"):
        fit_inverse(real_model("sd-2.1-base"))
    with pytest.raises(NotImplementedError, match="meta"):
        text_weight(real_model("sd-1.5"))  # the right layer: only the numbers are missing


def test_a_model_without_clip_or_with_anothers_is_refused(tiny):
    from copy import copy

    bare = copy(tiny)
    bare.clip = None
    with pytest.raises(ValueError, match="(?i)clip"):
        fit_inverse(bare)


def test_conversion_is_quick(tiny, known, seen):
    inverse = fit_inverse(tiny, calibration=known)
    inverse(seen)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        inverse(seen)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


def test_the_prior_and_the_pairs_beat_the_bare_inverse_on_the_embedded_model(shapes_sd):
    """Both know what real end states look like; untrained matrices know nothing."""
    known = calibrate(shapes_sd, n=120, progress=False)
    pairs = collect_pairs(shapes_sd, n=400, progress=False)
    other = collect_pairs(shapes_sd, n=60, seed=99, progress=False)
    shared = {"calibration": known, "pairs": pairs}

    def cosine(inverse):
        rows = getattr(other, inverse.reads)
        return float(F.cosine_similarity(inverse(rows), other.state, dim=1).mean())

    found = {
        m: cosine(fit_inverse(shapes_sd, m, **shared)) for m in ("truncated", "gaussian", "direct")
    }
    uncut = cosine(fit_inverse(shapes_sd, threshold=None, calibration=known))
    assert uncut < found["truncated"] < found["gaussian"]
    assert found["direct"] > found["truncated"] > 0.5
    assert abs(cosine(fit_random(shapes_sd, 0, known))) < 0.2
    assert known.spread < 0.02 * known.length  # the constant length that the method rests on


def test_a_position_at_45_degrees_still_repeats(known):
    agreement = torch.tensor([1.0, calibration.NEAR, 0.1, 1.0], dtype=torch.float64)
    assert dataclasses.replace(known, agreement=agreement).repeats == 2


def test_agreement_reaches_as_far_as_enough_captions_do(tiny):
    found = calibrate(tiny, TEXTS, progress=False)
    behind = [tiny.context_length - int(tiny.eos_positions(t)[0]) for t in TEXTS]
    assert len(found.agreement) == min(behind)  # of four captions all are needed


def test_captions_for_calibration_name_no_size_and_no_position():
    scenes, texts = calibration.train_scenes(60, 0)
    for scene, text in zip(scenes, texts, strict=True):
        assert text in full_description(scene, details=False).phrasings()


@pytest.mark.parametrize(
    ("layer", "whole", "says"),
    [("penultimate", None, "23 of 24"), ("last", 24, "23 of 24"), ("penultimate", 23, "23 of 23")],
)
def test_a_unet_that_reads_another_layer_is_refused_with_both_numbers(
    unchecked, layer, whole, says
):
    def has(n):
        return SimpleNamespace(config=SimpleNamespace(num_hidden_layers=n))

    clip = None if whole is None else SimpleNamespace(
        config=SimpleNamespace(text_config=SimpleNamespace(num_hidden_layers=whole))
    )  # fmt: skip
    model = SimpleNamespace(name="x", text_encoder=has(23), text_layer=layer, clip=clip)
    with pytest.raises(PenultimateLayerError, match=f"layer {says}"):
        text_weight(model)


def test_automatic_penalties_are_what_they_say(tiny, known, pairs):
    weight = text_weight(tiny)
    how = {"calibration": known, "pairs": pairs, "progress": False}
    ridge = fit_inverse(tiny, "ridge", **how).settings["lam"]
    assert ridge == pytest.approx(automatic_threshold(singular_values(weight)) ** 2)
    v = known.projected_length * F.normalize(pairs.embedding.double(), dim=1)
    noise = (v - pairs.projected.double()).square().mean()
    assert fit_inverse(tiny, "gaussian", **how).settings["lam"] == pytest.approx(float(noise))


def test_the_random_inverse_is_that_of_a_matrix_of_the_same_size(tiny, known):
    weight = text_weight(tiny)
    numbers = torch.Generator().manual_seed(5)
    noise = torch.randn(weight.shape, generator=numbers, dtype=torch.float64)
    noise = noise / noise.norm() * weight.norm()
    want = truncated_pseudo_inverse(noise, automatic_threshold(singular_values(noise)))
    torch.testing.assert_close(fit_random(tiny, 5, known).matrix, want)


def test_bounds_of_an_inverse(tiny):
    assert Inverse("direct", torch.eye(3, dtype=torch.float64), 1.0, copies=1).copies == 1
    for length in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="length"):
            Inverse("direct", torch.eye(3, dtype=torch.float64), length)
    assert len(clip_digest(tiny)) == 16


def test_refinement_knows_directions_and_not_the_weights_size():
    numbers = torch.Generator().manual_seed(0)
    w, h, v = (
        torch.randn(*s, generator=numbers, dtype=torch.float64) for s in ((4, 5), (3, 5), (3, 4))
    )
    torch.testing.assert_close(refine(h, v, w, 4), refine(h, v, 1e-4 * w, 4))

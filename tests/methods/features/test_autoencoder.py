"""The k-sparse autoencoder: its formula, what is kept by training, and what it can find."""

import pytest
import torch
import torch.nn.functional as F

from dsd_tutorial.features import SparseAutoencoder, fit_autoencoder
from dsd_tutorial.features.autoencoder import _restart


def sums_of_directions(rows=3000, width=24, directions=40, active=3, seed=0):
    """Return features that are sparse sums of known directions, and the directions."""
    numbers = torch.Generator().manual_seed(seed)
    true = F.normalize(torch.randn(directions, width, generator=numbers), dim=-1)
    which = torch.rand(rows, directions, generator=numbers).topk(active, dim=-1).indices
    amount = torch.zeros(rows, directions).scatter(
        -1, which, 1 + torch.rand(rows, active, generator=numbers)
    )
    return 7.0 * amount @ true + 3.0, true


@pytest.fixture(scope="module")
def fitted():
    x, true = sums_of_directions()
    how = {"steps": 600, "batch_size": 256, "restart_every": 100, "progress": False}
    return x, true, fit_autoencoder(x, units=80, k=3, **how)


def test_it_finds_directions_that_are_there(fitted):
    x, true, sae = fitted
    assert sae.unexplained(x) < 0.1
    nearest = (true @ sae.decoder.T).amax(1)
    assert (nearest > 0.95).float().mean() > 0.9
    assert sae.history[-1]["unexplained"] < sae.history[0]["unexplained"]


def test_at_most_k_units_are_active_and_decoder_directions_have_length_one(fitted):
    x, _, sae = fitted
    codes = sae.encode(x)
    assert ((codes > 0).sum(-1) <= sae.k).all() and (codes >= 0).all()
    torch.testing.assert_close(sae.decoder.norm(dim=-1), torch.ones(80))
    assert not any(p.requires_grad for p in sae.parameters())


def test_the_formula_by_hand(fitted):
    x, _, sae = fitted
    row = x[0]
    drive = sae.encoder @ ((row - sae.center) / sae.scale) + sae.bias
    kept = [i for i in drive.argsort(descending=True)[: sae.k].tolist() if drive[i] > 0]
    hat = sae.center + sae.scale * sum(drive[i] * sae.decoder[i] for i in kept)
    torch.testing.assert_close(sae(row[None])[0], hat, atol=1e-4, rtol=1e-4)
    assert (sae.encode(row[None])[0] > 0).nonzero()[:, 0].tolist() == sorted(kept)


def test_rows_do_not_depend_on_their_batch_and_scale_does_not_matter(fitted):
    x, _, sae = fitted
    torch.testing.assert_close(sae.encode(x[:9])[3:5], sae.encode(x[3:5]))
    how = {"units": 30, "k": 2, "steps": 40, "batch_size": 64, "progress": False}
    plain, larger = fit_autoencoder(x, **how), fit_autoencoder(64 * x, **how)
    torch.testing.assert_close(larger.encoder, plain.encoder, atol=2e-2, rtol=2e-2)


def test_a_seed_gives_the_same_units_whatever_the_global_generator_did(fitted):
    x, _, _ = fitted
    how = {"units": 20, "k": 2, "steps": 20, "batch_size": 32, "progress": False}
    with torch.no_grad():  # notebooks switch gradients off
        a = fit_autoencoder(x, seed=5, **how)
    torch.manual_seed(123)
    b, c = fit_autoencoder(x, seed=5, **how), fit_autoencoder(x, seed=6, **how)
    assert torch.equal(a.decoder, b.decoder) and torch.equal(a.bias, b.bias)
    assert not torch.equal(a.decoder, c.decoder)


def test_dead_units_are_pointed_at_what_is_missing():
    x, _ = sums_of_directions(rows=200)
    sae = SparseAutoencoder(24, 10, 2)
    sae.start_at(x)
    optimizer = torch.optim.Adam(sae.parameters())
    sae(x).sum().backward()
    optimizer.step()
    with torch.no_grad():
        sae.bias[4], before = -1e6, sae.decoder.clone()
        missing = F.normalize(x - sae(x), dim=-1)
    assert not (sae.encode(x)[:, 4] > 0).any()
    _restart(sae, optimizer, torch.tensor([4]), x, torch.Generator().manual_seed(0))
    assert (sae.encode(x)[:, 4] > 0).any()
    assert float((missing @ sae.decoder[4].detach()).max()) > 0.999
    assert torch.equal(sae.decoder[:4], before[:4]) and torch.equal(sae.decoder[5:], before[5:])
    assert float(optimizer.state[sae.decoder]["exp_avg"][4].abs().max()) == 0.0


def test_training_restarts_units_that_were_idle_in_its_first_two_thirds(fitted, monkeypatch):
    x, _, _ = fitted
    from dsd_tutorial.features import autoencoder

    restarted, restart = [], autoencoder._restart

    def noted(model, optimizer, dead, rows, numbers):
        restarted.append(dead)
        restart(model, optimizer, dead, rows, numbers)

    monkeypatch.setattr(autoencoder, "_restart", noted)
    how = {"units": 400, "k": 2, "steps": 90, "batch_size": 64, "progress": False}
    sae = fit_autoencoder(x, restart_every=10, **how)
    assert len(restarted) == 6 and len(restarted[0]) > 0
    assert [row["step"] for row in sae.history] == list(range(10, 91, 10))
    assert [row["dead"] for row in sae.history][:6] == [len(dead) for dead in restarted]


def test_ctrl_c_keeps_what_was_learned(fitted, monkeypatch):
    x, _, _ = fitted
    from dsd_tutorial.features import autoencoder

    learn, calls = autoencoder._learn, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) > 30:
            raise KeyboardInterrupt
        return learn(*args)

    monkeypatch.setattr(autoencoder, "_learn", interrupted)
    sae = fit_autoencoder(x, 30, 3, steps=500, batch_size=64, progress=False)
    untrained = SparseAutoencoder(24, 30, 3)
    untrained.start_at(x)
    assert sae.unexplained(x) < untrained.unexplained(x)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="k=9 of 4 units"):
        SparseAutoencoder(8, 4, 9)
    with pytest.raises(ValueError, match="finite"):
        fit_autoencoder(torch.full((4, 3), float("nan")), 4, 2)

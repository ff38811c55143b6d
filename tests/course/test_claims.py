"""A claim binds the embedded model and is only reported for others."""

from types import SimpleNamespace

import pytest
import torch

from dsd_tutorial.course import claims
from dsd_tutorial.course.claims import ClaimFailed, claim

OURS = SimpleNamespace(name="shapes-sd", is_embedded=True)
OTHER = SimpleNamespace(name="mine", is_embedded=False)


def test_a_claim_that_holds_is_printed(capsys):
    claim(OURS, "it draws", torch.tensor(True))
    assert capsys.readouterr().out == "✓ it draws\n"


def test_in_a_sweep_a_claim_is_recorded_instead(capsys, monkeypatch):
    said = {}
    monkeypatch.setenv(claims.REPORT, "1")
    monkeypatch.setattr(claims, "record", said.__setitem__)
    claim(OURS, "it draws", False)
    assert said == {"claims/it draws": 0.0} and "✗ it draws" in capsys.readouterr().out


def test_a_claim_that_fails_stops_the_embedded_model_only(capsys):
    with pytest.raises(ClaimFailed, match="it draws"):
        claim(OURS, "it draws", False)
    claim(OTHER, "it draws", torch.tensor(False))
    assert "✗ it draws   (reported only: mine" in capsys.readouterr().out

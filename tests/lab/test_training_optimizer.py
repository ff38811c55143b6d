"""Muon beside AdamW: each parameter gets its own rule, and processes share the work exactly."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lab.training.optimizer import BETAS, make_optimizer

needs_muon = pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9"
)

TWO = """
import os, sys, torch
from lab.training.optimizer import make_optimizer
torch.set_num_threads(1)
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.distributed.init_process_group(  # they meet in a file: no port that another may have taken
    "gloo", init_method=f"file://{sys.argv[1]}/meet", rank=rank, world_size=world
)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 5), torch.nn.Linear(5, 3))
optimizer = make_optimizer("muon", model, 0.1, 0.01)
for step in range(3):
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
    optimizer.step()
torch.save(model.state_dict(), f"{sys.argv[1]}/{rank}.pt")
torch.distributed.barrier()
os._exit(0)  # gloo's threads may abort a process that ends while another's still talk to it
"""


def model_with_gradients() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 5))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model


@needs_muon
def test_matrices_move_by_muon_and_all_else_by_adamw():
    ours, theirs = model_with_gradients(), model_with_gradients()
    make_optimizer("muon", ours, 0.1, 0.01).step()
    conv, linear = theirs
    torch.optim.Muon(
        [linear.weight], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    ).step()
    torch.optim.AdamW([conv.weight], lr=0.1, betas=BETAS, weight_decay=0.01).step()
    torch.optim.AdamW([conv.bias, linear.bias], lr=0.1, betas=BETAS, weight_decay=0.0).step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


@needs_muon
def test_a_matrix_moves_equally_far_in_all_directions():
    model = torch.nn.Linear(8, 8, bias=False)
    before = model.weight.detach().clone()
    model.weight.grad = torch.diag(torch.logspace(0, -3, 8))
    make_optimizer("muon", model, 0.1, 0.0).step()
    moved = torch.linalg.svdvals(before - model.weight.detach())
    assert moved.max() / moved.min() < 5  # the gradient's own ratio is 1,000


@needs_muon
def test_the_state_comes_back():
    first, second = model_with_gradients(), model_with_gradients()
    a, b = (make_optimizer("muon", m, 0.1, 0.0) for m in (first, second))
    a.step()
    second.load_state_dict(first.state_dict())
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    for optimizer in (a, b):
        optimizer.step()
    for mine, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


@needs_muon
def test_two_processes_make_the_same_step_as_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def run(world: int) -> list[dict]:
        folder = tmp_path / str(world)
        folder.mkdir()
        running = [
            subprocess.Popen(
                [sys.executable, script, folder],
                env=environment | {"RANK": str(rank), "WORLD_SIZE": str(world)},
            )
            for rank in range(world)
        ]
        assert [p.wait(timeout=100) for p in running] == [0] * world
        return [torch.load(folder / f"{rank}.pt") for rank in range(world)]

    (alone,), both = run(1), run(2)
    for state in both:
        for name, tensor in alone.items():
            torch.testing.assert_close(state[name], tensor)


def test_an_old_torch_is_told_what_to_do(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(RuntimeError, match="--optimizer adamw"):
        make_optimizer("muon", torch.nn.Linear(2, 2), 0.1, 0.0)


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="sgd.*adamw or muon"):
        make_optimizer("sgd", torch.nn.Linear(2, 2), 0.1, 0.0)

"""The most memory seen, on a CPU and, as far as one can without it, on a GPU."""

from types import SimpleNamespace

import torch

from dsd_tutorial.matching.cost import Memory


def test_the_most_memory_is_kept():
    memory, sizes = Memory(torch.device("cpu")), iter((5, 9, 2))
    assert memory.peak == 0
    memory.look()
    assert memory.peak > 10**7  # Python and torch take more than ten megabytes
    memory.peak = 0
    memory.process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=next(sizes)))
    for want in (5, 9, 9):
        memory.look()
        assert memory.peak == want


def test_on_a_gpu_the_allocator_is_asked_from_now_on(monkeypatch):
    device, forgotten = torch.device("cuda"), []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda of: 7 if of == device else 0)
    Memory(torch.device("cpu")).look()
    assert not forgotten
    memory = Memory(device)
    memory.look()
    assert forgotten == [device] and memory.peak == 7

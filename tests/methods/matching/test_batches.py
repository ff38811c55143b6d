"""Batch sizes alone: how they are halved, grow and stay, and what a row takes."""

import copy

import pytest
import torch

from dsd_tutorial.matching import batches
from dsd_tutorial.matching.batches import MOST_ELSEWHERE, QUICK, SLOW, Batches, row_bytes


@pytest.fixture
def on_cuda(tiny, monkeypatch):
    """The tiny model as if it were on a GPU with all the memory in the world."""
    model = copy.copy(tiny)
    monkeypatch.setattr(model, "device", torch.device("cuda"))
    monkeypatch.setattr(batches, "free_memory", lambda device: 10**15)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return model


def parts(sized, rows, most=10**9, behind=0):
    """The batches of a run in which more than `most` rows do not fit from row `behind` on."""

    def compute(part):
        if part.start >= behind and part.stop - part.start > most:
            raise torch.OutOfMemoryError("out of memory")
        return part.start

    found = list(sized.run(rows, compute))
    assert [part.start for part, _ in found] == [value for _, value in found]
    return [(part.start, part.stop) for part, _ in found]


def test_a_batch_is_halved_wherever_it_does_not_fit(tiny):
    assert parts(Batches(tiny, 8), 20, most=4, behind=8) == [(0, 8), (8, 12), (12, 16), (16, 20)]
    assert parts(Batches(tiny, 5), 5, most=2) == [(0, 2), (2, 4), (4, 5)]
    with pytest.raises(torch.OutOfMemoryError):
        parts(Batches(tiny, 4), 8, most=0, behind=3)


def test_a_size_that_was_given_stays_and_auto_doubles_where_that_is_quick(tiny, on_cuda):
    assert parts(Batches(on_cuda, 2), 6) == [(0, 2), (2, 4), (4, 6)]
    grown = Batches(on_cuda)
    grown.size = 128
    assert parts(grown, 128 + 256 + 100) == [(0, 128), (128, 384), (384, 484)]
    assert grown.size == 512  # a batch that was cut short says nothing
    assert parts(Batches(tiny), 256) == [(0, 128), (128, 256)]  # a CPU gains nothing by more
    parts(grown, 10 * MOST_ELSEWHERE)
    assert grown.size == MOST_ELSEWHERE


def test_what_did_not_fit_once_is_not_tried_again(on_cuda):
    sized = Batches(on_cuda)
    sized.size = 128
    assert {stop - start for start, stop in parts(sized, 256, most=40)} == {32}
    assert sized.size == 32


def test_only_slower_than_slow_and_quicker_than_quick_count(tiny, on_cuda):
    assert (QUICK, SLOW) == (0.3, 10.0)
    for model in (tiny, on_cuda):
        sized = Batches(model)
        sized.size = 128
        for seconds in (QUICK, 1.0, SLOW):
            sized._adapt(seconds)
            assert sized.size == 128
        sized._adapt(1.01 * SLOW)
        assert sized.size == 64
    sized.size = 1
    sized._adapt(2 * SLOW)
    assert sized.size == 1


def test_a_row_takes_eighty_fields_of_the_first_width_in_the_models_precision(tiny):
    width = tiny.unet.config.block_out_channels[0]
    assert row_bytes(tiny, 256) == 80 * width * 256 * 4
    half = copy.copy(tiny)
    half.dtype = torch.bfloat16
    assert row_bytes(half, 256) == row_bytes(tiny, 256) / 2


def test_only_a_gpu_has_a_cache_to_empty(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    batches._forget(torch.device("cpu"))
    assert not emptied
    batches._forget(torch.device("cuda"))
    assert emptied


def test_free_memory_is_what_the_device_has_left(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 8))  # free, total
    assert batches.free_memory(torch.device("cuda")) == 3
    assert batches.free_memory(torch.device("cpu")) > 10**7

"""What tests of matching share."""

from itertools import count

import pytest


@pytest.fixture
def press(tiny, monkeypatch):
    """`press(n)`: Ctrl-C in place of the n-th of the U-Net passes that follow."""
    predict = tiny.predict_noise

    def at(number):
        passes = count(1)

        def pressed(*args):
            if next(passes) == number:
                raise KeyboardInterrupt
            return predict(*args)

        monkeypatch.setattr(tiny, "predict_noise", pressed)

    return at

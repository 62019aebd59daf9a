import pytest

from fastseg.overfitting import overfitting

NAN = float("nan")


@pytest.mark.parametrize(
    ("train", "valid", "epoch"),
    [
        ([5, 4, 3, 2, 1], [2, 1, 1.06, 1.07, 1.2], 2),
        ([5, 4, 3, 2, 1], [2, 1, 1.06, 1.04, 1.2], None),  # back within 5 % in one of the last three epochs
        ([5, 4, 3, 2, 1], [5, 4, 3, 2, 1], None),
        ([1, 1, 2, 2, 2], [2, 1, 1.1, 1.2, 1.3], None),  # training rises too: it diverges
        ([3, 2, 1], [1, 2, 3], None),  # too short to say
        ([5, 4, 3, 2, 1], [1, 2, NAN, 2, 2], 1),
        ([5, 4, 3, 2, 1], [NAN] * 5, None),
        ([4, 3, 2, 1], [0, 1, 2, 3], None),  # of nothing there is no share
        ([-1, -2, -3, -4], [-2, -1, -1, -1], 1),  # a loss below zero
        ([], [], None),
    ],
)
def test_overfitting_is_a_lasting_rise_of_validation_while_training_falls(train, valid, epoch):
    found = overfitting(train, valid)
    assert (found.epoch if found else None) == epoch


def test_it_says_when_and_how_much():
    said = str(overfitting([4.0, 2.0, 1.5, 1.2, 1.0], [2.0, 1.0, 1.1, 1.2, 1.3]))
    assert said == "overfitting after epoch 2: validation loss up 30% from its lowest, training loss down 50%"

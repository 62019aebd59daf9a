import numpy as np
import pytest

from fastseg.errors import InputError
from fastseg.learning.balance import class_weights

COUNTS = [75_000_000, 1_500_000, 9_000_000, 900_000, 0, 600_000, 2_000_000]


def test_inverse_frequencies_have_mean_one_over_the_classes_that_are_there():
    weights = np.array(class_weights(COUNTS, "inverse"))
    there = np.array(COUNTS) > 0
    assert weights[there].mean() == pytest.approx(1)
    assert np.allclose(weights[there] * np.array(COUNTS)[there], weights[0] * COUNTS[0])
    assert weights[4] == 1


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1 - 1e-7])
def test_effective_numbers_equal_the_formula(beta):
    """(1 − β) / (1 − βⁿ) in exact fractions of many digits."""
    from decimal import Decimal, getcontext

    getcontext().prec = 40
    b = Decimal(beta)
    raw = [float((1 - b) / (1 - b**n)) for n in COUNTS if n]
    expected = [w / np.mean(raw) for w in raw]
    found = class_weights(COUNTS, "effective", beta)
    assert [w for w, n in zip(found, COUNTS, strict=True) if n] == pytest.approx(expected, rel=1e-6)


def test_between_equal_and_inverse():
    """A β for counts of pictures makes pixel counts equal, β → 1 inverse; ours lies between: 75 million against 0.6."""
    equal = class_weights(COUNTS, "effective", 0.999)
    inverse, ours = class_weights(COUNTS, "inverse"), class_weights(COUNTS, "effective")
    assert max(equal) / min(equal) < 1.001
    assert class_weights(COUNTS, "effective", 1 - 1e-15) == pytest.approx(inverse, rel=0.1)
    assert inverse[5] / inverse[0] == pytest.approx(125)
    assert 10 < ours[5] / ours[0] < 50
    # Whatever the size of the dataset.
    assert class_weights([n * 10 for n in COUNTS], "effective") == pytest.approx(ours, rel=1e-5)


def test_wrong_use():
    with pytest.raises(InputError, match="no training mask"):
        class_weights([0, 0], "inverse")
    with pytest.raises(InputError, match="neither 'inverse' nor"):
        class_weights([1, 2], "sqrt")
    with pytest.raises(InputError, match="beta 1"):
        class_weights([1, 2], "effective", 1)

import io

import IPython.display
import pytest
from PIL import Image

from fastseg.learning.live import LiveView


def test_curves_and_a_prediction_are_drawn_after_each_epoch_of_training(quiet):
    shown = []
    learn = quiet(cbs=[LiveView(("curves", "prediction"), lambda *drawn: shown.append(drawn))])
    learn.lr_find(num_it=6, show_plot=False)
    learn.validate()
    assert shown == []
    learn.fit(1, 1e-3)
    learn.fit(1, 1e-3)
    learn.validate()
    assert [what for what, _ in shown] == ["curves", "prediction"] * 2
    assert all(min(Image.open(io.BytesIO(picture)).size) > 100 for _, picture in shown)
    assert shown[0][1] != shown[2][1]


@pytest.mark.parametrize(("what", "drawings"), [(["curves"], 2), ([], 0)])
def test_a_fit_draws_in_one_place(quiet, monkeypatch, what, drawings):
    displayed, updated = [], []

    class Handle:
        update = updated.append

    monkeypatch.setattr(IPython.display, "display", lambda picture, display_id: displayed.append(picture) or Handle)
    learn = quiet(cbs=[LiveView(what)])
    learn.fit(2, 1e-3)
    learn.fit(1, 1e-3)
    assert (len(displayed), len(updated)) == (drawings, drawings // 2)

"""What a notebook shows while a Learner trains: curves, and one photograph's prediction, drawn anew each epoch."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from fastai.callback.core import Callback

from fastseg.learning.previews import Previews
from fastseg.plots import curves_figure, results_figure


class LiveView(Callback):
    """After each epoch draws `curves`, `prediction` or both in the place of the last drawing, over all fits.

    For a Learner that `seg_learner` made: `learn.fit_one_cycle(10, cbs=LiveView())`. `show` takes (what, PNG bytes);
    without it, IPython's display does.
    """

    order = 71

    def __init__(self, what: Iterable[str] = ("curves",), show: Callable[[str, bytes], Any] | None = None):
        self.what, self.previews = tuple(what), Previews(1)
        self.handles: dict[str, Any] = {}
        self.show = show or self._display

    def before_fit(self) -> None:
        """Each fit draws below its own table."""
        self.handles = {}

    def after_epoch(self) -> None:
        """Draw."""
        if not self.learn.history.added:
            return
        tree, rows = self.learn.cfg.classes(), self.learn.history.rows
        if "curves" in self.what and "valid_loss" in rows[0]:
            best = getattr(self.learn, "keep_best", None)
            columns = {key: [row.get(key, float("nan")) for row in rows] for key in rows[0]}
            self.show("curves", _png(curves_figure(columns, tree, best and best.kept)))
        if "prediction" in self.what:
            self.show("prediction", _png(results_figure(self.previews.rows(self.learn), tree)))

    def _display(self, what: str, picture: bytes) -> None:
        from IPython.display import Image, display

        if what in self.handles:
            self.handles[what].update(Image(picture))
        else:
            self.handles[what] = display(Image(picture), display_id=True)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=80, format="png")
    return file.getvalue()

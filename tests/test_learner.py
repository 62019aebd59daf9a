import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback

from fastseg.errors import InputError
from fastseg.experiments.train import save_run
from fastseg.inference.evaluate import evaluate
from fastseg.learning.balance import class_weights
from fastseg.learning.learner import normalisation, peak_rate, seg_learner
from fastseg.learning.losses import IoULoss
from fastseg.learning.metrics import LevelIoU, LossPart


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_five_lines_of_python(quiet, tmp_path):
    learn = quiet("loss=[cross_entropy, {name: iou, levels: [0, 1, 2]}]")
    before = {key: value.clone() for key, value in learn.model.state_dict().items()}
    learn.lr_find(num_it=6, show_plot=False)
    assert all(torch.equal(value, before[key]) for key, value in learn.model.state_dict().items())
    assert learn.history.rows == []
    learn.fit_one_cycle(2, 1e-3)
    assert [row["epoch"] for row in learn.history.rows] == [1, 2]
    assert list(learn.history.rows[0]) == [
        "epoch", "train_loss", "valid_loss", "miou0", "miou1", "miou2", "cross_entropy", "iou", "lr"]  # fmt: skip
    row = learn.history.rows[-1]
    assert row["valid_loss"] == pytest.approx(row["cross_entropy"] + row["iou"], rel=1e-5)
    learn.show_results()
    learn.show_results(level=1)
    shown = [text.get_text() for text in plt.gcf().legends[0].get_texts()]
    assert shown == ["upper body", "lower body"]
    run = save_run(learn, tmp_path / "mine")
    assert evaluate(run)["miou2"] == pytest.approx(evaluate(run)["miou2"])


def test_scores_of_the_epoch_table_count_the_last_short_batch(quiet, tiny, drawn):
    learn = quiet("data.valid_ids=train_id.txt", "data.allow_leak=true", "train.batch_size=3")
    learn.fit(1, 1e-4)
    scores = LevelIoU(learn.cfg.classes())
    learn.model.eval()
    with torch.no_grad():
        for x, y in learn.dls.valid:
            scores.update(learn.model(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor))
    assert [len(y) for _, y in learn.dls.valid] == [3, 3, 2]
    for level in range(3):
        assert learn.history.rows[0][f"miou{level}"] == scores.mean_iou(level).item()


def test_fastai_freezes_the_encoder_but_for_its_batchnorm(quiet):
    learn = quiet()
    encoder = list(learn.model.encoder.parameters())
    norms = [p for m in learn.model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters()]
    seen = []

    class Count(Callback):
        def before_epoch(self):
            seen.append((sum(p.requires_grad for p in encoder), sum(p.requires_grad for p in self.model.parameters())))

    before = [p.detach().clone() for p in encoder]
    learn.create_opt()
    learn.freeze()
    assert len(learn.opt.param_lists) == 2
    learn.fine_tune(2, freeze_epochs=1, cbs=Count())
    everything = len(list(learn.model.parameters()))
    assert (len(encoder), len(norms)) == (147, 98)
    assert seen == [(98, 98 + everything - 147), (147, everything), (147, everything)]
    assert not torch.equal(before[0], encoder[0])


def test_arguments_of_fastais_learner_take_the_configurations_place(quiet):
    from fastai.metrics import foreground_acc

    class Mark(Callback):
        pass

    loss = IoULoss()
    learn = quiet(loss_func=loss, metrics=foreground_acc, cbs=Mark(), wd=0.5)
    assert learn.loss_func is loss
    assert learn.wd == 0.5
    assert [m.name for m in learn.metrics] == ["miou0", "miou1", "miou2", "foreground_acc"]
    assert hasattr(learn, "mark")


def test_a_head_of_nodes_through_fastai_a_run_folder_and_back(quiet, tmp_path):
    learn = quiet("loss=[cross_entropy, iou, {name: tree_min, weight: 0.5}]")
    assert learn.model(torch.zeros(2, 3, 32, 64)).shape == (2, 12, 32, 64)
    learn.fit(1, 1e-3)
    row = learn.history.rows[0]
    parts = row["cross_entropy"] + row["iou"] + 0.5 * row["tree_min"]
    assert row["valid_loss"] == pytest.approx(parts, rel=1e-5)
    probs, _, ids, losses = learn.get_preds(with_decoded=True, with_loss=True)
    assert (probs.shape, losses.shape) == ((2, 7, 32, 64), (2,))
    assert torch.equal(ids, probs.argmax(1))
    learn.show_results()
    run = save_run(learn, tmp_path / "nodes")
    assert json.loads((run / "model.json").read_text())["head"] == "nodes"
    assert 0 <= evaluate(run)["pixel_accuracy"] <= 1
    # A run from before there were heads says nothing of one.
    plain = save_run(quiet(), tmp_path / "leaves")
    card = json.loads((plain / "model.json").read_text())
    (plain / "model.json").write_text(json.dumps({key: value for key, value in card.items() if key != "head"}))
    assert 0 <= evaluate(plain)["pixel_accuracy"] <= 1


def test_class_weights_are_counted_in_the_training_masks(quiet, tiny, drawn):
    counts = np.zeros(7)
    for name in (drawn / "train_id.txt").read_text().split():
        counts += np.bincount(np.load(drawn / "gt_masks" / f"{name}.npy").ravel(), minlength=7)[:7]
    learn = quiet("loss=[{name: cross_entropy, class_weights: inverse}]")
    assert learn.loss_func.class_weights.tolist() == pytest.approx(class_weights(counts, "inverse"))
    assert learn.dls.pixel_counts.tolist() == counts.tolist()
    # DataLoaders of other settings bring no counts, unless somebody gives them.
    other = quiet("data.size=64x64").dls
    with pytest.raises(InputError, match=r"set dls\.pixel_counts, or give the numbers"):
        quiet("loss=[{name: focal, alpha: effective}]", dls=other)
    other.pixel_counts = np.arange(1, 8)
    learn = quiet("loss=[{name: focal, alpha: effective}]", dls=other)
    assert learn.loss_func.alpha.tolist() == pytest.approx(class_weights(np.arange(1, 8), "effective"))


def test_predict_takes_ids_and_paths(quiet, drawn):
    learn = quiet()
    path = next((drawn / "JPEGImages").iterdir())
    masks = [learn.predict(item)[0] for item in (path.stem, path, str(path))]
    assert masks[0].shape == (32, 64)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


def test_slices_give_the_encoder_its_own_rate(quiet):
    learn = quiet()
    rates = []

    class Rates(Callback):
        def after_batch(self):
            if self.training:
                rates.append([h["lr"] for h in self.opt.hypers])

    learn.fit_one_cycle(1, slice(1e-4, 1e-3), cbs=Rates())
    assert all(b == pytest.approx(10 * a) for a, b in rates)


def test_auto_rate_comes_from_a_throwaway_learner(quiet, tiny):
    cfg = tiny("train.lr=auto")
    learn = quiet("train.lr=auto")
    assert 1e-7 < peak_rate(cfg, learn.dls) < 10
    assert learn.history.rows == []
    assert peak_rate(tiny("train.lr=[1e-4, 1e-3]"), learn.dls) == slice(1e-4, 1e-3)


def test_own_dataloaders_loss_metrics_and_callbacks(quiet, tiny, tmp_path):
    from fastseg.data.loaders import seg_dataloaders

    dls = seg_dataloaders(tiny("data.size=64x64"))
    assert not seg_learner(tiny("data.size=64x64"), seg_dataloaders(tiny("data.size=64x64"))).own_dls
    learn = quiet(dls=dls, metrics=[LossPart("nothing")], cbs=[Callback()])
    assert normalisation(learn.dls) == ([0.5] * 3, [0.5] * 3)
    assert len(dls.after_batch.fs) == 2
    seg_learner(tiny(), dls)
    assert len(dls.after_batch.fs) == 2
    learn.loss_func = IoULoss(learn.cfg.classes(), {0: 1, 2: 1})
    learn.fit(1, 1e-4)
    assert np.isnan(learn.history.rows[0]["nothing"])
    preds, targets, losses = learn.get_preds(with_loss=True)
    assert (preds.shape, targets.shape, losses.shape) == ((2, 7, 64, 64), (2, 64, 64), (2,))
    assert torch.allclose(preds.sum(1), torch.ones(2, 64, 64), atol=1e-5)
    run = save_run(learn, tmp_path / "own")
    assert '"protocol": "resized"' in (run / "metrics.json").read_text()


def test_ingredients_of_the_configuration(quiet):
    from fastai.callback.training import GradientAccumulation, GradientClip

    from fastseg.learning.averaging import WeightAverage

    plain = quiet()
    assert not [cb for cb in plain.cbs if isinstance(cb, (WeightAverage, GradientClip, GradientAccumulation))]
    learn = quiet("train.ema=0.9", "train.clip=0.5", "train.accumulate=2", "train.batch_size=2")
    assert (learn.weight_average.decay, learn.gradient_clip.max_norm, learn.gradient_accumulation.n_acc) == (
        0.9,
        0.5,
        4,
    )
    learn.fit(1, 1e-3)
    assert learn.weight_average.steps == 2


def test_the_encoders_rate_is_a_factor(tiny, quiet):
    assert peak_rate(tiny("train.lr=1e-2"), None) == 1e-2
    assert peak_rate(tiny("train.lr=1e-2", "train.encoder_lr=0.1"), None) == slice(1e-3, 1e-2)
    with pytest.raises(InputError, match=r"train\.encoder_lr: train\.lr has a rate of its own"):
        tiny("train.lr=[1e-3, 1e-2]", "train.encoder_lr=0.1")


def test_norms_and_biases_have_no_weight_decay(quiet):
    learn = quiet("train.weight_decay=0.1")
    learn.create_opt()
    decayed = {id(p) for p in learn.opt.all_params().itemgot(0) if learn.opt.state[p].get("do_wd", True)}
    for module in learn.model.modules():
        for name, p in module.named_parameters(recurse=False):
            exempt = isinstance(module, torch.nn.BatchNorm2d) or name == "bias"
            assert (id(p) in decayed) != exempt


def test_a_whole_run_under_another_schedule_with_averaged_weights(tiny):
    from fastseg.experiments.train import train

    run = train(tiny("train.schedule=poly", "train.warmup=0.2", "train.ema=0.5", "train.epochs=2", "train.keep=best"))
    metrics = json.loads((run / "metrics.json").read_text())
    again = evaluate(run)
    assert {key: metrics[key] for key in again} == again

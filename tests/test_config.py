import re

import pytest
import yaml

from fastseg.config import dump_config, load_config, presets
from fastseg.errors import InputError
from fastseg.loss_settings import LOSSES
from fastseg.settings import ARCHITECTURES, POOLED_BATCHNORM, Settings


def test_the_default_is_the_sample():
    cfg = load_config()
    assert cfg == load_config("sample")
    assert (cfg.data.root, cfg.model.arch, cfg.model.encoder) == (None, "FPN", "timm-tf_efficientnet_lite0")
    assert cfg.name == "sample"


def test_pascal_part_is_the_notebooks_own():
    cfg = load_config("pascal_part", "data.root=elsewhere")
    assert (cfg.model.arch, cfg.model.encoder) == ("DeepLabV3", "timm-mobilenetv3_small_minimal_100")
    assert (cfg.data.size, cfg.data.root) == ((400, 400), "elsewhere")
    assert (cfg.train.batch_size, cfg.train.lr, cfg.train.epochs, cfg.train.optimizer) == (32, 1e-3, 10, "adam")
    assert [loss.name for loss in cfg.loss] == ["cross_entropy"]
    assert not cfg.augment.active()


def test_the_other_presets_of_pascal_part():
    fast, best = load_config("pascal_part_fast"), load_config("pascal_part_best")
    # The fast one is the defaults' recipe.
    assert (fast.loss, fast.augment, fast.model) == (Settings().loss, Settings().augment, Settings().model)
    assert fast.train == Settings().train.model_copy(update={"epochs": 12})
    assert fast.data.root == best.data.root == "Pascal-part"
    assert (best.data.size, best.data.resize, best.augment.scale) == ((512, 512), "crop", (0.5, 2.0))
    assert [loss.name for loss in best.loss] == ["cross_entropy", "lovasz", "iou"]
    assert best.loss[2].levels == {0: 1, 1: 1, 2: 1}
    assert (best.train.schedule, best.train.ema, best.model.encoder) == ("poly", 0.999, "mit_b3")


@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize("comments", [True, False])
def test_yaml_round_trip_names_every_key(preset, comments):
    cfg = load_config(preset, "loss=[{name: iou, levels: {0: 0.5, 2: 1}}, cross_entropy]", "mirror=[[head, torso]]")
    text = dump_config(cfg, comments)
    assert load_config(yaml.safe_load(text)) == cfg
    assert set(yaml.safe_load(text)) == set(Settings.model_fields)
    if comments:
        settings = [
            line
            for line in text.partition("\nsearch:")[0].splitlines()
            if line.strip().split(":")[0] in ("epochs", "root", "loss", "arch")
        ]
        assert len(settings) == 4
        assert all("  # " in line for line in settings)


def test_order_of_precedence(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: pascal_part\ntrain: {epochs: 3, lr: 3e-4}\n")
    cfg = load_config(file, "train.epochs=4")
    assert (cfg.train.epochs, cfg.train.lr, cfg.train.batch_size, cfg.train.seed) == (4, 3e-4, 32, 0)
    assert cfg.name == "mine"
    assert load_config(file, "--train.epochs=4") == cfg


def test_a_tree_or_loss_list_replaces_the_presets_whole():
    cfg = load_config("pascal_part", "hierarchy={background: 0, person: 1}", "loss=iou")
    assert cfg.hierarchy == {"background": 0, "person": 1}
    assert [loss.name for loss in cfg.loss] == ["iou"]
    assert load_config("loss.0.weight=2").loss[0].weight == 2
    assert load_config("loss=[{name: iou, levels: [0, 2]}]").loss[0].levels == {0: 1.0, 2: 1.0}


@pytest.mark.parametrize("size", ["192x128", "[192, 128]"])
def test_sizes_are_height_then_width(size):
    assert load_config(f"data.size={size}").data.size == (192, 128)
    assert load_config("data.size=128").data.size == (128, 128)


@pytest.mark.parametrize("rate", ["3e-4", "0.0003"])
def test_rates(rate):
    assert load_config(f"train.lr={rate}").train.lr == 3e-4
    assert load_config(f"train.lr=[{rate}, 3e-3]").train.lr == (3e-4, 3e-3)
    assert load_config("train.lr=auto").train.lr == "auto"


WRONG = {
    "data.rot=x": "data.rot: unknown key; did you mean data.root?",
    "root=x": "root: unknown key; did you mean data.root?",
    "loss=[{name: iou, smoth: 1}]": "loss.0.smoth: unknown key; did you mean loss.0.smooth?",
    "model.arch=FPM": "did you mean FPN?",
    "model.arch=deeplabv3": "did you mean DeepLabV3?",
    "loss=iuo": "loss.0.name: unknown loss 'iuo'; did you mean iou?",
    "loss=mse": "unknown loss 'mse'; there are cross_entropy, focal, ",
    "loss=[{name: focal, gama: 1}]": "loss.0.gama: unknown key; did you mean loss.0.gamma?",
    "loss=[{name: focal, gamma: -1}]": "loss.0.gamma: input should be greater",
    "loss=[{name: focal, alpha: 0.25}]": "loss.0.alpha: 0.25 is neither a list of numbers from 0 up, one a leaf, nor",
    "loss=[{name: cross_entropy, class_weights: invers}]": "loss.0.class_weights: 'invers' is neither",
    "loss=[iou, {name: cross_entropy, class_beta: 0.9}]": "loss.1.class_beta: only class_weights: effective has",
    "loss=[{name: focal, alpha: inverse, class_beta: 0.9}]": "loss.0.class_beta: only alpha: effective has",
    "loss=[{name: tree_min, levels: {3: 1}}]": "loss.0.levels: 3; the tree has levels 0 to 2",
    "loss=[{name: dice, levels: {0: -1}}]": "loss.0.levels: {0: -1} is neither a list of levels nor",
    "loss=[{name: level_ce, levels: [0.5]}]": "loss.0.levels: [0.5] is neither",
    "data=3": "data: 3 stands where keys",
    "data.size=big": "height x width",
    "data.size=[1, 2, 3]": "height x width",
    "{model: {arch: PAN}, data: {size: 64}}": "PAN needs 128",
    "data.size=0": "height x width",
    "data.limit=0": "data.limit",
    "train.lr=0": "number above 0",
    "train.lr=fast": "'fast'",
    "train.epochs=two": "train.epochs",
    "train.epochs=0": "train.epochs: 0",
    "train.keep=all": "best, last",
    "name=a/b": "name",
    "hierarchy={a: 0, b: 2}": "id 1 is missing",
    "mirror=[[head, tail]]": "'tail'",
    "loss=[{name: iou, levels: [3]}]": "levels 0 to 2",
    "loss=[{name: cross_entropy, class_weights: [1, 2]}]": "2 numbers for 7",
    "loss.2.weight=2": "no place in a list of 2",
    "train.epochs.more=1": "has no part 'more'",
    "nonsense": "KEY=VALUE",
    "data.root=[": "not YAML",
}


def test_all_keys_of_all_losses_are_printed():
    text = dump_config(load_config("loss=[{name: tree_min, gamma: 1}]"), comments=True)
    lines = text[text.index("\nloss:") : text.index("\ntrain:")].splitlines()[2:]
    assert lines[0] == "  - name: tree_min"
    assert [line.split(":")[0].strip() for line in lines[1:4]] == ["weight", "levels", "gamma"]
    assert all("  # " in line for line in lines[1:4])
    others = [yaml.safe_load(line.strip().removeprefix("# - ")) for line in lines[4:]]
    assert [other["name"] for other in others] == [name for name in LOSSES if name != "tree_min"]
    assert all(set(other) == set(LOSSES[other["name"]].model_fields) for other in others)
    assert all(load_config({"loss": [other]}).loss[0].name == other["name"] for other in others)


def test_a_head_of_nodes_comes_with_tree_min():
    assert load_config().head == "leaves"
    assert load_config("loss=[cross_entropy, {name: tree_min, weight: 0.5}]").head == "nodes"


@pytest.mark.parametrize("override", WRONG)
def test_wrong_settings_end_in_one_or_two_lines(override):
    with pytest.raises(InputError) as caught:
        load_config(yaml.safe_load(override)) if override[0] == "{" else load_config("sample", override)
    message = str(caught.value)
    assert WRONG[override] in message
    assert len(message.splitlines()) <= 2


def test_another_architecture_does_not_inherit_constructor_arguments(tmp_path):
    assert load_config().model.args == {"decoder_dropout": 0.0}
    assert load_config("model.arch=Unet").model.args == {}
    assert load_config("model.args.encoder_depth=4", "model.arch=Unet").model.args == {"encoder_depth": 4}
    (tmp_path / "mine.yaml").write_text("preset: sample\nmodel: {arch: Unet, args: {encoder_depth: 4}}\n")
    assert load_config(tmp_path / "mine.yaml").model.args == {"encoder_depth": 4}
    assert load_config("train.epochs=3").model.args == {"decoder_dropout": 0.0}


def test_a_key_that_stands_twice_and_an_empty_section(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {epochs: 1}\ndata:\ntrain: {batch_size: 4}\n")
    with pytest.raises(InputError, match="line 3: the key 'train' stands twice"):
        load_config(file)
    file.write_text("data:\ntrain: {epochs: 1}\n")
    assert load_config(file).data == load_config().data


def test_wrong_sources(tmp_path):
    with pytest.raises(InputError, match="did you mean sample"):
        load_config("sampl")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\n")
    with pytest.raises(InputError, match="not YAML"):
        load_config(broken)
    broken.write_text("- a\n")
    with pytest.raises(InputError, match="mapping"):
        load_config(broken)
    broken.write_text("{[a]: 1}\n")
    with pytest.raises(InputError, match="not YAML"):
        load_config(broken)
    broken.write_text("hierarchy: &x {a: 0, b: *x}\n")
    with pytest.raises(InputError, match="contains itself"):
        load_config(broken)
    broken.write_text("data: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match="not YAML"):
        load_config(broken)


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "DPT"])
def test_the_tables_of_strides_and_pooled_batchnorm_are_smps(arch):
    import segmentation_models_pytorch as smp
    import torch

    model = getattr(smp, arch)("tu-tf_mobilenetv3_small_minimal_100", encoder_weights=None, classes=2)
    stride = ARCHITECTURES[arch]
    assert (model.encoder.output_stride if model.requires_divisible_input_shape else None) == stride
    side = (128 if arch == "PAN" else 64) + (stride or 1)
    load_config(f"model.arch={arch}", f"data.size={side}")
    if stride:
        assert f"divisible by {stride}" in _refused(f"model.arch={arch}", "data.size=129")
    if arch in POOLED_BATCHNORM:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(torch.zeros(1, 3, side, side))
        assert "BatchNorm" in _refused(f"model.arch={arch}", "train.batch_size=1", "data.size=160")
    else:
        model(torch.zeros(1, 3, side, side))
        load_config(f"model.arch={arch}", "train.batch_size=1")


def test_sizes_that_a_network_cannot_take():
    from segmentation_models_pytorch import DPT

    assert DPT.requires_divisible_input_shape
    assert _refused("model.arch=FPN", "data.size=400").endswith("use 384x384, or Unet, which takes any size")
    load_config("model.arch=FPN", "model.args.encoder_depth=4", "data.size=400")
    load_config("model.arch=DeepLabV3", "data.size=400")
    load_config("model.arch=Unet", "data.size=401x399")


def _refused(*overrides):
    with pytest.raises(InputError) as caught:
        load_config("sample", *overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [("data.root=[]", "data.root: []; name one folder, or several that differ"),
     ("data.root=[a, a]", "name one folder, or several that differ"),
     ("augment.erase_area=[0.1, 1.5]", "augment.erase_area: 1.5 is more than the whole picture"),
     ("augment.scale=[2, 1]", "augment.scale: [2, 1] is no span; write two numbers above 0, the lower one first"),
     ("augment.preset=heavy", "augment.preset: 'heavy' is not one of none, flip, light, strong"),
     ("augment.flip=2", "augment.flip: input should be less than or equal to 1, got 2"),
     ("augment.rotat=2", "augment.rotat: unknown key; did you mean augment.rotate?")],
)  # fmt: skip
def test_settings_of_the_data_that_cannot_be(override, said):
    with pytest.raises(InputError, match=re.escape(said)):
        load_config(None, override)


def test_flips_need_the_mirror_pairs_of_a_tree_with_sides():
    tree = "hierarchy={bg: 0, person: {left-arm: 1, Right-arm: 2, hair: 3}}"
    with pytest.raises(InputError, match=r"augment\.flip: would take left-arm for Right-arm; add the pair to mirror"):
        load_config({}, tree)
    with pytest.raises(InputError, match=r"mirror=\[\[left-arm, Right-arm\]\]"):
        load_config({}, tree, "mirror=[[left-arm, hair]]")
    assert load_config({}, tree, "mirror=[[Right-arm, left-arm]]").augment.resolved().flip == 0.5
    assert load_config({}, tree, "augment.flip=0").augment.resolved().flip == 0
    # A side without a twin is a name like any other.
    assert load_config({}, "hierarchy={bg: 0, left-over: 1}").augment.preset == "flip"

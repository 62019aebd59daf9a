"""The command line from outside: what it prints, where, and how it ends."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fastseg.cli import main

SMALL = [
    "--data.size",
    "32x64",
    "--train.batch_size=4",
    "train.epochs=1",
    "--model.weights",
    "none",
    "--data.workers",
    "0",
]


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_import_is_instant_and_loads_no_torch():
    heavy = "assert not {'torch', 'numpy', 'pydantic', 'fastai'} & set(sys.modules)"
    done = python(f"import sys, fastseg; {heavy}")
    assert (done.returncode, done.stderr) == (0, "")
    done = python(f"import sys\nfrom fastseg.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n{heavy}")
    assert done.returncode == 0
    assert "fastseg train" in done.stdout


def test_public_names_resolve():
    import fastseg

    for name in fastseg.__all__:
        assert getattr(fastseg, name) is not None
    assert sorted(fastseg.__all__) == sorted(fastseg._HOME)
    assert set(fastseg.__all__) <= set(dir(fastseg))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fastseg.nothing  # noqa: B018


def test_train_and_evaluate(drawn, tmp_path, capsys):
    out = str(tmp_path / "runs")
    assert main(["train", "--data.root", str(drawn), "--out", out, "--json", *SMALL]) == 0
    printed = capsys.readouterr()
    scores = json.loads(printed.out)
    assert "epoch 1/1" in printed.err
    run = scores["run"]
    assert main(["evaluate", run, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == {key: scores[key] for key in again}
    assert main(["evaluate", run, "--data.root", str(drawn), "--split", "train"]) == 0
    table = capsys.readouterr().out
    assert table.startswith("8 photographs, train split, native size")
    assert [line.split()[0] for line in table.splitlines() if line.startswith("miou")] == ["miou0", "miou1", "miou2"]
    assert "low_hand" in table


def test_print_config_is_a_configuration(capsys, tmp_path):
    assert main(["train", "--config", "pascal_part", "--print-config", "--train.epochs", "30"]) == 0
    text = capsys.readouterr().out
    assert "epochs: 30  #" in text
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "mine.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == text


def test_the_samples_defaults_are_the_same_everywhere():
    import inspect

    from fastseg.cli import _parser
    from fastseg.data.sample import draw_sample
    from fastseg.settings import SampleSettings

    words, settings = _parser().parse_args(["sample", "DIR"]), SampleSettings()
    function = {name: p.default for name, p in inspect.signature(draw_sample).parameters.items()}
    for name in ("train", "valid", "seed"):
        assert getattr(words, name) == getattr(settings, name) == function[name]
    assert words.size == "x".join(map(str, settings.size))
    assert settings.size == function["size"]


def test_sample_and_convert(tmp_path, capsys):
    assert main(["sample", str(tmp_path / "s"), "--train", "2", "--valid", "1", "--size", "48x64"]) == 0
    assert "2 photographs to train on, 1 to validate on" in capsys.readouterr().out
    assert len((tmp_path / "s" / "train_id.txt").read_text().split()) == 2
    assert main(["sample", str(tmp_path / "s")]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert (
        main(["convert", "--annotations", str(tmp_path), "--images", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    )


def _spoil(fault, root):
    """Put one fault into a dataset; returns overrides that belong to it, and what the message must name."""
    names = (root / "train_id.txt").read_text().split()
    image, mask = root / "JPEGImages" / f"{names[1]}.jpg", root / "gt_masks" / f"{names[1]}.npy"
    if fault == "missing folder":
        return "data.root=nowhere", "nowhere"
    if fault == "missing id file":
        (root / "val_id.txt").unlink()
        return None, "val_id.txt"
    if fault == "missing mask":
        mask.unlink()
        return None, mask.name
    if fault == "missing photograph":
        image.unlink()
        return None, image.name
    if fault == "other size":
        np.save(mask, np.zeros((5, 6), np.uint8))
        return None, "its mask is 5x6"
    if fault == "unreadable photograph":
        image.write_bytes(b"nothing")
        return None, image.name
    if fault == "fewer than a batch":
        return "train.batch_size=9", "train.batch_size"
    if fault == "empty valid":
        (root / "val_id.txt").write_text("")
        return None, "val_id.txt"
    if fault == "unknown key":
        return "train.epoch=3", "did you mean train.epochs"
    if fault == "misspelt architecture":
        return "model.arch=FPM", "did you mean FPN"
    if fault == "misspelt encoder":
        return "model.encoder=resnet43", "did you mean resnet34"
    if fault == "no network":
        return "model.encoder=resnet34 model.weights=imagenet", "cannot be reached"
    raise AssertionError(fault)


FAULTS = [
    "missing folder",
    "missing id file",
    "missing mask",
    "missing photograph",
    "other size",
    "unreadable photograph",
    "fewer than a batch",
    "empty valid",
    "unknown key",
    "misspelt architecture",
    "misspelt encoder",
    "no network",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_end_in_a_line_or_two_and_leave_no_run_folder(fault, drawn_copy, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    override, named = _spoil(fault, drawn_copy)
    words = [*SMALL, f"data.root={drawn_copy}", f"out={tmp_path / 'runs'}", *(override or "").split()]
    assert main(["train", *words]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = printed.err.strip().splitlines()
    assert 1 <= len(lines) <= 2, printed.err
    assert named in printed.err
    assert lines[0].startswith("fastseg train: ")
    assert not (tmp_path / "runs").exists()


def test_faults_found_while_training_name_the_file_and_keep_the_folder(drawn_copy, tmp_path, capfd):
    names = (drawn_copy / "train_id.txt").read_text().split()
    image = drawn_copy / "JPEGImages" / f"{names[3]}.jpg"
    image.write_bytes(image.read_bytes()[:-400])
    words = [*SMALL, f"data.root={drawn_copy}", f"out={tmp_path / 'runs'}", "data.workers=2"]
    assert main(["train", *words]) == 2
    error = capfd.readouterr().err
    assert error.strip().splitlines()[-1].startswith("fastseg train: ")
    assert f"{image.name}: the photograph breaks off" in error
    assert "Traceback" not in error
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [(["train", "--train.epochs"], "a value is missing"), (["train", "stray"], "'stray' is not understood"),
     (["evaluate", "nowhere"], "not a finished run"), (["evaluate", "x", "--nothing", "1"], "no option"),
     (["train", "--config", "sampel"], "did you mean sample")],
)  # fmt: skip
def test_wrong_words(words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1

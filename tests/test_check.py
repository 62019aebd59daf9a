"""`fastseg check`: every kind of fault is named, nothing else is; what training refuses; how the command ends."""

import json

import numpy as np
import pytest
from PIL import Image
from planted import kinds, listed, settings

from fastseg.cli import main
from fastseg.data.check import check, quick_check
from fastseg.data.checking.findings import KINDS
from fastseg.data.files import open_files
from fastseg.errors import InputError


def test_all_twenty_faults_are_named_and_nothing_else(spoiled):
    root, planted = spoiled
    assert len(planted) == 20
    told = []
    report = check(settings(root), lambda done, total: told.append((done, total)))
    assert kinds(report) == set(planted.items())
    assert told[-1] == (32, 32)
    assert {f.kind for f in report.warnings} == {kind for kind in planted if KINDS[kind][0] == "warning"}
    assert len(report.errors) == 13
    table = report.table()
    for kind, name in planted.items():
        assert kind in table
        assert name in table
    assert table.splitlines()[-1] == "13 errors, 7 warnings"
    one = {finding.kind: finding for finding in report.findings}
    assert one["near-duplicate in both splits"].message.startswith("near (valid) looks like the mirror image of")
    assert one["vanishes when resized"].message.endswith("1 pixel of people at 64x96, none at 32x32")
    assert one["shapes differ"].split == "train"


def test_a_clean_sample_has_neither_errors_nor_warnings(people):
    report = check(settings(people), workers=1)
    assert report.findings == []
    assert report.table().splitlines()[-1] == "0 errors, 0 warnings"
    assert report.statistics["photographs"] == {"train": 24, "valid": 6}


def test_quick_check_passes_a_clean_dataset_and_keeps_the_first_fault(drawn_copy):
    files, train, valid = listed(drawn_copy)
    cfg = settings(drawn_copy)
    assert quick_check(cfg, files, train, valid) == []
    # Twice in one list is a way to see it more often.
    assert quick_check(cfg, files, [*train, train[1]], valid) == []
    files.mask(train[2]).unlink()
    with pytest.raises(InputError, match=rf"{train[2]}: no mask"):
        quick_check(cfg, files, train, valid)


def test_quick_check_refuses_leaks_unless_they_are_allowed(drawn_copy):
    files, train, valid = listed(drawn_copy)
    cfg, allowed = settings(drawn_copy), settings(drawn_copy, "data.allow_leak=true")
    with pytest.raises(InputError, match=rf"{train[0]}: validated on, and is trained on.*allow_leak") as caught:
        quick_check(cfg, files, train, [*valid, train[0]])
    assert len(str(caught.value).splitlines()) == 1
    assert quick_check(allowed, files, train, [*valid, train[0]]) == [train[0]]
    files.image(valid[1]).write_bytes(files.image(train[3]).read_bytes())
    np.save(files.mask(valid[1]), np.load(files.mask(train[3])))
    with pytest.raises(InputError, match=rf"{valid[1]}: .*copy of {train[3]}"):
        quick_check(cfg, files, train, valid)
    assert quick_check(allowed, files, train, valid) == [valid[1]]
    report = check(allowed, workers=1)
    assert not report.errors
    assert [(f.kind, f.name, f.other) for f in report.warnings] == [("same pixels in both splits", valid[1], train[3])]


@pytest.mark.parametrize(
    ("text", "said"),
    [("0: background\n1: Low hand\n2: torso\n3:low_leg\n4 head\n5: up_leg\n6: up_hand\n255: void\n", None),
     ("bg\nlow_hand\ntorso\nlow_leg\nhead\nup_leg\nup_hand\n", None),
     ("0: bg\n1: low_hand\n2: head\n3: torso\n", "line 3 says 2 is head, the hierarchy says torso"),
     ("bg\nlow_hand\ntorso\nlow_leg\nhead\nup_leg\nup_hand\nfoot\n", "line 8 has class 7")],
)  # fmt: skip
def test_classes_txt_is_held_against_the_tree(drawn_copy, text, said):
    (drawn_copy / "classes.txt").write_text(text)
    files, train, valid = listed(drawn_copy)
    if said is None:
        assert quick_check(settings(drawn_copy), files, train, valid) == []
        return
    with pytest.raises(InputError, match=said):
        quick_check(settings(drawn_copy), files, train, valid)
    assert ("classes.txt differs", "classes.txt") in kinds(check(settings(drawn_copy), workers=1))


@pytest.mark.parametrize(
    ("text", "said"),
    [("0: bg\n1: low_hand\n2: torso\n", "no line for 3, low_leg"),
     ("bg\nforearm\ntorso\nlow_leg\nhead\nup_leg\nup_hand\n", "line 2 says 1 is forearm, the hierarchy says low_hand")],
)  # fmt: skip
def test_other_names_in_classes_txt_are_a_warning(drawn_copy, text, said):
    (drawn_copy / "classes.txt").write_text(text)
    files, train, valid = listed(drawn_copy)
    assert quick_check(settings(drawn_copy), files, train, valid) == []
    report = check(settings(drawn_copy), workers=1)
    assert [f.kind for f in report.warnings] == ["classes.txt differs"]
    assert said in report.warnings[0].message


def test_equal_ids_of_several_folders_are_no_leak(people, drawn):
    cfg = settings(people)
    cfg = cfg.model_copy(update={"data": cfg.data.model_copy(update={"root": [str(people), str(drawn)]})})
    files = open_files([people, drawn])
    train, valid = files.ids("train_id.txt"), files.ids("val_id.txt")
    assert {name.partition("/")[2] for name in train} & {name.partition("/")[2] for name in valid}
    assert quick_check(cfg, files, train, valid) == []
    report = check(cfg, workers=1)
    assert report.findings == []
    assert report.statistics["photographs"] == {"train": 32, "valid": 8}


def test_a_file_that_stands_beside_another_of_its_id(drawn_copy):
    files, train, _ = listed(drawn_copy)
    Image.open(files.image(train[0])).save(drawn_copy / "JPEGImages" / f"{train[0]}.png")
    (drawn_copy / "JPEGImages" / "._hidden.jpg").write_bytes(b"")
    assert kinds(check(settings(drawn_copy), workers=1)) == {("two files for one id", train[0])}


def test_the_command_line(people, spoiled, tmp_path, capsys):
    small = ["data.size=32"]
    assert main(["check", str(people), *small]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 errors, 0 warnings"
    root = spoiled[0]
    page = tmp_path / "page.html"
    assert main(["check", str(root), "--json", "--report", str(page), *small]) == 2
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert (content["errors"], content["warnings"]) == (13, 7)
    assert printed.err.splitlines()[-1].startswith(f"fastseg check: 13 errors in {root}; ")
    assert page.is_file()
    (tmp_path / "only.yaml").write_text("hierarchy: {background: 0, person: 1}\n")
    assert main(["check", str(people), "--config", str(tmp_path / "only.yaml"), *small]) == 2
    assert "classes.txt: line 3 has class 2 (torso), the hierarchy only 0 to 1" in capsys.readouterr().out


def test_several_folders_on_the_command_line(people, drawn, capsys):
    assert main(["check", str(people), str(drawn), "data.size=32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["statistics"]["photographs"] == {"train": 32, "valid": 8}
    assert main(["check", "data.size=32"]) == 2
    assert capsys.readouterr().err == "fastseg check: name the folder of a dataset\n"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [("nothing", "no folder"), ("file", "no folder"), ("lists", "no id file"), ("masks", "no folder"),
     ("text", "not UTF-8")],
)  # fmt: skip
def test_no_dataset_ends_in_one_line(spoil, said, drawn_copy, tmp_path, capsys):
    if spoil == "lists":
        (drawn_copy / "val_id.txt").unlink()
    if spoil == "masks":
        (drawn_copy / "gt_masks").rename(drawn_copy / "elsewhere")
    if spoil == "text":
        (drawn_copy / "val_id.txt").write_bytes(b"\xff\xfe\x00")
    root = {"nothing": tmp_path / "nothing", "file": drawn_copy / "train_id.txt"}.get(spoil, drawn_copy)
    assert main(["check", str(root)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert said in printed.err


def test_a_picture_of_twenty_draws(people, tmp_path, capsys):
    picture = tmp_path / "draws.png"
    command = ["check", str(people), "--augment", str(picture), "data.size=32"]
    assert main(command) == 2
    assert "augment: nothing is changed; set augment.preset" in capsys.readouterr().err
    assert main([*command, "augment.preset=strong"]) == 0
    assert min(Image.open(picture).size) > 500
    assert main([*command[:3], str(tmp_path / "away" / "x.png"), "augment.preset=light"]) == 2
    assert "no folder" in capsys.readouterr().err


def test_masks_without_any_class_are_an_error_and_an_empty_one_does_not_hide_the_rest(drawn_copy):
    for path in (drawn_copy / "gt_masks").iterdir():
        np.save(path, np.zeros_like(np.load(path)))
    report = check(settings(drawn_copy), workers=1)
    assert [f.message for f in report.errors] == ["none of the masks to train on has a pixel of any class but "
                                                  "background: nothing can be learned"]  # fmt: skip
    np.save(drawn_copy / "gt_masks" / "sample_000002.npy", np.zeros((0, 0), np.uint8))
    report = check(str(drawn_copy), workers=1)
    assert ("not a mask", "sample_000002") in kinds(report)
    assert "empty mask" in report.table()


def test_a_tree_of_other_names_is_said_while_training_starts(drawn_copy, capsys):
    (drawn_copy / "classes.txt").write_text("0: bg\n1: forearm\n")
    files, train, valid = listed(drawn_copy)
    quick_check(settings(drawn_copy), files, train, valid)
    assert "warning: " in (said := capsys.readouterr().err)
    assert "line 2 says 1 is forearm" in said

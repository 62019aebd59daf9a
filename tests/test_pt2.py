import json
import pickle
import zipfile

import pytest
import torch

from fastseg.errors import InputError
from fastseg.inference.pt2 import check_program, save_program


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image):
        return torch.nn.functional.interpolate(self.conv(image)[:, :, ::2, ::2], scale_factor=2.0)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(Net().eval(), (torch.randn(2, 3, 8, 10),),
                                  dynamic_shapes={"image": {0: free, 2: free, 3: free}})  # fmt: skip
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    save_program(program, path, {"fastseg.json": "{}"})
    return path


def changed(source, path, part, change):
    """A copy of an archive with one part's bytes changed; a part that is not there is added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        top = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name == f"{top}/{part}" else content)
        if f"{top}/{part}" not in old.namelist():
            new.writestr(f"{top}/{part}", change(b""))
    return path


def test_what_is_written_can_be_loaded_and_run(file):
    check_program(file)
    extra = {"fastseg.json": ""}
    module = torch.export.load(file, extra_files=extra).module()
    assert extra == {"fastseg.json": "{}"}
    assert module(torch.randn(3, 3, 6, 4)).shape == (3, 4, 6, 4)


def program_with(**values):
    return lambda content: json.dumps({**json.loads(content), **values}).encode()


def replaced(old, new):
    def change(content):
        assert old in content
        return content.replace(old, new)

    return change


@pytest.mark.parametrize(("part", "change", "said"), [
    ("models/model.json", program_with(guards_code=["__import__('os').system('true')"]), "guards"),
    ("models/model.json", replaced(b"torch.ops.aten.conv2d.default", b"torch.os.system"), "operator 'torch.os.system'"),
    ("models/model.json", replaced(b"FloorDiv(", b"__import__('os').system("), "expression"),
    ("data/weights/model_weights_config.json", replaced(b'"use_pickle": false', b'"use_pickle": true'), "pickled"),
    ("data/sample_inputs/model.pt", lambda content: pickle.dumps(print), "sample_inputs"),
    ("data/constants/custom_objs_0", lambda content: pickle.dumps(print), "custom_objs"),
    ("data/aotinductor/model/code.so", lambda content: b"\x7fELF", "aotinductor"),
    ("models/other.json", lambda content: b"{}", "models/other.json"),
])  # fmt: skip
def test_what_could_run_something_is_refused(file, tmp_path, part, change, said):
    path = changed(file, tmp_path / "planted.pt2", part, change)
    with pytest.raises(InputError, match=said):
        check_program(path)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not readable as a file of torch"):
        check_program(tmp_path / "model.pt2")

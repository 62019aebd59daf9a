import numpy as np
import torch
from PIL import Image

from fastseg.data.files import Files
from fastseg.data.pictures import read_mask
from fastseg.learning.previews import Previews


def test_photographs_come_back_as_they_are_on_disk(quiet, drawn):
    files = Files(drawn)
    name = files.ids("val_id.txt")[0]
    photograph = np.asarray(Image.open(files.image(name)))
    learn = quiet("data.size={}x{}".format(*photograph.shape), "model.arch=Unet")
    rows = Previews(3).rows(learn)
    assert len(rows) == 2
    _, image, truth, guess = rows[0]
    assert np.abs(image.astype(int) - photograph).max() <= 2
    assert (truth == read_mask(files.mask(name), 7)).all()
    assert image.shape[:2] == truth.shape == guess.shape
    assert truth.dtype == guess.dtype == np.uint8
    with torch.no_grad():
        x = learn.dls.valid.one_batch()[0].as_subclass(torch.Tensor)
        assert (learn.model.eval()(x).argmax(1)[0].numpy() == guess).all()


def test_the_network_is_left_as_it_was(quiet):
    learn, previews = quiet(), Previews(1)
    before = {key: value.clone() for key, value in learn.model.state_dict().items()}
    for mode in (True, False):
        learn.model.train(mode)
        assert len(previews.rows(learn)) == 1
        assert learn.model.training == mode
    assert all(torch.equal(before[key], value) for key, value in learn.model.state_dict().items())

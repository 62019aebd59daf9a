"""What each number of a run means in plain words, and what must be known before it is believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastseg.hierarchy import Hierarchy
from fastseg.inference.scores import CONFIDENCE, DRAWS, LARGE, SMALL
from fastseg.overfitting import overfitting
from fastseg.plots import highest
from fastseg.settings import Settings

DEFINITIONS = {
    "dataset": "one count over all pixels of all photographs; a class that is in neither truth nor prediction is left "
    "out of the mean (the definition of PASCAL VOC and of most papers)",
    "image": "for each photograph the mean over its classes, then the mean over photographs",
    "image_class": "the mean over all pairs of a photograph and a class that is in it or in its prediction",
}
PROTOCOLS = {
    "native": "at each photograph's own size: what the network says is enlarged to it, then compared with the mask as "
    "it is on disk",
    "resized": "at the network's size: the masks were brought to it, which flatters small parts; not to be compared "
    "with numbers at native size",
}
DECODINGS = {
    "leaf": "each pixel takes the most probable of the finest classes, and the coarser levels follow from it",
    "top_down": "each pixel is decided from the coarsest level downwards, each level within the choice above it",
    "path": "each pixel takes the branch of the tree whose nodes are the most probable together",
}


def meanings(scores: Mapping[str, Any], tree: Hierarchy, size: tuple[int, int]) -> list[tuple[str, str]]:
    """(term, explanation) of everything that a run gives as a number."""
    background = "" if tree.background is None else " without background"
    levels = "; ".join(
        f"miou{level}: {', '.join(tree.names(level)[node].replace('_', ' ') for node in tree.foreground(level))}"
        for level in range(tree.depth)
    )
    return [
        ("IoU", "of a class: the pixels that truth and prediction have in common, divided by the pixels that either "
         "has. 1 is perfect, 0 is nothing in common."),
        ("precision, recall", "of the pixels predicted as a class, the share that is right; of the pixels that are of "
         "the class, the share that was found."),
        ("mean IoU", f"the mean over a level's classes{background}. {levels}."),
        (f"definition: {scores['definition']}", DEFINITIONS[scores["definition"]] + "."),
        (f"protocol: {scores['protocol']}", PROTOCOLS[scores["protocol"]] + "."),
        (f"decoding: {scores['decode']}", DECODINGS[scores["decode"]] + "."),
        (f"{CONFIDENCE:.0%} interval", f"the middle {CONFIDENCE:.0%} of the scores of {DRAWS:,} draws of as many "
         "photographs, with replacement. It tells what other photographs of the same kind would change, not what "
         "another seed or another kind of photograph would."),
        ("size of the people", f"the share of a photograph's pixels that are not background: under {SMALL:.0%}, up to "
         f"{LARGE:.0%}, and more."),
        ("curves", f"counted at the end of each epoch at {size[0]}x{size[1]} (height x width, what the network sees), "
         "so their mean IoUs differ somewhat from the scores above."),
        ("photographs a second", "those trained and validated in an epoch, divided by its time: reading, augmentation "
         "and scoring included."),
        ("peak memory", "the most that was in use at once: of the process as the system counts it, of the largest "
         "process that read photographs, and of PyTorch's tensors on a GPU."),
    ]  # fmt: skip


def caveats(cfg: Settings, scores: Mapping[str, Any], history: Mapping[str, Any], facts: Mapping[str, Any],
            tree: Hierarchy) -> Iterator[tuple[str, str]]:  # fmt: skip
    """(severity, sentence) of what makes the scores better or worse than they look; severities as in the check page."""
    epochs, epoch = len(history.get("epoch", [])), scores.get("epoch")
    if scores.get("leak"):
        leaks = scores["leak"]
        yield "error", (f"There was a leak: {len(leaks):,} photographs stand in both lists ({', '.join(leaks[:3])}"
                        f"{' …' if len(leaks) > 3 else ''}). The scores are better than they would be on new "
                        "photographs.")  # fmt: skip
    if not epochs:
        yield "error", "No epoch of training is recorded: the network may have learned nothing."
    if scores.get("interrupted"):
        yield "error", "The run was interrupted: it trained for fewer epochs than its configuration says."
    if scores.get("keep") == "best" and epochs > 1:
        yield "warning", (f"The weights are those of epoch {epoch} of {epochs}, chosen because it did best on the "
                          "valid split. The scores are on the same photographs that chose it, and so somewhat too "
                          "good: new photographs will give less.")  # fmt: skip
    if history and (found := overfitting(history["train_loss"], history.get("valid_loss", []))):
        yield "warning", f"The curves say {found}."
    if scores["images"] < 30:
        yield "warning", f"Only {scores['images']} photographs were scored: the intervals are rough themselves."
    if facts.get("own_data"):
        yield "note", ("Scored on the Learner's own DataLoaders, whose files are not known; the settings of data in "
                       "the configuration were not used.")  # fmt: skip
    elif cfg.data.root is None:
        yield "note", "The photographs are the embedded sample's drawn people: the scores say nothing of real ones."
    if limits := [f"the first {n:,} to {what}" for n, what in ((cfg.data.limit, "train on"),
                                                               (cfg.data.limit_valid, "validate on")) if n]:
        yield "note", f"Only a part of the dataset was used: {' and '.join(limits)}."  # fmt: skip
    if scores.get("keep") == "last" and epochs > 1:
        best = highest(history.get(f"miou{tree.depth - 1}", []))
        yield "note", (f"The weights are those of the last epoch, {epoch}; the valid split chose nothing."
                       + (f" (Its highest score was in epoch {best}.)" if best and best != epoch else ""))  # fmt: skip
    if cfg.train.ema:
        yield "note", f"The weights are moving averages (train.ema {cfg.train.ema:g}), in the curves as in the scores."
    if scores["absent"]:
        yield "note", f"In neither truth nor prediction, and in no mean: {', '.join(scores['absent'])}."

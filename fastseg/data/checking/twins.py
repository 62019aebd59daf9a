"""Photographs that are in a dataset twice: the same pixels, or nearly the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastseg.data.checking.examine import Look
from fastseg.data.checking.findings import Finding
from fastseg.data.checking.lists import Splits

# Of 64 bits. The nearest different photographs (drawn people, street photographs of one studio) differ in 12 or more,
# copies recompressed, brightened, shifted by two per cent, halved or mirrored in 10 at most (14 at 64x96 pixels).
MOST_BITS = 14
# Mean difference of two 32x32 grey pictures in standard deviations: up to 0.37 for such copies, from 0.5 for others.
MOST_DIFFERENCE = 0.42
# Grey values: a picture with less contrast than this has nothing to be known by, and small contrast is mostly noise.
PLAIN, FAINT = 2.0, 8.0
ROWS = 256  # of pairs at once: 256 by 20,000 photographs are 40 MB


@dataclass(frozen=True)
class Twin:
    """Photograph `first` of one list is nearly photograph `second` of another, mirrored or not."""

    first: int
    second: int
    difference: float
    mirrored: bool


def near_duplicates(first: np.ndarray, second: np.ndarray) -> list[Twin]:
    """For each 32x32 grey picture of `first` (N, 32, 32) the nearest one of `second` (M, 32, 32), where near enough.

    Candidates by a 64-bit hash of each picture and of its mirror image, then a second look at the pixels.
    """
    if not len(first) or not len(second):
        return []
    best: dict[int, Twin] = {}
    hashes, pixels = perceptual_hash(second), _normalised(second)
    plain = second.std((1, 2)) < PLAIN
    for mirrored, pictures in ((False, first), (True, first[:, :, ::-1])):
        own, mine = perceptual_hash(pictures), _normalised(pictures)
        for start in range(0, len(own), ROWS):
            bits = _bit_count(own[start : start + ROWS, None] ^ hashes[None])
            for row, column in zip(*np.nonzero(bits <= MOST_BITS), strict=True):
                one, other = int(row) + start, int(column)
                difference = float(np.abs(mine[one] - pixels[other]).mean())
                if difference > MOST_DIFFERENCE or plain[other]:
                    continue
                if one not in best or difference < best[one].difference:
                    best[one] = Twin(one, other, difference, mirrored)
    return [best[one] for one in sorted(best)]


def perceptual_hash(pictures: np.ndarray) -> np.ndarray:
    """(N, 32, 32) grey → (N,) uint64: which of the 64 lowest frequencies of its cosine transform are above the median.

    Source: the DCT hash of Zauner, Implementation and benchmarking of perceptual image hash functions (2010).
    """
    at = np.arange(pictures.shape[-1])
    waves = np.cos(np.pi * (2 * at + 1) * np.arange(8)[:, None] / (2 * len(at)))
    low = (waves @ pictures.astype(np.float64) @ waves.T).reshape(len(pictures), 64)
    # The first is the mean brightness, which a median should not depend on.
    above = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(above, axis=1).view(np.uint64)[:, 0]


def twin_findings(looks: Mapping[str, Look], splits: Splits, where: Mapping[str, str]) -> Iterator[Finding]:
    """Photographs that are there twice, exactly or nearly."""
    train, valid = set(splits["train"]), set(splits["valid"])
    seen = [look for look in looks.values() if look.thumb is not None]
    leaked = train & valid
    for places in _same([look.digest for look in seen]):
        group = [seen[place] for place in places]
        first = next((look for look in group if look.name in train), None)
        for look in group:
            if look.name in leaked or look is first:
                continue
            if first is not None and look.name in valid:
                leaked.add(look.name)
                yield _pair("same pixels in both splits", look, first, "has the pixels of", where)
            else:
                one = first or group[0]
                if look is not one:
                    yield _pair("same pixels within a split", look, one, "has the pixels of", where)
    own = [look for look in seen if look.name in valid and look.name not in leaked]
    others = [look for look in seen if look.name in train and look.name not in valid]
    for twin in near_duplicates(_thumbs(own), _thumbs(others)):
        how = f"looks like {'the mirror image of ' if twin.mirrored else ''}"
        yield _pair("near-duplicate in both splits", own[twin.first], others[twin.second], how.rstrip(), where)


def _pair(kind: str, look: Look, other: Look, how: str, where: Mapping[str, str]) -> Finding:
    said = f"{look.name} ({where[look.name]}) {how} {other.name} ({where[other.name]})"
    return Finding(kind, look.name, said, split=where[look.name], path=str(look.image), other=other.name)


def _thumbs(looks: Sequence[Look]) -> np.ndarray:
    return np.stack([look.thumb for look in looks]) if looks else np.empty((0, 1, 1), np.uint8)


def _same(digests: Sequence[bytes]) -> list[list[int]]:
    """Positions of equal digests, where there are several."""
    groups: dict[bytes, list[int]] = {}
    for place, digest in enumerate(digests):
        groups.setdefault(digest, []).append(place)
    return [places for places in groups.values() if len(places) > 1]


def _normalised(pictures: np.ndarray) -> np.ndarray:
    values = pictures.astype(np.float32)
    values -= values.mean((1, 2), keepdims=True)
    return values / np.maximum(values.std((1, 2), keepdims=True), FAINT)


def _bit_count(words: np.ndarray) -> np.ndarray:
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    # NumPy 1: the table of all 16-bit words.
    table = np.array([bin(word).count("1") for word in range(1 << 16)], np.uint8)
    return table[words[..., None].view(np.uint16)].sum(-1, dtype=np.uint8)

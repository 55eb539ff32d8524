"""The words by which the detector of the phantom track is asked for regions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from medfocus_bench.data.concepts import COMPOSITES, CONCEPTS
from medfocus_bench.phantom.anatomy import SIDES
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARKS
from medfocus_bench.phantom.training.corpus import corpus, sign

REGIONS: Final = (*CONCEPTS, *COMPOSITES, *FINDINGS, *MARKS)
"""Regions with a name: concepts, composites (unions of concepts), findings and marks."""

_BY_SIDE: Final[Mapping[str, tuple[str, ...]]] = {
    "lung": ("lung", "lung field"),
    "clavicle": ("clavicle", "collarbone"),
    "hilar structures": ("hilar structures", "hilum", "hilar region"),
    "costophrenic angle": ("costophrenic angle", "costophrenic sulcus"),
}

_OTHER: Final[Mapping[str, tuple[str, ...]]] = {
    "cardiac silhouette": ("cardiac silhouette", "heart", "cardiac shadow", "heart silhouette"),
    "mediastinum": ("mediastinum", "mediastinal contour"),
    "upper mediastinum": ("upper mediastinum", "superior mediastinum"),
    "both lungs": ("both lungs", "lungs", "lung fields"),
    "both clavicles": ("both clavicles", "clavicles", "collarbones"),
    "both hila": ("both hila", "hila"),
    "both costophrenic angles": ("both costophrenic angles", "costophrenic angles"),
    "pleural effusion": ("pleural effusion", "effusion"),
    "nodule": ("nodule", "pulmonary nodule"),
    "mass": ("mass", "lung mass"),
    "clavicle fracture": ("clavicle fracture", "fractured clavicle"),
    "pacemaker": ("pacemaker", "cardiac device"),
    "lead marker": ("lead marker", "side marker", "letter"),
    "text tag": ("text tag", "line of print", "text"),
}

PHRASES: Final[Mapping[str, tuple[str, ...]]] = {
    **{
        f"{side} {part}": tuple(f"{side} {name}" for name in names)
        for part, names in _BY_SIDE.items()
        for side in SIDES
    },
    **{name: (name,) for name in FINDINGS},
    **_OTHER,
    **{name: (*_OTHER.get(name, (name,)), sign(name)) for name in FINDINGS},
}
"""The phrases for each region; those of a finding end with its sign as the LVLMs write it."""

FRAMES: Final = ("{}", "the {}", "{} region", "region of the {}", "area of the {}", "in the {}", "{} area")
LOOKS: Final = ("{} are searched", "{} are compared", "{} are checked", "{} are followed")
"""Words around the name of a region; `LOOKS` for names in the plural."""

_STRANGERS = """
apple orange bread water stone river cloud bridge window table chair dog bird horse flower leaf mountain car
train plane boat street city house door wall roof garden music paper pencil book lamp clock phone screen
camera wheel knife fork plate bottle glass shirt shoe hat coat button ball king queen doctor nurse child man
woman face eye ear nose mouth tooth hair foot knee elbow finger brain liver kidney bladder tibia femur skull
spleen pelvis artery catheter scalpel cold hot red green blue yellow seven thousand monday winter summer yes
no none maybe unknown nothing something everything evidence answer image picture question sign final think
step word phrase list local support
"""

STRANGERS: Final = tuple(_STRANGERS.split())
"""Words for things that no phantom shows, or for nothing: what the detector learns to refuse."""

HELD_OUT_ABSENT: Final = (
    *("NoNo", "NoNoNoNoNoNo", "no sign", "no sign of", "banana", "YesNo", "Yes. Final answer", "elephant"),
    *("bicycle", "traffic light", "a cat on a sofa", "toaster", "guitar", "lorem ipsum", "zebra", "umbrella"),
    *("wrist fracture", "gallbladder", "xqz", "measured against", "in the image", "not there", "coffee cup"),
    *("answer with yes", "airport", "violin", "sandwich", "telephone", "keyboard", "step by step"),
)
"""Phrases for nothing that are never trained: how well the detector refuses is measured on them."""

_WORD = re.compile(r"[A-Za-z]+")


def fragments() -> list[str]:
    """One to four successive words of what the LVLMs read and write, without a word that names a region."""
    empty = {"a", "an", "of", "the", "in", "that", "with", "its", "and", "no", "line", "are", "is"}
    naming = {word for names in PHRASES.values() for name in names for word in _WORD.findall(name.lower())}
    naming = (naming | {"chest", "bone", "rib", "ribs", "vessels", "air", "bases", "devices"}) - empty
    found: dict[str, None] = {}
    for text in corpus():
        words = _WORD.findall(text)
        for length in (1, 2, 3, 4):
            for start in range(len(words) - length + 1):
                part = words[start : start + length]
                if not naming & {word.lower() for word in part}:
                    found[" ".join(part)] = None
    refused = {phrase.lower() for phrase in HELD_OUT_ABSENT}
    return [fragment for fragment in found if fragment.lower() not in refused]

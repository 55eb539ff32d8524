"""Checkpoints of the real SAM and OWLv2 classes as folders: the shipped ones, with much of them random."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import Owlv2ForObjectDetection, SamModel

from medfocus_bench import phantom


def write_sam(folder):
    return _shaken(SamModel, "sam", folder)


def write_owlv2(folder):
    return _shaken(Owlv2ForObjectDetection, "owlv2", folder)


def _shaken(kind, name, folder):
    shutil.copytree(Path(phantom.__file__).parent / "weights" / name, folder, dirs_exist_ok=True)
    model = kind.from_pretrained(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    return folder

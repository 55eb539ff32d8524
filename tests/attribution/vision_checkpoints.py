"""Tiny checkpoints of the real SAM and OWLv2 classes, with random weights, as folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import (
    CLIPTokenizer,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2Processor,
    SamModel,
)

from medfocus_bench import phantom

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_sam(folder, *, seed=0):
    torch.manual_seed(seed)
    shutil.copytree(Path(phantom.__file__).parent / "weights" / "sam", folder, dirs_exist_ok=True)
    _shaken(SamModel.from_pretrained(folder)).save_pretrained(folder)
    return folder


def write_owlv2(folder, *, seed=0):
    torch.manual_seed(seed)
    pieces = ["<|startoftext|>", "<|endoftext|>", *_LETTERS, *(f"{letter}</w>" for letter in _LETTERS)]
    # Id 0 marks a query as padding, so no token of a phrase may have it.
    vocabulary = {"<unused>": 0} | {piece: number for number, piece in enumerate(pieces, start=1)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config=layers
        | {
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 16,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        vision_config=layers | {"image_size": 64, "patch_size": 8},
        projection_dim=32,
    )
    model = _shaken(Owlv2ForObjectDetection(config))
    with torch.no_grad():  # so that a patch proposes a box around itself
        model.box_head.dense2.weight.mul_(0.01)
    images = Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    return _saved(folder, model, Owlv2Processor(images, tokenizer))


def _shaken(model):
    """Weights large enough that the input matters; those drawn from config hardly look at it."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def _saved(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

"""The tiny segmenter and the tiny detector before training: real transformers classes, from config."""

from __future__ import annotations

import json
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPTokenizer,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2Processor,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
)

from medfocus_bench.phantom.training.corpus import corpus
from medfocus_bench.phantom.training.phrases import PHRASES

SAM_SIDE: Final = 256
OWL_SIDE: Final = 224

MEAN: Final = 0.5
DEVIATION: Final = 0.25
"""By which both processors normalise grey in [0, 1]."""

_LENGTH: Final = 16
"""Tokens of a phrase, both ends included."""

_LAYER: Final = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
_TEXT_LAYER: Final = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_SAM_WIDTH: Final = 96


def untrained_segmenter(seed: int) -> tuple[Any, Any]:
    """A tiny SAM, which sees 256 x 256 in 16-pixel patches, and its processor."""
    torch.manual_seed(seed)
    config = SamConfig(
        vision_config={
            **_LAYER,
            "output_channels": _SAM_WIDTH,
            "mlp_dim": 256,
            "image_size": SAM_SIDE,
            "patch_size": 16,
            "use_rel_pos": False,
            "window_size": 0,
            "global_attn_indexes": list(range(_LAYER["num_hidden_layers"])),
            "num_pos_feats": _SAM_WIDTH // 2,
            "initializer_range": 0.02,
        },
        prompt_encoder_config={
            "hidden_size": _SAM_WIDTH,
            "image_size": SAM_SIDE,
            "patch_size": 16,
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": _SAM_WIDTH,
            "mlp_dim": 192,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 64,
        },
    )
    model = SamModel(config)
    _awake(model)
    images = SamImageProcessorPil(
        size={"longest_edge": SAM_SIDE},
        pad_size={"height": SAM_SIDE, "width": SAM_SIDE},
        image_mean=[MEAN] * 3,
        image_std=[DEVIATION] * 3,
    )
    return model, SamProcessor(images)


@torch.no_grad()
def _awake(model: Any) -> None:
    """Weights with which the tiny SAM learns: the library draws them for a wide one, or to be overwritten.

    At this width a standard deviation of 0.02 leaves hardly any signal after a few layers, and frequencies
    that grow with the width make noise of the coordinates.
    """
    for part in model.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
            part.weight.normal_(std=part.weight[0].numel() ** -0.5)
        elif isinstance(part, torch.nn.ConvTranspose2d):
            part.weight.normal_(std=part.in_channels**-0.5)
        elif isinstance(part, torch.nn.Embedding):
            part.weight.normal_(std=0.5)
    model.shared_image_embedding.positional_embedding.normal_()
    model.vision_encoder.pos_embed.normal_(std=0.1)


def untrained_detector(seed: int) -> tuple[Any, Any]:
    """A tiny OWLv2, which sees 224 x 224 in 14-pixel patches, and its processor."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = Owlv2Config(
        text_config={
            **_TEXT_LAYER,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": _LENGTH,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**_LAYER, "intermediate_size": 256, "image_size": OWL_SIDE, "patch_size": 14},
        projection_dim=_TEXT_LAYER["hidden_size"],
    )
    model = Owlv2ForObjectDetection(config)
    with torch.no_grad():
        # The library draws the weights of the heads from a unit normal: far too large at any width.
        for head in (model.class_head.dense0, *model.box_head.children(), *model.objectness_head.children()):
            if isinstance(head, torch.nn.Linear):
                head.weight.mul_(head.in_features**-0.5)
        model.box_head.dense2.weight.mul_(0.1)
        model.owlv2.vision_model.embeddings.position_embedding.weight.normal_(std=0.2)
        # A score starts near 0 and can reach 1: ten times the cosine less a half.
        for layer, start in ((model.class_head.logit_scale, 9.0), (model.class_head.logit_shift, -0.5)):
            layer.weight.zero_()
            layer.bias.fill_(start)
    images = Owlv2ImageProcessorPil(
        size={"height": OWL_SIDE, "width": OWL_SIDE}, image_mean=[MEAN] * 3, image_std=[DEVIATION] * 3
    )
    return model, Owlv2Processor(images, tokenizer)


def _tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with the words of the phantom track; other words fall apart into bytes."""
    trained = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(
        corpus() + [phrase for phrases in PHRASES.values() for phrase in phrases] * 5,
        trainers.BpeTrainer(
            vocab_size=900 + len(alphabet),
            # The ids decide between pairs that are equally frequent; left to the library, those of the
            # letters that end a word would follow the order of a hash table.
            special_tokens=[f"{letter}</w>" for letter in alphabet],
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    # OWLv2 takes a phrase whose first id is 0 for padding, so no token of a phrase may have it.
    pieces = ["<|endofpadding|>", "<|startoftext|>", "<|endoftext|>", *alphabet]
    pieces += [f"{letter}</w>" for letter in alphabet]
    pieces += ["".join(merge) for merge in merges]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=_LENGTH)

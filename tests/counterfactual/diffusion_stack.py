"""A diffusion model of RadEdit's classes, tiny and random, saved as its repositories are laid out."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM
from transformers.utils import logging

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "mass", "nodule", "effusion", "abnormality"]

TRAP = 'raise RuntimeError("code of a repository was run")\n'


def save_unet(folder: Path) -> None:
    torch.manual_seed(1)
    UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(folder)


def save_vae(folder: Path) -> None:
    torch.manual_seed(2)
    AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
        scaling_factor=0.13025,
    ).save_pretrained(folder)


def save_text_encoder(folder: Path) -> BertForMaskedLM:
    """A CXR-BERT as it is published: masked-language head, projection, a model type and code of its own."""
    torch.manual_seed(3)
    logging.disable_progress_bar()
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=128,
        )
    ).eval()
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights["cls_projection_head.dense_to_hidden.weight"] = torch.zeros(4, 16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    code = {
        "AutoConfig": "configuration_cxrbert.CXRBertConfig",
        "AutoModel": "modeling_cxrbert.CXRBertModel",
    }
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "cxr-bert", "architectures": ["CXRBertModel"], "auto_map": code}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("configuration_cxrbert", "modeling_cxrbert"):
        (folder / f"{name}.py").write_text(TRAP)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = {
        "tokenizer_class": "CXRBertTokenizer",
        "auto_map": {"AutoTokenizer": ["configuration_cxrbert.CXRBertTokenizer", None]},
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return model


def save_stack(folder: Path) -> dict[str, str]:
    """The settings that load what is saved here; the U-Net lies in a subfolder as in its repository."""
    save_unet(folder / "radedit" / "unet")
    save_vae(folder / "vae")
    save_text_encoder(folder / "text")
    return {
        "unet": str(folder / "radedit"),
        "vae": str(folder / "vae"),
        "text_encoder": str(folder / "text"),
    }

"""Sizes, tokenizers and writing, for checkpoints of any family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from medfocus_bench.phantom.training.corpus import corpus

SIDE, PATCH = 112, 14
WIDTH, LAYERS = 64, 3
TEXT = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS}
TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": SIDE, "patch_size": PATCH}


def chatml(image: str) -> str:
    """The chat template of Qwen 2, with what stands for a picture."""
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}" + image + "\n{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def qwen_tokenizer(roles: dict[str, str], markup: Sequence[str] = ()) -> Qwen2Tokenizer:
    """The tokenizer of Qwen 2 with further special tokens, some by the names that a processor asks for."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *roles.values(), *markup]
    learnt = json.loads(byte_pairs(special, ["user", "assistant"]).to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=roles,
    )
    tokenizer.add_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", *markup)])
    return tokenizer


def byte_pairs(special: list[str], words: list[str]) -> Tokenizer:
    """Learnt from the phantom's texts and some words of a template; `special` come first."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    _train(trained, [*corpus(), *words * 50], special)
    return trained


def sentence_pieces(special: list[str], *further: str) -> dict[str, Any]:
    """Vocabulary and merges that spell a space as sentencepiece does, with a token for each byte."""
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\u2581", "merged_with_next"), pre_tokenizers.Punctuation()]
    )
    texts = [text.replace(" ", "\u2581") for text in corpus()]
    _train(trained, texts, [*special, *(f"<0x{n:02X}>" for n in range(256)), *further])
    learnt = json.loads(trained.to_str())["model"]
    return {"vocab": learnt["vocab"], "merges": [tuple(merge) for merge in learnt["merges"]]}


def byte_level(special: list[str], words: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that starts with the first of `special`, pads with the second and ends with the third."""
    trained = byte_pairs(special, words)
    start, pad, end = special[:3]
    trained.post_processor = processors.TemplateProcessing(single=f"{start} $A", special_tokens=[(start, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=trained, bos_token=start, eos_token=end, pad_token=pad)


def ids_of(tokenizer: Any) -> dict[str, int]:
    """The ids of a tokenizer's roles, as configs name them."""
    names = (f"{role}_token_id" for role in ("pad", "eos", "bos"))
    found = ((name, getattr(tokenizer, name)) for name in names)
    return {name: value for name, value in found if value is not None}


def _train(tokenizer: Tokenizer, texts: list[str], special: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)


def built(kind: Any, config: Any, generation: GenerationConfig, *, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = kind(config)
    model.generation_config = generation
    return model


def saved(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

"""Llama 3.2 Vision."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
)

from tests.lvlm.checkpoints.parts import (
    SIDE,
    TEXT,
    VISION,
    built,
    byte_level,
    ids_of,
    saved,
)

_MLLAMA_SPECIAL = [
    "<|begin_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|python_tag|>",
    "<|image|>",
]
_MLLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>"
    "\n\n{% for part in message['content'] %}{% if part['type'] == 'image' %}<|image|>{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def save_mllama(folder: Path) -> Path:
    tokenizer = byte_level(_MLLAMA_SPECIAL, ["user", "assistant"])
    processor = MllamaProcessor(
        image_processor=MllamaImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        chat_template=_MLLAMA_TEMPLATE,
    )
    ids = ids_of(tokenizer)
    vision = {name: size for name, size in VISION.items() if name != "num_attention_heads"}
    config = MllamaConfig(
        text_config=TEXT
        | {"vocab_size": len(tokenizer), "cross_attention_layers": [1], "max_position_embeddings": 4096}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
        | ids,
        vision_config=vision
        | {"attention_heads": 2, "num_global_layers": 1, "intermediate_layers_indices": [0]}
        | {"vision_output_dim": 2 * VISION["hidden_size"]},
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )
    model = built(MllamaForConditionalGeneration, config, GenerationConfig(**ids))
    block = model.model.language_model.layers[1]
    for gate in (block.cross_attn_attn_gate, block.cross_attn_mlp_gate):
        torch.nn.init.ones_(gate)  # drawn as zeros: the picture would have no effect
    return saved(folder, model, processor)

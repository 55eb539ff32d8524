"""`python -m tests.realsize`: see the docstring of the package."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from medfocus_bench.attribution.registry import list_methods
from tests.realsize.architectures import ARCHITECTURES
from tests.realsize.counted import counted
from tests.realsize.extrapolation import SIBLINGS, Counted, Measured, blocks_table, needs_table, table

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "integrated-gradients": {"steps": 1},
    "occlusion": {"cells": 1},
    "rise": {"masks": 1, "cells": 2},
    "medfocus-plus": {"places": 1, "probes": 0},
    "prompting": {"max_new_tokens": 2},
    "prompting-medsam": {"max_new_tokens": 2, "detector": "phantom_owlv2", "segmenter": "phantom_sam"},
    "medfocus": {"segmenter": "phantom_sam"},
}
"""Settings that cut a method to fewer passes, and the vision models that there are; all else is default."""

COUNTED: Final = (
    *("attention-head", "attention-rollout", "lrp", "gradient-weighted-attention", "grad-cam"),
    *("gradient-weighted-attention (propagate)", "token-activation-map", "integrated-gradients", "occlusion"),
)
"""Methods whose tensors are counted. Relative attention reads a block as a head does, Grad-CAM++ as Grad-CAM;
RISE and MedFocus look at pictures as occlusion does, and to write an answer takes no more than that."""

VARIANTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "lrp (constant)": ("lrp", {"attention_rule": "constant"}),
    "gradient-weighted-attention (propagate)": ("gradient-weighted-attention", {"propagate": True}),
}
"""Further rows of the table: a method under other settings, which cost something else."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.realsize")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("measure", help="run methods, and write what each cost")
    run.add_argument("--model", required=True, choices=["qwen2.5-vl-3b", "gemma-3-4b"])
    run.add_argument("--blocks", type=int, required=True, help="of the text decoder")
    run.add_argument("--vision-blocks", type=int, required=True)
    run.add_argument("--methods", nargs="*", default=[*list_methods(), *VARIANTS])
    run.add_argument("--framing", default="native", choices=["native", "square"])
    number = commands.add_parser("count", help="count the memory of whole models")
    show = commands.add_parser("table", help="print the tables of what was measured and counted")
    for command in (run, number, show):
        command.add_argument("--work", type=Path, default=Path("build/realsize"))
    options = parser.parse_args()
    record = options.work / "measured.jsonl"
    if options.command == "table":
        found = [Measured.of(line) for line in _lines(record) if "error" not in line]
        whole = [Counted(**line) for line in _lines(options.work / "counted.jsonl")]
        print(table(found), blocks_table(found, whole), needs_table(whole), sep="\n\n")
        return
    if options.command == "count":
        _count(options.work, _lines(record))
        return
    depths = {"blocks": options.blocks, "vision_blocks": options.vision_blocks}
    model = {"model": options.model, "framing": options.framing} | depths
    tasks = [_task(label) for label in options.methods]
    done = [line["label"] for line in _lines(record) if all(line[key] == model[key] for key in model)]
    left = [task for task in tasks if task["label"] not in done]
    if left:
        _run(model | {"folder": str(_checkpoint(options))}, left, record)


def _task(label: str) -> dict[str, Any]:
    method, more = VARIANTS.get(label, (label, {}))
    return {"label": label, "method": method, "settings": SETTINGS.get(method, {}) | more}


def _run(model: dict[str, Any], tasks: list[dict[str, Any]], record: Path) -> None:
    """Run methods in a process of their own, and append the line of each as it comes."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.realsize.one", json.dumps([model, tasks])]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=os.environ | one_thread, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            with record.open("a") as file:
                file.write(line)
            print(line, end="", flush=True)
    if run.returncode:
        raise SystemExit(f"the process ended with {run.returncode}; the same command goes on after it")


def _count(work: Path, measured: list[dict[str, Any]]) -> None:
    """Count what methods hold of whole models, and of what was measured as that machine computed it."""
    record = work / "counted.jsonl"
    names = [(like, name, ARCHITECTURES[name]) for like, family in SIBLINGS.items() for name in family]
    wanted = {(like, name, of.blocks, of.vision_blocks, True): list(COUNTED) for like, name, of in names}
    for line in measured:
        if line["label"] in COUNTED and "error" not in line:
            where = (line["model"], line["model"], line["blocks"], line["vision_blocks"], False)
            wanted.setdefault(where, []).append(line["label"])
    keys = ("model", "blocks", "vision_blocks")
    for (like, *where, native), labels in wanted.items():
        done = [one["label"] for one in _lines(record) if [one[key] for key in keys] == where]
        left = [label for label in labels if label not in done]
        if left:
            folder = next((work / "models").glob(f"{like}-*-*"))
            for found in counted(like, folder, [_task(label) for label in left], *where, native=native):
                with record.open("a") as file:
                    file.write(json.dumps(asdict(found)) + "\n")
                print(found, flush=True)


def _checkpoint(options: argparse.Namespace) -> Path:
    """The folder of a checkpoint of these depths or deeper; where there is none it is written."""
    models = options.work / "models"
    wanted = (options.blocks, options.vision_blocks)
    for folder in sorted(models.glob(f"{options.model}-*-*")):
        depths = tuple(map(int, folder.name.split("-")[-2:]))
        if all(there >= asked for there, asked in zip(depths, wanted, strict=True)):
            return folder
    from tests.realsize.architectures import save

    written = models / f".{options.model}"
    save(options.model, written, options.work, blocks=wanted[0], vision_blocks=wanted[1])
    return written.rename(models / "-".join([options.model, *map(str, wanted)]))


def _lines(record: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []


if __name__ == "__main__":
    main()

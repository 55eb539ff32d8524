"""The command line of the training."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from medfocus_bench.phantom import training
from medfocus_bench.phantom.training.checkpoints import FAMILIES
from medfocus_bench.phantom.training.detector import train_detector
from medfocus_bench.phantom.training.language import train_language
from medfocus_bench.phantom.training.pictures import ROLES
from medfocus_bench.phantom.training.segmenter import train_segmenter
from medfocus_bench.phantom.training.vision import train_vision


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(
        description=training.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    vision, language = stages.add_parser("vision"), stages.add_parser("language")
    segmenter, detector = stages.add_parser("segmenter"), stages.add_parser("detector")
    for stage in (vision, language):
        stage.add_argument("family", choices=FAMILIES)
        stage.add_argument("role", choices=ROLES)
    for stage, pictures, steps, batch in (
        (vision, 5000, 1500, 16),
        (language, 5000, 1500, 16),
        (segmenter, 3000, 1200, 12),
        (detector, 3000, 1700, 16),
    ):
        stage.add_argument("--out", type=Path, required=True)
        stage.add_argument("--pictures", type=int, default=pictures)
        stage.add_argument("--steps", type=int, default=steps)
        stage.add_argument("--batch", type=int, default=batch)
        stage.add_argument("--seed", type=int, default=0)
    language.add_argument("--begin-with", choices=ROLES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {name: getattr(options, name) for name in ("pictures", "steps", "batch", "seed")}
    if options.stage == "segmenter":
        train_segmenter(options.out, **settings)
    elif options.stage == "detector":
        train_detector(options.out, **settings)
    elif options.stage == "vision":
        train_vision(options.family, options.role, options.out, **settings)
    else:
        train_language(options.family, options.role, options.out, begin_with=options.begin_with, **settings)


if __name__ == "__main__":
    main()

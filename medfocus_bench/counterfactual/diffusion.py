"""RadEdit: a latent diffusion model of chest radiographs that redraws a region and keeps the rest.

Pérez-García, Bond-Taylor et al., "RadEdit: stress-testing biomedical vision models via diffusion image
editing" (ECCV 2024), Algorithm 3, on the noise space of Huberman-Spiegelglas et al., "An Edit Friendly DDPM
Noise Space" (CVPR 2024). With a_t the share of the picture that is left at noise level t:

1. The picture is noised to every level on its own, x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n_t, and the noise
   that a step has to add so that it leads from x_t to x_(t-1) is remembered: r_t = x_(t-1) - m(x_t), where m
   is the mean of the DDPM step (DDIM with eta = 1) without a prompt.
2. From the level at which editing starts, steps of the edited latent y: the prediction is guided by the
   prompt inside the region and unguided outside, y_(t-1) = m'(y_t) + r_t, and what is to be kept is set to
   x_(t-1).

The last step adds no noise; what is kept is then x_0 itself. Both walks are made side by side, since step 1
needs no order: a level of noise is drawn when it is reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import BertModel, BertTokenizer

from medfocus_bench.counterfactual.editors import EditorError
from medfocus_bench.geometry import BoolArray, UInt8Image
from medfocus_bench.storage import check_fetched

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

TRAINING_STEPS: Final = 1000
_TOKENS: Final = 128


def ddim_scheduler() -> Any:
    """The noise schedule that RadEdit was trained with (its model card)."""
    return DDIMScheduler(
        num_train_timesteps=TRAINING_STEPS,
        beta_schedule="linear",
        clip_sample=False,
        prediction_type="epsilon",
        timestep_spacing="trailing",
        steps_offset=1,
    )


@dataclass(frozen=True, slots=True)
class EditSettings:
    """Settings of an edit: `steps` from noise to picture, of which the share `skip_ratio` is left out."""

    steps: int
    guidance: float
    skip_ratio: float

    @property
    def skipped(self) -> int:
        """The noisiest steps, which are not made: the more, the closer to the original."""
        return int(self.steps * self.skip_ratio)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One edit: `picture` and `region` (size, size), a prompt, and the seed of its noise.

    Tasks with the same picture and seed share the noise, and the walk that remembers it.
    """

    picture: UInt8Image
    region: BoolArray
    prompt: str
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class DiffusionStack:
    """U-Net, autoencoder and text encoder, frozen.

    The autoencoder computes in float32 whatever the others do: that of SDXL overflows float16.
    """

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    device: str
    dtype: torch.dtype

    @classmethod
    def load(cls, unet: Path, vae: Path, text_encoder: Path, *, device: str, dtype: str) -> DiffusionStack:
        """The three parts from local folders; weights are safetensors.

        The text encoder may be a CXR-BERT: a BERT with a masked-language head and a projection, of which only
        the BERT is used, so that the stock class reads it and no code of its repository is needed. Raises
        EditorError for a device or dtype that is not there, and for a folder that does not fit.
        """
        if dtype not in DTYPES:
            raise EditorError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise EditorError(f"device {device!r}: {str(error).splitlines()[0]}") from None
        kind = DTYPES[dtype]
        drawer = _loaded(UNet2DConditionModel, unet, torch_dtype=kind)
        coder = _loaded(AutoencoderKL, vae, torch_dtype=torch.float32)
        teller = _loaded(BertModel, text_encoder, dtype=kind, add_pooling_layer=False)
        try:
            tokenizer = BertTokenizer.from_pretrained(text_encoder, model_max_length=_TOKENS)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise EditorError(f"{text_encoder}: holds no vocabulary: {str(error).splitlines()[0]}") from None
        stack = cls(drawer.to(device), coder.to(device), teller.to(device), tokenizer, device, kind)
        stack.check_fit()
        return stack

    def check_fit(self) -> None:
        """Raise EditorError where the parts cannot be of one model."""
        told, read = self.text_encoder.config.hidden_size, self.unet.config.cross_attention_dim
        if told != read:
            raise EditorError(f"the text encoder tells {told} features a token, the U-Net reads {read}")
        held, drawn = self.vae.config.latent_channels, self.unet.config.in_channels
        if held != drawn:
            raise EditorError(f"the autoencoder's latents have {held} channels, the U-Net reads {drawn}")

    @property
    def cell(self) -> int:
        """Pixels a side that a cell of the latents stands for: 8."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @torch.inference_mode()
    def embed(self, prompts: Sequence[str]) -> torch.Tensor:
        """Prompts as the U-Net reads them: (n, tokens, features).

        All are padded to 128 tokens, and padding is attended to, as in the diffusers pipeline of the model.
        """
        length = min(_TOKENS, self.text_encoder.config.max_position_embeddings)
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        ids = tokens.input_ids.to(self.device)
        told: torch.Tensor = self.text_encoder(ids, attention_mask=torch.ones_like(ids))[0]
        return told

    @torch.inference_mode()
    def encode(self, pictures: Sequence[UInt8Image]) -> torch.Tensor:
        """Grey pictures (size, size) as latents (n, channels, size / 8, size / 8): the mean, not a sample."""
        stacked = torch.from_numpy(np.stack(pictures)).to(self.device).float() / 127.5 - 1
        mean: torch.Tensor = self.vae.encode(stacked[:, None].expand(-1, 3, -1, -1)).latent_dist.mode()
        return mean * float(self.vae.config.scaling_factor)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> list[UInt8Image]:
        """The grey pictures (size, size) that latents stand for."""
        shown = self.vae.decode(latents.float() / self.vae.config.scaling_factor, return_dict=False)[0]
        levels = ((shown.mean(1) + 1) * 127.5).round().clamp(0, 255)
        return list(levels.to(torch.uint8).cpu().numpy())

    def latent_region(self, regions: Sequence[BoolArray]) -> torch.Tensor:
        """The cells (n, 1, size / 8, size / 8) of which a region has any pixel."""
        stacked = torch.from_numpy(np.stack(regions)).to(self.device)
        count, size = stacked.shape[0], stacked.shape[-1]
        side = size // self.cell
        cells = stacked.reshape(count, side, self.cell, side, self.cell)
        return cells.any(4).any(2)[:, None]

    @torch.inference_mode()
    def edit(self, tasks: Sequence[Task], settings: EditSettings) -> torch.Tensor:
        """The latents of edited pictures: (n, channels, size / 8, size / 8), float32.

        Cells outside a task's region are those of `encode`, bit for bit. Raises EditorError where the model
        yields values that are not finite.
        """
        walks = list(dict.fromkeys((task.picture.tobytes(), task.seed) for task in tasks))
        at = [walks.index((task.picture.tobytes(), task.seed)) for task in tasks]
        first = [at.index(number) for number in range(len(walks))]
        clean = self.encode([tasks[number].picture for number in first])
        noise = [torch.Generator().manual_seed(tasks[number].seed) for number in first]
        scheduler = ddim_scheduler()
        scheduler.set_timesteps(settings.steps)
        levels = scheduler.timesteps[settings.skipped :]
        if not len(levels):
            return clean[at]

        prompts = self.embed(["", *(task.prompt for task in tasks)])
        silence = prompts[:1]
        told = torch.cat([silence.expand(len(walks) + len(tasks), -1, -1), prompts[1:]])
        region = self.latent_region([task.region for task in tasks])

        walk = _noised(scheduler, clean, levels[0], noise)
        edited = walk[at]
        for level, following in zip(levels, [*levels[1:], None], strict=True):
            seen = torch.cat([walk, edited, edited])
            predicted = self.unet(seen.to(self.dtype), level, encoder_hidden_states=told)[0].float()
            of_walk, unguided, prompted = predicted.split([len(walks), len(tasks), len(tasks)])
            guided = unguided + settings.guidance * (prompted - unguided)
            edited = _mean_step(scheduler, torch.where(region, guided, unguided), level, edited)
            if following is None:
                walk = clean
            else:
                reached = _noised(scheduler, clean, following, noise)
                edited = edited + (reached - _mean_step(scheduler, of_walk, level, walk))[at]
                walk = reached
            edited = torch.where(region, edited, walk[at])
        if not torch.isfinite(edited).all():
            raise EditorError(f"the model yields values that are not finite in {self.dtype}; try float32")
        return edited


def _noised(
    scheduler: Any, clean: torch.Tensor, level: torch.Tensor, noise: Sequence[torch.Generator]
) -> torch.Tensor:
    """Latents at a level of noise; each has a generator of its own, so that none depends on the others."""
    shape = tuple(clean.shape[1:])
    drawn = torch.stack([torch.randn(shape, generator=generator) for generator in noise]).to(clean.device)
    noised: torch.Tensor = scheduler.add_noise(clean, drawn, level)
    return noised


def _mean_step(
    scheduler: Any, predicted: torch.Tensor, level: torch.Tensor, latents: torch.Tensor
) -> torch.Tensor:
    """One DDPM step (DDIM with eta = 1) without the noise that it adds."""
    nothing = torch.zeros_like(latents)
    step = scheduler.step(predicted, level, latents, eta=1.0, variance_noise=nothing, return_dict=False)
    mean: torch.Tensor = step[0]
    return mean


def _loaded(kind: Any, folder: Path, **options: Any) -> Any:
    """A frozen model of a class from a folder, with every weight that the class has."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    spoken = transformers_logging.get_verbosity(), diffusers_logging.get_verbosity()
    # Weights of a head that is not used are expected; weights that are missing are an error below.
    transformers_logging.set_verbosity_error()
    diffusers_logging.set_verbosity_error()
    try:
        model, report = kind.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, local_files_only=True, **options
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        check_fetched(folder)
        raise EditorError(
            f"{folder}: cannot be read as {kind.__name__}: {str(error).splitlines()[0]}"
        ) from None
    finally:
        transformers_logging.set_verbosity(spoken[0])
        diffusers_logging.set_verbosity(spoken[1])
    if report["missing_keys"]:
        raise EditorError(f"{folder}: lacks the weights {min(report['missing_keys'])} of {kind.__name__}")
    return model.eval().requires_grad_(False)

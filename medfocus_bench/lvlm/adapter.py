"""LVLMs of the transformers library: responses, teacher-forced probabilities, internal states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from medfocus_bench.data.questions import GREEDY, Decoding
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import Frame, UInt8Image
from medfocus_bench.lvlm.chat_format import ChatFormatter, message
from medfocus_bench.lvlm.checkpoint import open_checkpoint
from medfocus_bench.lvlm.decoding import end_tokens, most_tokens
from medfocus_bench.lvlm.example import EncodedExample, Target
from medfocus_bench.lvlm.fine_tune import FineTune
from medfocus_bench.lvlm.finite import check_finite
from medfocus_bench.lvlm.grid import InputView, Preprocessing, TokenGrid, seen_part
from medfocus_bench.lvlm.half_products import half_products
from medfocus_bench.lvlm.head import OutputHead
from medfocus_bench.lvlm.module import ScoreModule
from medfocus_bench.lvlm.protocol import AUTO_BATCH, Response
from medfocus_bench.lvlm.recorded_attention import recorded_attention
from medfocus_bench.lvlm.trace import (
    Keep,
    PassCounter,
    Trace,
    recorded_logits,
    recording,
)


class HuggingFaceLVLM:
    """A Qwen2.5-VL, Gemma 3 or similar checkpoint through transformers.

    `source` is a local folder or a Hub id; remote code is never run. With `square` framing pictures are
    resized and padded to the model frame of side `size` first; with `native` the processor is given them as
    they are. `attention` names the implementation of attention ("sdpa", "eager", ...); where a method reads
    weights, a block computes them beside it. `batch` pictures go through the model together. `device`,
    `quantise`, `decoding` and `pixels` are those of `load_lvlm`; `quantised` says whether any weights are.
    Raises InputError where the checkpoint cannot be loaded, or where its family is unknown; every pass raises
    NotFiniteError for numbers that are not finite, as float16 makes where it overflows.
    """

    def __init__(
        self,
        key: str,
        source: str | Path,
        *,
        size: int = 224,
        framing: Preprocessing = "square",
        device: str = "cpu",
        dtype: str = "float32",
        attention: str = "sdpa",
        revision: str | None = None,
        pixels: tuple[int, int] | None = None,
        batch: int = AUTO_BATCH,
        quantise: str | None = None,
        decoding: Decoding = GREEDY,
        tune: FineTune | None = None,
    ) -> None:
        self.model, self.processor, self.family = open_checkpoint(
            source,
            device=device,
            dtype=dtype,
            attention=attention,
            revision=revision,
            pixels=pixels,
            quantise=quantise,
            decoding=decoding,
            tune=tune,
        )
        self.decoding, self.tune = decoding, tune
        self.quantised = bool(getattr(self.model, "is_quantized", False))
        self.key, self.size, self.framing, self.batch = key, size, framing, batch
        self.source, self.revision = source, revision
        ends = end_tokens(self.model.generation_config)
        self.chat_format = ChatFormatter(key, self.processor, self.family, ends)
        self.decoder: Any = self.family.decoder(self.model)
        text = self.model.config.get_text_config()
        softcap = getattr(text, "final_logit_softcapping", None)
        self.positions: int | None = getattr(text, "max_position_embeddings", None)
        self.head = OutputHead(self.model.get_output_embeddings(), softcap)
        self._meters: list[PassCounter] = []

    @property
    def layers(self) -> int:
        """Blocks of the text decoder."""
        return len(self.decoder.layers)

    @property
    def device(self) -> torch.device:
        """Of the token embeddings, of inputs and of results; the blocks may lie on others."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> str:
        """Of the weights, such as float32."""
        return str(self.model.dtype).removeprefix("torch.")

    @contextmanager
    def measured(self) -> Iterator[PassCounter]:
        """Count the passes that are made inside the block."""
        meter = PassCounter()
        self._meters.append(meter)
        try:
            yield meter
        finally:
            self._meters.remove(meter)

    def prompt(self, question: str) -> str:
        """The chat prompt of a question about a picture, up to where the response begins."""
        return self.chat_format.prompt([message("user", question, picture=True)])

    # -- writing -------------------------------------------------------------------------------------------

    def generate(self, image: UInt8Image, question: str, *, max_new_tokens: int | None = None) -> Response:
        """The response to one (image, question), see `respond`."""
        return self.respond([image], [question], max_new_tokens=max_new_tokens)[0]

    @torch.inference_mode()
    def respond(
        self, images: Sequence[UInt8Image], questions: Sequence[str], *, max_new_tokens: int | None = None
    ) -> list[Response]:
        """One response to each (image, question), batched with left padding, by the LVLM's `decoding`.

        At most `max_new_tokens` long, by default as long as `decoding.most_tokens` lets it be.

        Raises InputError for special tokens in a question, and for one that leaves no room for a response.
        """
        messages = [[message("user", question, picture=True)] for question in questions]
        return self._continue(list(images), messages, max_new_tokens)

    @torch.inference_mode()
    def converse(
        self, image: UInt8Image, said: Sequence[str], *, max_new_tokens: int | None = None
    ) -> Response:
        """The reply to the last of `said`, which alternates the user's words and the model's own."""
        chat = [
            message("assistant" if number % 2 else "user", text, picture=number == 0)
            for number, text in enumerate(said)
        ]
        return self._continue([image], [chat], max_new_tokens)[0]

    def _continue(
        self, images: Sequence[UInt8Image], messages: Sequence[list[Any]], max_new_tokens: int | None
    ) -> list[Response]:
        prompts = [self.chat_format.prompt(chat) for chat in messages]
        inputs = self._processed(prompts, [self._picture(image) for image in images]).to(self.device)
        self._check_room(int(inputs["attention_mask"].sum(1).max()) + 1)
        with (
            recorded_logits(self.model, self.head, self.chat_format.verdicts) as steps,
            half_products(self.model),
        ):
            # How is in the model's generation config, see `decoding`.
            sequences = self.model.generate(
                **inputs, max_new_tokens=max_new_tokens or most_tokens(self.decoding)
            )
        written = sequences[:, inputs["input_ids"].shape[1] :]
        self._count(forward=written.numel())
        # A response ends at its end token; what is computed to fill up the batch after that is nobody's.
        for n, ids in enumerate(written.tolist()):
            self._check_finite([step[n] for step in steps[: self.chat_format.length(ids) + 1]], "the logits")
        return [
            self.chat_format.response(ids, [step[n] for step in steps])
            for n, ids in enumerate(written.tolist())
        ]

    # -- teacher forcing -----------------------------------------------------------------------------------

    def encode(
        self,
        image: UInt8Image,
        question: str,
        response: str | Response | None,
        *,
        finding: str | None = None,
    ) -> EncodedExample:
        """The image, the question and the response to it, tokenised and preprocessed once.

        A `Response` keeps the ids that the model wrote; a text is tokenised on its own, as it follows the
        prompt, and must come back unchanged; for None the model writes one. `finding`, the one that the
        question is about, is kept for methods that need to know it. Raises InputError for an empty response
        or one that does not come back, for special tokens in the question, and where all of it has more
        tokens than the model has positions.
        """
        if response is None:
            response = self.generate(image, question)
        written = response if isinstance(response, Response) else self.chat_format.tokenised(response)
        if not written.ids:
            raise InputError(f"the response {written.text!r} has no tokens: there is nothing to explain")
        inputs = self._processed([self.prompt(question)], [self._picture(image)])
        prompt = inputs["input_ids"][0]
        self._check_room(len(prompt) + len(written.ids))
        rows, columns = self.family.grid(self.model, inputs)
        ids = torch.cat([prompt, torch.tensor(written.ids)])
        types = None
        if self.family.type_ids is not None:
            own = torch.full((len(written.ids),), self.family.response_type)
            types = torch.cat([inputs[self.family.type_ids][0], own])
        processor = self.processor.image_processor
        tokenizer = self.processor.tokenizer
        pixel_values = self.family.pixel_values(self.model, inputs).float().to(self.device)
        height, width = pixel_values.shape[1:]
        seen = seen_part(rows, height), seen_part(columns, width)
        return EncodedExample(
            image=image,
            question=question,
            response=written.text,
            ids=ids.to(self.device),
            token_types=None if types is None else types.to(self.device),
            image_positions=self.family.image_positions(self.model, prompt).to(self.device),
            answer=range(len(prompt), len(ids)),
            tokens=tuple(tokenizer.decode([token]) for token in written.ids),
            pixel_values=pixel_values,
            mean=torch.tensor(processor.image_mean, device=self.device)[:, None, None],
            std=torch.tensor(processor.image_std, device=self.device)[:, None, None],
            grid=TokenGrid(rows, columns, self.view(*image.shape[1::-1]), seen),
            verdict=self.chat_format.verdict_at(written.ids, written.text),
            finding=finding,
            in_sequence="image_tokens" not in self.family.lacks,
        )

    def log_probs(
        self, images: Sequence[UInt8Image], question: str, response: str | Response
    ) -> npt.NDArray[np.float32]:
        """Teacher-forced log-probability of each of the response's tokens, float32: (images, tokens)."""
        return self._of_pictures(images, question, response, self.token_scores)

    def token_log_odds(
        self, images: Sequence[UInt8Image], question: str, response: str | Response
    ) -> npt.NDArray[np.float32]:
        """Teacher-forced log-odds of each of the response's tokens over all others: (images, tokens).

        Float32; as exact where a token is all but certain as where it is all but impossible.
        """
        return self._of_pictures(images, question, response, self._log_odds_of)

    def _of_pictures(
        self,
        images: Sequence[UInt8Image],
        question: str,
        response: str | Response,
        score: Callable[[EncodedExample, torch.Tensor], torch.Tensor],
    ) -> npt.NDArray[np.float32]:
        """A score (n, tokens) of the response to each picture; pictures of one size go together."""
        scores: dict[int, npt.NDArray[np.float32]] = {}
        for shape in dict.fromkeys(image.shape for image in images):
            same = [n for n, image in enumerate(images) if image.shape == shape]
            example = self.encode(images[same[0]], question, response)
            others = [self._pixel_values(images[n]) for n in same[1:]]
            found = score(example, torch.stack([example.pixel_values, *others])).cpu().numpy()
            scores |= dict(zip(same, found, strict=True))
        return np.stack([scores[n] for n in range(len(images))])

    def _pixel_values(self, image: UInt8Image) -> torch.Tensor:
        """The `pixel_values` of an encoded picture, without its text."""
        inputs = self.processor.image_processor(
            images=[[self._picture(image)]], return_tensors="pt", **self.family.image_options
        )
        return self.family.pixel_values(self.model, inputs).float().to(self.device)

    @torch.inference_mode()
    def _log_odds_of(self, example: EncodedExample, pixel_values: torch.Tensor) -> torch.Tensor:
        ids = example.ids[example.answer.start :]
        parts = [self.head.own_log_odds(rows, ids) for rows in self._row_batches(example, pixel_values)]
        self._check_finite(parts, "the log-odds of the response")
        return torch.cat(parts)

    @torch.inference_mode()
    def token_scores(self, example: EncodedExample, pixel_values: torch.Tensor) -> torch.Tensor:
        """As `log_probs`, for edited pixels (n, 3, height, width) of one example: (n, tokens)."""
        ids = example.ids[example.answer.start :]
        parts = [self.head.log_probs(rows, ids) for rows in self._row_batches(example, pixel_values)]
        self._check_finite(parts, "the log-probabilities of the response")
        return torch.cat(parts)

    @torch.inference_mode()
    def scores(
        self, example: EncodedExample, pixel_values: torch.Tensor, target: Target = "response"
    ) -> torch.Tensor:
        """The target for edited pixels (n, 3, height, width), float32: (n,).

        Made in inference mode, a batch at a time: values without a graph, which nothing can differentiate,
        whatever the pixels require. For gradients there are `pixel_gradients` and `as_module`.
        """
        parts = self._parts(pixel_values)
        return torch.cat([self.pass_scores(example, part, target) for part in parts])

    def pass_scores(
        self, example: EncodedExample, pixel_values: torch.Tensor, target: Target = "response"
    ) -> torch.Tensor:
        """As `scores`, in one pass of all the pictures; with a graph where gradients are enabled."""
        values = self._target_of(example, self._rows_of(example, pixel_values), target)
        if values.requires_grad:
            count = len(values)
            values.register_hook(lambda _: self._count(backward=count))  # type: ignore[no-untyped-call]
        return values

    def as_module(self, example: EncodedExample, target: Target = "response") -> ScoreModule:
        """A module of torch from pixels (n, 3, height, width) of the example to scores of the target (n,).

        It is differentiable: what Captum, pytorch-grad-cam and Quantus take (docs/other-libraries.md). Raises
        ValueError for a target that the response does not have.
        """
        return ScoreModule(self, example, target)

    def pixel_gradients(
        self, example: EncodedExample, pixel_values: torch.Tensor, target: Target = "response"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The target for edited pixels (n, 3, height, width), (n,), and its gradients at their pixels.

        Differentiated a batch at a time, also where the caller has switched gradients off; n forward and n
        backward passes.
        """
        values, gradients = [], []
        for part in self._parts(pixel_values):
            with torch.inference_mode(mode=False), torch.enable_grad():
                leaf = part.detach().clone().requires_grad_()
                value = self.pass_scores(example, leaf, target)
                gradients.append(torch.autograd.grad(value.sum(), leaf)[0])
            self._check_finite(gradients[-1], "the gradients at the pixels")
            values.append(value.detach())
        return torch.cat(values), torch.cat(gradients)

    def objective(self, example: EncodedExample, trace: Trace, target: Target = "response") -> torch.Tensor:
        """The target of one traced pass: a scalar to differentiate."""
        return self._target_of(example, trace.rows[None], target)[0]

    def logit_objective(
        self, example: EncodedExample, trace: Trace, target: Target = "response"
    ) -> torch.Tensor:
        """As `objective` without the vocabulary's normaliser: a sum of logits, or of their difference."""
        if target == "verdict":
            return self.objective(example, trace, target)
        chosen = example.offsets(target)
        part = slice(chosen.start, chosen.stop)
        return self.head.own_logits(trace.rows[part], example.ids[example.answer.start :][part]).sum()

    def trace(
        self,
        example: EncodedExample,
        *,
        pixel_values: torch.Tensor | None = None,
        hidden: Iterable[int] = (),
        attentions: Iterable[int] = (),
        attention_rows: slice | None = None,
        keep: Keep | None = None,
        gradients: bool = False,
    ) -> Trace:
        """One pass that records the hidden states and attention weights of some blocks.

        Weights are computed at `attention_rows` alone, (heads, rows, length), and all of them where that is
        None; `keep` reduces those of a block as they are made. So no more is held than a method reads.
        With `gradients` everything recorded is part of one graph that
        starts at the first of it (a block's output, the input of a block whose weights are recorded, the
        embeddings where neither is, and then what is injected), or at `pixel_values` where that requires
        gradients; it stays on the device of its block.
        """
        hidden, attentions = self._blocks(hidden), self._blocks(attentions)
        if attention_rows is not None:
            attention_rows = _closed(attention_rows, len(example.ids))
        given = example.pixel_values if pixel_values is None else pixel_values
        root = gradients and not given.requires_grad
        device = None if gradients else self.device
        weighing = recorded_attention(self.decoder, attentions, attention_rows)
        with (
            torch.enable_grad() if gradients else torch.inference_mode(),
            weighing if attentions else nullcontext(),
            recording(
                self.decoder, hidden, attentions, keep, device, injected=self.family.injected, root=root
            ) as found,
        ):
            last = self._last_hidden(example, given[None])[0]
        assert found.embeddings is not None
        rows = last[example.rows.start : example.rows.stop]
        self._check_finite(rows, "the hidden states that predict the response")
        self._check_finite(found.hidden.values(), "hidden states inside")
        self._check_finite(found.attentions.values(), "attention weights")
        return Trace(rows, last, found.embeddings, found.hidden, found.attentions, found.injected)

    def gradients(self, value: torch.Tensor, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The gradients of a scalar, one backward pass.

        Raises InputError where one is zero everywhere, NotFiniteError where one overflows.
        """
        if not all(states.requires_grad for states in inputs):
            raise InputError(
                f"{self.key}: the graph of a trace starts at the first block that is recorded, and what "
                "comes before it has no gradient; ask for that in a trace of its own, or for a graph from "
                "the pixels on: pixel_values=example.pixel_values.clone().requires_grad_()"
            )
        self._count(backward=1)
        found = torch.autograd.grad(value, list(inputs), allow_unused=True)
        if any(gradient is None or not gradient.any() for gradient in found):
            raise InputError(
                f"{self.key}: the target has no gradient there; after the last block the image's positions "
                "no longer reach the answer, so choose an earlier layer"
            )
        self._check_finite(found, "the gradients")
        return list(found)

    # -- parts ---------------------------------------------------------------------------------------------

    def _blocks(self, numbers: Iterable[int]) -> tuple[int, ...]:
        """Numbers of blocks, counted from 0. Raises ValueError for one that is not there."""
        found = tuple(numbers)
        wrong = [number for number in found if not 0 <= number < self.layers]
        if wrong:
            raise ValueError(
                f"{self.key}: no block {wrong[0]}; its decoder has blocks 0 to {self.layers - 1}"
            )
        return found

    def _parts(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Batches of even sizes: one picture at the end would cost as much as several in another."""
        if len(pixel_values) == 0:
            raise ValueError("no pictures: pixel values are (n, 3, height, width), of one at least")
        return pixel_values.tensor_split(ceil(len(pixel_values) / self.batch))

    def _row_batches(self, example: EncodedExample, pixel_values: torch.Tensor) -> Iterator[torch.Tensor]:
        """The hidden states that predict the response, for a batch of pictures at a time."""
        for part in self._parts(pixel_values):
            yield self._rows_of(example, part)

    def _rows_of(self, example: EncodedExample, pixel_values: torch.Tensor) -> torch.Tensor:
        rows = self._last_hidden(example, pixel_values)[:, example.rows.start : example.rows.stop]
        self._check_finite(rows, "the hidden states that predict the response")
        return rows

    def _last_hidden(self, example: EncodedExample, pixel_values: torch.Tensor) -> torch.Tensor:
        count = len(pixel_values)
        self._count(forward=count)
        ids = example.ids.expand(count, -1)
        inputs = self.family.image_inputs(self.model, pixel_values)
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.family.type_ids is not None and example.token_types is not None:
            inputs[self.family.type_ids] = example.token_types.expand(count, -1)
        inputs |= self.family.other_inputs(self.model, inputs)
        with half_products(self.model):
            last: torch.Tensor = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        return last.to(self.device)

    def _target_of(self, example: EncodedExample, rows: torch.Tensor, target: Target) -> torch.Tensor:
        chosen = example.offsets(target)
        rows = rows[:, chosen.start : chosen.stop]
        if target == "verdict":
            value = self.head.log_odds(rows[:, 0], self.chat_format.yes, self.chat_format.no)
        else:
            ids = example.ids[example.answer.start :][chosen.start : chosen.stop]
            value = self.head.log_probs(rows, ids).sum(-1)
        self._check_finite(value.detach(), "the scores of the response")
        return value

    def _check_room(self, tokens: int) -> None:
        if self.positions is not None and tokens > self.positions:
            raise InputError(
                f"picture, question and response take {tokens} tokens and {self.key} has positions for "
                f"{self.positions}: shorten the question or the response"
            )

    def _check_finite(self, values: torch.Tensor | Iterable[torch.Tensor], named: str) -> None:
        check_finite(values, named, self.key, self.model.dtype)

    def _count(self, forward: int = 0, backward: int = 0) -> None:
        for meter in self._meters:
            meter.forward_passes += forward
            meter.backward_passes += backward

    def _processed(self, prompts: list[str], pictures: list[Image.Image]) -> Any:
        return self.processor(
            text=prompts,
            images=[[picture] for picture in pictures],
            padding=True,
            return_tensors="pt",
            **self.family.image_options,
        )

    def view(self, width: int, height: int) -> InputView:
        """The part of the model frame that the processor is given: all of it, or the picture alone.

        A family that pads (`Family.padded`) is given a square in `native` framing, too, at the picture's own
        resolution.
        """
        if self.framing == "native" and self.family.padded:
            return InputView(Frame(width, height, max(width, height)), "square")
        return InputView(Frame(width, height, self.size), self.framing)

    def _picture(self, image: UInt8Image) -> Image.Image:
        view = self.view(image.shape[1], image.shape[0])
        if view.framing == "native":
            return Image.fromarray(image).convert("RGB")
        return frame_picture(image, view.frame.size)


def _closed(rows: slice, length: int) -> slice:
    """Rows of so many as a slice with both ends. Raises ValueError for one that leaves rows out between."""
    start, stop, step = rows.indices(length)
    if step != 1:
        raise ValueError(f"attention_rows {rows}: rows follow one another; leave out the step")
    return slice(start, max(start, stop))


def frame_picture(image: UInt8Image, size: int) -> Image.Image:
    """A picture in the model frame: aspect kept, bicubic, zero padding split evenly; RGB."""
    height, width = image.shape[:2]
    frame = Frame(width, height, size)
    picture = Image.fromarray(image).convert("RGB")
    if (width, height) == (size, size):
        return picture
    square = Image.new("RGB", (size, size))
    square.paste(picture.resize(frame.content_size, Image.Resampling.BICUBIC), frame.content[:2])
    return square

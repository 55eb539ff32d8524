"""The base class of attribution methods."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from medfocus_bench.attribution.attribution import Attribution, Cost
from medfocus_bench.errors import InputError

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target
    from medfocus_bench.lvlm.families import Assumption, Family

Need = Literal["forward", "gradients", "attentions", "text"]
MethodFamily = Literal["attention", "gradient", "prompting", "perturbation", "concept", "null", "other"]


class Method(ABC):
    """An attribution method with its hyperparameters, the fields of a frozen dataclass.

    A subclass implements `explain`; the defaults of its fields are the settings under which it is reported.

    Class variables: `name` is by default that of the class in lower case with hyphens, `title` how tables
    name the method, `description` by default the first line of the class's docstring, `paper` a URL, `needs`
    the parts of the model that are used: forward passes, gradients, attention weights, or only its text;
    `assumes` what must hold for the model (`lvlm.families.Assumption`), so that a family which breaks it is
    refused rather than explained wrongly.

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> import medfocus_bench as mb
        >>> @dataclass(frozen=True)
        ... class Centre(mb.Method):
        ...     "The middle of the image."
        ...     def explain(self, lvlm, example, *, target, seed):
        ...         return mb.Attribution(saliency=np.pad(np.ones((2, 2)), 1))
        >>> sample = mb.load_benchmark("phantom").samples[0]
        >>> lvlm = mb.load_lvlm(sample.lvlm)
        >>> Centre().attribute(lvlm, sample.image, sample.question, sample.response).saliency.shape
        (4, 4)

    """

    name: ClassVar[str]
    title: ClassVar[str | None] = None
    family: ClassVar[MethodFamily] = "other"
    needs: ClassVar[tuple[Need, ...]] = ()
    assumes: ClassVar[tuple[Assumption, ...]] = ()
    description: ClassVar[str]
    paper: ClassVar[str | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if "name" not in own:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).strip("_").lower()
        if "description" not in own:
            cls.description = ((cls.__doc__ or "").strip() or cls.name).splitlines()[0]

    def attribute(
        self,
        lvlm: HuggingFaceLVLM,
        image: npt.NDArray[np.uint8],
        question: str,
        response: str | None = None,
        *,
        target: Target = "response",
        seed: int = 0,
        finding: str | None = None,
    ) -> Attribution:
        """Attribute the response of an LVLM to a question about an image.

        Args:
            lvlm: From `load_lvlm`.
            image: (height, width), uint8.
            question: The prompt, as the LVLM is to read it.
            response: The text to explain; by default the LVLM answers first.
            target: "response" (the log-probability of the whole response), "verdict" (the log-odds of yes
                over no where it says so), or a span (start, stop) of its tokens.
            seed: Of methods that draw at random.
            finding: The one that the question is about, for methods that remove it.

        Returns:
            The attribution with its cost; `sample_id` is empty.

        Raises InputError for a response without tokens and for a map with values that are not finite.

        """
        with _gradients_as_usual():
            example = lvlm.encode(image, question, response, finding=finding)
            return measured(self, lvlm, example, target=target, seed=seed)

    @abstractmethod
    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, /, *, target: Target, seed: int
    ) -> Attribution:
        """The hook of a method: attribute the response in an encoded example."""

    def check(self) -> None:
        """Raise InputError where a setting names a file or model that cannot be used.

        A run asks before it reads the benchmark and loads an LVLM.
        """
        return

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterable[Mapping[str, Any]]:
        """The settings that `tune` tries on the dev split, by the names of the fields; by default none.

        A method that gets the maps of many candidates from the same passes may implement
        `explain_candidates(lvlm, example, candidates, *, target, seed)`, a list of what `explain` gives with
        each of them.
        """
        return ()


def measured(
    method: Method, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target, seed: int
) -> Attribution:
    """Attribute an encoded example and measure the cost.

    Raises InputError for a map with values that are not finite, for gradients of quantised weights, and for a
    model of a family that breaks what the method assumes.
    """
    refuse_quantised([method], getattr(lvlm, "quantised", False))
    refuse_family([method], getattr(lvlm, "family", None), lvlm.key)
    with _gradients_as_usual(), lvlm.measured() as meter:
        found = method.explain(lvlm, example, target=target, seed=seed)
        cost = Cost(meter.forward_passes, meter.backward_passes, round(meter.seconds, 6))
    if found.saliency is not None and not np.isfinite(found.saliency).all():
        lost = found.saliency.size - np.isfinite(found.saliency).sum()
        name, dtype = getattr(method, "name", type(method).__name__), str(lvlm.model.dtype)
        raise InputError(
            f"{name} made a map of {lvlm.key} in {dtype.removeprefix('torch.')} with {lost} of "
            f"{found.saliency.size} values that are not finite; try another --dtype, or report the method"
        )
    return replace(found, cost=cost)


@contextmanager
def _gradients_as_usual() -> Iterator[None]:
    """Gradients where a method asks for them, also within a caller's `no_grad` or inference mode."""
    import torch

    with torch.inference_mode(mode=False), torch.enable_grad():
        yield


def refuse_quantised(methods: Iterable[Method], quantised: bool) -> None:
    """Raise InputError for methods that need gradients, which are not those of the quantised function."""
    refused = [method.name for method in methods if quantised and "gradients" in method.needs]
    if refused:
        raise InputError(
            f"gradients do not pass through quantised weights as the model computes with them, and "
            f"{', '.join(refused)} would need them: load the LVLM without --quantise, or choose other methods"
        )


def refuse_family(methods: Iterable[Method], family: Family | None, lvlm: str) -> None:
    """Raise InputError for methods that assume something of a model which its family breaks, all of them."""
    lacks = {} if family is None else family.lacks
    refused: dict[str, dict[str, None]] = {}
    for method in methods:
        reason = next((lacks[name] for name in getattr(method, "assumes", ()) if name in lacks), None)
        if reason is not None:
            refused.setdefault(reason, {})[method.name] = None
    if refused:
        raise InputError(
            "; ".join(
                f"{', '.join(names)} cannot explain {lvlm}: {reason}" for reason, names in refused.items()
            )
        )

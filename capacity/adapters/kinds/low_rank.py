"""What all adapters on linear modules share: PEFT's model around the base, with a pair ΔW = B A on each module."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor, nn

from capacity.adapters.linears import is_conv1d
from capacity.adapters.model import AdaptedModel, Products
from capacity.plan.model_shapes import ModuleShape

NAME = "default"  # PEFT's name of the adapter that is built here


@dataclass
class LowRankModel(AdaptedModel):
    """A model with PEFT's layers around its adapted modules. `pair` is that of a LoRA layer; others have their own."""

    def layer(self, shape: ModuleShape) -> Any:
        """PEFT's layer around an adapted module."""
        return self.bare.get_submodule(shape.name)

    def pair(self, layer: Any) -> tuple[Tensor, Tensor]:
        """A (r, k) and B (d, r) of one layer, differentiable."""
        return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight * layer.scaling[NAME]

    @torch.no_grad()
    def pairs(self) -> Iterator[tuple[ModuleShape, Tensor, Tensor]]:
        """Each adapted module with its A (r, k) and B (d, r) in fp32: ΔW = B A."""
        for shape in self.shapes:
            a, b = self.pair(self.layer(shape))
            yield shape, a.detach().float(), b.detach().float()

    def probed(self) -> dict[str, Products]:
        """ΔW of every module."""
        return {"update": ((shape.name, (b, a)) for shape, a, b in self.pairs())}

    def short_name(self, name: str) -> str:
        """Without PEFT's additions: "theta", "model.layers.0.self_attn.q_proj.lora_A"."""
        for part in ("base_model.model.", "base_model."):
            name = name.removeprefix(part)
        name = name.replace(f".{NAME}.weight", "").replace(f".{NAME}", "")
        return "theta" if name.endswith(".theta") else name

    @property
    def is_off(self) -> bool:
        """True within `switched_off`."""
        return bool(self.layer(self.shapes[0]).disable_adapters)

    @contextmanager
    def switched_off(self) -> Iterator[nn.Module]:
        """The untrained model, for the time of the context."""
        with self.model.disable_adapter():  # type: ignore[operator]
            yield self.model

    def detach(self) -> nn.Module:
        """Takes PEFT's layers off and gives the bare model back, untrained."""
        self.model.unload()  # type: ignore[operator]
        return self.bare


def lora_config(model: nn.Module, rank: int, shapes: Sequence[ModuleShape], *, initialise: bool = True) -> LoraConfig:
    """PEFT's config of LoRA on `shapes`, whose ΔW is B A without any scale."""
    # alpha = r makes PEFT's scaling 1.
    return LoraConfig(
        r=rank, lora_alpha=rank, lora_dropout=0.0, bias="none", init_lora_weights=initialise, **placed(model, shapes)
    )


def placed(model: nn.Module, shapes: Sequence[ModuleShape]) -> dict[str, Any]:
    """What every config of PEFT says of the modules that it is for."""
    return {
        "target_modules": [s.name for s in shapes],
        "fan_in_fan_out": is_conv1d(model.get_submodule(shapes[0].name)),
        "task_type": "CAUSAL_LM",
    }


def inject(model: nn.Module, config: PeftConfig, seed: int | None) -> Any:
    """PEFT's model around `model`, which is changed in place.

    PEFT draws initial values from torch's global generator: it is seeded for the time of the call, then put back.
    Without a seed nothing is drawn: the slots stay empty, for their owner to fill.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        return get_peft_model(model, config, adapter_name=NAME, low_cpu_mem_usage=seed is None)

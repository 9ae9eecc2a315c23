"""Puts an update of a given spec onto a loaded model: ours equal to the model bit for bit until they are trained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor, nn

from capacity.adapters.kinds import peft_small
from capacity.adapters.kinds.frozen import FrozenDown, TiedUp, check_loaded
from capacity.adapters.linears import adapted_modules, is_conv1d, is_quantised, weight_matrix
from capacity.adapters.projection import projections
from capacity.adapters.svd.cache import cached_svd
from capacity.adapters.svd.checkpoint import WeightFolder, folder_factors
from capacity.adapters.svd.factors import Factors
from capacity.errors import SpecError
from capacity.plan.budget import ModuleShape
from capacity.plan.sharing import assign_groups, check_u, group_sizes
from capacity.spec.adapters import Adapter, BitFit, FullUpdate, Lora, LoraXs, NoAdapter, TinyLora, UniLora, VbLora, Vera

NAME = "default"  # PEFT's name of the adapter that `attach` makes
OnModule = Callable[[int, int, str], None]


@dataclass
class AdaptedModel:
    """A model with one update on it.

    Attributes:
        model: what to call and to train; a PEFT model for adapters on modules, the bare transformers model otherwise.
        adapter: the spec that it was built from.
        bare: the bare transformers model inside.
        shapes: the adapted modules; empty for full, bitfit and none.
        entries: for tinylora, how many entries of θ each group has.
        base_state: for full and bitfit, the untrained values by name.
    """

    model: nn.Module
    adapter: Adapter
    bare: nn.Module
    shapes: tuple[ModuleShape, ...] = ()
    entries: tuple[int, ...] = ()
    base_state: dict[str, Tensor] | None = None

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name; their sizes add up to the planned count."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def trained_parameters(self) -> int:
        """Number of scalars that the optimiser changes."""
        return sum(p.numel() for p in self.trained.values())

    def update(self) -> dict[str, Tensor]:
        """The update in fp32 by name: what is trained, or for full and bitfit its difference to the untrained model."""
        if self.base_state is not None:
            return {n: p.detach() - self.base_state[n] for n, p in self.trained.items()}
        return {_short(name): p.detach().clone() for name, p in self.trained.items()}

    @torch.no_grad()
    def set_update(self, update: dict[str, Tensor]) -> None:
        """Replaces the update by `update`, as `update()` gives it, in any float dtype."""
        for name, parameter in self.trained.items():
            if self.base_state is not None:
                parameter.copy_(self.base_state[name] + update[name].to(parameter))
            else:
                parameter.copy_(update[_short(name)].to(parameter))

    def vector(self) -> Tensor:
        """The update as one flat fp32 vector on the CPU, its tensors one after the other."""
        return torch.cat([t.reshape(-1).float().cpu() for t in self.update().values()])

    def set_vector(self, vector: Tensor) -> None:
        """Replaces the update by `vector`, as `vector()` gives it."""
        update = self.update()
        parts = torch.split(vector, [t.numel() for t in update.values()])
        self.set_update({n: part.view(t.shape) for (n, t), part in zip(update.items(), parts, strict=True)})

    def layer(self, shape: ModuleShape) -> Any:
        """PEFT's layer around an adapted module."""
        return self.bare.get_submodule(shape.name)

    @torch.no_grad()
    def pairs(self) -> Iterator[tuple[ModuleShape, Tensor, Tensor]]:
        """Each adapted module with its A (r, k) and B (d, r) in fp32: ΔW = B A. Nothing for full and bitfit."""
        for shape in self.shapes:
            a, b = peft_small.lora_pair(self.layer(shape), NAME)
            yield shape, a.detach().float(), b.detach().float()

    @contextmanager
    def switched_off(self) -> Iterator[nn.Module]:
        """The untrained model, for the time of the context."""
        if self.base_state is not None:
            trained = {n: p.detach().clone() for n, p in self.trained.items()}
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(self.base_state[name])
            try:
                yield self.model
            finally:
                with torch.no_grad():
                    for name, parameter in self.trained.items():
                        parameter.copy_(trained[name])
        elif self.shapes:
            with self.model.disable_adapter():  # type: ignore[operator]
                yield self.model
        else:
            yield self.model

    def detach(self) -> nn.Module:
        """Takes the adapter off and gives the bare model back, untrained. Not for full and bitfit."""
        if self.shapes:
            self.model.unload()  # type: ignore[operator]
        return self.bare


def _short(name: str) -> str:
    """A trained parameter's name without PEFT's additions: "theta", "model.layers.0.self_attn.q_proj.lora_A"."""
    for part in ("base_model.model.", "base_model."):
        name = name.removeprefix(part)
    name = name.replace(f".{NAME}.weight", "").replace(f".{NAME}", "")
    return "theta" if name.endswith(".theta") else name


def entries_of_groups(adapter: TinyLora, shapes: Sequence[ModuleShape]) -> tuple[int, ...]:
    """The even allocation: u entries of θ for each group.

    Raises:
        SpecError: too many or too few groups, or u above its useful maximum.
    """
    assignment = assign_groups([s.type for s in shapes], adapter.groups, adapter.sharing)
    check_u(adapter.u, adapter.rank, assignment)
    return (adapter.u,) * adapter.groups


def check_rank(rank: int, shapes: Sequence[ModuleShape]) -> None:
    """Whether every module has `rank` singular values.

    Raises:
        SpecError: names the smallest module.
    """
    smallest = min(shapes, key=lambda s: min(s.d, s.k))
    if rank > min(smallest.d, smallest.k):
        raise SpecError(f"rank {rank} is above the smaller side of {smallest.name}, {smallest.d}×{smallest.k}")


def attach(
    model: nn.Module,
    adapter: Adapter,
    factor_cache: Path | None,
    *,
    entries: tuple[int, ...] | None = None,
    weights: WeightFolder | None = None,
    factors: dict[str, Factors] | None = None,
    on_module: OnModule | None = None,
) -> AdaptedModel:
    """Puts the update of `adapter` onto `model`, which is changed in place.

    What is trained is fp32 whatever the dtype of the model.

    Args:
        model: bare transformers model, in fp32, bf16, fp16, or quantised by bitsandbytes.
        adapter: what to put on it.
        factor_cache: folder of cached SVD factors, None for no cache.
        entries: tinylora's entries of θ for each group if they are not even.
        weights: the checkpoint that `model` was loaded from without rounding: its factors are found in the cache
            without hashing the model, or streamed from it.
        factors: SVD factors by module name, if they are known already.
        on_module: called with (done, all, name) after each module's factors.

    Raises:
        SpecError: the spec does not fit the model.
    """
    model.requires_grad_(False)
    match adapter:
        case NoAdapter():
            return AdaptedModel(model, adapter, model)
        case FullUpdate() | BitFit():
            return _attach_weights(model, adapter)
        case _:
            pass
    shapes = adapted_modules(model, adapter.targets)
    if isinstance(adapter, TinyLora | LoraXs):
        check_rank(adapter.rank, shapes)
        if weights is not None and factors is None:
            transposed = shapes if _conv1d(model, shapes) else ()
            names = [s.name for s in transposed]
            factors = folder_factors(weights, shapes, adapter.rank, factor_cache, on_module, names)
        return _attach_frozen(model, adapter, shapes, entries, factors or {}, factor_cache, on_module)
    if isinstance(adapter, Lora):
        check_rank(adapter.rank, shapes)
        config = _lora_config(model, adapter.rank, shapes)
    else:
        if isinstance(adapter, UniLora) and is_quantised(model.get_submodule(shapes[0].name)):
            # PEFT casts its scales to the dtype of the base's weights, here integers: they would all be zero.
            raise SpecError("adapter uni-lora does not work on a quantised base: load it in fp32, bf16 or fp16")
        config = peft_small.peft_config(adapter, shapes, conv1d=_conv1d(model, shapes))
    peft_model = _inject(model, config, seed=_seed(adapter))
    return AdaptedModel(peft_model, adapter, model, shapes)


def _seed(adapter: Lora | Vera | VbLora | UniLora) -> int:
    return adapter.init_seed if isinstance(adapter, Lora | VbLora) else adapter.projection_seed


def _attach_weights(model: nn.Module, adapter: FullUpdate | BitFit) -> AdaptedModel:
    """Trains the model's own weights (full) or biases (bitfit), in place."""
    names = [n for n, _ in model.named_parameters() if isinstance(adapter, FullUpdate) or n.endswith("bias")]
    if not names:
        raise SpecError("this model has no biases, so adapter bitfit has nothing to train")
    if any(is_quantised(m) for m in model.modules()) or any(
        model.get_parameter(n).dtype != torch.float32 for n in names
    ):
        raise SpecError(f"adapter {adapter.kind} trains the model's own weights: load the model in fp32")
    for name in names:
        model.get_parameter(name).requires_grad_(True)
    base = {name: model.get_parameter(name).detach().clone() for name in names}
    return AdaptedModel(model, adapter, model, base_state=base)


def _attach_frozen(
    model: nn.Module,
    adapter: TinyLora | LoraXs,
    shapes: tuple[ModuleShape, ...],
    entries: tuple[int, ...] | None,
    factors: dict[str, Factors],
    cache: Path | None,
    on_module: OnModule | None,
) -> AdaptedModel:
    """TinyLoRA and LoRA-XS: frozen factors of each weight around an R that follows θ."""
    r = adapter.rank
    if isinstance(adapter, TinyLora):
        group = assign_groups([s.type for s in shapes], adapter.groups, adapter.sharing)
        even = entries_of_groups(adapter, shapes)
        entries = _checked(entries, even, r, group) if entries is not None else even
    else:
        group, entries = tuple(range(len(shapes))), (r * r,) * len(shapes)
    starts = [sum(entries[:g]) for g in range(len(entries) + 1)]
    halves = {}
    for index, shape in enumerate(shapes):
        module: Any = model.get_submodule(shape.name)
        found = factors.get(shape.name)
        if found is None:
            found = cached_svd(weight_matrix(module), r, shape.name, cache)
            if on_module is not None:
                on_module(index + 1, len(shapes), shape.name)
        halves[shape.name] = [t.float().to(module.weight.device) for t in _frozen_factors(found, adapter.scaling)]
    peft_model = _inject(model, _lora_config(model, r, shapes, initialise=False), seed=None)
    owner: TiedUp | int = starts[-1]
    for shape, g in zip(shapes, group, strict=True):
        layer: Any = model.get_submodule(shape.name)
        a, b = halves[shape.name]
        p = None
        if isinstance(adapter, TinyLora):
            p = torch.from_numpy(projections(adapter.projection_seed, shape.name, entries[g], r)).float().to(b.device)
        layer.lora_A[NAME] = FrozenDown(a)
        layer.lora_B[NAME] = up = TiedUp(b, p, owner, starts[g], starts[g + 1])
        owner = owner if isinstance(owner, TiedUp) else up
    peft_model.register_load_state_dict_post_hook(check_loaded)
    return AdaptedModel(peft_model, adapter, model, shapes, entries if isinstance(adapter, TinyLora) else ())


def _checked(entries: tuple[int, ...], even: tuple[int, ...], rank: int, group: Sequence[int]) -> tuple[int, ...]:
    """An uneven allocation, if it deals as many entries as planned and no group more than are of use."""
    largest = [rank * rank * size for size in group_sizes(group)]
    fits = len(entries) == len(even) and sum(entries) == sum(even)
    if not fits or any(not 0 <= n <= most for n, most in zip(entries, largest, strict=True)):
        raise SpecError(
            f"the allocation {entries} does not deal {sum(even)} entries to {len(even)} groups of at most {largest}"
        )
    return entries


def _frozen_factors(factors: Factors, scaling: str) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (d, r), float64: Σ on the left as in the paper, or √Σ on both sides."""
    u, sigma, vt = (torch.from_numpy(x) for x in (factors.u, factors.sigma, factors.vt))
    if scaling == "paper":
        return vt, u * sigma
    root = sigma.sqrt()
    return root[:, None] * vt, u * root


def _conv1d(model: nn.Module, shapes: Sequence[ModuleShape]) -> bool:
    return is_conv1d(model.get_submodule(shapes[0].name))


def _lora_config(model: nn.Module, rank: int, shapes: Sequence[ModuleShape], *, initialise: bool = True) -> LoraConfig:
    # alpha = r makes PEFT's scaling 1.
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=[s.name for s in shapes],
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=_conv1d(model, shapes),
        task_type="CAUSAL_LM",
        init_lora_weights=initialise,
    )


def _inject(model: nn.Module, config: PeftConfig, seed: int | None) -> Any:
    """PEFT draws initial values from torch's global generator: seeded for the time of the call, then put back.

    Without a seed nothing is drawn: the slots stay empty, for their owner to fill.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        return get_peft_model(model, config, adapter_name=NAME, low_cpu_mem_usage=seed is None)

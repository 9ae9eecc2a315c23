"""Shapes of decoder-only transformers: adapted modules and parameter counts follow from them without weights.

A shape is read from the `config.json` of a model. Every architecture is written down once, as transformers 5 builds it.
Fields that a config leaves out have the defaults of its configuration classes. Modules come in the order of
`named_modules()`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal

from capacity.errors import SpecError, unknown


@dataclass(frozen=True)
class ModuleShape:
    """One adapted linear module W of shape (d, k): `name` is its path in the bare transformers model."""

    name: str
    d: int
    k: int

    @property
    def type(self) -> str:
        """Module type, the last part of the name: "q_proj", "down_proj", …"""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class ExpertTensor:
    """The weights of all experts of a block in one tensor of shape (experts, out, in)."""

    name: str
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder and what follows from them.

    Attributes:
        family: model type, such as "llama".
        hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary: its sizes.
        context: tokens of the longest sequence that it takes.
        tied: the output embedding shares the input embedding.
        linears: the linear modules of all blocks in the order of `named_modules()`; embeddings, output head,
            routers and experts are not among them.
        expert_tensors: where a mixture of experts keeps its experts; empty for a dense model.
        parameters: how many the whole model has, tied embeddings counted once.
        biases: scalars in parameters whose name ends in "bias", those of layer norms included.
    """

    family: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    tied: bool
    linears: tuple[ModuleShape, ...]
    expert_tensors: tuple[ExpertTensor, ...]
    parameters: int
    biases: int

    @property
    def module_types(self) -> tuple[str, ...]:
        """Types of the linear modules ("q_proj", …), in order of first appearance."""
        return tuple(dict.fromkeys(m.type for m in self.linears))

    def adapted_modules(self, targets: Iterable[str] | None = None) -> tuple[ModuleShape, ...]:
        """The linear modules that an adapter sits on, ordered by depth.

        Args:
            targets: module types; all if None.

        Raises:
            SpecError: a type that the model does not have, or experts, which no adapter can take.
        """
        if targets is None:
            if self.expert_tensors:
                raise self._experts_refused()
            return self.linears
        chosen = set(targets)
        for target in sorted(chosen - set(self.module_types)):
            if any(target in tensor.name.split(".") for tensor in self.expert_tensors):
                raise self._experts_refused()
            raise unknown("module type", target, self.module_types)
        return tuple(m for m in self.linears if m.type in chosen)

    def _experts_refused(self) -> SpecError:
        place = self.expert_tensors[0].name.rpartition(".")[0]
        return SpecError(
            f"{self.family} keeps its experts in fused tensors ({place}), which no adapter here can share: "
            f"name the other modules with --targets {','.join(self.module_types)}"
        )


@dataclass(frozen=True)
class _Config:
    """A config dict with checked access; `where` names its file in errors."""

    values: Mapping[str, Any]
    where: str
    model_type: str

    def size(self, *names: str, default: int | None = None) -> int:
        """The number above zero under the first of `names` that is there.

        Raises:
            SpecError: there is none, or it is no whole number.
        """
        value = self.optional(*names, default=default)
        if not value:
            raise SpecError(f"{self.where}: this {self.model_type} config has no {names[0]}, which its shape needs")
        return value

    def optional(self, *names: str, default: int | None = None) -> int | None:
        """The whole number under the first of `names` that is there; it may be null or zero.

        Raises:
            SpecError: it is no whole number.
        """
        name = next((n for n in names if n in self.values), names[0])
        value = self.values.get(name, default)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        raise SpecError(f"{self.where}: {name} of this {self.model_type} config is no whole number: {value!r}")

    def flag(self, name: str, default: bool) -> bool:
        """The field `name`, which is true or false.

        Raises:
            SpecError: it is neither.
        """
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise SpecError(f"{self.where}: {name} of this {self.model_type} config is neither true nor false")
        return value


@dataclass(frozen=True)
class _Linear:
    """A linear module of a block, by its `path` below the block; its weight has the shape (d, k)."""

    path: str
    d: int
    k: int
    bias: bool = False


@dataclass(frozen=True)
class _Block:
    """One block of a decoder: what can be adapted in it, and what counts besides.

    Attributes:
        linears: its linear modules.
        weights: scalars in the weights of norms and routers.
        biases: scalars in the biases of norms.
        experts: path below the block and shape of each tensor of experts.
    """

    linears: tuple[_Linear, ...]
    weights: int
    biases: int = 0
    experts: tuple[tuple[str, tuple[int, int, int]], ...] = ()


def _assemble(
    config: _Config,
    sizes: Mapping[str, int],
    tied: bool,
    blocks: list[_Block],
    *,
    path: str = "model.layers",
    weights: int,
    biases: int = 0,
) -> ModelShape:
    """The shape of a model whose blocks stand under `path`; `weights` and `biases` count what is outside of them."""
    linears = [linear for block in blocks for linear in block.linears]
    experts = tuple(
        ExpertTensor(f"{path}.{i}.{name}", shape) for i, block in enumerate(blocks) for name, shape in block.experts
    )
    all_biases = biases + sum(block.biases for block in blocks) + sum(x.d for x in linears if x.bias)
    all_weights = weights + sum(block.weights for block in blocks) + sum(x.d * x.k for x in linears)
    return ModelShape(
        family=config.model_type,
        layers=len(blocks),
        tied=tied,
        **sizes,
        linears=tuple(
            ModuleShape(f"{path}.{i}.{x.path}", x.d, x.k) for i, block in enumerate(blocks) for x in block.linears
        ),
        expert_tensors=experts,
        parameters=all_weights + all_biases + sum(prod(e.shape) for e in experts),
        biases=all_biases,
    )


def _sizes(config: _Config, context: int, kv_heads: int | None = None, head_dim: int | None = None) -> dict[str, int]:
    """The sizes that all families but GPT-2 spell alike.

    `context`, `kv_heads` and `head_dim` are taken where the config has none.
    """
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    return {
        "hidden": hidden,
        "intermediate": config.size("intermediate_size"),
        "heads": heads,
        "kv_heads": config.optional("num_key_value_heads", default=kv_heads) or heads,
        "head_dim": config.optional("head_dim", default=head_dim) or hidden // heads,
        "vocabulary": config.size("vocab_size"),
        "context": config.size("max_position_embeddings", default=context),
    }


@dataclass(frozen=True)
class _Sparse:
    """Where experts take the place of the MLP: how many, of which width, in which blocks (`layers`)."""

    experts: int
    intermediate: int
    layers: tuple[int, ...]


def _mixtral_experts(config: _Config) -> _Sparse:
    layers = tuple(range(config.size("num_hidden_layers")))
    experts = config.size("num_local_experts", "num_experts", default=8)
    return _Sparse(experts, config.size("intermediate_size"), layers)


def _qwen3_experts(config: _Config) -> _Sparse:
    experts = config.optional("num_experts", "num_local_experts", default=128) or 0
    step = config.size("decoder_sparse_step", default=1)
    dense = config.values.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise SpecError(f"{config.where}: mlp_only_layers is {dense!r}, not a list of layers")
    layers = range(config.size("num_hidden_layers"))
    sparse = tuple(i for i in layers if experts and i not in dense and (i + 1) % step == 0)
    return _Sparse(experts, config.size("moe_intermediate_size", default=768), sparse)


def _decoder(
    config: _Config,
    *,
    context: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    tied: bool = False,
    attention_bias: Literal["config", "qkv", "none"] = "config",
    mlp_bias: Literal["config", "none"] = "none",
    block_norms: int = 2,
    qk_norm: bool = False,
    experts: Callable[[_Config], _Sparse] | None = None,
) -> ModelShape:
    """The shape of Llama and its relatives, which have separate q, k, v, a gated MLP or experts, and RMS norms.

    Args:
        config: config of the model.
        context, kv_heads, head_dim, tied: what the configuration class takes where the config says nothing.
        attention_bias, mlp_bias: which modules have biases; "config" if its field of that name decides for all.
        block_norms: how many norms of hidden size a block has.
        qk_norm: whether there are RMS norms on each head's q and k.
        experts: what reads from the config where experts take the place of the MLP.
    """
    s = _sizes(config, context, kv_heads, head_dim)
    hidden, intermediate = s["hidden"], s["intermediate"]
    q, kv = s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    o_bias = attention_bias == "config" and config.flag("attention_bias", False)
    qkv_bias = o_bias or attention_bias == "qkv"
    gate_bias = mlp_bias == "config" and config.flag("mlp_bias", False)
    attention = (
        _Linear("self_attn.q_proj", q, hidden, qkv_bias),
        _Linear("self_attn.k_proj", kv, hidden, qkv_bias),
        _Linear("self_attn.v_proj", kv, hidden, qkv_bias),
        _Linear("self_attn.o_proj", hidden, q, o_bias),
    )
    mlp = (
        _Linear("mlp.gate_proj", intermediate, hidden, gate_bias),
        _Linear("mlp.up_proj", intermediate, hidden, gate_bias),
        _Linear("mlp.down_proj", hidden, intermediate, gate_bias),
    )
    norms = block_norms * hidden + (2 * s["head_dim"] if qk_norm else 0)
    dense = _Block((*attention, *mlp), norms)
    sparse = experts(config) if experts is not None else _Sparse(0, 0, ())
    mixture = _Block(
        attention,
        norms + sparse.experts * hidden,
        experts=(
            ("mlp.experts.gate_up_proj", (sparse.experts, 2 * sparse.intermediate, hidden)),
            ("mlp.experts.down_proj", (sparse.experts, hidden, sparse.intermediate)),
        ),
    )
    blocks = [mixture if i in sparse.layers else dense for i in range(config.size("num_hidden_layers"))]
    tied = config.flag("tie_word_embeddings", tied)
    return _assemble(config, s, tied, blocks, weights=hidden + s["vocabulary"] * hidden * (1 if tied else 2))


def _phi(config: _Config) -> ModelShape:
    """The shape of Phi-1 to Phi-2: biases everywhere, layer norms, one norm for both halves of a block."""
    s = _sizes(config, 2048)
    hidden, intermediate = s["hidden"], s["intermediate"]
    q, kv = s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    norms = hidden + (2 * (hidden // s["heads"]) if config.flag("qk_layernorm", False) else 0)
    block = _Block(
        (
            _Linear("self_attn.q_proj", q, hidden, True),
            _Linear("self_attn.k_proj", kv, hidden, True),
            _Linear("self_attn.v_proj", kv, hidden, True),
            _Linear("self_attn.dense", hidden, q, True),
            _Linear("mlp.fc1", intermediate, hidden, True),
            _Linear("mlp.fc2", hidden, intermediate, True),
        ),
        weights=norms,
        biases=norms,
    )
    tied = config.flag("tie_word_embeddings", False)
    embeddings = s["vocabulary"] * hidden * (1 if tied else 2)
    blocks = [block] * config.size("num_hidden_layers")
    # The output head has a bias of its own, tied or not.
    return _assemble(config, s, tied, blocks, weights=hidden + embeddings, biases=hidden + s["vocabulary"])


def _phi3(config: _Config) -> ModelShape:
    """The shape of Phi-3 and Phi-4: q, k, v in one module, gate and up in another. o is registered before qkv."""
    s = _sizes(config, 4096)
    hidden, intermediate = s["hidden"], s["intermediate"]
    q, kv = s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    block = _Block(
        (
            _Linear("self_attn.o_proj", hidden, q),
            _Linear("self_attn.qkv_proj", q + 2 * kv, hidden),
            _Linear("mlp.gate_up_proj", 2 * intermediate, hidden),
            _Linear("mlp.down_proj", hidden, intermediate),
        ),
        weights=2 * hidden,
    )
    tied = config.flag("tie_word_embeddings", False)
    embeddings = s["vocabulary"] * hidden * (1 if tied else 2)
    return _assemble(config, s, tied, [block] * config.size("num_hidden_layers"), weights=hidden + embeddings)


def _gpt2(config: _Config) -> ModelShape:
    """The shape of GPT-2: fused q, k, v, biases everywhere, and a trained table of positions."""
    if config.flag("add_cross_attention", False):
        raise SpecError(f"{config.where}: a gpt2 with cross-attention is no decoder-only model")
    hidden = config.size("n_embd", "hidden_size")
    inner = config.optional("n_inner") or 4 * hidden
    heads, vocabulary = config.size("n_head", "num_attention_heads"), config.size("vocab_size")
    block = _Block(
        (
            _Linear("attn.c_attn", 3 * hidden, hidden, True),
            _Linear("attn.c_proj", hidden, hidden, True),
            _Linear("mlp.c_fc", inner, hidden, True),
            _Linear("mlp.c_proj", hidden, inner, True),
        ),
        weights=2 * hidden,
        biases=2 * hidden,
    )
    positions = config.size("n_positions", "max_position_embeddings", default=1024)
    sizes = {
        "hidden": hidden,
        "intermediate": inner,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": hidden // max(heads, 1),
        "vocabulary": vocabulary,
        "context": positions,
    }
    tied = config.flag("tie_word_embeddings", True)
    return _assemble(
        config,
        sizes,
        tied,
        [block] * config.size("n_layer", "num_hidden_layers"),
        path="transformer.h",
        weights=hidden + (vocabulary * (1 if tied else 2) + positions) * hidden,
        biases=hidden,
    )


# Model type → how its shape follows from a config.
FAMILIES: dict[str, Callable[[_Config], ModelShape]] = {
    "gemma": partial(_decoder, context=8192, kv_heads=16, head_dim=256, tied=True),
    "gemma2": partial(_decoder, context=8192, kv_heads=4, head_dim=256, tied=True, block_norms=4),
    "gemma3_text": partial(_decoder, context=131072, kv_heads=4, head_dim=256, tied=True, block_norms=4, qk_norm=True),
    "gpt2": _gpt2,
    "llama": partial(_decoder, context=2048, mlp_bias="config"),
    "mistral": partial(_decoder, context=131072, kv_heads=8, attention_bias="none"),
    "mixtral": partial(_decoder, context=131072, kv_heads=8, attention_bias="none", experts=_mixtral_experts),
    "phi": _phi,
    "phi3": _phi3,
    "qwen2": partial(_decoder, context=32768, kv_heads=32, attention_bias="qkv"),
    "qwen3": partial(_decoder, context=32768, kv_heads=32, head_dim=128, qk_norm=True),
    "qwen3_moe": partial(_decoder, context=32768, kv_heads=4, qk_norm=True, experts=_qwen3_experts),
    "smollm3": partial(_decoder, context=32768, kv_heads=4, tied=True, mlp_bias="config"),
}


def shape_from_config(config: Mapping[str, Any], where: str) -> ModelShape:
    """The shape of the model that transformers builds from `config`.

    Args:
        config: the decoded `config.json` of a model.
        where: the file it came from, for errors.

    Raises:
        SpecError: a model type that is not supported, a field that is missing or of the wrong kind.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        said = "no model_type" if model_type is None else f"model_type {model_type!r}, whose shape is not known here"
        raise SpecError(f"{where}: {said}; supported are {', '.join(FAMILIES)}")
    return FAMILIES[model_type](_Config(config, where, model_type))

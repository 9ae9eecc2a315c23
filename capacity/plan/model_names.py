"""How a model is named: alias, hub id, folder or GGUF file, with options: `qwen2.5-3b?dtype=bf16&quantised=nf4`.

The options are part of the name because they are part of what a run is: a quantised base is another base. No torch.
"""

import re
from dataclasses import dataclass

from capacity.errors import SpecError, unknown

DTYPES = ("fp32", "bf16", "fp16")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
QUANTISATIONS = ("nf4", "fp4", "int8")
_OPTIONS = ("dtype", "attention", "quantised", "revision")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelName:
    """The parts of a model's name.

    Attributes:
        base: alias, hub id, folder or GGUF file.
        dtype: dtype of the frozen weights; trained parameters are fp32 always.
        attention: implementation of attention in transformers; its own choice if None.
        quantised: how bitsandbytes stores the weights of linear modules; not at all if None.
        revision: commit, tag or branch of a hub repository; its main branch if None.
    """

    base: str
    dtype: str = "fp32"
    attention: str | None = None
    quantised: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        given = {n: getattr(self, n) for n in _OPTIONS if getattr(self, n) != getattr(ModelName, n)}
        return self.base + ("?" + "&".join(f"{n}={v}" for n, v in sorted(given.items())) if given else "")

    @property
    def is_gguf(self) -> bool:
        """Whether the name is that of a GGUF file."""
        return self.base.lower().endswith(".gguf")

    @property
    def may_be_hub_id(self) -> bool:
        """Whether the name has the form of a hub id, "organisation/model"."""
        return _HUB_ID.fullmatch(self.base) is not None


def parse_model(text: str) -> ModelName:
    """Reads the name of a model, `qwen2.5-3b?dtype=bf16`.

    Raises:
        SpecError: an option or its value is unknown; the nearest is offered.
    """
    base, _, query = text.partition("?")
    if not base:
        raise SpecError(f"model {text!r} has no name")
    options: dict[str, str] = {}
    for option in filter(None, query.split("&")):
        key, equals, value = option.partition("=")
        if key not in _OPTIONS:
            raise unknown("option of a model", key, _OPTIONS)
        if not equals or not value or key in options:
            raise SpecError(f"model {text!r}: {option!r} is {'given twice' if value else 'not of the form name=value'}")
        options[key] = value
    for key, known in (("dtype", DTYPES), ("attention", ATTENTIONS), ("quantised", QUANTISATIONS)):
        if key in options and options[key] not in known:
            raise unknown(key, options[key], known)
    return ModelName(base, **options)

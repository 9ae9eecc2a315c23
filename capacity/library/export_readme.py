"""The README of an exported folder: what is in it, and the lines that load it."""

from dataclasses import dataclass
from typing import Literal

Form = Literal["peft", "merged", "native"]
Origin = Literal["beside", "hub", "package", "folder"]  # where the base is: in this folder, or to be fetched, or found
_ORIGINS: dict[Origin, str] = {
    "beside": "The base is in the folder `{base}` beside this file.",
    "hub": "The base is fetched from the Hugging Face hub.",
    "package": "The base comes with a Python package. This line says where its folder is:\n"
    "`python -c \"from capacity.models.loading import model_folder; print(model_folder('{base}'))\"`.\n"
    "Link or copy that folder to `{base}` beside this file.",
    "folder": "The base was a folder named `{base}`. Put that folder beside this file.",
}


@dataclass(frozen=True)
class Contents:
    """What an exported folder holds.

    Attributes:
        form: of the update.
        base: how the lines name the base.
        origin: where the base is.
        adapter: kind of the update.
        parameters: how many were trained.
        dtype: of what is written.
        rank: of the LoRA adapter; None for other forms.
        tokenizer: from where the lines load the tokenizer.
        engine_rank: what vLLM is started with for that rank; None if it takes no such rank.
    """

    form: Form
    base: str
    origin: Origin
    adapter: str
    parameters: int
    dtype: str
    rank: int | None
    tokenizer: str
    engine_rank: int | None


def readme(contents: Contents) -> str:
    """The README as Markdown. Its lines are to be run in the folder, and name no other place."""
    head = (
        f"# An update of {contents.base}\n\n"
        f"This folder holds {_what(contents)}. The update is of kind {contents.adapter} and has "
        f"{contents.parameters:,} trained parameters. `capacity export` wrote it."
    )
    parts = [head]
    if contents.form != "merged":
        parts.append(_ORIGINS[contents.origin].format(base=contents.base))
    parts.append("Run the lines below in this folder.")
    parts += [f"## {name}\n\n```python\n{lines}\n```" for name, lines in _loading(contents)]
    return "\n\n".join(parts) + "\n"


def _what(contents: Contents) -> str:
    if contents.form == "peft":
        return f"a PEFT LoRA adapter of rank {contents.rank} in {contents.dtype}, for the model `{contents.base}`"
    if contents.form == "merged":
        return f"the model `{contents.base}` with an update merged into its weights, in {contents.dtype}"
    return f"the native artifact of an update in {contents.dtype}, for the model `{contents.base}`"


def _loading(contents: Contents) -> tuple[tuple[str, str], ...]:
    """The lines for each library."""
    base = contents.base
    tokenizer = f'tokenizer = AutoTokenizer.from_pretrained("{contents.tokenizer}")'
    apart = contents.tokenizer not in (base, ".")  # vLLM looks for the tokenizer beside the weights unless it is told
    with_tokenizer = f', tokenizer="{contents.tokenizer}"' if apart else ""
    if contents.form == "native":
        return (
            ("capacity", 'import capacity\n\nopened = capacity.load("update.safetensors")  # .model and .tokenizer'),
            ("A standard form", 'import capacity\n\ncapacity.export("update.safetensors", "peft", out="update-peft")'),
        )
    if contents.form == "merged":
        return (
            (
                "transformers",
                "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                f'model = AutoModelForCausalLM.from_pretrained(".")\n{tokenizer}',
            ),
            ("vLLM", f'from vllm import LLM\n\nllm = LLM("."{with_tokenizer})\nllm.generate(["1+2="])'),
        )
    shown = (
        (
            "PEFT",
            "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
            f'model = AutoPeftModelForCausalLM.from_pretrained(".")\n{tokenizer}',
        ),
        (
            "transformers",
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{base}")\nmodel.load_adapter(".")\n{tokenizer}',
        ),
    )
    if contents.engine_rank is None:
        return shown
    lines = (
        "from vllm import LLM\nfrom vllm.lora.request import LoRARequest\n\n"
        f'llm = LLM("{base}"{with_tokenizer}, enable_lora=True, max_lora_rank={contents.engine_rank})\n'
        'llm.generate(["1+2="], lora_request=LoRARequest("update", 1, "."))'
    )
    return (*shown, ("vLLM", lines))

"""A trained update as a PEFT LoRA folder or as merged weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from capacity.errors import DataError, MissingPathError, unknown
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.plan.models import ALIASES, model_shape
from capacity.runs import files
from capacity.studies.device import check_libraries
from capacity_reports.blocks import Block, Text

if TYPE_CHECKING:
    from capacity.adapters.files.merge import MergeReport

Form = Literal["peft", "merged"]
FORMS = ("peft", "merged")
DTYPES = ("fp32", "bf16", "fp16")
# Below this cosine the merged weights are another update than the one that was trained.
_FAITHFUL = 0.999


@dataclass(frozen=True, repr=False)
class Exported(Shown):
    """An update in a standard form.

    Attributes:
        form: "peft" or "merged".
        folder: where it is.
        dtype: of what was written.
        base: name or folder of the base.
        adapter: kind of the update.
        trained_parameters: their number.
        run: name of the run that made it.
        rank: of the LoRA adapter; None for merged weights.
        merge: what rounding did to the update; None for an adapter.
        bytes: of all files.
    """

    form: Form
    folder: Path
    dtype: str
    base: str
    adapter: str
    trained_parameters: int
    run: str | None
    rank: int | None
    merge: "MergeReport | None"
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        particular = {"rank": self.rank} if self.merge is None else {"merge": asdict(self.merge)}
        return {
            "form": self.form,
            "folder": str(self.folder),
            "dtype": self.dtype,
            "base": self.base,
            "adapter": self.adapter,
            "trained_parameters": self.trained_parameters,
            "run": self.run,
            **particular,
            "bytes": self.bytes,
        }

    @property
    def line(self) -> str:
        """What was written, and how large it is."""
        what = f"a PEFT LoRA adapter of rank {self.rank}"
        if self.form == "merged":
            what = "a transformers model with the update merged"
        return f"{self.folder}: {what}, {self.bytes:,} bytes in {self.dtype}, of {self.base}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The line, and what merging did to the update."""
        if self.merge is None:
            return (self.line,)
        merged = (
            f"Merged in fp32 arithmetic: cosine of realised and intended ΔW {self.merge.cosine:.6f} "
            f"(worst module {self.merge.worst_cosine:.6f}, {self.merge.worst_module}); "
            f"{100 * self.merge.moved:.2f} % of the adapted weights moved."
        )
        if self.merge.cosine >= _FAITHFUL:
            return self.line, merged
        return (
            self.line,
            merged,
            f"Rounding to {self.dtype} has changed the update: merge with --dtype fp32, or serve it as a LoRA "
            "(--to peft).",
        )

    @property
    def blocks(self) -> Sequence[Block]:
        """The lines."""
        return (Text(self.lines),)


def export(
    update: str | Path,
    to: str = "peft",
    *,
    out: str | Path | None = None,
    dtype: str = "fp32",
    model: str | None = None,
    progress: Progress = silent,
) -> Exported:
    """Writes a trained update as a PEFT LoRA adapter, or merged into the weights of its base.

    Args:
        update: native artifact, or the run folder that it is in.
        to: "peft" or "merged".
        out: new folder; named after the artifact if None.
        dtype: of what is written: "fp32", "bf16" or "fp16".
        model: alias or folder of the base; as recorded if None.
        progress: hears what is done.

    Raises:
        SpecError: an unknown form or dtype, or an update that has no such form.
        DataError: no such update, one of another base, or a folder that exists.
        CapacityError: the libraries of training are absent.
    """
    if to not in FORMS:
        raise unknown("form", to, FORMS)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    path = Path(update)
    if not path.exists():
        raise MissingPathError(f"{path}: no such file or folder")
    folder = Path(out) if out is not None else Path(f"{path.resolve().stem}-{to}")
    if folder.exists():
        raise DataError(f"{folder} exists already: choose another --out, or remove it")
    check_libraries()
    from capacity.studies.quiet import quiet

    quiet()
    from safetensors import SafetensorError

    from capacity.adapters.files.merge import merge
    from capacity.adapters.files.peft_folder import save_peft_lora
    from capacity.adapters.open import open_native

    with progress("factors") as count:
        opened = open_native(path, model, "cpu", on_module=count.on_module)
    assert opened.adapted is not None
    assert opened.artifact is not None
    rank, report = None, None
    with files.new_folder(folder) as partial:
        try:
            if to == "peft":
                rank = save_peft_lora(opened.adapted, partial, dtype, _hub_name(opened.base))
            else:
                merged, report = merge(opened.adapted, dtype)
                merged.save_pretrained(partial)  # type: ignore[operator]
                opened.tokenizer.save_pretrained(partial)
        except SafetensorError as error:  # a full disk among others
            raise DataError(f"{folder} cannot be written: {error}") from None
        size = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
    recipe = opened.artifact.recipe
    return Exported(
        "peft" if to == "peft" else "merged", folder, dtype, opened.base, recipe.adapter.kind, recipe.parameters,
        recipe.run, rank, report, size,
    )  # fmt: skip


def _hub_name(base: str) -> str:
    """What others know the base by: its hub id, or where it is.

    Models that come with a package keep their alias: what the hub has under their name may differ in its weights.
    """
    name, _ = model_shape(base)
    alias = ALIASES.get(name)
    if alias is None:
        return str(Path(name).resolve())
    return name if alias.source == "embedded" or name == "smollm2-135m" else alias.source

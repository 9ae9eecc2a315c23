"""A trained update as a PEFT LoRA folder, as merged weights, or stored anew in another dtype."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from capacity.errors import DataError, MissingPathError, SpecError, unknown
from capacity.library.chosen_run import chosen_run
from capacity.library.export_readme import Contents, Form, Origin, readme
from capacity.library.progress import Progress, silent
from capacity.library.shown import Shown
from capacity.plan.engine_memory import LORA_RANKS, engine_rank
from capacity.plan.models import ALIASES, model_shape
from capacity.plan.storage import STORAGE_DTYPES
from capacity.runs import files, study
from capacity.studies.device import check_libraries
from capacity_reports.blocks import Block, Text

if TYPE_CHECKING:
    from capacity.adapters.files.merge import MergeReport
    from capacity.adapters.open import Opened

FORMS: tuple[Form, ...] = get_args(Form)
DTYPES = ("fp32", "bf16", "fp16")  # of weights and of LoRA matrices; native artifacts have all storage dtypes
README, TOKENIZER = "README.md", "tokenizer"
# Below this cosine the merged weights are another update than the one that was trained.
_FAITHFUL = 0.999


@dataclass(frozen=True, repr=False)
class Exported(Shown):
    """An update in a standard form.

    Attributes:
        form: "peft", "merged" or "native".
        folder: where it is.
        dtype: of what was written.
        base: name or folder of the base.
        adapter: kind of the update.
        trained_parameters: their number.
        run: name of the run that made it.
        rank: of the LoRA adapter; None for other forms.
        merge: what rounding did to the merged update; None for other forms.
        rounding: ‖stored anew − trained‖ / ‖trained‖ of the update; None for other forms than native ones.
        bytes: of the files of the update or of the merged model, without the base and the README.
        chosen: how the run was chosen among those of a study, in a sentence; "" if it was named.
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
    rounding: float | None
    bytes: int
    chosen: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        particular: dict[str, Any] = {"rank": self.rank}
        if self.form == "merged":
            particular = {"merge": None if self.merge is None else asdict(self.merge)}
        if self.form == "native":
            particular = {"rounding": self.rounding}
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
            "chosen": self.chosen or None,
        }

    @property
    def line(self) -> str:
        """What was written, and how large it is."""
        what = f"a PEFT LoRA adapter of rank {self.rank}"
        if self.form == "merged":
            what = "a transformers model with the update merged"
        if self.form == "native":
            what = "a native artifact"
        return f"{self.folder}: {what}, {self.bytes:,} bytes in {self.dtype}, of {self.base}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The line, how the run was chosen, and what merging or rounding did to the update."""
        said = (self.line, self.chosen) if self.chosen else (self.line,)
        if self.rounding is not None:
            return *said, f"Rounding to {self.dtype} changed the update by {100 * self.rounding:.2g} % of its norm."
        if self.merge is None:
            return said
        merged = (
            f"Merged in fp32 arithmetic: cosine of realised and intended ΔW {self.merge.cosine:.6f} "
            f"(worst module {self.merge.worst_cosine:.6f}, {self.merge.worst_module}); "
            f"{100 * self.merge.moved:.2f} % of the adapted weights moved."
        )
        if self.merge.cosine >= _FAITHFUL:
            return *said, merged
        return (
            *said,
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
    to: str | None = None,
    *,
    out: str | Path | None = None,
    dtype: str | None = None,
    model: str | None = None,
    method: str | None = None,
    best: bool = False,
    run: str | None = None,
    where: Sequence[str] = (),
    number: int | None = None,
    progress: Progress = silent,
) -> Exported:
    """Writes a trained update as a PEFT LoRA adapter, merged into the weights of its base, or stored anew.

    The folder has a README with the lines that load it. A base that is embedded in this package stands beside the
    adapter. No path of this machine is written.

    Args:
        update: native artifact, the run folder that it is in, a study folder, or a bundle of updates.
        to: "peft", "merged" or "native"; "native" for dtypes that only native artifacts have, else "peft", if None.
        out: new folder; named after the artifact if None.
        dtype: "fp32", "bf16" or "fp16"; for a native artifact any storage dtype. If None, it is fp32, or for a native
            artifact the dtype that the update has.
        model: alias or folder of the base; as recorded if None.
        method, best, run, where: which run of a study, as of `capacity.library.chosen_run.chosen_run`, where `run` is
            the prefix.
        number: which update of a bundle, counted from 0.
        progress: hears what is done.

    Raises:
        SpecError: an unknown form or dtype, an update that has no such form, or no single run of a study.
        DataError: no such update, one of another base, or a folder that exists.
        CapacityError: the libraries of training are absent.
    """
    form = _form(to, dtype)
    path = Path(update)
    if not path.exists():
        raise MissingPathError(f"{path}: no such file or folder")
    chosen = ""
    if study.Study(path).runs_folder.is_dir():
        picked = chosen_run(path, method=method, best=best, prefix=run, where=where)
        path, chosen = picked.run.folder, picked.remark
    elif method is not None or best or run is not None or where:
        raise SpecError(f"{path} is no study folder: --method, --best, --run and --where choose a run of a study")
    folder = (
        Path(out) if out is not None else Path(f"{path.resolve().stem}-{form if form != 'native' else dtype or form}")
    )
    if folder.exists():
        raise DataError(f"{folder} exists already: choose another --out, or remove it")
    check_libraries()
    from capacity.studies.quiet import quiet

    quiet()
    from safetensors import SafetensorError

    from capacity.adapters.files.artifact import read_file
    from capacity.adapters.files.bundle import member
    from capacity.adapters.open import open_artifact

    artifact = read_file(path) if number is None else member(path, number)
    with progress("factors") as count:
        opened = open_artifact(artifact, model, "cpu", on_module=count.on_module)
    assert opened.artifact is not None
    recipe = opened.artifact.recipe
    written = dtype or (recipe.storage_dtype if form == "native" else "fp32")
    rank, report, rounding = None, None, None
    with files.new_folder(folder) as partial:
        try:
            if form == "peft":
                rank = _write_peft(opened, partial, written)
            elif form == "merged":
                report = _write_merged(opened, partial, written)
            else:
                rounding = _write_native(opened, partial, written)
            size = sum(p.stat().st_size for p in partial.rglob("*") if p.is_file())
            _write_beside(opened, form, partial)
            (partial / README).write_text(_readme(opened, form, written, rank), encoding="utf-8")
        except SafetensorError as error:  # a full disk among others
            raise DataError(f"{folder} cannot be written: {error}") from None
    return Exported(
        form, folder, written, opened.base, recipe.adapter.kind, recipe.parameters, recipe.run, rank, report, rounding,
        size, chosen,
    )  # fmt: skip


def _form(to: str | None, dtype: str | None) -> Form:
    """The form to write.

    Raises:
        SpecError: an unknown form or dtype, or a dtype that the form has not.
    """
    if to is not None and to not in FORMS:
        raise unknown("form", to, FORMS)
    if dtype is not None and dtype not in STORAGE_DTYPES:
        raise unknown("dtype", dtype, STORAGE_DTYPES)
    only_native = dtype is not None and dtype not in DTYPES
    form = to or ("native" if only_native else "peft")
    if only_native and form != "native":
        raise SpecError(f"--dtype {dtype} is one of native artifacts: leave --to out, or choose fp32, bf16 or fp16")
    return next(known for known in FORMS if known == form)


def _write_peft(opened: "Opened", folder: Path, dtype: str) -> int:
    from capacity.adapters.files.peft_folder import save_peft_lora

    assert opened.adapted is not None
    return save_peft_lora(opened.adapted, folder, dtype, _base_name(opened.base))


def _write_merged(opened: "Opened", folder: Path, dtype: str) -> "MergeReport":
    from capacity.adapters.files.merge import merge

    assert opened.adapted is not None
    merged, report = merge(opened.adapted, dtype)
    merged.save_pretrained(folder)  # type: ignore[operator]
    opened.tokenizer.save_pretrained(folder)
    return report


def _write_native(opened: "Opened", folder: Path, dtype: str) -> float:
    """Stores the update anew; returns how far rounding moved it, as a share of its norm."""
    from capacity.adapters.files.artifact import pack, store

    assert opened.adapted is not None
    assert opened.artifact is not None
    recipe, trained = opened.artifact.recipe, opened.adapted.vector().double()
    payload = store(opened.adapted, dtype)
    moved = float((opened.adapted.vector().double() - trained).norm())
    data = pack(
        opened.adapted, payload, model=_base_name(opened.base, keep=recipe.model), base=recipe.base, dtype=dtype,
        run=recipe.run,
    )  # fmt: skip
    (folder / files.ARTIFACT).write_bytes(data)
    norm = float(trained.norm())
    return moved / norm if norm else 0.0


def _write_beside(opened: "Opened", form: Form, folder: Path) -> None:
    """Puts what other libraries cannot load by themselves beside a standard form: tokenizer and embedded base.

    A tokenizer stands in a folder of its own where AutoTokenizer would take that of the model's family for it.
    """
    if form != "native" and _apart(opened):
        opened.tokenizer.save_pretrained(folder / TOKENIZER)
    if form != "peft" or _origin(opened.base) != "beside":
        return
    from capacity.models.loading import embedded_folder

    name = _base_name(opened.base)
    (folder / name).mkdir()
    for source in embedded_folder(name).iterdir():
        if source.is_file():
            shutil.copyfile(source, folder / name / source.name)


def _apart(opened: "Opened") -> bool:
    """Whether the tokenizer is a plain one, which AutoTokenizer does not load from a folder with a config.json."""
    return type(opened.tokenizer).__name__ in ("PreTrainedTokenizerFast", "TokenizersBackend")


def _readme(opened: "Opened", form: Form, dtype: str, rank: int | None) -> str:
    assert opened.artifact is not None
    recipe, base = opened.artifact.recipe, _base_name(opened.base)
    tokenizer = TOKENIZER if _apart(opened) else "." if form == "merged" else base
    return readme(
        Contents(
            form, base, _origin(opened.base), recipe.adapter.kind, recipe.parameters, dtype, rank, tokenizer,
            None if rank is None or rank > LORA_RANKS[-1] else engine_rank(rank),
        )
    )  # fmt: skip


def _origin(base: str) -> Origin:
    """Where others find the base."""
    name, _ = model_shape(base)
    alias = ALIASES.get(name)
    if alias is not None:
        return "beside" if alias.source == "embedded" else "package" if name == "smollm2-135m" else "hub"
    return "folder" if Path(name).exists() else "hub"


def _base_name(base: str, keep: str | None = None) -> str:
    """What others know the base by: its hub id, or the name of its folder or file without the way to it.

    Models that come with a package keep their alias: what the hub has under their name may differ in its weights.

    Args:
        base: as this machine knows it.
        keep: what to return instead, unless it names a place of this machine.
    """
    name, _ = model_shape(base)
    alias = ALIASES.get(name)
    if alias is None:
        return Path(name).resolve().name if Path(name).exists() else keep or name
    return keep or (name if alias.source == "embedded" or name == "smollm2-135m" else alias.source)

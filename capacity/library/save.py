"""The update on a model that somebody else's trainer has trained, as a native artifact."""

from pathlib import Path
from typing import TYPE_CHECKING

from capacity.errors import DataError, MissingPathError, unknown
from capacity.plan.models import resolve
from capacity.plan.storage import STORAGE_DTYPES
from capacity.runs.files import write_atomically

if TYPE_CHECKING:
    from capacity.adapters.model import AdaptedModel


def save(adapted: "AdaptedModel", path: str | Path, model: str, *, dtype: str = "bf16") -> Path:
    """Writes the update of a model as a native artifact, which `load`, `evaluate` and `export` read.

    The model is given the stored numbers, so that what it answers afterwards is what the file holds. The base is loaded
    once more, because the artifact names the weights that the update belongs to.

    Args:
        adapted: what `attach` gave, after the training.
        path: the new file.
        model: name of the base: alias, hub id or folder.
        dtype: of the stored update.

    Returns:
        The path of the file.

    Raises:
        SpecError: no such model or dtype.
        DataError: the file exists, its folder does not, or the update does not fit the dtype.
    """
    if dtype not in STORAGE_DTYPES:
        raise unknown("storage dtype", dtype, STORAGE_DTYPES)
    name, file = resolve(model), Path(path)
    if file.exists():
        raise DataError(f"{file} exists already: choose another name, or remove it")
    if not file.parent.is_dir():
        raise MissingPathError(f"{file}: cannot be written: there is no folder {file.parent}")
    from capacity.adapters.files.artifact import base_fingerprint, pack, store
    from capacity.models.loading import load

    base = base_fingerprint(load(name, "cpu")[0])
    payload = store(adapted, dtype)
    write_atomically(file, pack(adapted, payload, model=name, base=base, dtype=dtype))
    return file

"""Models of the Hugging Face hub: their config and their folder, from the cache if they are there. No torch.

`HF_HUB_OFFLINE=1` keeps everything here from the network; `HF_TOKEN` opens gated models.
"""

import json
from pathlib import Path
from typing import Any

from capacity.errors import CapacityError, DataError

# Weights as safetensors, and whatever a tokenizer or a config may be kept in.
_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "merges.txt", "vocab.txt")


def hub_config(repository: str, revision: str | None) -> dict[str, Any]:
    """The decoded config.json of a hub model.

    Raises:
        DataError: no such model, gated, not to be reached, or not JSON.
        CapacityError: huggingface_hub is not installed.
    """
    hub = _library()
    where = f"config.json of {repository}"
    try:
        path = hub.hf_hub_download(repository, "config.json", revision=revision, local_files_only=True)
    except hub.errors.LocalEntryNotFoundError:
        try:
            path = hub.hf_hub_download(repository, "config.json", revision=revision)
        except Exception as error:  # what the library raises for the network has no common base
            raise _unavailable(repository, revision, error) from None
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise DataError(f"{where}: not a JSON object")
    return config


def hub_folder(repository: str, revision: str | None) -> Path:
    """The folder of a hub model in the cache of huggingface_hub, downloaded if it is not whole there.

    Raises:
        DataError: no such model, gated, or not to be reached.
        CapacityError: huggingface_hub is not installed.
    """
    hub = _library()
    wanted = {"revision": revision, "allow_patterns": list(_PATTERNS)}
    try:
        folder = Path(hub.snapshot_download(repository, local_files_only=True, **wanted))
        if _is_whole(folder):
            return folder
    except hub.errors.LocalEntryNotFoundError:
        pass
    try:
        return Path(hub.snapshot_download(repository, **wanted))
    except Exception as error:  # as above
        raise _unavailable(repository, revision, error) from None


def _is_whole(folder: Path) -> bool:
    """Whether every file of weights is there: planning alone fetches the config only."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    return all((folder / name).is_file() for name in set(json.loads(index.read_text())["weight_map"].values()))


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise CapacityError("models of the hub need huggingface_hub: pip install 'sft-rl-capacity[train]'") from None
    return huggingface_hub


def _unavailable(repository: str, revision: str | None, error: Exception) -> DataError:
    """One line for whatever went wrong, with the way out."""
    place = f"https://huggingface.co/{repository}"
    at = f" at revision {revision}" if revision else ""
    kind = type(error).__name__
    if kind == "GatedRepoError":
        return DataError(f"model {repository} is gated: accept its terms at {place} and set HF_TOKEN")
    if kind == "RepositoryNotFoundError":
        return DataError(f"model {repository} is not on the hub, or is private: check the name, or set HF_TOKEN")
    if kind in ("RevisionNotFoundError", "RemoteEntryNotFoundError", "EntryNotFoundError"):
        return DataError(f"model {repository}{at}: the hub has no such revision, or no config.json there")
    return DataError(
        f"model {repository}{at} is not in the cache and the hub cannot be reached: connect once, or download {place} "
        "elsewhere and give its folder"
    )

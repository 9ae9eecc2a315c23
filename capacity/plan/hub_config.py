"""Fetches the config of a Hugging Face hub model, from the cache if it is there, and says what went wrong.

`HF_HUB_OFFLINE=1` keeps everything here from the network; `HF_TOKEN` opens gated models.
"""

import json
from pathlib import Path
from typing import Any

from capacity.errors import CapacityError, DataError


def hub_config(repository: str, revision: str | None) -> dict[str, Any]:
    """The decoded config.json of a hub model.

    Raises:
        DataError: there is no such model, it is gated, the hub cannot be reached, or the file is not JSON.
        CapacityError: huggingface_hub is not installed.
    """
    hub = hub_library()
    where = f"config.json of {repository}"
    try:
        path = hub.hf_hub_download(repository, "config.json", revision=revision, local_files_only=True)
    except hub.errors.LocalEntryNotFoundError:
        try:
            path = hub.hf_hub_download(repository, "config.json", revision=revision)
        except Exception as error:  # what the library raises for the network has no common base
            raise unavailable(repository, revision, error) from None
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be read as JSON: {error}") from None
    if not isinstance(config, dict):
        raise DataError(f"{where}: not a JSON object")
    return config


def hub_library() -> Any:
    """The module huggingface_hub, imported when it is needed.

    Raises:
        CapacityError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise CapacityError("models of the hub need huggingface_hub: pip install huggingface_hub") from None
    return huggingface_hub


def unavailable(repository: str, revision: str | None, error: Exception) -> DataError:
    """The error for whatever went wrong in asking the hub: one line, with the way out."""
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

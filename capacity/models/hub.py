"""Finds the folders of models of the Hugging Face hub, in the cache if they are there.

With `HF_HUB_OFFLINE=1` nothing here uses the network. `HF_TOKEN` opens gated models.
"""

import json
from pathlib import Path

from capacity.plan.hub_config import hub_library, unavailable

# Weights as safetensors, and whatever a tokenizer or a config may be kept in.
_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "merges.txt", "vocab.txt")


def hub_folder(repository: str, revision: str | None) -> Path:
    """Returns the folder of a hub model in the cache of huggingface_hub. It is downloaded if it is incomplete.

    Raises:
        DataError: if there is no such model, it is gated, or the hub cannot be reached.
        CapacityError: if huggingface_hub is not installed.
    """
    hub = hub_library()
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
        raise unavailable(repository, revision, error) from None


def _is_whole(folder: Path) -> bool:
    """Tells whether every file of weights is there. Planning fetches only the config."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    return all(
        (folder / name).is_file() for name in set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    )

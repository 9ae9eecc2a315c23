"""Fetches each file of a public data set once, at a pinned revision, into the cache."""

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from capacity.cache import cache_folder
from capacity.errors import DataError

_SECONDS = 60


@dataclass(frozen=True)
class HubFile:
    """Names a file of a data set on the Hugging Face hub. `revision` is a commit, or "main" if none is pinned."""

    repository: str
    path: str
    revision: str

    @property
    def url(self) -> str:
        """Returns the address that the file is downloaded from."""
        return f"https://huggingface.co/datasets/{self.repository}/resolve/{self.revision}/{self.path}"


@dataclass(frozen=True)
class GitFile:
    """Names a file of a GitHub repository. `revision` is a commit."""

    repository: str
    path: str
    revision: str

    @property
    def url(self) -> str:
        """Returns the address that the file is downloaded from."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.revision}/{self.path}"


def fetch(file: HubFile | GitFile, what: str) -> Path:
    """Returns the local copy of a file. It is downloaded if it is missing, unless `HF_HUB_OFFLINE=1`.

    Args:
        file: the file to fetch.
        what: the name of the data for the error message.

    Raises:
        DataError: if the file is not in the cache and cannot be downloaded.
    """
    place = cache_folder("data") / file.repository.replace("/", "--") / file.revision
    target = place / file.path.replace("/", "--")
    if target.is_file():
        return target
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        raise _absent(file, what, target, "HF_HUB_OFFLINE is set")
    request = urllib.request.Request(file.url)
    token = os.environ.get("HF_TOKEN")
    if token and isinstance(file, HubFile):
        request.add_header("Authorization", f"Bearer {token}")
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            unfinished.write_bytes(response.read())
        unfinished.replace(target)
    except urllib.error.HTTPError as error:
        raise _absent(file, what, target, f"the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, TimeoutError) as error:
        raise _absent(file, what, target, f"no connection: {getattr(error, 'reason', error)}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _absent(file: HubFile | GitFile, what: str, target: Path, why: str) -> DataError:
    return DataError(
        f"{what} is not in the cache and cannot be fetched ({why}): download {file.url} to {target}, "
        "or name a folder of your own with path="
    )

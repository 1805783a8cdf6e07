"""What a model or tokenizer may be called: a local directory, `asset:NAME`, or a hub id."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text.assets import fetch

_ASSET = "asset:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")  # owner/name, or a bare old name
# Never *.bin, *.pt or *.py: no pickle is read and no code of a repository is run.
_TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.tiktoken", "*.jinja"]
_WEIGHT_FILES = ["*.safetensors"]
# Some repositories hold the same weights once more, in a subdirectory or as `consolidated`.
_IGNORED_FILES = ["*/*", "consolidated*"]


def resolve(reference: str, *, weights: bool = True) -> Path:
    """The local directory that a reference names, fetched first if it is remote.

    Args:
        reference: A local directory (it wins over a hub id of the same name), `asset:NAME`, or a
            Hugging Face hub id `owner/name`.
        weights: Fetch a hub repository's safetensors too, not its tokenizer and config alone.

    Raises:
        UsageError: it names nothing: no directory, no known asset, no existing hub repository.
        XTokenError: it could not be fetched.
    """
    if reference.startswith(_ASSET):
        return fetch(reference.removeprefix(_ASSET))
    path = Path(reference).expanduser()
    if reference and path.is_dir():  # Path("") is the working directory
        return path
    if path.is_file():
        raise UsageError(f"{reference!r} must be a directory, got a file; name its directory")
    if not _HUB_ID.fullmatch(reference):
        raise UsageError(
            f"{reference!r} must be an existing directory, asset:NAME, or a hub id owner/name"
        )
    return _from_hub(reference, weights=weights)


def _from_hub(repo_id: str, *, weights: bool) -> Path:
    try:
        snapshot = snapshot_download(
            repo_id,
            allow_patterns=_TOKENIZER_FILES + (_WEIGHT_FILES if weights else []),
            ignore_patterns=_IGNORED_FILES,
        )
    except GatedRepoError as error:  # a RepositoryNotFoundError too, so it comes first
        raise XTokenError(
            f"hub repository {repo_id!r} is gated: accept its terms on huggingface.co, then run "
            "`hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(
            f"{repo_id!r} is no local directory, and no hub repository of that name can be seen; "
            "check the spelling, or log in with `hf auth login` if it is private"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise XTokenError(
            f"{repo_id!r} is no local directory, and the hub could not be reached for it "
            f"({_first_line(error)}); check the network, or name a local directory or asset:NAME"
        ) from error
    return Path(snapshot)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("Got: ").rstrip(".")

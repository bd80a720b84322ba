"""Sends a dataset folder to a hub. Knows nothing of what is in it; the key comes from the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import cast

from selfinstruct.errors import BackendError, InputError

_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)


def check_repository(name: str) -> None:
    """Refuse what cannot be pushed to, before anything is written.

    Raises:
        InputError: no name of a repository, no key, or the package huggingface-hub is missing.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"--push {name}: not OWNER/NAME")
    if not os.environ.get("HF_TOKEN"):
        raise InputError("--push: no key; set HF_TOKEN to a token that may write")
    try:
        import huggingface_hub  # noqa: F401 - whether it is there
    except ImportError:
        raise InputError(
            "--push needs the package huggingface-hub: pip install 'selfinstruct[data]'"
        ) from None


def push(folder: Path, name: str, *, private: bool = True) -> str:
    """Upload a folder as a dataset repository, which is made if it is not there.

    Args:
        folder: what to upload.
        name: OWNER/NAME on the hub (or on the server that HF_ENDPOINT names).
        private: whether a new repository is.

    Returns:
        Its address.

    Raises:
        BackendError: the hub refuses or is out of reach; the folder stays where it is.
    """
    check_repository(name)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # HTTPError of whichever client this version of the hub's package uses.
    transport = cast("type[Exception]", HfHubHTTPError.__bases__[0])
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ["HF_TOKEN"])
    try:
        address = hub.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        hub.upload_folder(
            folder_path=folder, repo_id=name, repo_type="dataset", commit_message="Dataset by selfinstruct"
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise BackendError(
            f"--push {name}: the hub refuses ({status}); is HF_TOKEN right? {folder} is whole"
        ) from None
    except (transport, OSError, ValueError) as error:
        told = f"{type(error).__name__}"
        raise BackendError(
            f"--push {name}: the hub is out of reach ({told}); {folder} is whole, push again"
        ) from None
    return str(address)

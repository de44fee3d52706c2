"""Fetch a base from the Hugging Face hub at a pinned commit. The only module that contacts it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contract.errors import UserError
from trainer.entrypoint import Reporter

# No weights but safetensors: a pickle runs code when it is loaded.
_WANTED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja")
_UNWANTED = ("original/*", "onnx/*", "consolidated*")
_POLL_S = 0.5


def download(
    repository: str, folder: Path, *, revision: str | None, token: str | None, reporter: Reporter
) -> str:
    """Download the repository's model files into the folder.

    Args:
        revision: a branch, tag or commit; None takes the default branch as it is now.
        token: proves who asks; None takes the one of `hf auth login`, where there is one.

    Returns:
        The commit that was fetched, 40 hexadecimal digits.

    Raises:
        UserError: no such repository or revision, no access to it, no network, no safetensors.
    """
    import fnmatch

    import httpx2  # The client's own transport, whose errors it lets through.
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi(token=token).model_info(repository, revision=revision, files_metadata=True)
        wanted = {
            entry.rfilename: entry.size or 0
            for entry in info.siblings or []
            if any(fnmatch.fnmatch(entry.rfilename, pattern) for pattern in _WANTED)
            and not any(fnmatch.fnmatch(entry.rfilename, pattern) for pattern in _UNWANTED)
        }
        if not any(name.endswith(".safetensors") for name in wanted):
            raise _refused(repository, "has no safetensors weights", "Use a model that has them.")
        with _progress(folder, sum(wanted.values()), reporter):
            snapshot_download(
                repository,
                revision=info.sha,
                token=token,
                local_dir=folder,
                allow_patterns=list(_WANTED),
                ignore_patterns=list(_UNWANTED),
            )
    except GatedRepoError as error:
        raise _refused(
            repository, "is gated", "Accept its licence on its page, and set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise _refused(repository, f"has no revision {revision}", "") from error
    except RepositoryNotFoundError as error:
        raise _refused(
            repository,
            "is not on the Hub, or you have no access to it",
            "Check the name, or set HF_TOKEN.",
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise _refused(
            repository,
            f"could not be downloaded: {first_line}",
            "Run the same command again: it continues where it stopped. Without a network, set "
            "model_to_fine_tune to a local folder.",
        ) from error
    return str(info.sha)


def _refused(repository: str, what: str, remedy: str) -> UserError:
    return UserError.one(f"model_to_fine_tune {repository}", what, remedy)


@contextmanager
def _progress(folder: Path, total_bytes: int, reporter: Reporter) -> Iterator[None]:
    # The folder's size is enough to go by, whichever way the client downloads.
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(_POLL_S):
            present = 0
            # Partial files are renamed and removed meanwhile.
            with suppress(OSError):
                present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            reporter.progress(
                "downloading the base",
                done=min(present, total_bytes) // 2**20,
                total=max(1, total_bytes // 2**20),
                unit="MiB",
            )

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

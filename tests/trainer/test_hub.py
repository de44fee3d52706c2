"""The hub's client fetches one pinned commit and explains what it cannot have.

No hub can be reached where these tests run: tests/hub.py stands in for one.
"""

import json

import pytest

from contract.digest import digest_of_file
from tests.conftest import invoke
from tests.hub import COMMIT, hub


def fetch(project, endpoint, repository="us/tiny", **more):
    """The data report is the shortest way through the launcher to a fetched base."""
    return invoke(
        project,
        *("data", "--profile", "smoke", "--data", "data/evaluation/smoke.jsonl", "--quiet"),
        *("--set", f"model_to_fine_tune={repository}"),
        HF_ENDPOINT=endpoint,
        **more,
    )


def test_a_base_is_fetched_once_at_its_commit_and_the_token_stays_secret(smoke_run):
    files = sorted(path.name for path in smoke_run.base.iterdir())
    with hub(smoke_run.base, files) as (endpoint, asked):
        done = fetch(smoke_run.project, endpoint, HF_TOKEN="hf_secret_for_this_test")
    assert done.returncode == 0, done.stderr
    folder = smoke_run.project / "data" / "cache" / "bases" / "us--tiny@first-fetched"
    record = json.loads((folder / "base.json").read_text())
    assert record["revision"] == COMMIT
    assert record["files"] == {name: digest_of_file(smoke_run.base / name) for name in files}
    assert {token for _, token in asked} == {"Bearer hf_secret_for_this_test"}
    for path in (smoke_run.project / "data").rglob("*"):
        if path.is_file() and "environments" not in path.parts:
            assert b"hf_secret_for_this_test" not in path.read_bytes(), path
    # The hub is gone now, and nobody misses it.
    again = fetch(smoke_run.project, endpoint)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("repository", "files", "said"),
    [
        ("us/absent", ["config.json"], "is not on the hub, or you have no access to it"),
        ("us/tiny-without-weights", ["config.json"], "has no safetensors weights"),
    ],
)
def test_what_the_hub_cannot_give_is_said(smoke_run, repository, files, said):
    with hub(smoke_run.base, files) as (endpoint, _):
        done = fetch(smoke_run.project, endpoint, repository)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_is_a_sentence(smoke_run):
    done = fetch(smoke_run.project, "http://127.0.0.1:9", "us/unreachable")
    assert done.returncode == 2, done.stderr
    assert "cannot be fetched" in done.stderr
    assert "Traceback" not in done.stderr

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


@pytest.mark.slow
def test_a_base_is_fetched_once_at_its_commit_and_the_token_stays_secret(plain_project, untrained):
    files = sorted(path.name for path in untrained.iterdir())
    with hub(untrained, files) as (endpoint, asked):
        done = fetch(plain_project, endpoint, HF_TOKEN="hf_secret_for_this_test")
    assert done.returncode == 0, done.stderr
    folder = plain_project / "data" / "cache" / "bases" / "us--tiny@first-fetched"
    record = json.loads((folder / "base.json").read_text())
    assert record["revision"] == COMMIT
    assert record["files"] == {name: digest_of_file(untrained / name) for name in files}
    assert {token for _, token in asked} == {"Bearer hf_secret_for_this_test"}
    for path in (plain_project / "data").rglob("*"):
        if path.is_file() and "environments" not in path.parts:
            assert b"hf_secret_for_this_test" not in path.read_bytes(), path
    # The hub is gone now, and nobody misses it.
    again = fetch(plain_project, endpoint)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("repository", "files", "said"),
    [
        ("us/absent", ["config.json"], "is not on the Hub, or you have no access to it"),
        ("us/tiny-without-weights", ["config.json"], "has no safetensors weights"),
    ],
)
def test_what_the_hub_cannot_give_is_said(plain_project, untrained, repository, files, said):
    with hub(untrained, files) as (endpoint, _):
        done = fetch(plain_project, endpoint, repository)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_is_a_sentence(plain_project):
    done = fetch(plain_project, "http://127.0.0.1:9", "us/unreachable")
    assert done.returncode == 2, done.stderr
    assert "could not be downloaded" in done.stderr
    assert "Traceback" not in done.stderr

"""A run as an OCI artifact, and what a registry may answer to it."""

import base64
import hashlib
import http.server
import json
import threading

import pytest

from contract.digest import digest_of_file
from contract.errors import UserError
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.pipeline.oci_artifact import Layout, write_layout
from launcher.pipeline.oci_push import Reference, push_layout
from launcher.pipeline.package import packaged_files
from tests.conftest import invoke

QUIET = Display(quiet=True)


@pytest.fixture
def run(smoke_run):
    return Run(smoke_run.folder)


def test_the_layout_is_the_specifications_and_holds_the_runs_files(run, tmp_path):
    from oras.layout import NewLayout

    digest = write_layout(run, tmp_path / "à moi.oci", QUIET)
    # ORAS' own check of the folder, and of what hangs together in it.
    blobs = NewLayout(str(tmp_path / "à moi.oci")).get_ordered_blobs(run.name)
    layout = Layout(tmp_path / "à moi.oci")
    assert blobs == [*(blob.digest for blob in layout.blobs), digest]
    for blob in blobs:
        assert f"sha256:{digest_of_file(layout.blob(blob))}" == blob
    manifest = json.loads(layout.manifest)
    titles = {
        layer["annotations"]["org.opencontainers.image.title"]: layer
        for layer in manifest["layers"]
    }
    assert list(titles) == packaged_files(run)
    for name, layer in titles.items():
        assert layer["digest"] == f"sha256:{digest_of_file(run.folder / name)}"
        assert layer["size"] == (run.folder / name).stat().st_size
    assert titles[run.serving.gguf]["mediaType"] == "application/vnd.docker.ai.gguf.v3"
    config = json.loads(layout.blob(manifest["config"]["digest"]).read_bytes())
    assert config["config"]["format"] == "gguf"
    assert config["config"]["gguf"]["architecture"] == "llama"
    assert [file["diffID"] for file in config["files"]] == [
        layer["digest"] for layer in manifest["layers"]
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["à moi.oci"]


def test_the_same_run_is_the_same_artifact(run, tmp_path):
    first = write_layout(run, tmp_path / "one", QUIET)
    assert write_layout(run, tmp_path / "two", QUIET) == first
    # Written once more, it takes the other's place.
    assert write_layout(run, tmp_path / "two", QUIET) == first


def test_a_file_that_the_run_did_not_make_is_refused_and_nothing_is_written(run_copy, tmp_path):
    (run_copy / "adapter" / "adapter_model.safetensors").write_bytes(b"another")
    with pytest.raises(UserError, match="is not the file that the run created"):
        write_layout(Run(run_copy), tmp_path / "there" / "one", QUIET)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("registry.example.org/me/smoke:1.0", ("registry.example.org", "me/smoke", "1.0")),
        ("localhost/smoke", ("localhost", "smoke", "latest")),
        ("127.0.0.1:5000/a/b_c/d-e:V2", ("127.0.0.1:5000", "a/b_c/d-e", "V2")),
        ("[::1]:5000/smoke:x", ("[::1]:5000", "smoke", "x")),
    ],
)
def test_a_reference_is_read(text, parts):
    reference = Reference.parse(text)
    assert (reference.host, reference.name, reference.tag) == parts
    assert reference.is_local == (parts[0] != "registry.example.org")


@pytest.mark.parametrize(
    "text",
    [
        *("", "smoke", "me/smoke:1", "example.org", "example.org/", "example.org/Me/smoke"),
        *("example.org/me/smoke:", "example.org/me/smoke:a b", "example.org/me//smoke"),
        *("https://example.org/me", "example.org/me/smoke:1@sha256:0", "-x.org/../y"),
    ],
)
def test_what_names_no_place_is_refused(text):
    with pytest.raises(UserError, match=r"names no place in a registry. Use HOST/NAME:TAG"):
        Reference.parse(text)


class Registry(http.server.BaseHTTPRequestHandler):
    """Answers as it is told to; takes every blob, from those who have what it asks for."""

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        given = self.headers.get("Authorization")
        if self.server.wants and given != self.server.wants and not self.path.startswith("/token"):
            status = 401
            headers = {"WWW_Authenticate": self.server.challenge}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.answer(200, json.dumps({"token": "bought"}).encode())

    def do_HEAD(self):
        self.answer(404)

    def do_POST(self):
        self.answer(self.server.status, Location="/v2/smoke/blobs/uploads/1")

    def do_PUT(self):
        if "/manifests/" not in self.path:
            self.answer(201)
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        del self.headers["Content-Length"]
        digest = self.server.digest or f"sha256:{hashlib.sha256(body).hexdigest()}"
        self.answer(201, Docker_Content_Digest=digest)


@pytest.fixture
def registry():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.status, server.digest, server.wants, server.challenge = 202, None, "", ""
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def artifact(run, tmp_path):
    write_layout(run, tmp_path / "artifact", QUIET)
    return tmp_path / "artifact"


def place(server):
    return Reference.parse(f"127.0.0.1:{server.server_address[1]}/smoke:1")


def test_what_a_registry_takes_is_compared(registry, artifact):
    push_layout(artifact, place(registry), QUIET)
    registry.digest = "sha256:" + "0" * 64
    with pytest.raises(UserError, match=r"the registry took sha256:000.*, and not sha256:"):
        push_layout(artifact, place(registry), QUIET)


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, r"does not let us push there \(403\). Log in: docker login 127"), (500, "said 500")],
)
def test_what_a_registry_refuses_is_a_sentence(registry, artifact, status, said):
    registry.status = status
    with pytest.raises(UserError, match=said):
        push_layout(artifact, place(registry), QUIET)


@pytest.fixture
def logged_in(registry, tmp_path, monkeypatch):
    """As `docker login` leaves it."""
    auth = base64.b64encode(b"moi:secr:et").decode()
    folder = tmp_path / "docker"
    folder.mkdir()
    auths = {f"127.0.0.1:{registry.server_address[1]}": {"auth": auth}}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return f"Basic {auth}"


def test_a_registry_that_asks_for_a_password_is_given_that_of_docker_login(
    registry, artifact, logged_in
):
    registry.wants, registry.challenge = logged_in, 'Basic realm="here"'
    push_layout(artifact, place(registry), QUIET)
    registry.wants = "Basic another"
    with pytest.raises(UserError, match=r"does not let us push there \(401\)"):
        push_layout(artifact, place(registry), QUIET)


def test_a_registry_that_asks_for_a_token_is_given_one_that_is_bought(
    registry, artifact, logged_in
):
    where = f"http://127.0.0.1:{registry.server_address[1]}/token"
    scope = "repository:smoke:pull,push"
    registry.wants = "Bearer bought"
    registry.challenge = f'Bearer realm="{where}",service="here",scope="{scope}"'
    push_layout(artifact, place(registry), QUIET)
    asked = "/token?service=here&scope=repository%3Asmoke%3Apull%2Cpush"
    assert registry.asked == [(asked, logged_in)]


def test_without_a_login_the_remedy_is_one(registry, artifact, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    registry.wants, registry.challenge = "Basic x", 'Basic realm="here"'
    with pytest.raises(UserError, match=r"Log in: docker login 127\.0\.0\.1"):
        push_layout(artifact, place(registry), QUIET)


def test_a_registry_that_is_away_is_a_sentence(registry, artifact):
    reference = place(registry)
    registry.shutdown()
    registry.server_close()
    with pytest.raises(UserError, match="the registry does not answer"):
        push_layout(artifact, reference, QUIET)


def test_as_a_person_asks_for_it(smoke_run, tmp_path):
    project = smoke_run.project
    words = ("package", "--model", "affineur-smoke")
    done = invoke(project, *words, "--oci", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / f'affineur-smoke-{smoke_run.folder.name}.oci'}\n"
    wrong = invoke(project, *words, "--push", "smoke:1")
    assert wrong.returncode == 2
    assert "names no place in a registry" in wrong.stderr
    assert "Traceback" not in wrong.stderr

"""Whatever a stage writes on its standard output: an event, a line of the log, or a sentence."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from contract.errors import AffineurError, ExitCode
from contract.events import Failed, Note, Progress, Result, Started, parse_event
from contract.manifest import ImageRecord
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.stages import MODELFILE
from launcher.runtime.engine import Ending
from tests.fuzz.documents import FUZZED, as_json, changed, damaged, no_hang, values

pytestmark = pytest.mark.slow

EVENTS = [
    Started(python="3.11.7"),
    Progress(doing="training", done=1, total=2, unit="steps", figures={"loss": 0.5}),
    Note(text="resuming after step 3"),
    Result(values={"num_ctx": 4096}),
    Failed(problems=[{"where": "data.jsonl:3", "what": "has no output"}]),
]
DOCUMENTS = [json.loads(event.model_dump_json()) for event in EVENTS]
lines = st.one_of(
    st.sampled_from(DOCUMENTS).flatmap(changed).map(as_json),
    st.sampled_from(DOCUMENTS)
    .flatmap(lambda document: damaged(json.dumps(document)))
    .map(lambda raw: raw.decode(errors="replace")),
    values.map(as_json),
)


class Saying:
    """An engine, in name: the stage has said these lines, and ended so."""

    name = "docker"

    def __init__(self, said, code):
        self.said, self.code = said, code

    def image(self, *_, **__) -> ImageRecord:
        # Without one, the code is copied for each of them.
        return ImageRecord(digest="sha256:0", builder="none")

    def run(self, job, on_event, display):
        for line in self.said:
            event = parse_event(line)
            if event is not None:
                on_event(event)
        return Ending(self.code)


@pytest.mark.parametrize("terminal", [True, False])
@FUZZED
@given(
    said=st.lists(lines, max_size=4),
    code=st.sampled_from([*map(int, ExitCode), -9, -11, 77]),
)
def test_events(tmp_path_factory, terminal, said, code):
    folder = tmp_path_factory.getbasetemp() / "run"
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    runner = StageRunner(
        StageFolder(folder, FileDigests(folder / "digests.json")),
        StageContext(lock="rtx"),
        engine=Saying(said, code),
        display=Display(console=console),
    )
    with no_hang():
        try:
            runner.run(MODELFILE, "key")
        except KeyboardInterrupt:
            assert code == ExitCode.INTERRUPTED
        except AffineurError as error:
            said_to_people = error.text()
            assert said_to_people.strip()
    # What a container says moves no cursor, and clears no screen.
    if not terminal:
        assert "\x1b" not in console.file.getvalue()

"""Worker processes as they are started."""

import subprocess
import sys
from pathlib import Path

from tests.integration.commands import ROOT, environment

MAIN = """
import sys
from pathlib import Path

with open({seen!r}, "a") as file:
    file.write(__name__ + "\\n")

from harness.workers import Template

if __name__ == "__main__":
    template = Template()
    template.prepare()
    for number in range(2):
        worker = template.start("cpu", Path({log!r}))
        assert worker.next_event().kind == "hello"
        worker.dismiss()
        worker.end()
    assert sys.modules["__main__"].template is template
"""


def test_a_worker_does_not_import_the_conductor_s_main_module(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    main = tmp_path / "main.py"
    main.write_text(MAIN.format(seen=str(seen), log=str(tmp_path / "worker.log")))
    subprocess.run([sys.executable, str(main)], cwd=ROOT, env=environment(), check=True, timeout=120)
    assert seen.read_text().split() == ["__main__"]

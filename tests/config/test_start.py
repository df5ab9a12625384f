"""An answer does not wait for packages that are not needed for it."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "not_imported"),
    [
        (["--help"], ["torch", "lightning"]),
        (["callbacks.samples.every=0", "trainer.devices=x", "seed=y"], ["torchvision", "scipy"]),
        (["smapler=ddim"], ["matplotlib", "torch_fidelity", "transformers"]),
    ],
)
def test_an_answer_does_not_wait_for_imports(arguments, not_imported, tmp_path):
    code = (
        "import sys\nfrom unnoise.cli.train import main\n"
        f"sys.argv = {['unnoise-train', *arguments]!r}\n"
        "try: main()\nexcept SystemExit as end: print(end.code, file=sys.stderr)\n"
        f"print([name for name in {not_imported!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    status, imported = done.stderr.splitlines()[-2:]
    assert (status, imported) == ("0" if arguments == ["--help"] else "2", "[]"), done.stderr
    assert done.stderr.count("in the configuration") == (arguments != ["--help"])


def test_a_report_needs_no_torch(tmp_path):
    (tmp_path / "config.yaml").write_text("name: a\ndata: {image_size: [16, 16]}\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 1.0, "train/loss": 0.5}\n')
    code = (
        "import sys\nfrom unnoise.cli.report import main\n"
        "sys.argv = ['unnoise-report', '.']\nmain()\nprint('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split()[-2:] == ["report.html", "False"]


HIDDEN_FROM = """
from unnoise.config.nodes import resolve_target
resolve_target("unnoise.training.callbacks.samples.SampleGrid")
from torchmetrics.utilities.imports import _TORCHVISION_AVAILABLE
print(bool(_TORCHVISION_AVAILABLE))
from lightning_utilities.core.imports import RequirementCache
print(bool(RequirementCache("torchvision")))
"""


@pytest.mark.parametrize(("allowed", "there"), [("", "False"), ("my_package", "True")])
def test_packages_are_hidden_from_torchmetrics_unless_the_user_brings_code(
    allowed, there, monkeypatch
):
    monkeypatch.setenv("UNNOISE_ALLOW", allowed)
    command = [sys.executable, "-c", HIDDEN_FROM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [there, "True"]

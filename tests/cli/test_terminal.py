"""No terminal, however poor, ends a command."""

import os
import subprocess
import sys

import pytest
from untrained import FEW, TINY, make_run

from unnoise.cli.terminal import in_ascii, undecoded

POOR = {
    **dict.fromkeys(("LC_ALL", "LANG"), "C"),
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "COLUMNS": "80",
    "OMP_NUM_THREADS": "1",
}


def on_a_poor_terminal(command, *words, cwd):
    """The process, and all that it printed, which was bytes of ASCII."""
    program = f"from unnoise.cli.{command} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=os.environ | POOR,
        cwd=cwd,
        capture_output=True,
    )
    return done.returncode, (done.stdout + done.stderr).decode("ascii")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("246.7 ± 8.3", "246.7 +- 8.3"),
        ("857 × 398 …", "857 x 398 ..."),
        ("L_1 … L_T−1", "L_1 ... L_T-1"),
        ("ᾱ_T, σ², ε", "alpha_T, sigma2, epsilon"),
        ("café", "cafe"),
        ("漢", "?"),
        ("plain", "plain"),
    ],
)
def test_what_ascii_lacks_is_written_in_it(text, plain):
    assert in_ascii(text) == plain


def test_what_could_not_be_decoded_is_known():
    assert undecoded("name=" + "é".encode().decode("ascii", "surrogateescape"))
    assert not undecoded("name=é漢")


@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "report", "verify"])
def test_help(command, tmp_path):
    status, said = on_a_poor_terminal(command, "--help", cwd=tmp_path)
    assert status == 0
    assert f"unnoise-{command}" in said
    assert "Traceback" not in said


def test_an_argument_that_cannot_be_decoded_is_one_line(tmp_path):
    status, said = on_a_poor_terminal("train", "name=é", cwd=tmp_path)
    assert status == 1
    assert said == "name=?? is not ascii, this terminal's encoding: set LC_ALL=C.UTF-8\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_and_all_that_is_made_of_it(tmp_path):
    line = [*TINY, *FEW, "trainer=cpu", "logger=none", "max_steps=2", "callbacks.samples.count=4"]
    status, said = on_a_poor_terminal("train", *line, cwd=tmp_path)
    assert status == 0, said
    assert "##########" in said
    (run,) = (tmp_path / "outputs" / "tiny").iterdir()
    how = [f"run={run}", "device=cpu"]
    commands = {
        "evaluate": [*how, "n=12", "reference_count=30"],
        "sample": [*how, "n=2"],
        "figure": [*how, "figure=noise"],
        "report": [str(run)],
    }
    for command, words in commands.items():
        status, said = on_a_poor_terminal(command, *words, cwd=tmp_path)
        assert status == 0, said
        assert "Traceback" not in said
        assert "?" not in said.replace("<?]", "")  # of the bar


def test_evaluation_prints_its_errors_in_ascii(tmp_path):
    run = make_run(tmp_path / "run")
    words = [f"run={run}", "device=cpu", "n=12", "reference_count=30", "metrics=[fd]"]
    status, said = on_a_poor_terminal("evaluate", *words, cwd=tmp_path)
    assert status == 0, said
    assert "+-" in said

"""Config files of a user's own: UTF-8 in any editor's way, or one line with file and row."""

import sys

import pytest

from unnoise.cli import train
from unnoise.config.compose import check_command_line
from unnoise.files import write_with_digest
from unnoise.training.check import resume_problems
from unnoise.untrusted import UnsafeFile, load_yaml

HEADER = "# @package _global_\n"
WRONG = {
    "utf16": ((HEADER + "seed: 7\n").encode("utf-16"), "is UTF-16, not UTF-8 (row 1)"),
    "latin": ((HEADER + "seed: 7\nname: café\n").encode("latin-1"), "not UTF-8 (row 3)"),
    "tab": (HEADER.encode() + b"trainer:\n\tdevices: 1\n", "row 3: "),
    "twice": (HEADER.encode() + b"seed: 1\ntrainer:\n  a: 1\n  a: 2\n", "row 5: the key a is"),
    "torn": (HEADER.encode() + b"a: [1\nseed: 2\n", "row 3: "),
    "odd": (HEADER.encode() + b"seed: 1\nname: a\x01b\n", "row 3: "),
    "list": (b"- seed: 1\n", "holds a list"),
    "text": (b"seed\n", "holds a single value"),
    "number": (b"12\n", "holds a single value"),
    "empty": (b"", "is empty"),
    "blank": (b"\xef\xbb\xbf\n \n", "is empty"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "experiment").mkdir()
    for name, (content, _) in WRONG.items():
        (tmp_path / "experiment" / f"{name}.yaml").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_file_is_read_with_a_byte_order_mark_as_without(tmp_path, encoding, newline):
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    text = HEADER + "defaults:\n  - override /sampler: ddim\nseed: 7\nname: café\n"
    file.write_bytes(text.replace("\n", newline).encode(encoding))
    config, found = check_command_line("train", ["experiment=mine"], [tmp_path])
    assert found == []
    assert (config["seed"], config["name"]) == (7, "café")
    assert "DDIM" in config["sampler"]["stepper"]["_target_"]
    assert load_yaml(file)["name"] == "café"


def test_a_comment_alone_changes_nothing(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "later.yaml").write_text(f"{HEADER}# nothing yet\n")
    config, found = check_command_line("train", ["experiment=later"], [tmp_path])
    assert found == []
    assert config == check_command_line("train", [])[0]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("way", ["experiment", "config name", "search path"])
def test_what_is_wrong_is_one_line_with_file_and_row(name, way, folder):
    file = folder / "experiment" / f"{name}.yaml"
    if way == "experiment":
        _, found = check_command_line("train", [f"experiment={name}"], [folder])
    elif way == "config name":
        _, found = check_command_line(name, [], [file.parent])
    else:
        lines = [f"experiment={name}", f"hydra.searchpath=[file://{folder}]"]
        _, found = check_command_line("train", lines)
    (problem,) = found
    assert name in problem.key
    assert problem.message.startswith(str(file))
    assert WRONG[name][1] in problem.message
    assert "\n" not in problem.message


@pytest.mark.parametrize("mode", [[], ["-m"], ["-c", "job"], ["-c", "all"], ["-i", "config"]])
@pytest.mark.parametrize("name", ["utf16", "tab"])
def test_in_every_mode(mode, name, folder, monkeypatch, capsys):
    line = ["unnoise-train", "--config-dir", str(folder), f"experiment={name}", *mode]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as stop:
        train.main()
    out = capsys.readouterr()
    assert stop.value.code == 2
    heading, problem = out.err.splitlines()
    assert heading.startswith("1 problem ")
    assert WRONG[name][1] in problem
    assert out.out == ""


@pytest.mark.parametrize("name", ["utf16", "latin", "tab", "twice", "torn", "odd"])
def test_the_config_of_a_run_is_read_in_the_same_way(name, folder):
    with pytest.raises(UnsafeFile) as refused:
        load_yaml(folder / "experiment" / f"{name}.yaml")
    assert WRONG[name][1] in str(refused.value)


def test_resuming_from_a_damaged_config_is_one_line(folder, tmp_path):
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "step_00000001.ckpt"
    write_with_digest(checkpoint, lambda temporary: temporary.write_bytes(b""))
    (run / "config.yaml").write_bytes(WRONG["utf16"][0])
    (problem,) = resume_problems({"resume": str(run)})
    assert problem.key == "resume"
    assert WRONG["utf16"][1] in problem.message

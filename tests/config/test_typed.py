"""What a person types, and what is advised where it cannot be read."""

import shlex
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from unnoise.config.compose import check_command_line
from unnoise.config.typed import as_text, at_home, expanded

ODD = [
    "a=b",
    "it's",
    "{x}",
    "a b,c",
    'say "hi"',
    "a\\",
    'a\\"b',
    "$HOME `ls` !x",
    "é…",
    "a'\"b",
    "#",
]


def read_by_a_shell(argument):
    """What a command gets of it."""
    command = ["bash", "-c", f"printf %s {argument}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("value", ODD)
def test_what_is_advised_gives_the_value_back_through_a_shell(value):
    typed = read_by_a_shell(as_text(f"name={value}"))
    (override,) = OverridesParser.create().parse_overrides([typed])
    assert (override.key_or_group, override.value()) == ("name", value)
    config, found = check_command_line("train", [typed])
    assert (config["name"], found) == (value, [])


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("name=a=b", "'name=\"a=b\"'"),
        ("name=it's", "'name=\"it'\\''s\"'"),
        ("name={x}", "'name=\"{x}\"'"),
        ("data.root=/tmp/a b,c", "'data.root=\"/tmp/a b,c\"'"),
    ],
)
def test_the_advice_stands_in_the_message(typed, advice):
    _, found = check_command_line("train", ["data=image_folder", typed], sweep=False)
    (message,) = [problem.message for problem in found if problem.key == typed]
    assert f"as one text: {advice}" in message


def test_several_values_without_a_sweep_are_refused_with_all_ways_out():
    _, found = check_command_line("train", ["seed=1,2"], sweep=False)
    (problem,) = found
    assert problem.key == "seed=1,2"
    assert "'seed=[1,2]'" in problem.message
    assert "-m" in problem.message
    assert check_command_line("train", ["seed=1,2"])[1] == []


@pytest.mark.parametrize("typed", ["=3", "foo", "a b=3"])
def test_without_a_key_no_quotes_help(typed):
    (problem,) = check_command_line("train", [typed])[1]
    assert problem.message == "cannot be read; write key=value"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data.root=~/a", "data.root=HOME/a"),
        ("resume=~", "resume=HOME"),
        ("image=[~/a.png,~/b.png]", "image=[HOME/a.png,HOME/b.png]"),
        ("data.root=~/a,~/b", "data.root=HOME/a,HOME/b"),
        ("hydra.sweeper.storage=sqlite:///~/s.db", "hydra.sweeper.storage=sqlite:///HOME/s.db"),
        ("hydra.searchpath=[file://~/c]", "hydra.searchpath=[file://HOME/c]"),
        ("~callbacks.samples", "~callbacks.samples"),
        ("name=a~/b", "name=a~/b"),
        ("data.root=/x/~/y", "data.root=/x/~/y"),
        ("data.root=~other/y", "data.root=~other/y"),
    ],
)
def test_home_is_meant_where_a_value_begins_with_it(typed, meant, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home(typed) == meant.replace("HOME", "/home/me")


@pytest.mark.parametrize("home", ["/home/my name", "/home/a,b=c", "/home/(x)"])
def test_a_home_of_any_name_is_read(home, monkeypatch):
    monkeypatch.setenv("HOME", home)
    config, found = check_command_line("train", [at_home("name=~/a")])
    assert (config["name"], found) == (f"{home}/a", [])


def test_home_is_meant_in_files_and_in_quotes_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("root: ~/a\nparts: [~/b, {c: ~/d}]\nname: a~/b\n")
    line = ["data=mine", "name='~/e'"]
    config, _ = check_command_line("train", line, [tmp_path])
    assert config["name"] == "/home/me/e"
    parts = ["/home/me/b", {"c": "/home/me/d"}]
    assert config["data"] == {"root": "/home/me/a", "parts": parts, "name": "a~/b"}
    assert expanded(Path("~/x")) == Path("~/x")  # only what is typed


def test_quoting_is_that_of_a_shell():
    assert shlex.split(as_text("name=it's b")) == ['name="it\'s b"']

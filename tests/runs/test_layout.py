"""Names of files say what they hold, and those under older names are found."""

from unnoise.runs.layout import telling


def test_a_name_says_what_it_holds_and_ends_in_the_digest(tmp_path):
    path = telling(tmp_path, ["quality", None, "ddim-4", "n-12"], "1a2b3c4d", ".json")
    assert path == tmp_path / "quality_ddim-4_n-12_1a2b3c4d.json"


def test_odd_words_become_plain_and_none_leads_elsewhere(tmp_path):
    path = telling(tmp_path, ["../../etc", "a b/é", "", "x" * 500], "1a2b")
    assert path.parent == tmp_path
    assert path.name == f"etc_a-b_{'x' * 40}_1a2b"


def test_what_is_there_under_another_name_is_kept(tmp_path):
    for earlier in ("quality_1a2b3c4d.json", "1a2b3c4d.csv", "quality_new_1a2b3c4d.csv"):
        (tmp_path / earlier).touch()
    again = telling(tmp_path, ["quality", "ddim-4"], "1a2b3c4d", ".json")
    assert again == tmp_path / "quality_1a2b3c4d.json"
    other = telling(tmp_path, ["quality", "ddim-4"], "5e6f7a8b", ".json")
    assert other == tmp_path / "quality_ddim-4_5e6f7a8b.json"

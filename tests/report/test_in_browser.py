"""The page in a browser, as far as one is installed: what is clicked is clicked by a script."""

import json
import re
import shutil
import subprocess

import pytest
from html_parts import Seen
from made_runs import make, rows, score

from unnoise.evaluation.results import save
from unnoise.report.page import write

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on PATH")

COLLECT = """
<script>
window.errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
</script>
"""
ACT = """
<script>
const told = {};
const click = (head) => [...document.querySelectorAll("table.sortable")][0]
  .querySelectorAll("th").forEach((th) => th.textContent === head && th.firstChild.click());
const order = () => [...document.querySelectorAll("table.sortable tbody")[0].rows]
  .map((row) => row.cells[0].textContent);
const set = (field, value, kind) => {
  field.value = value;
  field.dispatchEvent(new Event(kind));
};
const seen = (selector) => [...document.querySelectorAll(selector)].filter((e) => !e.hidden).length;
(() => {
  BODY
})();
told.errors = errors;
told.wide = document.documentElement.scrollWidth;
told.room = innerWidth;
document.body.replaceChildren(JSON.stringify(told));
</script>
"""


def browse(path, *options):
    """The document as it is once its scripts have run, and what the browser complains of."""
    home = path.parent / "browser"
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={home}",
         "--enable-logging=stderr", "--virtual-time-budget=2000", *options, "--dump-dom",
         path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def act(page, body, width=1280):
    """What ``body`` notes in ``told``, in a window (a frame, which may be narrow) of some width."""
    text = page.read_text()
    text = re.sub(r"<meta http-equiv=[^>]*>", COLLECT, text)  # which would forbid the scripts here
    text = text.replace("</body>", ACT.replace("BODY", body) + "</body>")
    (page.parent / "acted.html").write_text(text)
    frame = page.parent / "frame.html"
    note = "document.body.append(event.target.contentDocument.body.textContent)"
    style = f"width:{width}px;height:800px"
    frame.write_text(f'<body><iframe src="acted.html" style="{style}"></iframe><script>document'
                     f'.querySelector("iframe").onload = (event) => {note}</script>')  # fmt: skip
    document, _ = browse(frame, "--allow-file-access-from-files")
    told = json.loads(Seen(document).text.partition("{")[2].join(["{", ""]))
    assert told.pop("errors") == []
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs, of which the third has a loss of another kind."""
    folder = tmp_path_factory.mktemp("runs")
    cosine = {"_target_": "unnoise.diffusion.schedules.cosine"}
    make(folder / "a", rows(loss=10.0), name="middle")
    make(folder / "b", rows(loss=2.0), name="best")
    make(folder / "c", rows(loss=0.5), name="incomparable", schedule=cosine)
    scores = [score("ddim", 3.0, 10), score("ddpm", 20.0, 50), score("real", 1.0, 0, kind="real")]
    save(folder / "a" / "evaluation" / "quality_1.json", scores)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    write(folder / "report.html", [folder / name for name in "abc"])
    return folder / "report.html"


@pytest.fixture(scope="module")
def alone(folder):
    write(folder / "a" / "report.html", [folder / "a"])
    return folder / "a" / "report.html"


@pytest.mark.parametrize(("which", "charts"), [("page", 2), ("alone", 2)])
def test_the_page_as_it_is_draws_its_charts_and_complains_of_nothing(which, charts, request):
    document, complaints = browse(request.getfixturevalue(which))
    assert complaints == []
    assert document.count('role="img"') == charts
    assert document.count('class="dot"') >= 2
    assert ">nothing to show<" not in document


def test_a_click_sorts_and_what_does_not_compare_is_not_ranked(page):
    told = act(page, """
      click("validation loss"); told.up = order();
      click("validation loss"); told.down = order();
      click("run"); told.names = order();
      click("kind"); told.kinds = order();
    """)  # fmt: skip
    assert told["up"] == ["best", "middle", "incomparable"]
    assert told["down"] == ["middle", "best", "incomparable"]
    assert told["names"] == ["best", "incomparable", "middle"]
    assert told["kinds"][-1] == "incomparable"


def test_what_is_missing_is_last_in_either_order(alone):
    told = act(alone, """
      click("evaluations a picture"); told.up = order();
      click("evaluations a picture"); told.down = order();
    """)  # fmt: skip
    assert told["up"] == ["ddim", "ddpm", "real"]
    assert told["down"] == ["ddpm", "ddim", "real"]


def test_tools_change_what_is_drawn(page):
    told = act(page, """
      const box = document.querySelector("[data-figure=overlay]");
      const lines = () => [...box.querySelectorAll(".line")].map((each) => each.getAttribute("d"));
      told.first = lines();
      const [metric, axis] = box.querySelectorAll("select"), smooth = box.querySelector("input");
      set(axis, "linear", "change"); told.linear = lines();
      set(metric, "train/loss", "change"); told.other = lines();
      set(smooth, 0.8, "input"); told.smooth = lines();
      box.querySelector(".legend button").click(); told.fewer = lines();
    """)  # fmt: skip
    counts = {key: len(told[key]) for key in told if key not in ("wide", "room")}
    assert counts == {"first": 3, "linear": 3, "other": 3, "smooth": 6, "fewer": 4}
    assert told["first"] != told["linear"] != told["other"]
    assert told["smooth"][::2] == told["other"]  # the raw values stay, faint
    assert told["smooth"][1] != told["smooth"][0]
    assert told["fewer"] != told["smooth"][2:]  # the axis fits what is left


def test_a_line_joins_the_budgets_of_one_sampler_and_another_tells_of_real_pictures(tmp_path):
    run = make(tmp_path / "run")
    scores = [score("ddim", 3.0, 20), score("ddim", 9.0, 10), score("real", 1.0, 0, kind="real")]
    scores += [score("heun", fd, 19) for fd in (4.0, 5.0)]  # such as of two checkpoints
    save(run / "evaluation" / "quality_1.json", scores)
    write(run / "report.html", [run])
    told = act(run / "report.html", """
      const box = document.querySelector("[data-figure=cost]");
      told.lines = [...box.querySelectorAll(".line")].map((each) => each.getAttribute("d"));
      told.note = box.querySelector("p.note").textContent;
      told.ticks = [...box.querySelectorAll("text")].map((each) => each.textContent);
    """)  # fmt: skip
    assert len(told["lines"]) == 2
    ends = [[float(x.split(" ")[0][1:]) for x in re.findall(r"[ML]\S+ ", d)] for d in told["lines"]]
    assert all(left < right for left, right in ends)
    assert "Dotted: real pictures." in told["note"]
    assert {"10", "19", "20"} <= set(told["ticks"])


def test_pictures_and_keys_are_chosen(page):
    told = act(page, """
      const slider = document.querySelector(".slider input");
      const shown = () => [...document.querySelectorAll(".strip > :not([hidden])")]
        .map((each) => each.dataset.step);
      told.last = shown(); set(slider, 0, "input"); told.first = shown();
      told.differing = seen(".config tbody tr");
      document.querySelector(".switch input").click();
      told.all = seen(".config tbody tr");
    """)  # fmt: skip
    assert told["last"] == ["100"] * 3
    assert told["first"] == ["50"] * 3
    assert (told["differing"], told["all"]) == (3, 11)


def test_keys_are_found(alone):
    told = act(alone, """
      set(document.querySelector("input[type=search]"), "ADAM", "input");
      told.found = seen("table.config tr");
    """)  # fmt: skip
    assert told["found"] == 1


@pytest.mark.parametrize("which", ["page", "alone"])
@pytest.mark.parametrize("width", [375, 1280])
def test_only_boxes_scroll_sideways(which, width, request):
    opened = "document.querySelectorAll('details').forEach((each) => (each.open = true));"
    told = act(request.getfixturevalue(which), opened, width)
    assert told["room"] == width
    assert told["wide"] <= width

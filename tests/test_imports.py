"""The house: a file imports only from rooms below its own, and a library stays in its room."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unnoise"
FILES = sorted(SOURCE.rglob("*.py"))

ROOMS = (  # from the roof down
    "__init__",
    "cli",
    "demo",
    "api",
    "training",
    "report",
    "evaluation",
    "models",
    "networks",
    "data",
    "diffusion",
    "config",
    "runs",
    "distributed",
    "untrusted",
    "files",
)
KEPT_TO = {
    "hydra": {"cli", "config"},
    "omegaconf": {"cli", "config"},
    "lightning": {"training", "distributed"},
    "wandb": {"training"},
    "torchmetrics": {"evaluation", "training"},
    "torch_fidelity": {"evaluation"},
    "diffusers": {"models"},
    "huggingface_hub": {"models"},
    "gradio": {"demo"},
    "starlette": {"demo"},
}


def room(file):
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def module(file):
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("unnoise", *parts)).removesuffix(".__init__")


MODULES = {module(file): file for file in FILES}


def imports(file):
    """What a file imports: modules, and names in packages of ours."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {file}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            inside = [name for name in names if name in MODULES]
            yield from inside
            if len(inside) < len(names):
                yield node.module


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_a_file_imports_only_from_below(file):
    below = ROOMS[ROOMS.index(room(file)) :]
    for name in imports(file):
        top, _, rest = name.partition(".")
        if top == "unnoise":
            assert rest.partition(".")[0] in below, f"{file} imports {name}"
        if top in KEPT_TO:
            assert room(file) in KEPT_TO[top], f"{file} imports {name}"


def test_every_room_has_its_place():
    assert {room(file) for file in FILES} == set(ROOMS)


def test_no_imports_go_round_in_a_circle():
    graph = {name: {n for n in imports(file) if n in MODULES} for name, file in MODULES.items()}
    TopologicalSorter(graph).prepare()

"""The house: who may import whom, and which library stays in which room."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unnoise"
FILES = sorted(SOURCE.rglob("*.py"))

# Each part of the package, and the parts it may import.
ALLOWED = {
    "diffusion": {"diffusion"},
    "networks": {"networks"},
    "data": {"data", "safe"},
    "pictures": {"pictures"},
    "files": {"files"},
    "safe": {"safe"},
    "evaluation": {"evaluation", "files", "safe"},
    "report": {"report", "evaluation", "files", "safe"},
    "model": {"diffusion", "networks", "pictures"},
    "figures": {"figures", "model", "diffusion", "data", "pictures"},
    "training": {
        "training",
        "model",
        "diffusion",
        "networks",
        "data",
        "pictures",
        "figures",
        "files",
        "evaluation",
        "extraction",
        "safe",
    },
    "classifier": {"cli", "data", "diffusion", "files", "pictures", "safe"},
    "asked": {"model", "networks", "data", "figures"},
    "extraction": {"data", "evaluation", "files"},
    "drawing": {"api", "cli", "files", "pictures", "safe"},
    "scoring": {"data", "evaluation", "extraction", "pictures", "safe"},
    "verification": {"verification", "diffusion", "networks", "data", "evaluation", "model"},
    "api": {"asked", "cli", "figures", "files", "model", "diffusion", "pictures", "safe"},
    "cli": {
        "cli",
        "api",
        "classifier",
        "drawing",
        "evaluation",
        "extraction",
        "files",
        "report",
        "safe",
        "scoring",
        "verification",
        "figures",
        "training",
        "model",
        "diffusion",
        "networks",
        "data",
        "pictures",
    },
    "__init__": {"api"},
}
# Libraries that only one part knows.
KEPT_TO = {
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "lightning": {"training"},
    "wandb": {"training"},
    "torchmetrics": {"evaluation", "training"},
    "torch_fidelity": {"evaluation"},
}


def part(file):
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {file}"
            if node.module == "unnoise":
                yield from (f"unnoise.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_a_file_imports_only_from_below(file):
    for name in imports(file):
        top, _, rest = name.partition(".")
        if top == "unnoise":
            assert rest.partition(".")[0] in ALLOWED[part(file)], f"{file} imports {name}"
        if top in KEPT_TO:
            assert part(file) in KEPT_TO[top], f"{file} imports {name}"


def test_every_part_has_its_rule():
    assert {part(file) for file in FILES} == set(ALLOWED)

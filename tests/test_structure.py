"""The tree: which module may import which, how large files and folders may be, what stands once."""

import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter

import jaxtyping
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float

from smpler.utils.geometry import project
from smpler.utils.paths import ROOT, require
from tests.quick_checks import jaxtyped, mentions_shapes
from tests.support.repository import python_files

LAYERS = {"utils": 0, "models": 1, "datasets": 1, "video": 2, "training": 2, "apps": 3, "smpler": 4}
LAYERS |= {"main": 5, "demo": 5, "hubconf": 5, "scripts": 5, "benchmarks": 6, "tests": 7}
"""A module imports those of its own room, and of rooms with a smaller number."""
MAX_FILES = defaultdict(lambda: 15, benchmarks=20)
MAX_LINES = 350
LONG_FILES: set[str] = set()
ORACLES = ("benchmarks/published/model.py", "benchmarks/published/loader.py")
"""They repeat what others wrote, on purpose."""
SAME_LINES = 20


def module_name(path: str) -> str:
    """Return the name under which a file is imported."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    inside = name.split(".")[0] in ("models", "datasets", "utils", "training", "video", "apps")
    return f"smpler.{name}" if inside else name


MODULES = {module_name(path): path for path in python_files()}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "smpler" and parts[1:2] and parts[1] in LAYERS else parts[0]


def imports(module: str) -> set[str]:
    """Return our modules that a module imports, inside functions as well."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / MODULES[module]).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            names = {alias.name for alias in node.names}
            if node.module == "smpler":
                names -= {"__version__"}  # which stands there, and is no arrow up
            inner = {f"{node.module}.{name}" for name in names}
            # `from package import module` imports both; a name inside counts for the package
            found |= {name for name in inner if name in MODULES}
            if not inner <= MODULES.keys():
                found.add(node.module)
    return {name for name in found if name in MODULES} - {module}


GRAPH = {module: imports(module) for module in MODULES}


def test_imports_go_down_only():
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in others
        if room(other) != room(module)
        if LAYERS[room(other)] >= LAYERS[room(module)]
    ]
    assert not wrong, wrong


def test_nothing_imports_in_a_circle():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"{error.args[1]}")


def test_only_tests_import_the_programs():
    programs = {"demo", "main", "hubconf"}
    wrong = [m for m, others in GRAPH.items() if others & programs and room(m) != "tests"]
    assert not wrong, wrong


def test_folders_are_small_enough_to_be_overlooked():
    count = Counter(path.rpartition("/")[0] for path in python_files())
    crowded = {name: number for name, number in count.items() if number > MAX_FILES[name]}
    assert not crowded, crowded


def test_files_are_short_enough_to_be_read():
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in python_files()}
    long = {path: n for path, n in lengths.items() if n > MAX_LINES and path not in LONG_FILES}
    assert not long, long


def shape_of_lines(text: str) -> list[tuple[int, str]]:
    """Return (line number, shape) of the lines of code, whatever their names and values.

    Imports, comments and texts that stand alone do not count.
    """
    lines = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            known = token.string in ("def", "class", "return", "for", "in", "if", "else", "with")
            lines[token.start[0]].append(token.string if known else "name")
            if token.string in ("import", "from"):
                lines[token.start[0]].append("import")
        elif token.type in (tokenize.NUMBER, tokenize.STRING):
            lines[token.start[0]].append("value")
        elif token.type == tokenize.OP:
            lines[token.start[0]].append(token.string)
    shapes = {number: " ".join(parts) for number, parts in sorted(lines.items())}
    return [
        (number, shape)
        for number, shape in shapes.items()
        if "import" not in shape and shape != "value" and re.search("[a-z]", shape)
    ]


def test_no_twenty_lines_stand_twice():
    places = defaultdict(list)
    for path in python_files():
        if path in ORACLES or path.startswith("tests/") or path in LONG_FILES:
            continue
        lines = shape_of_lines((ROOT / path).read_text())
        for start in range(len(lines) - SAME_LINES + 1):
            run = tuple(shape for _, shape in lines[start : start + SAME_LINES])
            places[run].append(f"{path}:{lines[start][0]}")
    twice = [where for where in places.values() if len(where) > 1]
    assert not twice, twice[:5]


@pytest.mark.parametrize(
    "name", ["NUM_BETAS", "NUM_JOINTS", "METRICS", "LUMINANCE", "Box", "BACKENDS"]
)
def test_a_constant_stands_once(name):
    pattern = re.compile(rf"^{name}(:.*)? =", re.MULTILINE)
    homes = [path for path in python_files() if pattern.search((ROOT / path).read_text())]
    assert len(homes) == 1, homes


def test_shapes_in_signatures_are_checked_in_the_tests():
    with pytest.raises(jaxtyping.TypeCheckError):
        project(torch.zeros(2, 5, 4), torch.zeros(2, 3))


def test_signatures_without_shapes_are_checked_as_well():
    @jaxtyped(typechecker=beartype)
    def text_of(number: int) -> str:
        return number

    for function, given in ((require, "no path"), (text_of, "no number"), (text_of, 1)):
        with pytest.raises(BeartypeCallHintViolation):
            function(given)


@pytest.mark.parametrize(
    ("hint", "has_shape"),
    [
        (Float[torch.Tensor, "b 3"], True),
        (dict[str, list[Float[torch.Tensor, "b 3"] | None]], True),
        ("a name that is defined later", True),
        (Callable[..., torch.Tensor | None], False),
    ],
    ids=["array", "inside", "text", "none"],
)
def test_a_signature_is_checked_with_its_shapes_where_it_has_any(hint, has_shape):
    assert mentions_shapes(hint) == has_shape

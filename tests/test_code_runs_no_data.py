"""Nothing in dagfs turns data into code: no pickles, no eval, no unsafe YAML. Held on the source, not on trust."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("dagfs/**/*.py"), *ROOT.glob("training/*.py")])

MODULES = frozenset(
    {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "codeop"}
)
BUILTINS = frozenset({"eval", "exec", "compile", "__import__"})
YAML_LOADERS = frozenset({"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"})


def dangers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
            yield node.func.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from _of_method(node, node.func)


def _of_method(call: ast.Call, method: ast.Attribute) -> Iterator[str]:
    owner = method.value.id if isinstance(method.value, ast.Name) else ""
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if owner == "yaml" and method.attr in YAML_LOADERS and options.get("Loader") != "_Loader":
        yield f"yaml.{method.attr}"
    if owner == "torch" and method.attr == "load" and options.get("weights_only") != "True":
        yield "torch.load that unpickles"
    if owner in ("np", "numpy") and method.attr == "load" and options.get("allow_pickle", "False") != "False":
        yield "numpy.load that unpickles"
    if options.get("shell", "False") != "False" or (owner, method.attr) in (("os", "system"), ("os", "popen")):
        yield "a shell"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_turns_data_into_code(path):
    assert list(dangers(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from marshal import loads", "eval(x)", "exec(x)", "__import__(x)", "yaml.load(x)",
        "yaml.unsafe_load(x)", "yaml.load(x, Loader=yaml.Loader)", "torch.load(x)", "np.load(x, allow_pickle=True)",
        "subprocess.run(x, shell=True)", "os.system(x)", "def f():\n    import shelve.x",
    ],
)  # fmt: skip
def test_each_danger_would_be_seen(code):
    assert len(list(dangers(ast.parse(code)))) == 1


def test_the_one_yaml_loader_makes_plain_values_only():
    from dagfs.hub import plain_yaml

    tags = {str(tag).rpartition(":")[2] for tag in plain_yaml._Loader.yaml_constructors}
    assert tags == {"null", "bool", "int", "str", "seq", "map", "None"}
    assert plain_yaml._Loader.yaml_multi_constructors == {}
    for text in ("!!python/object/apply:os.system [ls]", "!!python/name:os.system x", "!custom x", "!!set {a}"):
        with pytest.raises(ValueError, match="plain YAML"):
            plain_yaml.load(text)

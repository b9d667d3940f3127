"""Every test that docs/semantics.md quotes exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUOTED = re.findall(r"^- `(tests/[^`]+)`$", (ROOT / "docs/semantics.md").read_text(), re.M)


def defined(path):
    """Names of the tests in a file, those of classes as Class::test."""
    out = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            out |= {f"{node.name}::{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            out.add(node.name)
    return out


def test_promises_are_quoted():
    promises = re.findall(r"^\*\*\d\.\d ", (ROOT / "docs/semantics.md").read_text(), re.M)
    assert len(QUOTED) >= len(promises) > 15


@pytest.mark.parametrize("quoted", QUOTED)
def test_the_quoted_test_exists(quoted):
    file, _, name = quoted.partition("::")
    assert (ROOT / file).exists() and (not name or name in defined(ROOT / file))


def locked(name, workspace):
    """Versions of a crate in a workspace's Cargo.lock."""
    return re.findall(rf'name = "{name}"\nversion = "([^"]+)"', (ROOT / workspace / "Cargo.lock").read_text())


@pytest.mark.parametrize("workspace", [".", "connectors/ballista"])
@pytest.mark.parametrize(("crate", "version"), [("object_store", "0.13."), ("arrow-schema", "59."), ("arrow-array", "59."), ("parquet", "59.")])
def test_one_version_of_what_must_fit_together(crate, version, workspace):
    [only] = locked(crate, workspace)
    assert only.startswith(version)

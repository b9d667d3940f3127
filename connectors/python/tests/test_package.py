"""The package as it is given away: a wheel that has everything, and sources that its own checks pass."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1]
SOURCES = sorted(path.relative_to(PACKAGE / "src").as_posix() for path in (PACKAGE / "src/forebay").rglob("*.py"))
MODULES = [source.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for source in SOURCES]


def run(*command, **keys):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300, **keys)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, PACKAGE)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_the_wheel_has_every_module_and_says_that_it_is_typed(wheel):
    assert wheel.name.endswith("-py3-none-any.whl"), "nothing is compiled"
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        [entries] = [packed.read(name).decode() for name in names if name.endswith("/entry_points.txt")]
    assert {name for name in names if ".dist-info/" not in name} == {*SOURCES, "forebay/py.typed"}
    assert "forebay = forebay.fs.ForebayFileSystem" in entries and "forebay-timeline = forebay.timeline:main" in entries
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_what_was_installed_from_it_can_be_imported(wheel, tmp_path):
    """From where nothing else lies, and not from this folder, which the environment of the tests points to."""
    run("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", tmp_path / "target", wheel)
    modules = MODULES if has_torch() else [module for module in MODULES if not module.startswith("forebay.torch")]
    program = (
        "import importlib, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "for name in sys.argv[2:]:\n"
        "    assert importlib.import_module(name).__file__.startswith(sys.argv[1]), name\n"
        "import forebay, importlib.metadata\n"
        "assert forebay.__version__ == importlib.metadata.version('forebay')\n"
    )
    run("-I", "-W", "ignore", "-c", program, tmp_path / "target", *modules, cwd=tmp_path)


def has_torch():
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("check", ["mypy --cache-dir /dev/null", "ruff check --no-cache src"])
def test_its_own_checks_pass(check):
    pytest.importorskip(check.split()[0], reason="tests/setup.sh python installs it")
    run("-m", *check.split(), cwd=PACKAGE)

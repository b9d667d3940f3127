"""What the pages and examples say is so: the code of docs/tensorflow.md, of the README, examples/follow and examples/sql."""

import json
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import forebay.layout
import forebay.shares
import numpy as np
import pyarrow as pa
import pytest

from tests.harness import BINARY

ROOT = Path(__file__).parents[3]


class Spec(types.SimpleNamespace):
    def __init__(self, shape, dtype):
        super().__init__(shape=shape, dtype=dtype)


def code(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)


@pytest.fixture
def tensorflow(monkeypatch):
    """A stand-in for what the recipe takes from TensorFlow: specs, and a dataset that keeps its generator."""

    class Dataset:
        data = None

        @classmethod
        def from_generator(cls, generator, output_signature):
            made = cls()
            made.generator, made.signature = generator, output_signature
            Dataset.data = made
            return made

        def __getattr__(self, name):
            return lambda *_: self

    module = types.ModuleType("tensorflow")
    module.TensorSpec, module.string, module.as_dtype = Spec, "string", np.dtype
    module.data = types.SimpleNamespace(Dataset=Dataset, AUTOTUNE=-1)
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    return Dataset


def test_the_tensorflow_recipe(server, client, path, tensorflow):
    x = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(8, dtype=np.float32)), 2)
    client.put(path, pa.table({"x": x, "label": pa.array([1, 2, 3, 4]), "s": ["a"] * 4}))
    [recipe] = code("docs/tensorflow.md")
    recipe = (
        recipe.replace("grpc://127.0.0.1:47470", server.flight)
        .replace("/features/day=1", path)
        .replace("model.fit", "fit = lambda *_, **__: None; fit")
    )
    names = {}
    exec(compile(recipe, "docs/tensorflow.md", "exec"), names)
    made = tensorflow.data
    assert made.signature == {"x": Spec([None, 2], np.dtype("float32")), "label": Spec([None], np.dtype("int64"))}
    [batch] = made.generator()
    assert batch["x"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]] and batch["label"].tolist() == [1, 2, 3, 4]
    [followed] = names["batches"](follow=True)
    assert followed["label"].tolist() == batch["label"].tolist()
    layout = forebay.layout.Layout(client.connection, path, 1, ["label"], None)
    shares = [forebay.shares.of_rank(layout.rows, 3, rank) for rank in range(3)]
    read = [[label for span in share for batch in layout.read(*span) for label in batch["label"].to_pylist()] for share in shares]
    assert sum(read, []) == [1, 2, 3, 4] and all(read)


def test_the_readme(server, client, monkeypatch):
    """The blocks of "Datasets" and "Files", one after another."""
    pandas = pytest.importorskip("pandas")
    blocks = code("connectors/python/README.md")
    first, session, follow, files, fsspec_block, _ = blocks
    names = {
        "parts": [pa.table({"id": [k]}) for k in range(3)],
        "content": b"x" * 500,
        "train": lambda batch: None,
        "remember": lambda token: None,
    }
    client.write_bytes("/lake/part-0.parquet", _parquet(pandas.DataFrame({"a": range(100)})))
    for block in (first, session, follow, files, fsspec_block):
        block = block.replace("127.0.0.1:47470", server.flight.split("://")[1]).replace(
            "port=47470", f"port={server.flight.rsplit(':', 1)[1]}"
        )
        block = block.replace(f'host="{server.flight.split("://")[1]}"', 'host="127.0.0.1"')
        exec(compile(block, "README.md", "exec"), names)
    assert names["session"].version == 1 and client.read("/features/day=2")["id"].to_pylist() == [0, 1, 2]
    assert len(client.versions("/features/day=1")) == 2 and client.read_bytes("/models/a.bin") == b"x" * 500
    assert names["follow"].token.startswith("1:")


def test_every_exception_that_the_readme_names_is_there():
    text = (ROOT / "connectors/python/README.md").read_text()
    named = set(re.findall(r"`([A-Z]\w+)`", text)) & {name for name in dir(forebay)}
    assert len(named) >= 11


def test_the_benchmark_runs():
    command = [
        sys.executable,
        ROOT / "connectors/python/bench/read.py",
        "--forebay",
        BINARY,
        "--megabytes",
        "32",
        "--parts",
        "2",
        "--rounds",
        "1",
    ]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout)
    assert told["gb"] >= 0.03 and told["rows"].keys() >= {"pyarrow", "forebay read", "forebay scan"}
    assert all(row["GB/s"] > 0 and row["client CPU s/GB"] > 0 for row in told["rows"].values())


class TestFollowExample:
    def test_every_row_is_trained_on_twice_and_the_first_before_the_last_was_written(self, tmp_path):
        pytest.importorskip("torch")
        report = tmp_path / "report.json"
        # Six seconds of writing, within which the loader's workers start however busy the machine is.
        command = [ROOT / "examples/follow/run.sh", "--rows", "60000", "--batch", "500", "--pause", "0.05", "--json", report]
        run = subprocess.run(
            command, env={**os.environ, "FOREBAY_BIN": BINARY, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=200
        )
        assert run.returncode == 0, run.stderr[-3000:]
        found, written = json.loads(report.read_text()), json.loads(re.search(r'^\{"written".*$', run.stdout, re.M)[0])
        assert found["while it is written"]["rows"] == found["published"]["rows"] == written["written"] == 60_000
        assert found["while it is written"]["first_batch"] < written["committed"] <= found["published"]["first_batch"]
        assert found["published"]["loss"] < 0.05 and "part-00000-" in run.stdout
        assert not list(tmp_path.glob("forebay-follow-*"))


def _parquet(frame):
    import io

    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


SHELL = Path(BINARY).with_name("sql")


@pytest.mark.skipif(not SHELL.exists(), reason="is built with the workspace, beside the server")
def test_the_example_of_sql(server, client):
    write, follow, more = (block.replace("127.0.0.1:47470", server.flight.removeprefix("grpc://")) for block in code("examples/sql/README.md", "sql"))

    def shell(statements):
        process = subprocess.Popen([SHELL, "--addr", server.flight], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdin.write(statements)
        process.stdin.close()
        process.stdin = None
        return process

    def rows(process):
        """What the tables that it printed have, cell by cell."""
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in out.splitlines() if line.startswith("|")]

    told = rows(shell(write))
    for row in [("cart", "1", "12.0"), ("home", "2", "4.0"), ("pages",), ("visits",), ("2",)]:
        assert row in told, told
    assert [version["rows"] for version in client.act("versions", path="/lake/visits")] == [2, 3]
    with shell(follow) as following:
        time.sleep(1)
        assert following.poll() is None, "it waits for two rows more"
        rows(shell(more))
        assert sorted(rows(following)[1:]) == [("1", "home"), ("2", "cart"), ("3", "home"), ("4", "help"), ("5", "home")]

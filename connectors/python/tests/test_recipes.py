"""What the pages and examples say is so: the code of docs/tensorflow.md, of the README, examples/follow and examples/sql."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import forebay
import pyarrow as pa
import pytest

from tests.harness import BINARY

ROOT = Path(__file__).parents[3]


def code(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)


TENSORFLOW = Path(sys.prefix) / "tensorflow"


@pytest.mark.skipif(not any(TENSORFLOW.glob("complete-*")), reason="tests/setup.sh torch could not install TensorFlow: docs/tensorflow.md is not run")
def test_the_tensorflow_recipe():
    command = [TENSORFLOW / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", Path(__file__).with_name("tensorflow_recipe.py")]
    run = subprocess.run(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and " passed" in run.stdout and "skipped" not in run.stdout, run.stdout[-5000:] + run.stderr[-1000:]


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

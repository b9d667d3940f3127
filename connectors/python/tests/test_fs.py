"""The file system: names, streams, ranges, transactions, URLs; and what opens it: pandas, Polars, DuckDB, Dask, Hugging Face datasets."""

import errno
import os
import pickle

import forebay
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

fsspec = pytest.importorskip("fsspec")

BODY = os.urandom(1 << 20) * 9 + b"end"


@pytest.fixture
def fs(server):
    host, port = server.flight.split("://")[1].split(":")
    return fsspec.filesystem("forebay", host=host, port=int(port))


@pytest.fixture
def base(server, path):
    """The URL of a path of the test's own."""
    return server.flight.replace("grpc", "forebay") + path


@pytest.fixture
def tree(client, path):
    for name in ("a", "b/c", "b/d/e"):
        client.write_bytes(f"{path}/{name}", name.encode())
    return path


class TestNames:
    def test_listings(self, fs, tree):
        assert sorted(fs.ls(tree, detail=False)) == [f"{tree}/a", f"{tree}/b"]
        assert {e["name"]: (e["type"], e["size"]) for e in fs.ls(tree)} == {f"{tree}/a": ("file", 1), f"{tree}/b": ("directory", 0)}
        assert fs.find(tree) == [f"{tree}/{n}" for n in ("a", "b/c", "b/d/e")] and fs.find(tree, maxdepth=2) == [f"{tree}/a", f"{tree}/b/c"]
        assert fs.find(f"{tree}/a") == [f"{tree}/a"] == fs.ls(f"{tree}/a", detail=False) and fs.find(f"{tree}/nix") == []
        assert fs.glob(f"{tree}/**/?") == [f"{tree}/{n}" for n in ("a", "b", "b/c", "b/d", "b/d/e")] == fs.find(tree, withdirs=True)[1:]
        assert [(p, sorted(d), sorted(f)) for p, d, f in fs.walk(tree)] == [
            (tree, ["b"], ["a"]),
            (f"{tree}/b", ["d"], ["c"]),
            (f"{tree}/b/d", [], ["e"]),
        ]
        assert fs.du(tree) == 9 and fs.exists(tree) and not fs.exists(tree + "/nix") and fs.isdir(tree) and fs.isfile(f"{tree}/a")

    def test_facts_of_a_file(self, fs, client, path):
        client.write_bytes(path, b"abc")
        info, before = fs.info(path), fs.ukey(path)
        assert (
            (info["size"], info["type"], info["state"]) == (3, "file", "sealed")
            and fs.modified(path) == info["mtime"]
            and info["mtime"].tzinfo
        )
        client.write_bytes(path, b"abd")
        assert fs.ukey(path) != before and fs.checksum(path) != int.from_bytes(before.encode(), "big")
        with pytest.raises(NotImplementedError):
            fs.created(path)

    def test_directories(self, fs, path):
        fs.mkdir(f"{path}/x/y")
        fs.makedirs(f"{path}/x/y", exist_ok=True)
        for make in (fs.mkdir, fs.makedirs):
            with pytest.raises(FileExistsError):
                make(f"{path}/x/y")
        with pytest.raises(FileNotFoundError):
            fs.mkdir(f"{path}/no/parent", create_parents=False)
        with pytest.raises(forebay.FailedPrecondition):
            fs.rmdir(f"{path}/x")
        with pytest.raises(OSError) as full:
            fs.rmdir(f"{path}/x")
        assert full.value.errno == errno.ENOTEMPTY
        fs.rmdir(f"{path}/x/y")
        assert fs.ls(f"{path}/x") == []

    def test_removing(self, fs, tree):
        with pytest.raises(IsADirectoryError):
            fs.rm(f"{tree}/b")
        with pytest.raises(FileNotFoundError):
            fs.rm(f"{tree}/nix")
        with pytest.raises(FileNotFoundError):
            fs.rm(f"{tree}/nix", recursive=True)
        fs.rm(f"{tree}/b", recursive=True, maxdepth=1)
        assert fs.find(tree) == [f"{tree}/a", f"{tree}/b/d/e"]
        fs.rm([f"{tree}/a", f"{tree}/b"], recursive=True)
        assert fs.ls(tree) == []

    def test_moving_is_a_rename(self, fs, client, tree):
        etag = client.stat(f"{tree}/b/c")["etag"]
        with pytest.raises(IsADirectoryError):
            fs.mv(f"{tree}/b", f"{tree}/x")
        fs.mv(f"{tree}/b", f"{tree}/new/place", recursive=True)
        assert fs.find(tree) == [f"{tree}/a", f"{tree}/new/place/c", f"{tree}/new/place/d/e"]
        assert client.stat(f"{tree}/new/place/c")["etag"] == etag, "no byte was copied"
        fs.mv(f"{tree}/a", f"{tree}/new/")
        fs.mv(f"{tree}/new/a", f"{tree}/new/place/c")
        assert fs.cat(f"{tree}/new/place/c") == b"a"
        fs.mv(f"{tree}/new/place/*", f"{tree}/globbed/", recursive=True)
        assert fs.find(f"{tree}/globbed") == [f"{tree}/globbed/c", f"{tree}/globbed/d/e"]

    @pytest.mark.parametrize("name", ["a b", "ü", "日本", "+&=?#", "%25", "%FF"])
    def test_names_of_all_kinds(self, fs, base, path, name):
        with fsspec.open(f"{base}/{name}", "wb") as file:
            file.write(b"1")
        assert fs.ls(path, detail=False) == [f"{path}/{name}"] and fs.cat_file(f"{path}/{name}") == b"1"


class TestWhatIsThereInstead:
    """Programs ask the built-in exceptions, as they do of any other file system."""

    def test_a_path_that_leads_through_a_file(self, fs, client, tree):
        under = f"{tree}/a/x"
        assert not fs.exists(under) and not fs.isdir(under) and not fs.isfile(under) and not client.exists(under)
        assert fs.find(under) == [] == fs.glob(f"{tree}/a/*")
        for does in (fs.info, fs.ls, fs.cat_file, fs.mkdir, fs.rmdir, fs.size, lambda p: fs.pipe_file(p, b"1"), lambda p: fs.open(p, "rb")):
            with pytest.raises(NotADirectoryError):
                does(under)
        with pytest.raises(NotADirectoryError):
            fs.makedirs(f"{under}/y", exist_ok=True)

    def test_a_directory_where_a_file_is_needed(self, fs, tree):
        folder = f"{tree}/b"
        for does in (fs.cat_file, fs.rm_file, lambda p: fs.open(p, "rb"), lambda p: fs.pipe_file(p, b"1")):
            with pytest.raises(IsADirectoryError):
                does(folder)
        for mode in ("wb", "ab"):
            with pytest.raises(IsADirectoryError):
                fs.open(folder, mode).close()
        with pytest.raises(IsADirectoryError), fs.open(folder, "wb") as file:
            file.write(BODY)
        with pytest.raises(FileExistsError):
            fs.open(folder, "xb")

    def test_a_file_where_a_directory_is_needed(self, fs, tree):
        for does in (fs.mkdir, fs.makedirs, lambda p: fs.makedirs(p, exist_ok=True)):
            with pytest.raises(FileExistsError):
                does(f"{tree}/a")
        with pytest.raises(NotADirectoryError):
            fs.rmdir(f"{tree}/a")


class TestStreams:
    def test_writing_and_reading_in_pieces(self, fs, path):
        with fs.open(path, "wb") as file:
            for k in range(0, len(BODY), 700_001):
                file.write(BODY[k : k + 700_001])
            assert file.tell() == len(BODY) and not fs.exists(path), "nothing is seen before the end"
        with fs.open(path) as file:
            assert file.size == len(BODY) and b"".join(iter(lambda: file.read(333_333), b"")) == BODY
        assert fs.cat_file(path) == BODY

    def test_jumping_about(self, fs, path):
        fs.pipe_file(path, BODY)
        with fs.open(path, "rb") as file:
            for at, count in (
                (len(BODY) - 8, 8),
                (0, 4),
                (5 << 20, 3 << 20),
                (17, 1),
                (1 << 20, 100),
                ((1 << 20) + 100, 2 << 20),
                (len(BODY), 5),
            ):
                assert file.seek(at) == at and file.read(count) == BODY[at : at + count], (at, count)
            assert file.seek(-3, os.SEEK_END) and file.read() == b"end"

    def test_ranges(self, fs, path):
        fs.pipe_file(path, BODY)
        assert fs.cat_file(path, 5, 9) == BODY[5:9] and fs.cat_file(path, -3) == b"end" and fs.cat_file(path, 1, -1) == BODY[1:-1]
        assert fs.cat_ranges([path] * 3, [0, 7, 100], [1, 7, 300]) == [BODY[:1], b"", BODY[100:300]]
        assert isinstance(fs.cat_ranges([path + "-nix", path], 0, 1)[0], FileNotFoundError)
        assert fs.head(path, 3) == BODY[:3] and fs.tail(path, 3) == b"end" and fs.read_block(path, 10, 5) == BODY[10:15]

    def test_several_files_at_once(self, fs, tree):
        assert fs.cat(tree, recursive=True) == {f"{tree}/{n}": n.encode() for n in ("a", "b/c", "b/d/e")}
        with pytest.raises(FileNotFoundError):
            fs.cat([f"{tree}/a", f"{tree}/nix"])
        assert fs.cat([f"{tree}/a", f"{tree}/nix"], on_error="omit") == {f"{tree}/a": b"a"}

    def test_appending_and_exclusive(self, fs, path):
        for text in (b"one", b"two"):
            with fs.open(path, "ab") as file:
                file.write(text)
        assert fs.cat_file(path) == b"onetwo"
        with pytest.raises(FileExistsError):
            fs.open(path, "xb")
        with pytest.raises(forebay.InvalidArgument, match="mount"):
            fs.open(path, "r+b")

    @pytest.mark.parametrize("size", [3, 9 << 20], ids=["small", "large"])
    @pytest.mark.parametrize("mode", ["wb", "w"])
    def test_an_exception_leaves_what_was_there(self, fs, path, mode, size):
        fs.pipe_file(path, b"before")
        with pytest.raises(ZeroDivisionError), fs.open(path, mode) as file:
            file.write(("x" if mode == "w" else b"x") * size)
            raise ZeroDivisionError
        assert fs.cat_file(path) == b"before"

    def test_text_and_compression(self, fs, path):
        with fs.open(path, "w", encoding="utf-8") as file:
            file.write("zwölf\n" * 3)
        with fs.open(path, "r", encoding="utf-8") as file:
            assert file.readlines() == ["zwölf\n"] * 3
        with fs.open(path + ".gz", "wb", compression="gzip") as file:
            file.write(b"packed")
        assert fs.cat_file(path + ".gz")[:2] == b"\x1f\x8b"
        with fs.open(path + ".gz", "rb", compression="infer") as file:
            assert file.read() == b"packed"

    def test_truncate_and_touch(self, fs, path):
        fs.touch(path)
        assert fs.size(path) == 0
        fs.pipe_file(path, b"abcdef")
        fs.truncate(path, 2)
        assert fs.cat_file(path) == b"ab"

    def test_writing_takes_bounded_memory(self, fs, path):
        import resource

        piece = os.urandom(8 << 20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with fs.open(path, "wb") as file:
            for _ in range(40):
                file.write(piece)
        with fs.open(path, "rb") as file:
            count = 0
            while got := len(file.read(1 << 20)):
                count += got
        assert count == 320 << 20
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 150 << 20

    def test_a_file_that_is_changed_while_it_is_read_is_not_mixed_up(self, fs, path):
        fs.pipe_file(path, b"1" * (9 << 20))
        with fs.open(path) as file:
            assert file.read(10) == b"1" * 10
            fs.pipe_file(path, b"2" * (9 << 20))
            file.seek(8 << 20)
            with pytest.raises(forebay.FailedPrecondition, match="changed"):
                file.read(10)


class TestTransactions:
    def test_files_appear_together_at_the_end(self, fs, path):
        with fs.transaction:
            for k, size in enumerate((3, 9 << 20)):
                with fs.open(f"{path}/{k}", "wb") as file:
                    file.write(b"x" * size)
            fs.pipe_file(f"{path}/2", b"piped")
            assert fs.find(path) == []
        assert {name: fs.size(name) for name in fs.find(path)} == {f"{path}/0": 3, f"{path}/1": 9 << 20, f"{path}/2": 5}

    def test_an_exception_leaves_nothing(self, fs, path):
        with pytest.raises(ZeroDivisionError), fs.transaction:
            with fs.open(f"{path}/0", "wb") as file:
                file.write(b"x" * (9 << 20))
            raise ZeroDivisionError
        assert not fs.exists(path)


class TestUrls:
    def test_a_url_names_server_and_path(self, fs, base, path):
        found, inner = fsspec.core.url_to_fs(base)
        assert inner == path and found.unstrip_protocol(inner) == base == fs.unstrip_protocol(path) and found.fsid == fs.fsid
        assert (
            fs._strip_protocol(["forebay://h:1/a/", "forebay+tls://h/a//", "/a"]) == ["/a"] * 3
            and fs._strip_protocol("forebay://h:1") == "/"
        )
        assert fs._parent("/a/b") == "/a" and fs._parent("/a") == "/"

    def test_the_environment_and_options(self, server, monkeypatch, path, client):
        client.write_bytes(path, b"x")
        monkeypatch.setenv("FOREBAY_ADDR", server.flight)
        assert fsspec.filesystem("forebay", skip_instance_cache=True).cat_file(path) == b"x"
        with fsspec.open(f"forebay://{path}", token="t", retry_for=1) as file:
            assert file.read() == b"x" and file.fs.client.connection.options.token == "t"
        assert "secret" not in repr(fsspec.filesystem("forebay", token="secret").client.connection.options)

    def test_tls_and_ipv6(self):
        for secure in (
            fsspec.filesystem("forebay", host="::1", port=7, tls_ca="-----BEGIN"),
            fsspec.filesystem("forebay", host="::1", port=7, tls=True),
        ):
            assert (
                secure.client.connection.address.uri == "grpc+tls://[::1]:7" and secure.unstrip_protocol("/x") == "forebay+tls://[::1]:7/x"
            )
        assert fsspec.core.url_to_fs("forebay+tls://h/x")[0].client.connection.address.uri == "grpc+tls://h:47470"

    def test_it_can_be_pickled_with_its_files(self, fs, path):
        fs.pipe_file(path, b"abcdef")
        file = fs.open(path)
        file.seek(2)
        again, copy = pickle.loads(pickle.dumps((fs, file)))
        assert again == fs and copy.read(2) == b"cd"


class TestOthers:
    @pytest.fixture
    def frame(self):
        return pa.table({"id": range(1000), "s": [f"{k}" for k in range(1000)]})

    @pytest.fixture
    def lake(self, base, fs, path, frame):
        """A directory of two Parquet files, a CSV and an Arrow file beside it."""
        for k in (0, 1):
            with fs.open(f"{path}/lake/{k}.parquet", "wb") as file:
                pq.write_table(frame.slice(500 * k, 500), file)
        return base

    def test_pyarrow(self, fs, path, lake, frame):
        assert pq.read_table(f"{path}/lake", filesystem=fs).equals(frame)
        dataset = pa.dataset.dataset(f"{path}/lake", filesystem=fs, format="parquet")
        assert dataset.to_table(filter=pa.dataset.field("id") > 997)["id"].to_pylist() == [998, 999]
        pa.dataset.write_dataset(frame, f"{path}/out", filesystem=fs, format="parquet")
        assert pq.read_table(f"{path}/out", filesystem=fs).equals(frame)

    def test_what_is_written_as_files_is_a_dataset(self, client, path, lake, frame):
        assert client.read(f"{path}/lake", filter="id >= 998")["id"].to_pylist() == [998, 999]

    def test_pandas(self, base, lake, frame):
        pandas = pytest.importorskip("pandas")
        data = pandas.read_parquet(f"{lake}/lake/0.parquet")
        assert data["id"].tolist() == list(range(500))
        data.to_parquet(f"{base}/pandas.parquet")
        data.to_csv(f"{base}/pandas.csv", index=False)
        data.to_json(f"{base}/pandas.json.gz", orient="records", lines=True)
        assert pandas.read_parquet(f"{base}/pandas.parquet").equals(data)
        assert pandas.read_csv(f"{base}/pandas.csv", storage_options={"token": "t"})["id"].tolist() == data["id"].tolist()
        assert len(pandas.read_json(f"{base}/pandas.json.gz", lines=True)) == 500

    def test_polars(self, fs, base, path, lake, client, frame):
        polars = pytest.importorskip("polars")
        assert polars.read_parquet(f"{lake}/lake/1.parquet", use_pyarrow=True)["id"].to_list() == list(range(500, 1000))
        with fs.open(f"{path}/lake/1.parquet") as file:
            assert polars.read_parquet(file)["id"].sum() == sum(range(500, 1000))
        with fs.open(f"{path}/polars.parquet", "wb") as file:
            polars.DataFrame({"x": [1, 2]}).write_parquet(file)
        lazy = polars.scan_pyarrow_dataset(pa.dataset.dataset(f"{path}/lake", filesystem=fs, format="parquet"))
        assert lazy.filter(polars.col("id") > 997).collect()["id"].to_list() == [998, 999]
        client.put(f"{path}/flight", polars.DataFrame({"x": [1, 2], "s": ["a", "b"]}))
        assert polars.from_arrow(client.read(f"{path}/flight")).rows() == [(1, "a"), (2, "b")]
        assert polars.DataFrame(client.scan(f"{path}/flight"))["x"].sum() == 3

    def test_duckdb(self, fs, base, path, lake, client, frame):
        duckdb = pytest.importorskip("duckdb")
        with duckdb.connect() as db:
            db.register_filesystem(fs)
            assert db.sql(f"SELECT count(*), sum(id) FROM read_parquet('{lake}/lake/*.parquet')").fetchall() == [(1000, 499_500)]
            db.sql(f"COPY (SELECT 7 AS x) TO '{base}/duck.parquet' (FORMAT parquet)")
            assert db.sql(f"SELECT x FROM '{base}/duck.parquet'").fetchall() == [(7,)]
            client.put(f"{path}/set", frame)
            scan = client.scan(f"{path}/set").to_reader()  # noqa: F841 - DuckDB finds it by its name
            assert db.sql("SELECT max(id) FROM scan").fetchall() == [(999,)]

    def test_dask(self, base, lake):
        dask = pytest.importorskip("dask")
        dd = pytest.importorskip("dask.dataframe")
        with dask.config.set(scheduler="threads"):
            frame = dd.read_parquet(f"{lake}/lake")
            assert frame["id"].sum().compute() == 499_500
            frame.to_parquet(f"{base}/dask")
            assert dd.read_parquet(f"{base}/dask")["id"].count().compute() == 1000

    def test_hugging_face_datasets(self, tmp_path, server, fs, base, path, lake, monkeypatch):
        monkeypatch.setenv("FOREBAY_ADDR", server.flight)  # datasets drops the host of URLs where it resolves a pattern
        datasets = pytest.importorskip("datasets")
        whole = datasets.load_dataset("parquet", data_files={"train": f"{lake}/lake/*.parquet"}, split="train", cache_dir=str(tmp_path))
        assert whole["id"][-1] == 999 and whole.num_rows == 1000
        whole.select(range(10)).save_to_disk(f"{base}/saved")
        assert datasets.load_from_disk(f"{base}/saved")["id"][-1] == 9
        stream = datasets.IterableDataset.from_generator(
            lambda: (row for batch in fs.client.scan(f"{path}/lake") for row in batch.to_pylist())
        )
        assert [row["id"] for row in stream.take(3)] == [0, 1, 2]

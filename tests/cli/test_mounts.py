"""Under-stores as mounts: nested, read only, drained, and what goes from one to another. Local folders stand for all."""

import functools
import http.server
import json
import os
import re
import subprocess
import threading
import time

import pytest

from tests.cli.conftest import Cli, forebay
from tests.harness import BINARY, Server
from tests.stores import wait_for


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """path → the folder that is mounted there."""
    folders = {path: tmp_path_factory.mktemp(name) for path, name in (("/", "root"), ("/ceph", "ceph"), ("/ceph/raw", "raw"))}
    (folders["/"] / "ceph").mkdir()
    (folders["/"] / "ceph/hidden").write_text("lies behind a mount")
    (folders["/ceph"] / "raw").mkdir()
    (folders["/ceph"] / "raw/hidden").write_text("so does this")
    return folders


@pytest.fixture(scope="module")
def nested(tmp_path_factory, stores):
    with Server(tmp_path_factory.mktemp("data") / "d", under={path: f"file://{folder}" for path, folder in stores.items()}) as server:
        yield Cli(server)


def names(cli, path):
    return sorted(entry["path"] for entry in cli.json("ls", path))


# ---- nested mounts

def test_each_mount_takes_what_is_written_below_it_and_no_other(nested, stores):
    for path in ("/a/f", "/ceph/a/f", "/ceph/raw/a/f"):
        nested.run("put", "-", path, stdin=path.encode())
    nested.run("persist", "/", "--wait", "--timeout", "1min")
    assert (stores["/"] / "a/f").read_text() == "/a/f"
    assert (stores["/ceph"] / "a/f").read_text() == "/ceph/a/f"
    assert (stores["/ceph/raw"] / "a/f").read_text() == "/ceph/raw/a/f"
    assert not (stores["/"] / "ceph/a").exists() and not (stores["/ceph"] / "raw/a").exists()


def test_a_mount_hides_what_the_store_around_it_has_there(nested, stores):
    (stores["/ceph/raw"] / "seen").write_text("raw")
    assert "/ceph" in names(nested, "/") and "/ceph/raw" in names(nested, "/ceph")
    assert "/ceph/hidden" not in names(nested, "/ceph") and "/ceph/raw/hidden" not in names(nested, "/ceph/raw")
    nested.refused(3, "cat", "/ceph/raw/hidden")
    assert nested.run("cat", "/ceph/raw/seen") == b"raw"
    recursive = nested.text("ls", "-R", "/")
    assert "/ceph/raw/seen" in recursive and "hidden" not in recursive


def test_a_mount_point_is_neither_renamed_nor_deleted(nested):
    for line in (["mv", "/ceph", "/moved"], ["rm", "-r", "/ceph/raw"], ["rm", "-r", "/ceph"]):
        assert "under-store is mounted at /ceph" in nested.refused(4, *line)


def test_deeper_mounts_come_and_go(nested, tmp_path):
    (tmp_path / "f").write_text("deep")
    nested.run("under", "add", "/ceph/raw/x/y/z", f"file://{tmp_path}")
    assert nested.run("cat", "/ceph/raw/x/y/z/f") == b"deep" and names(nested, "/ceph/raw/x") == ["/ceph/raw/x/y"]
    nested.run("under", "rm", "/ceph/raw/x/y/z")
    nested.refused(3, "cat", "/ceph/raw/x/y/z/f")


# ---- from one to another

def test_a_rename_between_stores_is_refused_and_says_what_to_do(nested):
    nested.run("put", "-", "/ceph/r/f", stdin=b"1")
    with nested.server.client() as client:
        code, _, text = client.action("rename", {"from": "/ceph/r/f", "to": "/ceph/raw/f"})
        assert code == "FAILED_PRECONDITION" and "forebay cp" in text and "forebay mv" in text, text
        code, _, text = client.action("rename", {"from": "/ceph/r", "to": "/r"})
        assert code == "FAILED_PRECONDITION", text
    assert nested.run("cat", "/ceph/r/f") == b"1"


def test_mv_between_stores_copies_and_then_deletes(nested, stores):
    big = bytes(range(256)) * 40_000
    nested.run("put", "-", "/ceph/m/sub/big", stdin=big)
    nested.run("put", "-", "/ceph/m/empty", stdin=b"")
    nested.run("mkdir", "/ceph/m/hollow")
    moved = nested.json("mv", "/ceph/m", "/ceph/raw/m")
    assert moved["copied"]["files"] == 2 and moved["copied"]["bytes"] == len(big)
    nested.refused(3, "stat", "/ceph/m")
    assert nested.run("cat", "/ceph/raw/m/sub/big") == big and names(nested, "/ceph/raw/m") == ["/ceph/raw/m/empty", "/ceph/raw/m/hollow", "/ceph/raw/m/sub"]
    nested.run("persist", "/", "--wait", "--timeout", "1min")
    assert (stores["/ceph/raw"] / "m/sub/big").read_bytes() == big and not (stores["/ceph"] / "m").exists()


def test_mv_between_stores_of_a_clean_file(nested, stores):
    (stores["/ceph"] / "theirs").write_text("written outside")
    nested.run("mv", "/ceph/theirs", "/mine")
    nested.run("persist", "/", "--wait", "--timeout", "1min")
    assert (stores["/"] / "mine").read_text() == "written outside" and not (stores["/ceph"] / "theirs").exists()


def test_mv_between_stores_keeps_what_is_in_its_way(nested):
    nested.run("put", "-", "/ceph/x", stdin=b"x")
    nested.run("put", "-", "/y", stdin=b"y")
    nested.refused(4, "mv", "/ceph/x", "/y")
    assert nested.run("cat", "/ceph/x") == b"x" and nested.run("cat", "/y") == b"y"
    nested.run("mv", "--force", "/ceph/x", "/y")
    assert nested.run("cat", "/y") == b"x"
    nested.refused(3, "cat", "/ceph/x")
    nested.run("put", "-", "/ceph/x", stdin=b"x")
    nested.refused(3, "mv", "/ceph/x", "/none/x")
    nested.run("mv", "--parents", "/ceph/x", "/none/x")
    nested.run("put", "-", "/full/f", stdin=b"1")
    nested.run("put", "-", "/ceph/full/f", stdin=b"2")
    nested.refused(4, "mv", "-T", "--force", "/ceph/full", "/full")
    assert nested.run("cat", "/ceph/full/f") == b"2"


def test_cp_between_stores(nested, stores):
    for n in range(5):
        nested.run("put", "-", f"/ceph/c/{n}", stdin=bytes([n]) * 1000)
    nested.run("cp", "-r", "/ceph/c", "/ceph/raw/c")
    nested.run("persist", "/ceph/raw", "--wait", "--timeout", "1min")
    assert [(stores["/ceph/raw"] / f"c/{n}").read_bytes() for n in range(5)] == [bytes([n]) * 1000 for n in range(5)]
    assert len(names(nested, "/ceph/c")) == 5


# ---- read only

def test_a_read_only_mount_is_read_and_never_written(nested, tmp_path):
    (tmp_path / "f").write_text("theirs")
    nested.run("under", "add", "/ro", f"file://{tmp_path}", "--read-only")
    assert [m["read_only"] for m in nested.json("under", "ls") if m["path"] == "/ro"] == [True] and "read-only" in nested.text("under", "ls")
    assert nested.run("cat", "/ro/f") == b"theirs"
    for line in (["put", "-", "/ro/g"], ["rm", "/ro/f"], ["mv", "/ro/f", "/ro/g"], ["mkdir", "/ro/d"], ["cp", "/y", "/ro/y"], ["mv", "/y", "/ro/y"]):
        assert "read-only" in nested.refused(5, *line), line
    with nested.server.client() as client:
        code, _, text = client.action("begin", {"path": "/ro/ds"})
        assert code == "PERMISSION_DENIED" and "read-only" in text
    assert [p.name for p in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_text() == "theirs"
    nested.run("under", "rm", "/ro")


def test_the_file_of_settings_makes_one_too(tmp_path):
    (tmp_path / "lake").mkdir()
    config = tmp_path / "forebay.toml"
    config.write_text(f"[[mount]]\npath = '/lake'\nurl = 'file://{tmp_path}/lake'\nread_only = true\n")
    with Server(tmp_path / "d", config=config) as server:
        assert "read-only" in Cli(server).refused(5, "put", "-", "/lake/f")


def test_a_web_server_is_read_and_never_written(nested, tmp_path):
    content = bytes(range(256)) * 20_000
    (tmp_path / "sets/day=1").mkdir(parents=True)
    (tmp_path / "sets/day=1/part 0.bin").write_bytes(content)
    (tmp_path / "sets/readme").write_text("served")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        nested.run("under", "add", "/web", f"http://127.0.0.1:{site.server_port}/sets")
        assert [(m["read_only"], m["state"]) for m in nested.json("under", "ls") if m["path"] == "/web"] == [(True, "ready")]
        assert names(nested, "/web") == ["/web/day=1", "/web/readme"] and names(nested, "/web/day=1") == ["/web/day=1/part 0.bin"]
        assert nested.run("cat", "/web/day=1/part 0.bin") == content
        nested.refused(3, "cat", "/web/none")
        assert "read-only" in nested.refused(5, "put", "-", "/web/new")
        nested.run("cp", "-r", "/web/day=1", "/ceph/day=1")
        (tmp_path / "sets/readme").write_text("served anew")
        nested.run("sync", "/web", "--wait")
        assert nested.run("cat", "/web/readme") == b"served anew"
        site.shutdown()
    assert nested.run("cat", "/ceph/day=1/part 0.bin") == content
    nested.run("under", "rm", "/web")


def test_what_was_written_before_there_was_a_store_goes_there_once_there_is_one(tmp_path):
    (tmp_path / "lake").mkdir()
    with Server(tmp_path / "d") as server:
        cli = Cli(server)
        for n in range(3):
            cli.run("put", "-", f"/lake/early/{n}", stdin=b"early")
        cli.run("mkdir", "/lake/hollow")
        assert server.term() == 0
    with Server(tmp_path / "d", under={"/lake": f"file://{tmp_path}/lake"}) as server:
        Cli(server).run("persist", "/lake", "--wait", "--timeout", "1min")
        assert [(tmp_path / f"lake/early/{n}").read_bytes() for n in range(3)] == [b"early"] * 3
        assert (tmp_path / "lake/hollow").is_dir()


# ---- removal

def test_a_mount_with_dirty_data_goes_only_when_it_is_drained(nested, tmp_path):
    store = tmp_path / "store"
    nested.run("under", "add", "/drained", f"file://{store}")  # Not there yet: what is written stays dirty.
    for n in range(20):
        nested.run("put", "-", f"/drained/{n}", stdin=bytes(1000))
    said = nested.refused(4, "under", "rm", "/drained")
    assert re.search(r"[1-9]\d* changes", said) and "--drain" in said, said
    drain = subprocess.Popen([BINARY, "under", "rm", "/drained", "--drain", "--addr", nested.server.flight], stderr=subprocess.PIPE)
    end = time.monotonic() + 10
    while "about to be removed" not in (refused := forebay("put", "-", "/drained/late", FOREBAY_ADDR=nested.server.flight).stderr.decode()):
        assert time.monotonic() < end, refused
    assert drain.poll() is None
    store.mkdir()
    assert drain.wait(60) == 0, drain.stderr.read()
    assert sorted(int(p.name) for p in store.iterdir() if p.name.isdigit()) == [*range(20)]
    assert "/drained" not in [m["path"] for m in nested.json("under", "ls")]


def test_a_drain_that_is_given_up_leaves_the_mount_as_it_was(nested, tmp_path):
    nested.run("under", "add", "/given-up", f"file://{tmp_path}/none")
    nested.run("put", "-", "/given-up/f", stdin=b"1")
    drain = subprocess.Popen([BINARY, "under", "rm", "/given-up", "--drain", "--addr", nested.server.flight])
    end = time.monotonic() + 10
    while forebay("put", "-", "/given-up/g", stdin=b"2", FOREBAY_ADDR=nested.server.flight).returncode == 0:
        assert time.monotonic() < end
    drain.kill()
    drain.wait()
    while forebay("put", "-", "/given-up/g", stdin=b"2", FOREBAY_ADDR=nested.server.flight).returncode != 0:
        assert time.monotonic() < end + 20
    assert nested.run("cat", "/given-up/f") == b"1"
    (tmp_path / "none").mkdir()
    nested.run("under", "rm", "/given-up", "--drain")


def test_staging_files_keep_their_mount(nested, tmp_path):
    nested.run("under", "add", "/staged", f"file://{tmp_path}")
    nested.run("put", "-", "/staged/x.inprogress", stdin=b"1")
    for flags in ([], ["--drain"]):
        assert "staging" in nested.refused(4, "under", "rm", "/staged", *flags)
    nested.run("mv", "/staged/x.inprogress", "/staged/x")
    nested.run("under", "rm", "/staged", "--drain")
    assert (tmp_path / "x").read_text() == "1"


# ---- what can not go there

def blocked(cli):
    """path → why."""
    return {item["path"]: item["reason"] for item in cli.json("status")["blocked"]}


@pytest.mark.parametrize(("make", "kind"), [(lambda at: at.symlink_to("/nowhere"), "a symbolic link"), (os.mkfifo, "a pipe")], ids=["link", "pipe"])
def test_a_file_waits_for_a_name_that_something_else_has_in_the_store(nested, stores, kind, make):
    name = f"taken-by-{kind.split()[-1]}"
    at = stores["/"] / name
    make(at)
    nested.run("put", "-", f"/{name}", stdin=b"ours")
    wait_for(lambda: kind in blocked(nested).get(f"/{name}", ""), "it is not blocked")
    assert str(stores["/"]) in blocked(nested)[f"/{name}"] and nested.run("cat", f"/{name}") == b"ours"
    at.unlink()
    nested.run("persist", f"/{name}", "--wait", "--timeout", "1min")
    assert at.read_bytes() == b"ours" and not at.is_symlink() and blocked(nested) == {}
    nested.run("rm", f"/{name}")


def test_a_directory_goes_whose_name_a_link_has_in_the_store(nested, stores, tmp_path):
    (tmp_path / "theirs").write_text("outside")
    (stores["/"] / "links").mkdir()
    (stores["/"] / "links/out").symlink_to(tmp_path)
    (stores["/"] / "links/loop").symlink_to("loop")
    for name in ("out", "loop"):
        nested.run("mkdir", f"/links/{name}")
        nested.run("put", "-", f"/links/{name}/new", stdin=b"new")
        assert names(nested, f"/links/{name}") == [f"/links/{name}/new"]
    wait_for(lambda: any("a symbolic link" in why for why in blocked(nested).values()), "nothing is blocked")
    nested.run("rm", "-r", "/links/out")
    nested.run("rm", "/links/loop/new")
    nested.run("rm", "-r", "/links")
    wait_for(lambda: blocked(nested) == {} and nested.json("status")["queued"] == 0, "something is left to do")
    assert sorted(p.name for p in (stores["/"] / "links").iterdir()) == ["loop", "out"] and [p.name for p in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("name", [".forebay-tmp", ".forebay-packs", ".forebay-probe-x"])
def test_a_name_that_is_ours_is_free_here_and_blocked_in_the_store(nested, stores, name):
    nested.refused(3, "stat", f"/{name}")
    nested.run("put", "-", f"/{name}", stdin=b"a file")
    wait_for(lambda: "use another name" in blocked(nested).get(f"/{name}", ""), "the file is not blocked")
    assert nested.run("cat", f"/{name}") == b"a file"
    nested.run("mv", f"/{name}", "/renamed")
    nested.run("persist", "/renamed", "--wait", "--timeout", "1min")
    nested.run("mkdir", f"/{name}")
    nested.run("put", "-", f"/{name}/f", stdin=b"below")
    wait_for(lambda: f"/{name}/f" in blocked(nested), "the file below is not blocked")
    assert names(nested, f"/{name}") == [f"/{name}/f"]
    nested.run("rm", "-r", f"/{name}")
    nested.run("rm", "/renamed")
    wait_for(lambda: blocked(nested) == {} and nested.json("status")["queued"] == 0, "something is left to do")
    nested.run("put", "-", f"/deep/{name}", stdin=b"like any other")
    nested.run("persist", "/deep", "--wait", "--timeout", "1min")
    assert (stores["/"] / "deep" / name).read_bytes() == b"like any other"


def test_no_store_lies_in_a_folder_of_the_server(tmp_path):
    for folder in ("tier", "lake/below", "mnt/below"):
        (tmp_path / folder).mkdir(parents=True)
    config = tmp_path / "forebay.toml"
    config.write_text(f"[[tier]]\nname = 'fast'\ndir = '{tmp_path}/tier'\nsize = '1MiB'\n")
    (tmp_path / "link").symlink_to(tmp_path / "d")
    inside = {"d": "a data folder", "d/below/it": "a data folder", "link/below": "a data folder", "tier": 'the tier "fast"'}
    with Server(tmp_path / "d", config=config) as server:
        cli = Cli(server)
        for folder, named in inside.items():
            said = cli.refused(2, "under", "add", "/x", f"file://{tmp_path}/{folder}")
            assert named in said and "name a folder outside" in said, said
        assert cli.json("under", "ls") == []
        cli.run("under", "add", "/x", f"file://{tmp_path}/lake/below")
        said = cli.refused(4, "mount", tmp_path / "lake")
        assert "the under-store of /x" in said and "mount another folder" in said
        assert "a data folder" in cli.refused(4, "mount", tmp_path / "d")
        cli.run("under", "rm", "/x")
        cli.run("under", "add", "/around", f"file://{tmp_path}")
        assert server.term() == 0
    for folder, named in {**inside, "mnt/below": "mounts", "mnt": "mounts"}.items():
        serve = ["serve", "--data", tmp_path / "d", "--config", config, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--fuse", tmp_path / "mnt"]
        done = forebay(*serve, "--under", f"/y=file://{tmp_path}/{folder}", timeout=30)
        assert done.returncode == 2 and named in done.stderr.decode() and done.stdout == b"", done
    with Server(tmp_path / "d") as server:
        assert [mount["path"] for mount in Cli(server).json("under", "ls")] == ["/around"], "what was refused was not remembered"


# ---- one store twice

def test_two_mounts_of_one_store_are_ready_at_once(tmp_path):
    (tmp_path / "lake").mkdir()
    url = f"file://{tmp_path}/lake"
    with Server(tmp_path / "d", under={"/a": url, "/b": url}) as server:
        cli = Cli(server)
        assert {m["state"] for m in cli.json("under", "ls")} == {"ready"}
        cli.run("put", "-", "/a/f", stdin=b"one store")
        cli.run("persist", "/a", "--wait", "--timeout", "1min")
        assert cli.run("cat", "/b/f") == b"one store"


# ---- secrets

SECRETS = ["s3://me:hush-hush@bucket/x", "s3://bucket/x?secret_access_key=hush-hush", "s3://bucket/x?endpoint=http://me:hush-hush@host:1",
           "gs://me:hush-hush@bucket/x", "az://c/x?account=a&sig=hush-hush", "hdfs://me:hush-hush@nn:8020/x", "https://me:hush-hush@host/x",
           "https://host/x?token=hush-hush", "gopher://me:hush-hush@host"]


@pytest.mark.parametrize("url", SECRETS)
def test_a_url_with_a_secret_is_refused_and_shown_nowhere(tmp_path, url):
    server = Server(tmp_path / "d", env={"FOREBAY_LOG": "trace"})
    with server:
        cli = Cli(server)
        said = cli.refused(2, "under", "add", "/x", url)
        assert "/x" in said or "under-store URL" in said
        shown = [said, cli.text("under", "ls"), json.dumps(cli.json("status")), server.log()]
        server.term()
    refused = forebay("serve", "--data", tmp_path / "e", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--under", f"/x={url}", FOREBAY_LOG="trace", timeout=30)
    assert refused.returncode in (1, 2) and refused.stdout == b"", refused
    shown.append(refused.stderr.decode())
    assert not [text for text in shown if "hush" in text]
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and b"hush-hush" in p.read_bytes()]
    assert kept == []

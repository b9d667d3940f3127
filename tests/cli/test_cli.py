"""Every verb as a user types it: what it does, what --json says, and the exit code when it cannot."""

import json
import subprocess
import time

import pyarrow as pa
import pytest

from tests.cli.conftest import forebay
from tests.harness import BINARY
from tests.stores import wait_for

STATUS_KEYS = {
    "dirty_bytes", "dirty_files", "oldest_dirty_seconds", "persisted_bytes", "cached_bytes", "queued", "uploading", "blocked",
    "conflicts", "mounts", "ack", "version",
}


def batch(start, stop):
    return pa.record_batch([pa.array(range(start, stop))], names=["id"])


def tree_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- help

def test_every_verb_teaches_itself():
    top = forebay("--help").stdout.decode()
    for verb in "serve put get cat ls stat mkdir mv cp rm mount unmount status persist load pin unpin free sync policy dataset under doctor fsck disk cluster user completions".split():
        assert f"\n  {verb} " in top, verb
        shown = forebay(verb, "--help")
        assert shown.returncode == 0 and b"Usage: " in shown.stdout, verb
    assert "Examples:" in top and "Exit codes:" in top


@pytest.mark.parametrize("line", [[], ["frobnicate"], ["put"], ["ls", "--no-such-flag"], ["status", "extra"], ["persist"], ["put", "a", "/b", "--mode", "maybe"]])
def test_usage_errors_are_code_2(line):
    done = forebay(*line)
    assert done.returncode == 2 and done.stdout == b""


@pytest.mark.parametrize("line", [["cluster", "status", "--json"], ["cluster", "drain"]])
def test_verbs_of_a_later_build_say_so(cli, line):
    assert "not in this build" in cli.refused(1, *line)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell", "elvish"])
def test_completions(shell):
    done = forebay("completions", shell)
    assert done.returncode == 0 and b"dataset" in done.stdout


# ---- files

def test_put_get_cat(cli, tmp_path):
    content = bytes(range(256)) * 40_000
    local = tmp_path / "model.bin"
    local.write_bytes(content)
    assert cli.run("put", local, "/files/a/model.bin") == b""
    assert cli.run("cat", "/files/a/model.bin") == content
    assert cli.run("get", "/files/a/model.bin", "-") == content
    cli.run("get", "/files/a/model.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == content
    (tmp_path / "folder").mkdir()
    cli.run("get", "/files/a/model.bin", tmp_path / "folder")
    assert tree_of(tmp_path / "folder") == {"model.bin": content}, "whole under its own name, and nothing beside it"
    assert "JSON" in cli.refused(2, "get", "/files/a/model.bin", "-", "--json")
    put = cli.json("put", local, "/files/json.bin")
    assert put == {"path": "/files/json.bin", "files": 1, "bytes": len(content), "level": "local"}


def test_put_into_a_directory_takes_the_local_name(cli, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    cli.run("mkdir", "-p", "/into/dir")
    cli.run("put", tmp_path / "x", "/into/dir")
    cli.run("put", tmp_path / "x", "/into/made/")
    assert cli.run("cat", "/into/dir/x", "/into/made/x") == b"xx"


def test_put_from_stdin_and_its_modes(cli):
    cli.run("put", "-", "/in/f", stdin=b"one")
    cli.run("put", "-", "/in/f", "--mode", "append", stdin=b" two")
    assert cli.run("cat", "/in/f") == b"one two"
    cli.run("put", "-", "/in/f", "--mode", "append", "--offset", 7, stdin=b"!")
    cli.refused(4, "put", "-", "/in/f", "--mode", "append", "--offset", 7, stdin=b"!")
    cli.refused(4, "put", "-", "/in/f", "--mode", "create", stdin=b"three")
    for _ in range(2):
        cli.run("put", "-", "/in/f", "--mode", "append", "--token", "once", stdin=b"?")
    assert cli.run("cat", "/in/f") == b"one two!?"
    cli.run("put", "-", "/in/empty")
    assert cli.run("cat", "/in/empty") == b"" and cli.json("stat", "/in/empty")["size"] == 0


def test_trees_go_in_and_come_out_whole(cli, tmp_path):
    source = tmp_path / "shards"
    for n in range(20):
        at = source / f"day={n % 3}" / f"part {n} %é.bin"
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(bytes([n]) * (n * 1000))
    (source / "empty").mkdir()
    cli.refused(2, "put", source, "/trees/")
    told = cli.json("put", "-r", source, "/trees/")
    assert told["files"] == 20 and told["path"] == "/trees/shards" and told["bytes"] == sum(n * 1000 for n in range(20))
    cli.run("cp", "-r", "/trees/shards", "/trees/copy")
    cli.refused(2, "cp", "/trees/shards", "/trees/other")
    cli.refused(2, "cp", "-r", "/trees/shards", "/trees/shards/inside")
    cli.refused(2, "get", "/trees/copy", tmp_path / "back")
    cli.run("get", "-r", "/trees/copy", tmp_path / "back")
    assert tree_of(tmp_path / "back") == tree_of(source) and (tmp_path / "back/empty").is_dir()


def test_cp_of_a_file(cli):
    cli.run("put", "-", "/cp/a", stdin=b"a")
    cli.run("cp", "/cp/a", "/cp/b")
    cli.run("mkdir", "/cp/d")
    cli.run("cp", "/cp/a", "/cp/d")
    assert cli.run("cat", "/cp/b", "/cp/d/a") == b"aa"
    cli.refused(2, "cp", "/cp/a", "/cp/a")


# ---- names

def test_ls_and_stat(cli):
    for path in ("/ls/b", "/ls/d/c", "/ls/a"):
        cli.run("put", "-", path, stdin=b"12345")
    assert cli.text("ls", "/ls").split() == ["a", "b", "d/"]
    assert cli.text("ls", "-R", "/ls").split() == ["/ls/a", "/ls/b", "/ls/d/", "/ls/d/c"]
    assert [e["path"] for e in cli.json("ls", "-R", "/ls")] == ["/ls/a", "/ls/b", "/ls/d", "/ls/d/c"]
    assert [e["path"] for e in cli.json("ls", "/ls/a")] == ["/ls/a"]
    assert "sealed" in cli.text("ls", "-l", "/ls/")
    assert "/" in cli.text("ls")
    cli.run("mkdir", "/ls/none")
    assert cli.json("ls", "/ls/none") == [] and cli.run("ls", "/ls/none") == b""
    entry = cli.json("stat", "/ls/a")
    assert entry["kind"] == "file" and entry["size"] == 5 and entry["state"] == "sealed" and entry["path"] == "/ls/a"
    assert "sealed" in cli.text("stat", "/ls/a")
    assert cli.json("stat", "/ls/d")["kind"] == "dir"


def test_a_path_may_name_its_server(cli, server):
    cli.run("put", "-", "/url/f", stdin=b"here")
    url = server.flight.replace("grpc://", "forebay://") + "/url/f"
    assert cli.run("cat", url, FOREBAY_ADDR="grpc://127.0.0.1:1") == b"here"
    cli.refused(2, "cat", "s3://bucket/f")
    cli.refused(2, "cat", "relative/f")


def test_mkdir(cli):
    cli.run("mkdir", "/mk")
    cli.refused(4, "mkdir", "/mk")
    cli.refused(3, "mkdir", "/mk/a/b")
    cli.run("mkdir", "-p", "/mk/a/b")
    cli.run("mkdir", "-p", "/mk/a/b")
    assert cli.json("mkdir", "/mk/json") == {"path": "/mk/json"}


def test_mv(cli):
    cli.run("put", "-", "/mv/a", stdin=b"a")
    cli.run("put", "-", "/mv/b", stdin=b"b")
    cli.refused(4, "mv", "/mv/a", "/mv/b")
    cli.run("mv", "-f", "/mv/a", "/mv/b")
    assert cli.run("cat", "/mv/b") == b"a"
    cli.refused(3, "mv", "/mv/a", "/mv/c")
    cli.refused(3, "mv", "/mv/b", "/mv/not/there")
    cli.run("mv", "-p", "/mv/b", "/mv/not/there")
    cli.run("mkdir", "/mv/dir")
    cli.run("mv", "/mv/not", "/mv/dir")
    assert cli.run("cat", "/mv/dir/not/there") == b"a"
    cli.refused(2, "mv", "/mv/dir", "/mv/dir/not/self")
    cli.run("mv", "-T", "/mv/dir/not", "/mv/top")
    assert cli.json("mv", "/mv/top", "/mv/end") == {"from": "/mv/top", "to": "/mv/end"}


def test_rm(cli):
    for path in ("/rm/a", "/rm/d/b"):
        cli.run("put", "-", path, stdin=b"x")
    cli.refused(4, "rm", "/rm/d")
    cli.refused(3, "rm", "/rm/none")
    cli.run("rm", "-f", "/rm/none")
    assert cli.json("rm", "-r", "/rm/a", "/rm/d") == {"removed": ["/rm/a", "/rm/d"]}
    assert cli.json("ls", "/rm") == []


def test_rm_goes_on_behind_what_it_can_not_remove(cli):
    def made():
        for path in ("/rms/a", "/rms/b", "/rms/d/x"):
            cli.run("put", "-", path, stdin=b"x")

    made()
    said = cli.refused(3, "rm", "/rms/a", "/rms/none", "/rms/d", "/rms/b")
    assert [line.split()[1] for line in said.splitlines()] == ["/rms/none:", "/rms/d:"], "each failure by name"
    assert cli.text("ls", "/rms").split() == ["d/"]
    made()
    told = cli.json("rm", "/rms/d", "/rms/none", "/rms/a", code=4)
    assert told == {"removed": ["/rms/a"]}, "the code is the first failure's"
    cli.refused(2, "rm", "/rms/b", "no/path")
    assert cli.run("cat", "/rms/b") == b"x", "what is no path is told before anything is gone"


@pytest.mark.parametrize("line", [["cat", "/none"], ["get", "/none", "-"], ["stat", "/none"], ["ls", "/none"], ["rm", "/none"], ["cp", "/none", "/x"], ["dataset", "show", "/none"], ["dataset", "versions", "/none"], ["put", "/no/such/local", "/x"]])
def test_not_found_is_code_3(cli, line):
    cli.refused(3, *line)


def test_nobody_there_is_code_6():
    begin = time.monotonic()
    done = forebay("status", "--addr", "grpc://127.0.0.1:1")
    assert done.returncode == 6 and done.stdout == b"" and b"127.0.0.1:1" in done.stderr
    assert time.monotonic() - begin < 20


def test_a_reader_that_has_seen_enough_is_no_failure(cli, server):
    cli.run("put", "-", "/pipe/f", stdin=b"line\n" * 1_000_000)
    done = subprocess.run(f"{BINARY} cat /pipe/f --addr {server.flight} | head -1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"line\n"), done.stderr


# ---- status, persist, residence

def test_status(cli):
    told = cli.json("status")
    assert told.keys() >= STATUS_KEYS and told["mounts"][0]["path"] == "/kept" and told["ack"] == "local"
    assert told["at_risk_bytes"] >= told["dirty_bytes"] and told["mounts"][0].keys() >= {"queued", "dirty_bytes", "lag_seconds"}
    shown = cli.text("status")
    assert "/kept" in shown and "at risk" in shown and "s behind" in shown


def test_persist_brings_it_to_the_under_store(cli, lake):
    cli.run("put", "-", "/kept/p/f", stdin=b"kept")
    assert cli.json("persist", "/kept/p")["path"] == "/kept/p"
    assert cli.json("persist", "/kept/p", "--wait", "--timeout", "30s") == {"path": "/kept/p", "state": "persisted"}
    assert (lake / "p/f").read_bytes() == b"kept"
    cli.run("rm", "-r", "/kept/p")
    cli.run("persist", "/kept", "--wait")
    assert not (lake / "p/f").exists()


def test_a_conflict_is_decided_by_a_person(cli, lake):
    def conflicted(path):
        end = time.monotonic() + 30
        while path not in [c["path"] for c in cli.json("status")["conflicts"]]:
            assert time.monotonic() < end, "no conflict was reported"
            time.sleep(0.1)

    for how, expected in (("keep-mine", b"mine"), ("keep-theirs", b"theirs, longer")):
        path = f"/kept/conflict-{how}"
        cli.run("put", "-", path, stdin=b"first")
        cli.run("persist", path, "--wait")
        (lake / path[6:]).write_bytes(b"theirs, longer")
        cli.run("put", "-", path, stdin=b"mine")
        conflicted(path)
        [sides] = [c for c in cli.json("status")["conflicts"] if c["path"] == path]
        shown = cli.text("status").split(f"{path} since", 1)[1]
        assert "14 bytes" in sides["theirs"] and f"mine   {sides['mine']}" in shown and f"theirs {sides['theirs']}" in shown
        assert cli.run("doctor", code=1) != b""
        cli.run("persist", "retry", path)
        conflicted(path)
        cli.run("persist", how, path)
        cli.run("persist", path, "--wait", "--timeout", "30s")
        assert (lake / path[6:]).read_bytes() == expected and cli.run("cat", path) == expected
    cli.refused(3, "persist", "retry", "/kept/none")


def test_of_what_is_blocked_no_side_is_chosen(cli):
    cli.run("put", "-", "/kept/blocked/%FF", stdin=b"only here")
    wait_for(lambda: "/kept/blocked/%FF" in [item["path"] for item in cli.json("status")["blocked"]], "it is not blocked")
    assert "/kept/blocked/%FF since" in cli.text("status")
    for how in ("keep-mine", "keep-theirs"):
        assert "retry" in cli.refused(4, "persist", how, "/kept/blocked/%FF")
    cli.run("persist", "retry", "/kept/blocked/%FF")
    assert cli.run("cat", "/kept/blocked/%FF") == b"only here"
    cli.run("rm", "-r", "/kept/blocked")


def test_load_and_free(cli, lake):
    (lake / "cold").write_bytes(b"c" * 100_000)
    assert cli.json("load", "/kept/cold", "--wait")["bytes"] >= 100_000
    assert cli.json("stat", "/kept/cold")["cached_bytes"] == 100_000
    told = cli.json("free", "/kept/cold")
    assert told["freed_bytes"] >= 100_000 and told["dirty_bytes"] == 0
    assert cli.json("stat", "/kept/cold")["cached_bytes"] == 0
    assert cli.run("cat", "/kept/cold") == b"c" * 100_000


def test_pinned_data_stays_until_it_is_unpinned(cli, lake):
    (lake / "pinned").mkdir()
    for name in "ab":
        (lake / "pinned" / name).write_bytes(b"p" * 50_000)
    told = cli.json("pin", "/kept/pinned", "--wait")
    assert (told["files"], told["bytes"], told["full"]) == (2, 100_000, False)
    assert cli.json("policy", "get", "/kept/pinned") == {"pin": True}
    told = cli.json("free", "/kept/pinned")
    assert (told["freed_bytes"], told["pinned_bytes"]) == (0, 100_000)
    assert "pinned left" in cli.text("free", "/kept/pinned")
    assert cli.json("stat", "/kept/pinned/a")["cached_bytes"] == 50_000
    cli.run("unpin", "/kept/pinned")
    assert cli.json("policy", "get", "/kept/pinned") == {}
    assert cli.json("free", "/kept/pinned")["freed_bytes"] == 100_000
    cli.refused(3, "pin", "/kept/no-such-thing")
    cli.json("pin", "/kept/pinned", "--until", "2099-12-31T13:00:00+01:00")
    assert cli.json("policy", "get", "/kept/pinned") == {"pin": "2099-12-31T12:00:00Z"}
    cli.json("unpin", "/kept/pinned")
    assert "is over already" in cli.refused(2, "pin", "/kept/pinned", "--until", "2001-01-01T00:00:00Z")
    assert "as in" in cli.refused(2, "pin", "/kept/pinned", "--until", "soon")
    assert cli.json("policy", "get", "/kept/pinned") == {}
    cli.json("pin", "/kept/pinned", "--until", "1s")
    wait_for(lambda: cli.json("policy", "get", "/kept/pinned") == {}, "the pin does not end")


def test_many_paths_are_loaded_as_one_job(cli, lake, tmp_path):
    (lake / "many").mkdir()
    for n in range(20):
        (lake / "many" / f"{n:02}").write_bytes(b"m" * 1000)
    paths = tmp_path / "paths"
    paths.write_text("# half of them\n" + "".join(f"/kept/many/{n:02}\n" for n in range(0, 20, 2)) + "\n/kept/many/none\n")
    told = cli.json("load", "--from", paths, "--wait", "--parallel", "3")
    assert (told["files"], told["bytes"]) == (10, 10_000)
    assert "20 files" in cli.text("load", "/kept/many", "--wait")
    job = cli.json("status")["loads"][-1]
    assert (job["path"], job["state"], job["files"], job["files_total"], job["bytes_total"], job["found_all"]) == ("/kept/many", "loaded", 20, 20, 20_000, True)
    assert "loaded" in cli.text("status")
    told = cli.json("load", "/kept/many", "--verify", "--wait")
    assert (told["files"], told["verified_bytes"], told["damaged_bytes"]) == (20, 20_000, 0)
    assert "19.5 KiB that were there already" in cli.text("load", "/kept/many", "--verify", "--wait")
    cli.refused(3, "load", "/kept/many", "--cancel")
    cli.refused(3, "load", "/kept/none", "--wait")
    cli.refused(2, "load", "/kept/many", "--parallel", "0")


def test_sync(cli):
    assert cli.json("sync", "/kept", "--wait") == {}


def test_policies_are_set_explained_and_taken_away(cli):
    cli.run("policy", "set", "/pol/a", "versions_kept=4", "revalidate_ttl=90s")
    cli.run("policy", "set", "/pol/a/b", "versions_kept=2")
    assert cli.json("policy", "get", "/pol/a") == {"versions_kept": 4, "revalidate_ttl": "90s"}
    assert cli.json("policy", "get", "/pol/a/b/c") == {}
    listed = [line for line in cli.json("policy", "list") if line["path"].startswith("/pol/")]
    assert listed == cli.json("policy", "list", "/pol") == [
        {"path": "/pol/a", "set": {"revalidate_ttl": "90s", "versions_kept": 4}},
        {"path": "/pol/a/b", "set": {"versions_kept": 2}},
    ]
    explained = {line["key"]: line for line in cli.json("policy", "explain", "/pol/a/b/c")}
    assert len(explained) == 23
    assert explained["versions_kept"] == {"key": "versions_kept", "value": 2, "from": "/pol/a/b"}
    assert explained["revalidate_ttl"] == {"key": "revalidate_ttl", "value": "90s", "from": "/pol/a"}
    assert explained["ack"] == {"key": "ack", "value": "local", "from": "default"}
    cli.run("policy", "set", "/pol/a/b", "versions_kept=")
    assert cli.json("policy", "get", "/pol/a/b") == {}
    assert "versions_kept=4" in cli.text("policy", "get", "/pol/a").splitlines()
    assert ["versions_kept", "4", "/pol/a"] in [line.split() for line in cli.text("policy", "explain", "/pol/a/b").splitlines()]


def test_a_policy_is_key_and_value(cli):
    cli.refused(2, "policy", "set", "/kept", "no-equals-sign")
    assert "versions_kept" in cli.refused(2, "policy", "set", "/kept", "no_such_policy=1")
    said = cli.refused(2, "policy", "set", "/kept", "revalidate=never", "versions_kept=0")
    assert "versions_kept: 0 is not allowed" in said and "from 1 to 1000" in said
    assert cli.json("policy", "get", "/kept") == {}
    for line in ["replicas=2", "ack=replicated(2)"]:
        assert "not offered" in cli.refused(1, "policy", "set", "/kept", line)
    assert "no tier of this server" in cli.refused(2, "policy", "set", "/kept", "tier=nvme")


def test_what_a_trace_would_have_hit_is_told_for_people_and_machines(cli, tmp_path):
    trace = tmp_path / "trace"
    reads = [f"{epoch * 100 + n},1000000,{n % 4},/train/part-{n // 4}\n" for epoch in range(10) for n in range(100)]
    trace.write_text("# forebay trace 1: time_us,bytes,block,path\n" + "".join(reads))
    told = cli.json("policy", "simulate", trace, "--cache-max", "50MB", "--cache-max", "1GB")
    assert (told["reads"], told["distinct_bytes"], told["unlimited"]["hit_ratio"]) == (1000, 100_000_000, 0.9)
    half, all_of_it = told["sizes"]
    assert half["cache_max"] == 50_000_000
    assert abs(half["epoch"]["hit_ratio"] - 0.45) < 0.001 and half["lru"]["hit_ratio"] == 0 and half["auto"]["hit_ratio"] > 0.3
    assert all(all_of_it[order]["hit_ratio"] == 0.9 for order in ["auto", "epoch", "s3fifo", "lru"])
    lines = cli.text("policy", "simulate", trace).splitlines()
    assert len(lines) == 6 and lines[1].split() == ["cache", "auto", "epoch", "s3fifo", "lru"]
    # Half of the parts are pinned, so they are hit in every epoch but the first, under any order.
    tried = tmp_path / "tried.toml"
    tried.write_text('[data]\ndir = "elsewhere"\n' + "".join(f'[[policy]]\npath = "/train/part-{n}"\npin = true\n' for n in range(12)))
    pinned = cli.json("policy", "simulate", trace, "--cache-max", "50MB", "--policies", tried)["sizes"][0]
    assert abs(pinned["lru"]["hit_ratio"] - 0.48 * 0.9) < 0.001
    cli.run("policy", "set", "/train", "evict=epoch")
    of_server = cli.json("policy", "simulate", trace, "--cache-max", "50MB", "--policies-of-server")["sizes"][0]
    assert of_server["lru"] == of_server["epoch"] == half["epoch"]
    cli.run("policy", "set", "/train", "evict=")
    tried.write_text("[[policy]]\npath = '/a'\npim = true\n")
    assert "pim" in cli.refused(2, "policy", "simulate", trace, "--policies", tried)
    trace.write_text("no trace\n")
    assert "line 1" in cli.refused(2, "policy", "simulate", trace)


# ---- under-stores

def test_under_stores_come_and_go(cli, tmp_path):
    (tmp_path / "there").write_bytes(b"there")
    cli.run("under", "add", "/added", f"file://{tmp_path}")
    assert "/added" in [m["path"] for m in cli.json("under", "ls")] and "/added" in cli.text("under", "ls")
    assert cli.run("cat", "/added/there") == b"there"
    cli.run("under", "rm", "/added")
    assert "/added" not in [m["path"] for m in cli.json("under", "ls")]
    cli.refused(3, "cat", "/added/there")
    cli.refused(2, "under", "add", "/added", "gopher://x/y")


# ---- datasets

def test_datasets(cli, server):
    session = cli.text("dataset", "begin", "/ds/a", "--mode", "overwrite", "--timeout", "1min", "--job", "test").strip()
    with server.client() as client:
        client.put("/ds/a", batch(0, 10), batch(10, 15), session=session)
    assert cli.json("dataset", "list", "/ds") == []
    version = int(cli.text("dataset", "publish", session, "--success-file"))
    assert cli.json("dataset", "publish", session) == {"version": version}
    assert "_SUCCESS" in cli.text("ls", "/ds/a")
    [listed] = cli.json("dataset", "list", "/ds")
    assert (listed["path"], listed["version"], listed["rows"], listed["batches"]) == ("/ds/a", version, 15, 2)
    assert listed["schema"] == [{"name": "id", "type": "Int64", "nullable": True}]
    assert cli.json("dataset", "show", "/ds/a", "--version", version) == listed
    assert "/ds/a" in cli.text("dataset", "list") and "id Int64" in cli.text("dataset", "show", "/ds/a")
    [told] = cli.json("dataset", "versions", "/ds/a")
    assert (told["version"], told["rows"], told["parts"]) == (version, 15, 1)
    assert f"v{version}" in cli.text("dataset", "versions", "/ds/a")
    followed = cli.json("dataset", "follow", "/ds/a")
    assert [f["rows"] for f in followed] == [10, 5] and followed[-1]["token"] == f"{version}:2"
    assert [f["rows"] for f in cli.json("dataset", "follow", "/ds/a", "--from", f"{version}:1")] == [5]
    assert cli.text("dataset", "follow", "/ds/a", "--rows").split() == ["id", *map(str, range(15))]


def test_a_session_that_is_aborted_leaves_nothing(cli, server):
    session = cli.json("dataset", "begin", "/ds/gone")["session"]
    with server.client() as client:
        client.put("/ds/gone", batch(0, 3), session=session)
    cli.run("dataset", "abort", session)
    cli.run("dataset", "abort", session)
    cli.refused(3, "dataset", "show", "/ds/gone")
    cli.refused(4, "dataset", "publish", session)
    assert "nosuchsession" in cli.refused(3, "dataset", "abort", "nosuchsession")


def test_follow_sees_batches_as_they_come_and_the_abort(cli, server):
    session = cli.json("dataset", "begin", "/ds/live")["session"]
    follower = subprocess.Popen([BINARY, "dataset", "follow", "/ds/live", "--addr", server.flight], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with server.client() as client:
        client.put("/ds/live", batch(0, 3), session=session)
        assert b"3 rows" in follower.stdout.readline()
    cli.run("dataset", "abort", session)
    assert follower.wait(30) == 4 and follower.stderr.read().startswith(b"forebay: ")


def test_named_tasks_are_published(cli, server):
    session = cli.json("dataset", "begin", "/ds/tasks")["session"]
    with server.client() as client:
        for task in (1, 0):
            client.put("/ds/tasks", batch(task, task + 1), session=session, task={"job": "j", "stage": 0, "task": task, "attempt": 0})
    cli.run("dataset", "publish", session, "--task", "j/0/0/0")
    assert cli.text("dataset", "follow", "/ds/tasks", "--rows").split() == ["id", "0"]
    cli.refused(2, "dataset", "publish", session, "--task", "nonsense")


def test_sessions_are_published_together(cli, server):
    paths = [f"/ds/together/day={day}" for day in (1, 2)]
    sessions = [cli.json("dataset", "begin", path)["session"] for path in paths]
    with server.client() as client:
        for path, session in zip(paths, sessions):
            client.put(path, batch(0, 3), session=session)
    cli.refused(3, "dataset", "publish", sessions[0], "--with", sessions[1], "--with", "nosuchsession")
    assert cli.json("dataset", "list", "/ds/together") == []
    told = cli.text("dataset", "publish", sessions[0], "--with", sessions[1])
    assert told.split() == ["v1", paths[0], "v1", paths[1]]
    answer = cli.json("dataset", "publish", sessions[1], "--with", sessions[0])
    assert answer["version"] == 1 and [made["path"] for made in answer["versions"]] == paths[::-1]


# ---- the server's health

def test_doctor(cli):
    report = cli.json("doctor")
    assert report["verdict"] in ("ok", "warning") and {f["check"] for f in report["findings"]} >= {"server", "mounts", "files"}
    assert "grpc://" in cli.text("doctor")
    away = forebay("doctor", "--json", "--addr", "grpc://127.0.0.1:1")
    assert away.returncode == 6 and json.loads(away.stdout)["verdict"] == "failed"

"""`forebay serve`: what it refuses at start and why, what it tells, how it ends; `fsck` and `user add` beside it."""

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request

import pytest

from tests.cli.conftest import Cli, forebay
from tests.harness import BINARY, Server, StartFailed


def refused(*args, code=None, **env):
    """`serve` that ends before it is ready; what it says."""
    done = forebay("serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *args, timeout=30, **env)
    assert done.returncode in ((code,) if code else (1, 2)) and done.stdout == b"", done
    return done.stderr.decode()


def test_the_ready_line_and_a_clean_end(tmp_path):
    server = Server(tmp_path / "d").start()
    said = (open(f"{server.logs}/stdout").read())
    assert re.fullmatch(r"forebay ready flight=grpc://127\.0\.0\.1:\d+ http=http://127\.0\.0\.1:\d+\n", said)
    assert urllib.request.urlopen(server.http + "/healthz", timeout=10).status == 200
    Cli(server).run("put", "-", "/f", stdin=b"stays")
    assert server.term() == 0
    with server:
        assert Cli(server).run("cat", "/f") == b"stays"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0


def test_nothing_given_serves_in_a_folder_of_its_own(tmp_path):
    env = {**os.environ, "FOREBAY_LISTEN": "127.0.0.1:0", "FOREBAY_HTTP": "127.0.0.1:0"}
    process = subprocess.Popen([BINARY, "serve"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout.readline().startswith(b"forebay ready ")
        assert (tmp_path / "forebay-data").is_dir()
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_a_unix_socket(tmp_path):
    server = Server(tmp_path / "d", env={"FOREBAY_ACK": "local"})
    server.command = [f"unix:{tmp_path}/s" if arg == "127.0.0.1:0" and server.command[k - 1] == "--listen" else arg for k, arg in enumerate(server.command)]
    with server:
        assert server.flight == f"grpc+unix://{tmp_path}/s"
        Cli(server).run("put", "-", "/f", stdin=b"by socket")
        assert Cli(server).run("cat", "/f") == b"by socket"


# ---- settings

def test_flags_beat_environment_beats_the_file(tmp_path):
    config = tmp_path / "forebay.toml"
    config.write_text(f"""
        data.dir = "{tmp_path}/file"
        write.ack = "memory"
        [[mount]]
        path = "/lake"
        url = "file://{tmp_path}/lake"
    """)
    (tmp_path / "lake").mkdir()
    base = [BINARY, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--config", str(config)]
    for flags, env, folder, ack in (
        ([], {}, "file", "memory"),
        ([], {"FOREBAY_DATA_DIR": f"{tmp_path}/env", "FOREBAY_ACK": "local"}, "env", "local"),
        (["--data", f"{tmp_path}/flag"], {"FOREBAY_DATA_DIR": f"{tmp_path}/env"}, "flag", "memory"),
    ):
        server = Server(tmp_path / "unused")
        server.command = [*base, *flags]
        server.env = env
        with server:
            status = Cli(server).json("status")
            assert status["ack"] == ack and [m["path"] for m in status["mounts"]] == ["/lake"]
            assert any((tmp_path / folder).iterdir())


@pytest.mark.parametrize(("text", "named"), [
    ("data.dirr = '/x'", "dirr"),
    ("[write]\nack = 'certain'", "certain"),
    ("[write]\ndirty_max = 'plenty'", "plenty"),
    ("[write]\nstall_max = '10 parsecs'", "parsecs"),
    ("[[mount]]\npath = 'relative'\nurl = 'file:///x'", "relative"),
    ("not toml at all", "forebay.toml"),
])
def test_a_wrong_file_is_refused_by_name(tmp_path, text, named):
    (tmp_path / "forebay.toml").write_text(text)
    assert named in refused("--config", tmp_path / "forebay.toml", code=2)


@pytest.mark.parametrize("args", [
    ["--dirty-max", "plenty"], ["--ack", "certain"], ["--listen", "nowhere"], ["--under", "/lake"], ["--under", "lake=file:///x"],
    ["--tls-cert", "c.pem"], ["--config", "/no/such/file"], ["--meta", "oracle://x"], ["--under", "/lake=gopher://x"],
    ["--users", "/no/such/file"], ["--data", "a", "--data", "a"],
])
def test_wrong_flags_are_refused_by_name(tmp_path, args):
    done = forebay("serve", "--data", tmp_path / "d", *args, timeout=30) if "--data" not in args else forebay("serve", *args, timeout=30)
    assert done.returncode in (1, 2) and done.stdout == b"", done
    assert any(word.strip("-").split("=")[0] in done.stderr.decode() for word in args), done.stderr


@pytest.mark.parametrize("args", [["--zone", "z"], ["--advertise", "h:1"], ["--cluster-key", "k"], ["--ack", "replicated(2)"]])
def test_what_a_later_build_has_says_so(tmp_path, args):
    assert "not in this build" in refused("--data", tmp_path / "d", *args, code=1)


# ---- places that cannot be served from

def test_one_data_folder_serves_one_process(tmp_path):
    with Server(tmp_path / "d") as server:
        assert str(tmp_path / "d") in refused("--data", tmp_path / "d", code=1)
        assert server.alive()
        Cli(server).run("put", "-", "/f", stdin=b"1")


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file/below", "/proc/forebay"):
        assert str(folder) in refused("--data", folder, code=None)


def test_memory_does_not_pass_for_a_disk():
    folder = f"/dev/shm/forebay-test-{os.getpid()}"
    if subprocess.run(["stat", "-f", "-c", "%T", "/dev/shm"], capture_output=True, text=True).stdout.strip() != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    try:
        said = refused("--data", folder, code=1)
        assert folder in said and re.search("tmpfs|memory|power", said), said
        with Server(folder, ack="memory") as server:
            Cli(server).run("put", "-", "/f", stdin=b"volatile")
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.parametrize("door", ["--listen", "--http"])
def test_an_open_door_needs_tls_and_users(tmp_path, door):
    done = forebay("serve", "--data", tmp_path / "d", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", door, "0.0.0.0:0", timeout=30)
    if done.returncode == 2 and b"cannot be used multiple times" in done.stderr:
        other = "--http" if door == "--listen" else "--listen"
        done = forebay("serve", "--data", tmp_path / "d", other, "127.0.0.1:0", door, "0.0.0.0:0", timeout=30)
    assert done.returncode == 1 and b"--insecure" in done.stderr and done.stdout == b"", done
    server = Server(tmp_path / "d")
    server.command = [BINARY, "serve", "--data", str(tmp_path / "d"), "--listen", "0.0.0.0:0", "--http", "127.0.0.1:0", "--insecure"]
    with server:
        assert server.alive()


def test_an_address_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = forebay("serve", "--data", tmp_path / "d", "--listen", address, "--http", "127.0.0.1:0", timeout=30)
        assert done.returncode == 1 and address in done.stderr.decode()


# ---- users

def test_users_are_added_and_asked_for(tmp_path):
    users = tmp_path / "users.toml"
    ada = forebay("user", "add", "ada", "--users", users, "--allow", "r:/features", "--allow", "rw:/scratch")
    assert ada.returncode == 0 and re.fullmatch(rb"[0-9a-f]{64}\n", ada.stdout)
    root = json.loads(forebay("user", "add", "root", "--users", users, "--admin", "--password-stdin", "--json", stdin=b"open sesame\n").stdout)
    again = forebay("user", "add", "ada", "--users", users, "--admin")
    assert again.returncode == 4 and b"ada" in again.stderr
    assert ada.stdout.strip() not in users.read_bytes() and b"open sesame" not in users.read_bytes()
    assert forebay("user", "add", "eve", "--users", users, "--allow", "everything").returncode == 2
    token = tmp_path / "token"
    token.write_bytes(ada.stdout)
    with Server(tmp_path / "d", users=users) as server:
        cli = Cli(server)
        cli.refused(5, "ls", "/")
        cli.refused(5, "ls", "/scratch", FOREBAY_TOKEN="wrong")
        cli.run("put", "-", "/features/f", stdin=b"f", FOREBAY_TOKEN=root["token"])
        cli.run("put", "-", "/scratch/s", "--token-file", token, stdin=b"s")
        assert cli.run("cat", "/features/f", "--token-file", token) == b"f"
        cli.refused(5, "rm", "/features/f", "--token-file", token)
        cli.refused(5, "cat", "/elsewhere", "--token-file", token)
        assert cli.json("status", FOREBAY_TOKEN=root["token"])["version"]


# ---- fsck

def test_fsck(tmp_path):
    server = Server(tmp_path / "d")
    with server:
        cli = Cli(server)
        for n in range(5):
            cli.run("put", "-", f"/f{n}", stdin=bytes([n]) * 3_000_000)
        busy = forebay("fsck", "--data", tmp_path / "d")
        assert busy.returncode == 1 and str(tmp_path / "d") in busy.stderr.decode()
        assert server.term() == 0
    sound = forebay("fsck", "--data", tmp_path / "d", "--json")
    report = json.loads(sound.stdout)
    assert sound.returncode == 0 and report["findings"] == [] and report["streams"] >= 5 and report["bytes"] >= 15_000_000
    victim = max((p for p in (tmp_path / "d").rglob("*") if p.is_file() and "sqlite" not in p.name and "reserve" not in p.name), key=lambda p: p.stat().st_size)
    with open(victim, "r+b") as f:
        f.seek(victim.stat().st_size // 2)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 0x10]))
    damaged = forebay("fsck", "--data", tmp_path / "d", "--json")
    [finding, *_] = json.loads(damaged.stdout)["findings"]
    assert damaged.returncode == 1 and finding["file"].endswith(victim.name), finding
    assert forebay("fsck", "--data", tmp_path / "none").returncode == 3


def test_start_failed_names_the_reason(tmp_path):
    with pytest.raises(StartFailed):
        Server(tmp_path / "d", ack="certain").start()

"""Persist into other clouds: what was acknowledged is there under its own name, byte for byte, and nothing beside it."""

import base64
import json
import os
import random
import signal
import time

import pytest

from tests.harness import Server
from tests.stores import a_changed_target_is_kept_and_reported, changes_outside_are_seen, outages_under_load, same, wait

LARGE = random.Random(7).randbytes(50 << 20)


def all_same(client, place):
    count = same(client, place.objects())
    assert place.leftovers() == []
    return count


def test_files_arrive_under_their_own_names(client, place):
    for name, content in {"a": b"1", "d/b c=1+&": b"two", "d/é": b"", "d.x": b"4", "large": LARGE}.items():
        client.put_file(f"/lake/{name}", content)
    wait(client)
    assert all_same(client, place) == 5 and place.objects()["large"] == LARGE


def test_overwrites_renames_and_deletes(client, place):
    for k in range(12):
        client.put_file(f"/lake/d/{k:02}", bytes([k]) * 1000)
    client.put_file("/lake/d/00", b"anew")
    client.act("delete", path="/lake/d/11")
    client.act("rename", **{"from": "/lake/d", "to": "/lake/e"})
    client.put_file("/lake/d/again", b"a new folder of the old name")
    wait(client)
    assert all_same(client, place) == 12 and place.objects()["e/00"] == b"anew"


def test_what_others_wrote_is_read_through(client, place):
    place.put("theirs/x.bin", LARGE[: 9 << 20])
    assert client.names("/lake/theirs") == ["/lake/theirs/x.bin"]
    assert client.file("/lake/theirs/x.bin") == LARGE[: 9 << 20]
    assert client.file("/lake/theirs/x.bin", offset=5_000_000, length=100) == LARGE[5_000_000:5_000_100]
    assert client.act("stat", path="/lake/theirs/x.bin")[0]["state"] == "clean"


def test_changes_outside_are_seen(client, place):
    if place.scheme == "az":
        pytest.skip("nobody else here can sign")
    changes_outside_are_seen(client, place.put, place.delete)


def test_a_target_that_someone_else_changed_is_kept_and_reported(client, place):
    a_changed_target_is_kept_and_reported(client, place.put, place.objects)


def test_a_killed_server_goes_on_with_a_large_upload_and_leaves_nothing(server, client, place):
    client.put_file("/lake/large", LARGE)
    end_at = time.monotonic() + 30
    while not any(".forebay-tmp" in key for key in place.keys()):
        assert time.monotonic() < end_at, "the upload never began, so the kill would prove nothing"
        time.sleep(0.005)
    server.restart()
    with server.client() as again:
        wait(again)
        assert place.objects() == {"large": LARGE}
    end_at = time.monotonic() + 20
    while place.leftovers():
        assert time.monotonic() < end_at, place.leftovers()
        time.sleep(0.1)


def test_a_key_in_a_file_is_rotated_without_a_restart_and_shown_nowhere(tmp_path, place):
    """The emulator of Azure checks keys; a wrong one blocks visibly, and the right one in the same file sets free."""
    if place.scheme != "az":
        return rotated_tokens(tmp_path, place)
    secret = tmp_path / "secret"
    secret.mkdir()
    wrong = base64.b64encode(b"a key that was taken back, quite").decode()
    (secret / "account_key").write_text(wrong)
    env = {"FOREBAY_LOG": "trace", "AZURE_STORAGE_ACCOUNT_KEY": ""}
    server = Server(tmp_path / "data", under={"/lake": place.url(f"&credentials={secret}")}, env=env)
    with server, server.client() as client:
        client.put_file("/lake/x", b"kept")
        end_at = time.monotonic() + 40
        while not (status := client.act("status")[0])["blocked"]:
            assert time.monotonic() < end_at, "nothing reported as blocked"
            time.sleep(0.2)
        (secret / "account_key").write_text(os.environ["AZURE_STORAGE_ACCOUNT_KEY"] + "\n")
        time.sleep(1.1)
        client.act("persist_resolve", path="/lake/x", how="retry")
        wait(client, seconds=60)
        assert place.objects() == {"x": b"kept"}
        shown = server.log() + json.dumps(status) + json.dumps(client.act("status")) + json.dumps(client.act("under_list"))
    assert "under-store" in shown
    assert wrong not in shown and os.environ["AZURE_STORAGE_ACCOUNT_KEY"] not in shown


def rotated_tokens(tmp_path, place):
    """The emulator of Google takes any token: here only that none is shown, and that a file is enough."""
    tokens = tmp_path / "token.toml"
    tokens.write_text('token = "ya29.hush-hush"')
    server = Server(tmp_path / "data", under={"/lake": place.url(f"&credentials={tokens}")}, env={"FOREBAY_LOG": "trace"})
    with server, server.client() as client:
        client.put_file("/lake/x", b"kept")
        wait(client)
        assert place.objects() == {"x": b"kept"}
        tokens.write_text('token = "ya29.hush-again"')
        time.sleep(1.1)
        client.put_file("/lake/y", b"kept too")
        wait(client)
        log = server.log()
    assert "credentials were changed" in log and "hush" not in log


def test_outages_under_load(tmp_path, place):
    """The emulator is stopped, so that requests hang instead of being refused."""
    pid = int(os.environ[f"FOREBAY_{'GCS' if place.scheme == 'gs' else 'AZURE'}_PID"])
    config = tmp_path / "forebay.toml"
    config.write_text("[under]\ntimeout = '1s'\n")
    with Server(tmp_path / "data", under={"/lake": place.url()}, dirty_max="8MiB", config=config) as server:
        away, back = (lambda: os.kill(pid, signal.SIGSTOP)), (lambda: os.kill(pid, signal.SIGCONT))
        assert outages_under_load(server, away, back, place.objects, 8 << 20, 1, times=3) > 100
    assert place.leftovers() == []

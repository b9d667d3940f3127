"""The under-store goes away, and things are renamed and killed meanwhile: nothing is lost, nothing is left, nobody has to help."""

import os
import signal
import subprocess
import time

from tests.harness import BINARY, Server
from tests.stores import outages_under_load, wait, wait_for

SECONDS = float(os.environ.get("FOREBAY_OUTAGE_SECONDS", "1"))  # 60 is the long form.
MIB = 1 << 20


def stored(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and ".forebay-tmp" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_ten_outages_under_load(tmp_path):
    lake, gone, config = tmp_path / "lake", tmp_path / "gone", tmp_path / "config"
    lake.mkdir()
    # Writers wait for as long as the store is away, and until the persister looks again.
    config.write_text(f'[write]\nstall_max = "{int(60 + 2 * SECONDS)}s"\n')
    with Server(tmp_path / "d", under={"/lake": f"file://{lake}"}, dirty_max="8MiB", config=config) as server:
        count = outages_under_load(server, lambda: lake.rename(gone), lambda: gone.rename(lake), lambda: stored(lake), 8 * MIB, SECONDS)
    assert count > 100


def test_a_store_that_is_away_holds_up_nothing_but_itself(tmp_path):
    """Two stores, one of them away: the other one is persisted into, and names are changed at once everywhere."""
    here, away = tmp_path / "here", tmp_path / "away"
    here.mkdir()
    with Server(tmp_path / "d", under={"/here": f"file://{here}", "/away": f"file://{away}"}) as server, server.client() as client:
        began = time.monotonic()
        for k in range(50):
            client.put_file(f"/away/{k}", b"waits")
            client.put_file(f"/here/{k}", b"goes")
        wait(client, "/here", seconds=20)
        assert stored(here) == {str(k): b"goes" for k in range(50)}
        assert time.monotonic() - began < 20 and client.act("status")[0]["dirty_files"] == 50
        away.mkdir()
        wait(client, "/away", seconds=40)
        assert len(stored(away)) == 50


def test_a_directory_of_ten_thousand_is_renamed_while_it_is_persisted_and_the_server_killed(tmp_path):
    files, lake, local = 10_000, tmp_path / "lake", tmp_path / "local"
    expected = {f"{k // 100:03}/{k:05}": b"%d" % k for k in range(files)}
    for name, content in expected.items():
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(content)
    server = Server(tmp_path / "d", under={"/lake": f"file://{lake}"})
    with server:
        # While there is no store, so that nothing is persisted yet.
        subprocess.run([BINARY, "put", "-r", str(local), "/lake/old", "--addr", server.flight], check=True, stderr=subprocess.DEVNULL)
        lake.mkdir()
        wait_for(lambda: len(stored(lake)) > files / 20, "nothing is persisted")
        with server.client() as client:
            client.act("rename", **{"from": "/lake/old", "to": "/lake/new"})
        time.sleep(0.3)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        final = {f"new/{name}": content for name, content in expected.items()}
        assert stored(lake) != final, "all was done before the kill: nothing was under way"
        server.start()
        with server.client() as client:
            assert not client.exists("/lake/old")
            names = [entry["path"] for entry in client.act("list", path="/lake/new", recursive=True) if entry["kind"] == "file"]
            assert names == [f"/lake/new/{name}" for name in sorted(expected)]
            wait(client, seconds=240)
    assert stored(lake) == final

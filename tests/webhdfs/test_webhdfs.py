"""Every operation of the WebHDFS door by plain HTTP: what it answers, what it refuses, what it leaves when clients vanish."""

import base64
import http.client
import json
import os
import socket
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from tests.harness import Server
from tests.webhdfs.conftest import Hdfs

ROW = pa.record_batch([pa.array([7])], names=["id"])


class TestWriting:
    @pytest.mark.parametrize("size", [0, 1, 1000, 256 << 10, (256 << 10) + 1, 3 << 20, 20_000_000])
    def test_a_file_comes_back(self, hdfs, path, size):
        content = os.urandom(size)
        created = hdfs.write(path, content)
        assert (created.status, created.body) == (201, b"") and created.headers["Location"].endswith(path)
        assert hdfs.read(path) == content
        assert hdfs.status(path)["length"] == size

    def test_a_chunked_body_too(self, hdfs, path):
        pieces = [os.urandom(50_000) for _ in range(40)]
        sent = hdfs.follow(hdfs.put(path, "CREATE"))
        hdfs.connection.request("PUT", sent, iter(pieces), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert hdfs.connection.getresponse().read() == b""
        assert hdfs.read(path) == b"".join(pieces)

    def test_without_redirects(self, hdfs, path):
        where = hdfs.put(path, "CREATE", noredirect="true")
        assert where.status == 200
        hdfs.raw("PUT", where.json["Location"].removeprefix(hdfs.url), b"abc")
        where = hdfs.get(path, "OPEN", noredirect="true", offset=1)
        assert hdfs.raw("GET", where.json["Location"].removeprefix(hdfs.url)).body == b"bc"
        where = hdfs.get(path, "GETFILECHECKSUM", noredirect="true")
        assert hdfs.raw("GET", where.json["Location"].removeprefix(hdfs.url)).json["FileChecksum"]["length"] == 28

    def test_the_first_request_writes_nothing(self, hdfs, path):
        assert hdfs.put(path, "CREATE").status == 307
        assert not hdfs.exists(path)

    def test_overwriting_takes_a_word(self, hdfs, path):
        hdfs.write(path, b"old")
        refused = hdfs.put(path, "CREATE")
        assert (refused.status, refused.exception) == (403, "FileAlreadyExistsException")
        sent = hdfs.follow(hdfs.put(path + "-2", "CREATE"))
        hdfs.write(path + "-2", b"faster")
        late = hdfs.raw("PUT", sent, b"late")
        assert (late.status, late.exception) == (403, "FileAlreadyExistsException")
        assert hdfs.read(path) == b"old" and hdfs.read(path + "-2") == b"faster"
        assert hdfs.write(path, b"new", createflag="CREATE,OVERWRITE").status == 201
        assert hdfs.read(path) == b"new"

    def test_parents_are_made_unless_they_must_be_there(self, hdfs, path):
        hdfs.write(f"{path}/a/b/c", b"x")
        assert hdfs.status(f"{path}/a")["type"] == "DIRECTORY"
        refused = hdfs.put(f"{path}/x/y", "CREATE", createparent="false")
        assert (refused.status, refused.exception) == (404, "FileNotFoundException")
        sent = hdfs.follow(hdfs.put(f"{path}/a/d", "CREATE", createparent="false"))
        hdfs.call("DELETE", f"{path}/a", "DELETE", recursive="true")
        assert hdfs.raw("PUT", sent, b"x").exception == "FileNotFoundException", "the directory went meanwhile"
        assert not hdfs.exists(f"{path}/a")

    def test_a_file_takes_no_directory_s_place_and_lies_in_no_file(self, hdfs, path):
        hdfs.put(path, "MKDIRS")
        assert hdfs.put(path, "CREATE", overwrite="true").exception == "FileAlreadyExistsException"
        hdfs.write(f"{path}/f", b"x")
        assert hdfs.put(f"{path}/f/g", "CREATE").exception == "ParentNotDirectoryException"
        assert hdfs.put(f"{path}/f/g/h", "MKDIRS").exception == "ParentNotDirectoryException"
        assert hdfs.get(f"{path}/f/g", "GETFILESTATUS").exception == "FileNotFoundException"
        assert hdfs.put("/", "CREATE", overwrite="true").exception == "FileAlreadyExistsException"

    def test_permission_and_owner_are_those_of_the_request(self, hdfs, path):
        hdfs.write(path, b"x", permission="640")
        status = hdfs.status(path)
        assert (status["permission"], status["owner"], status["replication"], status["blockSize"]) == ("640", "ada", 1, 128 << 20)
        assert abs(status["modificationTime"] / 1000 - time.time()) < 60
        assert hdfs.write(path + "-2", b"").status == 201 and hdfs.status(path + "-2")["permission"] == "644"

    def test_append(self, hdfs, path):
        missing = hdfs.post(path, "APPEND")
        assert (missing.status, missing.exception) == (404, "FileNotFoundException")
        hdfs.write(path, b"abc")
        assert hdfs.append(path, b"def").status == 200 and hdfs.append(path, b"").status == 200
        assert hdfs.read(path) == b"abcdef"
        assert hdfs.post("/w", "APPEND").exception == "FileNotFoundException"

    def test_an_append_follows_its_file(self, hdfs, path):
        hdfs.write(path, b"abc")
        sent = hdfs.follow(hdfs.post(path, "APPEND"))
        hdfs.put(path, "RENAME", destination=path + "-2")
        assert hdfs.raw("POST", sent, b"def").exception == "FileNotFoundException", "the second request finds nothing there"
        assert not hdfs.exists(path) and hdfs.read(path + "-2") == b"abc"

    def test_appends_at_once_all_arrive_whole(self, server, hdfs, path):
        hdfs.write(path, b"")

        def one(k):
            with Hdfs(server.http) as mine:
                assert mine.append(path, bytes([k]) * 1000).status == 200

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(8)))
        content = hdfs.read(path)
        assert sorted(content[i : i + 1000] for i in range(0, 8000, 1000)) == [bytes([k]) * 1000 for k in range(8)]

    def test_truncate(self, hdfs, path):
        hdfs.write(path, b"abcdef")
        assert hdfs.post(path, "TRUNCATE", newlength=2).json == {"boolean": True}
        assert hdfs.read(path) == b"ab"
        for length, status in ((7, 400), (-1, 400), ("x", 400), ("", 400)):
            assert hdfs.post(path, "TRUNCATE", newlength=length).status == status
        assert hdfs.post(path + "-no", "TRUNCATE", newlength=0).status == 404

    def test_concat(self, hdfs, path):
        parts = [f"{path}/{k}" for k in range(5)]
        for k, part in enumerate(parts):
            hdfs.write(part, bytes([k]) * 10 * k)
        joined = hdfs.post(parts[1], "CONCAT", sources=",".join([parts[3], parts[0], parts[2]]))
        assert (joined.status, joined.body) == (200, b"")
        assert hdfs.read(parts[1]) == b"\1" * 10 + b"\3" * 30 + b"\2" * 20
        assert hdfs.names(path) == ["1", "4"]
        for sources in ("", parts[1], f"{parts[4]},{parts[4]}", "x", f"{path}/no", path):
            assert hdfs.post(parts[1], "CONCAT", sources=sources).status in (400, 403, 404), sources
        assert hdfs.post(f"{path}/no", "CONCAT", sources=parts[4]).status == 404
        assert hdfs.names(path) == ["1", "4"] and len(hdfs.read(parts[1])) == 60

    def test_what_was_answered_is_there_after_a_kill(self, tmp_path):
        with Server(tmp_path / "d") as server, Hdfs(server.http) as hdfs:
            hdfs.write("/a", b"a" * 3_000_000)
            hdfs.append("/a", b"b")
            hdfs.write("/b", b"b")
            hdfs.put("/d", "MKDIRS")
            hdfs.put("/b", "RENAME", destination="/d/c")
            hdfs.put("/a", "SETOWNER", owner="someone-unknown", group="some-group")
            server.restart()
            with Hdfs(server.http) as again:
                assert again.read("/a") == b"a" * 3_000_000 + b"b" and again.read("/d/c") == b"b"
                status = again.status("/a")
                assert (status["owner"], status["group"]) == ("someone-unknown", "some-group")


class TestVanishing:
    def dirty(self, server):
        with Hdfs(server.http) as hdfs:
            return hdfs.raw("GET", "/api/v1/status").json["dirty_bytes"]

    def open_upload(self, server, hdfs, path, head):
        target = hdfs.follow(hdfs.put(path, "CREATE", overwrite="true"))
        host, port = server.http.split("://")[1].split(":")
        s = socket.create_connection((host, int(port)), 20)
        s.sendall(f"PUT {target} HTTP/1.1\r\nHost: {host}:{port}\r\n{head}\r\n\r\n".encode())
        return s

    @pytest.mark.parametrize("head", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
    @pytest.mark.parametrize("reset", [False, True])
    def test_a_client_that_vanishes_leaves_nothing(self, server, hdfs, path, head, reset):
        before = self.dirty(server)
        hdfs.write(path, b"old")
        s = self.open_upload(server, hdfs, path, head)
        piece = b"x" * 500_000
        for _ in range(6):
            s.sendall(b"7a120\r\n" + piece + b"\r\n" if "chunked" in head else piece)
        if reset:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
        end = time.monotonic() + 20
        while self.reserved(hdfs) != before + 3 and time.monotonic() < end:  # the gauge is set every few seconds
            time.sleep(0.05)
        assert self.reserved(hdfs) == self.dirty(server) == before + 3, "what was taken for it is given back"
        assert hdfs.read(path) == b"old"
        hdfs.call("DELETE", path, "DELETE")

    def reserved(self, hdfs):
        text = hdfs.raw("GET", "/metrics").body.decode()
        line = next(line for line in text.splitlines() if line.startswith("forebay_reserved_bytes "))
        return float(line.split()[1])

    def test_a_reader_that_vanishes_hurts_nobody(self, server, hdfs, path):
        content = os.urandom(30_000_000)
        hdfs.write(path, content)
        target = hdfs.follow(hdfs.get(path, "OPEN"))
        for _ in range(20):
            s = socket.create_connection(tuple(server.http.split("://")[1].split(":")), 20)
            s.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert s.recv(1000).startswith(b"HTTP/1.1 200")
            s.close()
        assert hdfs.read(path) == content and server.alive()

    def test_a_reader_that_does_not_read_costs_little(self, server, hdfs, path):
        hdfs.write(path, os.urandom(100_000_000))
        target, before, held = hdfs.follow(hdfs.get(path, "OPEN")), server.memory(), []
        for _ in range(30):
            s = socket.create_connection(tuple(server.http.split("://")[1].split(":")), 20)
            s.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            held.append(s)
        time.sleep(1)
        assert hdfs.status(path)["length"] == 100_000_000
        # What is mapped of the file itself counts once.
        assert server.memory() - before < (100 + 30 * 8) * 1_000_000
        for s in held:
            s.close()

    def test_at_the_dirty_limit_a_writer_waits_and_is_then_refused(self, tmp_path):
        (tmp_path / "config.toml").write_text('[write]\nstall_max = "500ms"\n')
        with Server(tmp_path / "d", dirty_max="8MiB", config=tmp_path / "config.toml") as server:
            with Hdfs(server.http) as hdfs:
                hdfs.write("/a", b"x" * (7 << 20))
                refused = hdfs.write("/b", b"y" * (4 << 20))
                assert (refused.status, refused.exception) == (503, "RetriableException")
            with Hdfs(server.http) as again:
                assert not again.exists("/b") and again.read("/a") == b"x" * (7 << 20)


class TestReading:
    CONTENT = bytes(range(256)) * 20_000

    @pytest.fixture
    def file(self, hdfs, path):
        hdfs.write(path, self.CONTENT)
        return path

    @pytest.mark.parametrize("offset, length", [(0, 0), (0, 1), (1, 5), (1_048_575, 2), (5_000_000, None), (5_119_999, 10), (5_120_000, None), (0, 10**15)])
    def test_ranges(self, hdfs, file, offset, length):
        query = {"offset": offset, **({} if length is None else {"length": length})}
        end = len(self.CONTENT) if length is None else offset + length
        assert hdfs.read(file, **query) == self.CONTENT[offset:end]

    def test_beyond_the_end(self, hdfs, file):
        refused = hdfs.get(file, "OPEN", offset=5_120_001)
        assert (refused.status, refused.exception) == (403, "EOFException")
        for query in ({"offset": -1}, {"length": -1}, {"offset": "x"}, {"length": 2**63}):
            refused = hdfs.get(file, "OPEN", **query)
            assert (refused.status, refused.exception) == (400, "IllegalArgumentException")

    def test_a_seek_asks_the_same_address_with_another_offset(self, hdfs, file):
        target = hdfs.follow(hdfs.get(file, "OPEN", offset=3))
        assert hdfs.raw("GET", target).body == self.CONTENT[3:]
        assert hdfs.raw("GET", target + "&offset=5000000").body == self.CONTENT[5_000_000:]

    def test_one_reader_sees_one_content(self, hdfs, file):
        target = hdfs.follow(hdfs.get(file, "OPEN"))
        hdfs.write(file, b"z" * len(self.CONTENT))
        assert hdfs.raw("GET", target + "&offset=1000&length=4").body == self.CONTENT[1000:1004]
        hdfs.call("DELETE", file, "DELETE")
        assert hdfs.raw("GET", target + "&offset=5119990").body == self.CONTENT[-10:]
        assert hdfs.get(file, "OPEN").status == 404

    def test_after_a_restart_only_the_same_content_goes_on(self, tmp_path):
        with Server(tmp_path / "d") as server, Hdfs(server.http) as hdfs:
            hdfs.write("/same", b"same")
            hdfs.write("/other", b"old!")
            same, other = (hdfs.follow(hdfs.get(p, "OPEN")) for p in ("/same", "/other"))
            hdfs.write("/other", b"new!")
            server.restart()
            with Hdfs(server.http) as again:
                assert again.raw("GET", same + "&offset=2").body == b"me"
                refused = again.raw("GET", other + "&offset=2")
                assert (refused.status, refused.exception) == (403, "IOException")

    def test_the_name_of_what_was_opened_opens_nothing_else(self, hdfs, file):
        opened = urllib.parse.parse_qs(hdfs.follow(hdfs.get(file, "OPEN")).split("?")[1])["opened"][0]
        hdfs.write(file + "-2", b"other")
        assert hdfs.get(file + "-2", "OPEN", opened=opened).status == 403
        for wrong in ("x", opened[:-1], opened + "0", "g" * 32):
            assert hdfs.get(file, "OPEN", opened=wrong).status == 400

    def test_only_files_are_read(self, hdfs, path):
        hdfs.put(path, "MKDIRS")
        for there in (path, path + "/no", "/"):
            for op in ("OPEN", "GETFILECHECKSUM"):
                refused = hdfs.get(there, op)
                assert (refused.status, refused.exception) == (404, "FileNotFoundException")

    def test_many_readers_and_writers_at_once(self, server, path):
        def one(k):
            with Hdfs(server.http) as mine:
                content = os.urandom(200_000 + k)
                for turn in range(4):
                    assert mine.write(f"{path}/{k}", content).status == 201
                    assert mine.read(f"{path}/{k}") == content
                return mine.status(f"{path}/{k}")["length"]

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(one, range(32))) == [200_000 + k for k in range(32)]

    def test_checksums_do_not_depend_on_how_a_file_came(self, hdfs, path):
        def sum_of(name):
            return hdfs.raw("GET", hdfs.follow(hdfs.get(name, "GETFILECHECKSUM"))).json["FileChecksum"]

        hdfs.write(path, self.CONTENT)
        hdfs.write(path + "-2", self.CONTENT[:100_001])
        hdfs.append(path + "-2", self.CONTENT[100_001:])
        assert sum_of(path) == sum_of(path + "-2")
        assert sum_of(path)["algorithm"] == "MD5-of-0MD5-of-512CRC32C" and len(sum_of(path)["bytes"]) == 56
        hdfs.write(path, b"")
        assert sum_of(path) == {"algorithm": "MD5-of-0MD5-of-0CRC32", "bytes": "0" * 24 + "70bc8f4b72a86921468bf8e8441dce51", "length": 28}


class TestNames:
    def test_mkdirs(self, hdfs, path):
        for _ in range(2):
            assert hdfs.put(f"{path}/a/b", "MKDIRS", permission="700").json == {"boolean": True}
        status = hdfs.status(f"{path}/a/b")
        assert (status["type"], status["permission"], status["owner"], status["length"], status["blockSize"]) == ("DIRECTORY", "700", "ada", 0, 0)
        hdfs.write(f"{path}/f", b"x")
        assert hdfs.put(f"{path}/f", "MKDIRS").exception == "FileAlreadyExistsException"
        assert hdfs.put("/", "MKDIRS").json == {"boolean": True}

    def test_rename(self, hdfs, path):
        hdfs.write(f"{path}/a", b"a")
        hdfs.write(f"{path}/b", b"b")
        hdfs.put(f"{path}/d", "MKDIRS")

        def rename(source, target):
            answer = hdfs.put(path + source, "RENAME", destination=path + target)
            assert answer.status == 200, answer.body
            return answer.json["boolean"]

        assert not rename("/no", "/x") and not rename("/a", "/b") and not rename("/a", "/no/x")
        assert rename("/a", "/c") and hdfs.read(f"{path}/c") == b"a"
        assert rename("/c", "/c"), "onto itself"
        assert rename("/c", "/d") and hdfs.read(f"{path}/d/c") == b"a", "into a directory"
        assert not rename("/d", "/d") and not rename("/d", "/d/e") and not rename("/d", "/d/c/x")
        assert rename("/d", "/e") and hdfs.names(path) == ["b", "e"]
        assert not hdfs.put("/", "RENAME", destination=path).json["boolean"]

    def test_rename_of_a_directory_is_one_instant(self, server, hdfs, path):
        for k in range(20):
            hdfs.write(f"{path}/x/{k}", b"x")
        seen, both, stop = set(), set(), threading.Event()

        def look():
            with Hdfs(server.http) as mine:
                while not stop.is_set():
                    listed = mine.get(f"{path}/x", "LISTSTATUS")
                    seen.add(len(listed.json["FileStatuses"]["FileStatus"]) if listed.status == 200 else listed.exception)
                    both.add(len(mine.names(path)))

        thread = threading.Thread(target=look)
        thread.start()
        for k in range(100):
            names = ("x", "y") if k % 2 == 0 else ("y", "x")
            assert hdfs.put(f"{path}/{names[0]}", "RENAME", destination=f"{path}/{names[1]}").json["boolean"]
        stop.set()
        thread.join()
        assert seen == {20, "FileNotFoundException"}, "whole or not there"
        assert max(both) == 1 and len(hdfs.names(f"{path}/x")) == 20

    def test_rename_with_options_says_why_not(self, hdfs, path):
        hdfs.write(f"{path}/a", b"a")
        hdfs.write(f"{path}/b", b"b")
        hdfs.write(f"{path}/d/x", b"x")
        hdfs.put(f"{path}/e", "MKDIRS")

        def rename(source, target, options):
            answer = hdfs.put(path + source, "RENAME", destination=path + target, renameoptions=options)
            return answer.status if answer.status == 200 else answer.exception

        assert rename("/no", "/x", "NONE") == "FileNotFoundException"
        assert rename("/a", "/b", "NONE") == "FileAlreadyExistsException"
        assert rename("/a", "/a", "OVERWRITE") == "FileAlreadyExistsException"
        assert rename("/a", "/no/x", "OVERWRITE") == "FileNotFoundException"
        assert rename("/e", "/d", "OVERWRITE") == "IOException", "not empty"
        assert rename("/a", "/d", "OVERWRITE") == "IOException", "a directory"
        assert rename("/d", "/d/y", "OVERWRITE") == "IOException"
        assert rename("/a", "/b", "OVERWRITE") == 200 and hdfs.read(f"{path}/b") == b"a"
        assert rename("/d", "/e", "OVERWRITE") == 200 and hdfs.names(path) == ["b", "e"]
        assert rename("/b", "/c", "WHATEVER") == "IllegalArgumentException"

    def test_delete(self, hdfs, path):
        def delete(at, **query):
            answer = hdfs.call("DELETE", at, "DELETE", **query)
            return answer.json["boolean"] if answer.status == 200 else answer.exception

        hdfs.write(f"{path}/d/x", b"x")
        assert delete(f"{path}/no") is False and delete(f"{path}/d/x/y") is False
        assert delete(f"{path}/d") == "PathIsNotEmptyDirectoryException"
        assert delete(f"{path}/d", recursive="true") is True and not hdfs.exists(f"{path}/d/x")
        assert delete("/", recursive="true") is False and delete("/") == "PathIsNotEmptyDirectoryException"
        assert hdfs.exists(path)

    @pytest.mark.parametrize("name", ["a b", "a+b", "ü", "日本", "%", "%41", "a?b&c=d#e", "[x]", "-rf", "a\nb", "x" * 255, "a:b", "~", "day=1"])
    def test_names_of_all_kinds(self, hdfs, path, name):
        hdfs.write(f"{path}/{name}", b"x")
        assert hdfs.names(path) == [name] and hdfs.read(f"{path}/{name}") == b"x"
        assert hdfs.get(path, "LISTSTATUS_BATCH", startAfter=name).json["DirectoryListing"]["partialListing"]["FileStatuses"]["FileStatus"] == []
        assert hdfs.put(f"{path}/{name}", "RENAME", destination=f"{path}/{name[::-1][:200]}2").json["boolean"]
        assert hdfs.read(f"{path}/{name[::-1][:200]}2") == b"x"

    def test_bytes_that_are_no_utf8(self, hdfs, path):
        sent = hdfs.follow(hdfs.raw("PUT", f"/webhdfs/v1{path}/a%FF%C3?op=CREATE"))
        assert hdfs.raw("PUT", sent, b"x").status == 201
        assert hdfs.names(path) == ["a\ufffd\ufffd"]
        assert hdfs.raw("GET", f"/webhdfs/v1{path}/a%FF%C3?op=GETFILESTATUS").json["FileStatus"]["length"] == 1

    @pytest.mark.parametrize("at", ["/../etc/passwd", "/a/../../b", "/%2e%2e/x", "/a/%2E/b", "//", "/a//b", "/a%00b", "/a%2Fb", "/a%", "/%zz", "/" + "x" * 256, "/x" * 2049])
    def test_paths_that_leave_the_tree_or_break_a_limit(self, hdfs, server, at):
        for method, op in (("GET", "GETFILESTATUS"), ("PUT", "CREATE"), ("DELETE", "DELETE")):
            refused = hdfs.raw(method, f"/webhdfs/v1{at}?op={op}")
            assert (refused.status, refused.exception) == (400, "InvalidPathException")
        assert hdfs.put("/w", "RENAME", destination=urllib.parse.unquote(at, errors="surrogateescape").encode("utf-8", "surrogateescape")).status in (200, 400)
        assert server.alive()

    def test_listing(self, hdfs, path):
        hdfs.put(f"{path}/dir", "MKDIRS")
        hdfs.write(f"{path}/file", b"abc")
        listed = {e["pathSuffix"]: e for e in hdfs.get(path, "LISTSTATUS").json["FileStatuses"]["FileStatus"]}
        assert listed["file"]["type"] == "FILE" and listed["file"]["length"] == 3 and listed["dir"]["type"] == "DIRECTORY"
        [itself] = hdfs.get(f"{path}/file", "LISTSTATUS").json["FileStatuses"]["FileStatus"]
        assert itself["pathSuffix"] == "" and itself["length"] == 3
        assert hdfs.names(f"{path}/dir") == []
        for op in ("LISTSTATUS", "LISTSTATUS_BATCH", "GETCONTENTSUMMARY", "GETQUOTAUSAGE", "GETFILEBLOCKLOCATIONS", "GET_BLOCK_LOCATIONS"):
            assert hdfs.get(f"{path}/no", op).status == 404

    def test_listing_in_pages(self, server, hdfs, path):
        with server.client() as client:
            for k in range(2, 0, -1):
                client.act("mkdir", path=f"{path}-{k}", parents=True)
        with ThreadPoolExecutor(16) as pool, server.client() as client:
            list(pool.map(lambda k: client.act("mkdir", path=f"{path}/{k:05}", parents=True), range(2345)))
        seen, after, pages = [], {}, 0
        while True:
            listing = hdfs.get(path, "LISTSTATUS_BATCH", **after).json["DirectoryListing"]
            page = [e["pathSuffix"] for e in listing["partialListing"]["FileStatuses"]["FileStatus"]]
            seen, pages = seen + page, pages + 1
            assert listing["remainingEntries"] == min(2345 - len(seen), 1000)
            if not listing["remainingEntries"]:
                break
            after = {"startAfter": page[-1]}
        assert seen == [f"{k:05}" for k in range(2345)] == hdfs.names(path) and pages == 3

    def test_a_page_never_ends_at_a_name_that_can_not_be_said(self, server, hdfs, path):
        def make(k):
            with Hdfs(server.http) as mine:
                name = f"{k:04}%FF" if 990 <= k < 1010 else f"{k:04}"
                assert mine.raw("PUT", f"/webhdfs/v1{path}/{name}?op=MKDIRS").status == 200

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(make, range(1500)))
        seen, after = [], {}
        while True:
            listing = hdfs.get(path, "LISTSTATUS_BATCH", **after).json["DirectoryListing"]
            page = [e["pathSuffix"] for e in listing["partialListing"]["FileStatuses"]["FileStatus"]]
            seen += page
            if not listing["remainingEntries"]:
                break
            assert "\ufffd" not in page[-1]
            after = {"startAfter": page[-1]}
        assert [name[:4] for name in seen] == [f"{k:04}" for k in range(1500)]

    def test_sums(self, hdfs, path):
        for name, size in (("a", 10), ("d/b", 20), ("d/e/c", 0)):
            hdfs.write(f"{path}/{name}", b"x" * size)
        summary = hdfs.get(path, "GETCONTENTSUMMARY").json["ContentSummary"]
        assert (summary["directoryCount"], summary["fileCount"], summary["length"], summary["spaceConsumed"], summary["quota"]) == (3, 3, 30, 30, -1)
        one = hdfs.get(f"{path}/a", "GETCONTENTSUMMARY").json["ContentSummary"]
        assert (one["directoryCount"], one["fileCount"], one["length"]) == (0, 1, 10)
        assert hdfs.get(path, "GETQUOTAUSAGE").json["QuotaUsage"]["fileAndDirectoryCount"] == 6


class TestAttributes:
    @pytest.fixture
    def file(self, hdfs, path):
        hdfs.write(path, b"x")
        return path

    def test_permission_owner_times(self, hdfs, file):
        assert hdfs.put(file, "SETPERMISSION", permission="1750").status == 200
        assert hdfs.put(file, "SETOWNER", owner="bob", group="analysts").status == 200
        assert hdfs.put(file, "SETTIMES", modificationtime=1_000_000_000_000, accesstime=1_000_000_001_000).status == 200
        status = hdfs.status(file)
        assert [status[key] for key in ("permission", "owner", "group", "modificationTime", "accessTime")] == ["1750", "bob", "analysts", 10**12, 10**12 + 1000]
        assert hdfs.put(file, "SETOWNER", group="root").status == hdfs.put(file, "SETTIMES", modificationtime=-1).status == 200
        status = hdfs.status(file)
        assert (status["owner"], status["group"], status["modificationTime"]) == ("bob", "root", 10**12)
        for op, query in (("SETPERMISSION", {"permission": "9"}), ("SETPERMISSION", {}), ("SETOWNER", {}), ("SETTIMES", {"modificationtime": "x"}), ("SETREPLICATION", {"replication": 0})):
            assert hdfs.put(file, op, **query).exception == "IllegalArgumentException"
        for op, query in (("SETPERMISSION", {"permission": "700"}), ("SETOWNER", {"owner": "x"}), ("SETTIMES", {"accesstime": 0})):
            assert hdfs.put(file + "-no", op, **query).exception == "FileNotFoundException"

    def test_users_of_this_system_have_their_numbers(self, server, hdfs, file):
        hdfs.put(file, "SETOWNER", owner="nobody", group="daemon")
        assert hdfs.status(file)["owner"] == "nobody" and hdfs.status(file)["group"] == "daemon"
        hdfs.put(file, "SETOWNER", owner="12345")
        assert hdfs.status(file)["owner"] == "12345"

    def test_replication_is_answered(self, hdfs, file):
        assert hdfs.put(file, "SETREPLICATION", replication=3).json == {"boolean": True}
        assert hdfs.put("/w", "SETREPLICATION", replication=3).json == hdfs.put(file + "-no", "SETREPLICATION").json == {"boolean": False}

    def test_extended_attributes(self, hdfs, file):
        def values(encoding, **query):
            return {a["name"]: a["value"] for a in hdfs.get(file, "GETXATTRS", encoding=encoding, **query).json["XAttrs"]}

        assert hdfs.put(file, "SETXATTR", **{"xattr.name": "user.a", "xattr.value": "0x0001ff", "flag": "CREATE"}).status == 200
        assert hdfs.put(file, "SETXATTR", **{"xattr.name": "user.b", "xattr.value": '"text"', "flag": "CREATE,REPLACE"}).status == 200
        assert values("hex") == {"user.a": "0x0001ff", "user.b": "0x74657874"}
        assert values("base64") == {"user.a": "0sAAH/", "user.b": "0sdGV4dA=="}
        assert values("text", **{"xattr.name": "user.b"}) == {"user.b": '"text"'}
        assert json.loads(hdfs.get(file, "LISTXATTRS").json["XAttrNames"]) == ["user.a", "user.b"]
        again = {"xattr.name": "user.a", "xattr.value": "0x00", "flag": "CREATE"}
        assert hdfs.put(file, "SETXATTR", **again).exception == "IOException"
        assert hdfs.put(file, "SETXATTR", **{**again, "xattr.name": "user.z", "flag": "REPLACE"}).exception == "IOException"
        assert hdfs.put(file, "SETXATTR", **{**again, "xattr.name": "nix"}).exception == "IllegalArgumentException"
        assert hdfs.put(file, "SETXATTR", **{**again, "xattr.name": "user.forebay.state"}).exception == "AccessControlException"
        assert hdfs.put(file, "REMOVEXATTR", **{"xattr.name": "user.a"}).status == 200
        assert hdfs.put(file, "REMOVEXATTR", **{"xattr.name": "user.a"}).exception == "IOException"
        assert hdfs.get(file, "GETXATTRS", **{"xattr.name": "user.a"}).exception == "IOException"
        assert values("text", **{"xattr.name": "user.forebay.state"}) == {"user.forebay.state": '"sealed"'}

    def test_access_control_is_by_the_file_of_users(self, hdfs, file):
        acl = hdfs.get(file, "GETACLSTATUS").json["AclStatus"]
        assert (acl["entries"], acl["owner"], acl["permission"]) == ([], "ada", "644")
        assert hdfs.get(file, "CHECKACCESS", fsaction="rwx").status == 200
        assert hdfs.get(file, "CHECKACCESS", fsaction="wrx").status == 400
        assert hdfs.get(file + "-no", "CHECKACCESS", fsaction="r--").status == 404


class TestAboutItself:
    def test_where_bytes_lie(self, server, hdfs, path):
        hdfs.write(path, b"x" * 1000)
        host = server.http.split("://")[1]
        [block] = hdfs.get(path, "GETFILEBLOCKLOCATIONS", offset=0, length=10).json["BlockLocations"]["BlockLocation"]
        assert (block["offset"], block["length"], block["names"], block["hosts"]) == (0, 1000, [host], [host.split(":")[0]])
        told = hdfs.get(path, "GET_BLOCK_LOCATIONS").json["LocatedBlocks"]
        assert told["fileLength"] == 1000 and len(told["locatedBlocks"]) == 1 and told["lastLocatedBlock"] == told["locatedBlocks"][0]
        assert hdfs.get("/w", "GETFILEBLOCKLOCATIONS").json["BlockLocations"]["BlockLocation"] == []

    def test_homes_and_defaults(self, hdfs):
        assert hdfs.get("/", "GETHOMEDIRECTORY").json == {"Path": "/user/ada"}
        assert hdfs.get("/", "GETTRASHROOT").json == {"Path": "/user/ada/.Trash"}
        assert hdfs.get("/", "GETTRASHROOTS").json == {"Paths": []}
        defaults = hdfs.get("/", "GETSERVERDEFAULTS").json["FsServerDefaults"]
        assert (defaults["blockSize"], defaults["replication"], defaults["trashInterval"]) == (128 << 20, 1, 0)
        space = hdfs.get("/", "GETSTATUS").json["FsStatus"]
        assert space["capacity"] == space["used"] + space["remaining"] > 0
        assert hdfs.get("/", "GETDELEGATIONTOKEN", renewer="x").json == {"Token": None}

    @pytest.mark.parametrize("method, op", [("GET", "NIX"), ("GET", ""), ("GET", "CREATE"), ("PUT", "OPEN"), ("POST", "DELETE"), ("HEAD", "OPEN"), ("OPTIONS", "OPEN")])
    def test_operations_that_are_none(self, hdfs, method, op):
        refused = hdfs.call(method, "/", op)
        assert refused.status == 400
        if method != "HEAD":
            assert refused.exception == "IllegalArgumentException"
        assert hdfs.raw("GET", "/webhdfs/v1/").status == 400

    @pytest.mark.parametrize("method, op", [("PUT", "CREATESYMLINK"), ("PUT", "SETACL"), ("PUT", "CREATESNAPSHOT"), ("GET", "GETSTORAGEPOLICY"), ("PUT", "SETECPOLICY"), ("PUT", "RENEWDELEGATIONTOKEN"), ("PUT", "SETQUOTA")])
    def test_operations_that_are_refused_by_name(self, hdfs, path, method, op):
        hdfs.write(path, b"x")
        refused = hdfs.call(method, path, op, destination="/x", aclspec="user::rwx")
        assert (refused.status, refused.exception) == (400, "UnsupportedOperationException")

    def test_limits(self, server, hdfs):
        assert hdfs.raw("GET", "/webhdfs/v1/?op=GETFILESTATUS&" + "a=1&" * 300).status == 400
        with Hdfs(server.http) as other:
            assert other.raw("GET", "/webhdfs/v1/?op=GETFILESTATUS&a=" + "x" * 500_000).status in (414, 431)
        assert hdfs.get("/", "GETFILESTATUS", **{"user.name": "a b"}).status == 400
        assert hdfs.get("/", "GETFILESTATUS", **{"user.name": "x" * 300}).status == 400
        assert server.alive()

    def test_pages_of_other_sites_change_nothing(self, hdfs, path):
        hdfs.write(path, b"abc")
        refused = hdfs.raw("POST", hdfs.target(path, "TRUNCATE", newlength=0), origin="http://evil.example")
        assert (refused.status, refused.exception) == (403, "AccessControlException")
        assert hdfs.read(path) == b"abc"

    def test_requests_are_counted(self, hdfs, path):
        hdfs.write(path, b"x" * 1000)
        hdfs.read(path)
        text = hdfs.raw("GET", "/metrics").body.decode()
        assert 'forebay_webhdfs_calls_total{op="CREATE",status="201"}' in text
        assert 'forebay_webhdfs_call_seconds_count{op="OPEN"}' in text
        assert float(next(line for line in text.splitlines() if line.startswith("forebay_webhdfs_received_bytes_total")).split()[1]) >= 1000
        assert float(next(line for line in text.splitlines() if line.startswith("forebay_webhdfs_sent_bytes_total")).split()[1]) >= 1000


class TestOtherDoors:
    def test_a_dataset_shows_as_its_parts(self, server, hdfs, path):
        with server.client() as client:
            client.put(path, ROW)
            [name] = hdfs.names(path)
            assert name.startswith("part-00000-") and name.endswith(".arrow")
            assert pa.ipc.open_file(hdfs.read(f"{path}/{name}")).read_all() == pa.Table.from_batches([ROW])

    def test_files_are_the_same_by_flight(self, server, hdfs, path):
        with server.client() as client:
            hdfs.write(path, b"by webhdfs")
            assert client.file(path) == b"by webhdfs"
            client.put_file(path, b"by flight")
            assert hdfs.read(path) == b"by flight"

    def test_a_file_arrives_in_the_store(self, server, hdfs, path, lake):
        name = path.replace("/w/", "/kept/")
        hdfs.write(name, b"to keep")
        hdfs.append(name, b" it")
        hdfs.put(name, "RENAME", destination=name + "-kept")
        with server.client() as client:
            client.act("wait_persisted", path="/kept", timeout="30s")
        assert (lake / (name + "-kept").removeprefix("/kept/")).read_bytes() == b"to keep it"
        for k in range(3):
            hdfs.write(f"{name}-{k}", bytes([k]))
        with server.client() as client:
            client.act("wait_persisted", path="/kept", timeout="30s")
            hdfs.post(f"{name}-0", "CONCAT", sources=f"{name}-1,{name}-2")
            client.act("wait_persisted", path="/kept", timeout="30s")
        own = {file.name: file.read_bytes() for file in lake.iterdir() if file.name.startswith(name.removeprefix("/kept/"))}
        assert own == {name.removeprefix("/kept/") + "-0": b"\0\1\2", name.removeprefix("/kept/") + "-kept": b"to keep it"}, own
        (lake / "outside").write_bytes(b"from outside")
        assert hdfs.read("/kept/outside") == b"from outside"


class TestUsers:
    @pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer x"}, {"authorization": "Basic " + base64.b64encode(b"ada:no").decode()}])
    def test_nobody_enters_by_a_name_alone(self, guarded, headers):
        with Hdfs(guarded.http, user="root", **headers) as nobody:
            for method, op in (("GET", "GETFILESTATUS"), ("GET", "OPEN"), ("PUT", "CREATE"), ("DELETE", "DELETE"), ("GET", "NIX")):
                refused = nobody.call(method, "/features/f", op)
                assert (refused.status, refused.exception) == (401, "AccessControlException")
                assert refused.headers["WWW-Authenticate"].startswith("Basic")
            assert nobody.raw("PUT", "/webhdfs/v1/scratch/n?op=CREATE&data=true", b"x").status == 401

    @pytest.mark.parametrize("authorization", ["Bearer ada-token", "Basic " + base64.b64encode(b"ada:open sesame").decode()])
    def test_rights_are_by_prefix(self, guarded, authorization):
        with Hdfs(guarded.http, user="whoever", authorization=authorization) as ada:
            assert ada.read("/features/f") == b"x" and ada.names("/features") == ["f"]
            ada.write("/scratch/mine", b"y")
            assert ada.status("/scratch/mine")["owner"] == "ada", "who is known, not who is named"
            for path in ("/secret/f", "/secret/no", "/", "/features2"):
                for op in ("GETFILESTATUS", "LISTSTATUS", "LISTSTATUS_BATCH", "OPEN", "GETCONTENTSUMMARY", "GETFILECHECKSUM", "GETXATTRS", "LISTXATTRS", "GETACLSTATUS", "CHECKACCESS", "GETFILEBLOCKLOCATIONS"):
                    refused = ada.get(path, op, fsaction="r--")
                    assert (refused.status, refused.exception) == (403, "AccessControlException"), f"{op} {path}: alike whether it is there or not"
            for path in ("/features/f", "/features/new", "/secret/f"):
                for method, op in (("PUT", "CREATE"), ("PUT", "MKDIRS"), ("PUT", "RENAME"), ("PUT", "SETOWNER"), ("PUT", "SETPERMISSION"), ("PUT", "SETTIMES"), ("PUT", "SETXATTR"), ("PUT", "REMOVEXATTR"), ("PUT", "SETREPLICATION"), ("POST", "APPEND"), ("POST", "TRUNCATE"), ("POST", "CONCAT"), ("DELETE", "DELETE")):
                    refused = ada.call(method, path, op, destination="/scratch/z", overwrite="true", newlength=0)
                    assert (refused.status, refused.exception) == (403, "AccessControlException"), (op, path)
                refused = ada.put("/scratch/mine", "RENAME", destination=path)
                assert refused.exception == "AccessControlException"
            assert ada.post("/scratch/mine", "CONCAT", sources="/features/f").exception == "AccessControlException"
            assert ada.get("/features/f", "CHECKACCESS", fsaction="-w-").exception == "AccessControlException"

    def test_what_one_opened_another_may_not_read(self, guarded):
        with Hdfs(guarded.http, authorization="Bearer root-token") as root, Hdfs(guarded.http, authorization="Bearer ada-token") as ada:
            target = root.follow(root.get("/secret/f", "OPEN"))
            assert ada.raw("GET", target).status == 403
            assert root.raw("GET", target).body == b"x"

    def test_the_second_request_asks_too(self, guarded):
        with Hdfs(guarded.http, authorization="Bearer ada-token") as ada:
            target = ada.follow(ada.put("/scratch/two", "CREATE"))
        with Hdfs(guarded.http) as nobody:
            assert nobody.raw("PUT", target, b"x").status == 401

    def token(self, guarded, **form):
        with Hdfs(guarded.http) as hdfs:
            return hdfs.raw("POST", "/webhdfs/oauth2/token", urllib.parse.urlencode(form), **{"content-type": "application/x-www-form-urlencoded"})

    @pytest.mark.parametrize("secret", ["open sesame", "ada-token"])
    def test_client_credentials_give_a_token(self, guarded, secret):
        given = self.token(guarded, grant_type="client_credentials", client_id="ada", client_secret=secret)
        assert given.status == 200 and given.json["token_type"] == "bearer" and given.json["expires_in"] > 3600
        with Hdfs(guarded.http, authorization=f"Bearer {given.json['access_token']}") as ada:
            assert ada.get("/", "GETHOMEDIRECTORY").json == {"Path": "/user/ada"}
            assert ada.read("/features/f") == b"x" and ada.get("/secret/f", "OPEN").status == 403
            assert ada.get("/", "GETDELEGATIONTOKEN").exception == "UnsupportedOperationException"

    def test_wrong_credentials_give_none(self, guarded):
        right = {"grant_type": "client_credentials", "client_id": "ada", "client_secret": "open sesame"}
        for wrong, status in (({"client_secret": "x"}, 401), ({"client_id": "eve"}, 401), ({"client_id": "root"}, 401), ({"client_id": "root", "client_secret": "ada-token"}, 401),
                              ({"grant_type": "password"}, 400), ({"client_secret": ""}, 400), ({"client_secret": "x" * 10_000}, 400)):
            refused = self.token(guarded, **{**right, **wrong})
            assert refused.status == status and refused.json["error"], wrong


def test_a_connection_stays_open(server, path):
    with Hdfs(server.http) as hdfs:
        hdfs.write(path, b"x")
        local = hdfs.connection.sock.getsockname()
        for _ in range(20):
            hdfs.read(path)
            hdfs.get(path + "-no", "GETFILESTATUS")
        assert hdfs.connection.sock.getsockname() == local


def test_a_server_on_its_way_out_says_so(tmp_path):
    with Server(tmp_path / "d") as server, Hdfs(server.http) as hdfs:
        hdfs.write("/a", b"x" * 1000)
        assert server.term() == 0
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            hdfs.status("/a")

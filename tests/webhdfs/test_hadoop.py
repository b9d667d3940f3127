"""Hadoop's own client against the WebHDFS door: its shell, and its contract tests of file systems."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.harness import Server

HERE = Path(__file__).parent
JARS = HERE.parent.parent / ".venv/webhdfs"
JAVA = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dhadoop.root.logger=WARN,console"]

if not JARS.exists():
    pytest.skip("tests/setup.sh webhdfs fetches Hadoop's jars", allow_module_level=True)


def java(*arguments, classes="", timeout=600, **keys):
    command = [*JAVA, "-cp", f"{classes}:{JARS}/*", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=timeout, env={**os.environ, "HADOOP_USER_NAME": "ada"}, **keys)


class Shell:
    """`hdfs dfs`, several commands in one process: what a Java machine costs to start is more than what it does."""

    SOURCE = """
import java.util.*;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FsShell;
import org.apache.hadoop.util.ToolRunner;

/** Each line of the input is a command, its words between tabs; after each a line with its exit status. */
public final class Shell {
  public static void main(String[] none) throws Exception {
    Configuration conf = new Configuration();
    System.getenv().forEach((name, value) -> {
      if (name.startsWith("conf_")) {
        conf.set(name.substring(5), value);
      }
    });
    Scanner lines = new Scanner(System.in, "UTF-8");
    while (lines.hasNextLine()) {
      int code = ToolRunner.run(conf, new FsShell(), lines.nextLine().split("\\t"));
      System.out.println("\\u0000" + code);
    }
  }
}
"""

    def __init__(self, folder, root, **settings):
        source = folder / "Shell.java"
        source.write_text(self.SOURCE)
        command = [*JAVA, "-Dfile.encoding=UTF-8", "-cp", f"{JARS}/*", str(source)]
        self.root, self.errors = root, folder / "errors"
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(self.errors, "w"), text=True,
                                        env={**os.environ, "HADOOP_USER_NAME": "ada", **{f"conf_{name}": value for name, value in settings.items()}})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)

    def __call__(self, *words, fails=False):
        """What the command printed. A word that begins with `:` is a path of the server."""
        words = [self.root + word[1:] if str(word).startswith(":") else str(word) for word in words]
        self.process.stdin.write("\t".join(words) + "\n")
        self.process.stdin.flush()
        out = ""
        while "\0" not in out:
            line = self.process.stdout.readline()
            assert line, self.errors.read_text()[-3000:]
            out += line
        out, code = out.split("\0")
        assert (int(code) != 0) == fails, f"{words}: {code} {self.errors.read_text()[-2000:]}"
        return out.replace(self.root, "")


@pytest.fixture(scope="module")
def shell(server, tmp_path_factory):
    root = server.http.replace("http://", "webhdfs://")
    with Shell(tmp_path_factory.mktemp("shell"), root) as shell:
        yield shell


class TestShell:
    def test_files_come_and_go(self, shell, path, tmp_path):
        content = os.urandom(5_000_000)
        (tmp_path / "local").write_bytes(content)
        shell("-mkdir", "-p", f":{path}/a/b")
        shell("-put", tmp_path / "local", f":{path}/a/b/file")
        assert f"{path}/a/b/file" in shell("-ls", f":{path}/a/b") and "ada" in shell("-ls", f":{path}/a")
        shell("-get", f":{path}/a/b/file", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        assert shell("-stat", "%b %F %u %r %n %o", f":{path}/a/b/file") == "5000000 regular file ada 1 file 134217728\n"
        assert shell("-count", f":{path}").split()[:3] == ["3", "1", "5000000"]
        assert shell("-du", "-s", f":{path}").split()[0] == "5000000"
        shell("-put", tmp_path / "local", f":{path}/a/b/file", fails=True)
        shell("-put", "-f", tmp_path / "local", f":{path}/a/b/file")
        assert "_COPYING_" not in shell("-ls", "-R", f":{path}")

    def test_texts(self, shell, path, tmp_path):
        (tmp_path / "one").write_text("one\n")
        (tmp_path / "two").write_text("two\n")
        shell("-put", tmp_path / "one", tmp_path / "two", f":{path}-1", fails=True)
        shell("-mkdir", "-p", f":{path}")
        shell("-put", tmp_path / "one", tmp_path / "two", f":{path}")
        shell("-appendToFile", tmp_path / "two", f":{path}/one")
        assert shell("-cat", f":{path}/one", f":{path}/two") == "one\ntwo\ntwo\n"
        assert shell("-tail", f":{path}/one") == shell("-head", f":{path}/one") == shell("-text", f":{path}/one") == "one\ntwo\n"
        shell("-getmerge", f":{path}", tmp_path / "merged")
        assert (tmp_path / "merged").read_text() == "one\ntwo\ntwo\n"
        shell("-truncate", "-w", "4", f":{path}/one")
        assert shell("-cat", f":{path}/one") == "one\n"
        assert shell("-cat", f":{path}/*") == "one\ntwo\n", "a pattern"

    def test_names(self, shell, path):
        shell("-touchz", f":{path}/x/a", fails=True)
        shell("-mkdir", "-p", f":{path}/x", f":{path}/y")
        shell("-touchz", f":{path}/x/a")
        shell("-mv", f":{path}/x/a", f":{path}/x/b")
        shell("-mv", f":{path}/x", f":{path}/y")
        shell("-cp", f":{path}/y/x/b", f":{path}/c")
        assert sorted(line.split()[-1] for line in shell("-ls", "-R", f":{path}").splitlines()) == [f"{path}/c", f"{path}/y", f"{path}/y/x", f"{path}/y/x/b"]
        assert shell("-find", f":{path}", "-name", "b") == f"{path}/y/x/b\n"
        shell("-mv", f":{path}/no", f":{path}/x", fails=True)
        shell("-test", "-d", f":{path}/y")
        shell("-test", "-e", f":{path}/no", fails=True)
        shell("-rmdir", f":{path}/y", fails=True)
        shell("-rm", f":{path}/y", fails=True)
        shell("-rm", "-r", f":{path}/y")
        shell("-rm", f":{path}/c")
        assert shell("-ls", f":{path}") == ""
        shell("-ls", f":{path}/no", fails=True)

    def test_attributes(self, shell, path):
        shell("-mkdir", "-p", f":{path}")
        shell("-touchz", f":{path}/f")
        shell("-chmod", "640", f":{path}/f")
        shell("-chown", "-R", "bob:analysts", f":{path}")
        shell("-setrep", "2", f":{path}/f")
        shell("-touch", "-m", "-t", "20200102:030405", f":{path}/f")
        assert shell("-stat", "%a %u %g", f":{path}/f") == "640 bob analysts\n"
        shell("-setfattr", "-n", "user.a", "-v", "value", f":{path}/f")
        assert 'user.a="value"' in shell("-getfattr", "-d", f":{path}/f")
        shell("-setfattr", "-x", "user.a", f":{path}/f")
        assert "user.a" not in shell("-getfattr", "-d", f":{path}/f")
        assert "user::rw-" in shell("-getfacl", f":{path}/f")
        shell("-setfacl", "-m", "user:eve:r--", f":{path}/f", fails=True)
        heading, space = shell("-df", f":{path}").splitlines()
        assert heading.split() == ["Filesystem", "Size", "Used", "Available", "Use%"]
        # The shell above takes the server's address out of what is printed.
        size, used, available, share = space.split()
        assert int(size) > 0 and int(used) >= 0 and int(available) <= int(size) and share.endswith("%"), space

    def test_checksums_are_those_of_hdfs(self, shell, path, tmp_path):
        (tmp_path / "zeros").write_bytes(bytes(1024))
        shell("-put", tmp_path / "zeros", f":{path}")
        algorithm, sum_ = shell("-checksum", f":{path}").split()[1:]
        # Two CRCs of 512 zero bytes, their MD5, and that of the 32 bytes in which HDFS keeps it.
        assert algorithm == "MD5-of-0MD5-of-512CRC32C"
        assert sum_ == "000002000000000000000000" + zeros_sum()

    def test_who_has_a_password_enters(self, guarded, tmp_path):
        """As core-site.xml has it: Hadoop's client asks for a token by OAuth."""
        root = guarded.http.replace("http://", "webhdfs://")
        oauth = {
            "dfs.webhdfs.oauth2.enabled": "true",
            "dfs.webhdfs.oauth2.access.token.provider": "org.apache.hadoop.hdfs.web.oauth2.ConfCredentialBasedAccessTokenProvider",
            "dfs.webhdfs.oauth2.refresh.url": f"{guarded.http}/webhdfs/oauth2/token",
            "dfs.webhdfs.oauth2.client.id": "ada",
            "dfs.webhdfs.oauth2.credential": "open sesame",
        }
        (tmp_path / "mine").write_text("mine")
        with Shell(tmp_path, root, **oauth) as ada:
            ada("-put", tmp_path / "mine", ":/scratch/put")
            assert ada("-cat", ":/scratch/put") == "mine" and ada("-stat", "%u", ":/scratch/put") == "ada\n"
            assert ada("-cat", ":/features/f") == "x"
            ada("-cat", ":/secret/f", fails=True)
            ada("-rm", ":/features/f", fails=True)
            assert "may not read /secret/f" in ada.errors.read_text() and "may not write /features/f" in ada.errors.read_text()
        (tmp_path / "nobody").mkdir()
        with Shell(tmp_path / "nobody", root) as nobody:
            nobody("-cat", ":/features/f", fails=True)


def zeros_sum():
    import hashlib
    crc = 0xFFFFFFFF
    for _ in range(512):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return hashlib.md5(hashlib.md5(crc.to_bytes(4, "big") * 2).digest() + bytes(16)).hexdigest()


# Hadoop's own contract tests by class: how many pass and are skipped, and what fails. docs/webhdfs.md has the reason of each.
NO_ETAGS = {"testEtagConsistencyAcrossListAndHead", "testEtagsOfDifferentDataDifferent", "testLocatedStatusAlsoHasEtag"}  # the client's statuses have none
NO_LEASES = {"testLeaseRecovery", "testLeaseRecoveryFileNotExist", "testLeaseRecoveryFileOnDirectory"}  # the client says that it has none
NO_PATH_HANDLES = {"testConcurrentUploads", "testMultipartUpload", "testMultipartUploadEmptyPart", "testMultipartUploadReverseOrder",
                   "testMultipartUploadReverseOrderNonContiguousPartNumbers", "testSingleUpload", "testUploadEmptyBlock"}  # the client has none
NO_SAFE_MODE = {"testSafeMode"}  # the client is no SafeMode
CLIENT_SEEKS = {"testNegativeSeek", "testSeekReadClosedFile"}  # the client's stream checks neither
NO_STATISTICS = {"testInputStreamStatisticKeys", "testInputStreamStatisticRead", "testOutputStreamStatisticKeys", "testWriteByteArrays", "testWriteSingleByte"}
MODES_ARE_SHOWN = {"testGlobStatusThrowsExceptionForUnreadableDir", "testListStatusThrowsExceptionForUnreadableDir"}  # and not enforced
CONTRACT = {
    "Append": (8, 0, set()), "BulkDelete": (16, 3, set()), "Concat": (5, 0, set()), "ContentSummary": (2, 0, set()), "CopyFromLocal": (15, 0, set()),
    "Create": (14, 2, set()), "Delete": (8, 0, set()), "Etag": (0, 1, NO_ETAGS), "GetFileStatus": (20, 0, set()), "LeaseRecovery": (0, 0, NO_LEASES),
    "Mkdir": (8, 0, set()), "MultipartUploader": (10, 0, NO_PATH_HANDLES), "Open": (27, 0, set()), "PathHandle": (0, 56, set()),
    "Rename": (10, 0, set()), "RootDirectory": (9, 0, set()), "SafeMode": (0, 0, NO_SAFE_MODE), "Seek": (16, 0, CLIENT_SEEKS), "SetTimes": (1, 0, set()),
    "StreamIOStatistics": (0, 0, NO_STATISTICS), "Unbuffer": (6, 0, set()), "VectoredRead": (46, 0, set()), "FileSystemContract": (43, 0, set()),
    "FSMainOperations": (48, 0, MODES_ARE_SHOWN),
}


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("contract") / "d") as server:
        uri = server.http.replace("http://", "webhdfs://") + "/"
        # The tests write below the folder they run in, and take the home of `user.name`.
        done = java("-Duser.name=ada", HERE / "contract/Contract.java", uri, classes=HERE, cwd=tmp_path_factory.mktemp("run"))
        told = [json.loads(line) for line in done.stdout.decode().splitlines() if line.startswith("{")]
        assert len(told) == len(CONTRACT), done.stderr.decode()[-3000:]
        assert server.alive() and "panicked" not in server.log()
    return {result["class"]: result for result in told}


@pytest.mark.parametrize("name", CONTRACT)
def test_hadoop_s_contract(contract, name):
    passed, skipped, failures = CONTRACT[name]
    result = contract[name]
    assert set(result["failed"]) == failures, result
    assert (result["passed"], result["skipped"]) == (passed, skipped), result

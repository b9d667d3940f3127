"""What a program may expect of files and directories on the mount, told by plain system calls."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE = 1, 2


@contextlib.contextmanager
def refused(number):
    with pytest.raises(OSError) as error:
        yield
    assert errno.errorcode[error.value.errno] == errno.errorcode[number]


@contextlib.contextmanager
def opened(path, flags, mode=0o644):
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def create_all(paths):
    """Empty files, many at once."""
    def create(path):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(create, paths))


def write_all(fd, content):
    while content:
        content = content[os.write(fd, content) :]


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def renameat2(source, target, flags):
    checked(libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags))


def fallocate(fd, mode, offset, length):
    checked(libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def in_a_process(work, *arguments):
    """Does it in a forked process; whether that went well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            work(*arguments)
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def as_user(user, work, *arguments):
    def become():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        work(*arguments)

    return in_a_process(become)


class TestOpening:
    def test_exclusive_creation_has_one_winner(self, folder):
        created = []

        def create():
            with contextlib.suppress(FileExistsError):
                os.close(os.open(folder / "one", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                created.append(1)

        threads = [threading.Thread(target=create) for _ in range(16)]
        [t.start() for t in threads], [t.join() for t in threads]
        assert len(created) == 1
        with refused(errno.EEXIST):
            os.open(folder / "one", os.O_CREAT | os.O_EXCL)

    def test_truncating_at_open_empties(self, folder):
        (folder / "f").write_bytes(b"long before")
        with opened(folder / "f", os.O_WRONLY | os.O_TRUNC) as fd:
            assert os.fstat(fd).st_size == 0 == (folder / "f").stat().st_size
            os.write(fd, b"new")
        assert (folder / "f").read_bytes() == b"new"

    def test_appending_processes_lose_no_line(self, folder):
        script = "import os,sys\nfd=os.open(sys.argv[1],os.O_WRONLY|os.O_APPEND|os.O_CREAT)\nfor k in range(500): os.write(fd,(sys.argv[2]*99+'\\n').encode())"
        writers = [subprocess.Popen([sys.executable, "-c", script, folder / "log", letter]) for letter in "ab"]
        assert [w.wait() for w in writers] == [0, 0]
        lines = (folder / "log").read_text().splitlines()
        assert sorted(lines) == ["a" * 99] * 500 + ["b" * 99] * 500

    def test_an_appending_descriptor_writes_at_the_end_wherever_it_stands(self, folder):
        (folder / "f").write_bytes(b"0123")
        with opened(folder / "f", os.O_RDWR | os.O_APPEND) as fd:
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, b"45")
            os.truncate(folder / "f", 3)
            os.write(fd, b"end")
        assert (folder / "f").read_bytes() == b"012end"

    def test_what_is_open_for_reading_only_cannot_be_written(self, folder):
        (folder / "f").write_bytes(b"x")
        with opened(folder / "f", os.O_RDONLY) as fd, refused(errno.EBADF):
            os.write(fd, b"y")
        with opened(folder / "f", os.O_WRONLY) as fd, refused(errno.EBADF):
            os.read(fd, 1)

    def test_two_openers_see_each_other_before_anyone_closes(self, folder):
        with opened(folder / "f", os.O_RDWR | os.O_CREAT) as one, opened(folder / "f", os.O_RDWR) as two:
            os.pwrite(one, b"abc", 0)
            assert os.pread(two, 10, 0) == b"abc"
            os.pwrite(two, b"X", 1)
            assert os.pread(one, 10, 0) == b"aXc" and os.fstat(one).st_size == 3


class TestWriting:
    def test_random_writes_and_cuts_give_the_bytes_of_a_plain_buffer(self, folder):
        seed = random.SystemRandom().randrange(1 << 32)
        print("seed", seed)
        chance, model = random.Random(seed), bytearray()
        with opened(folder / "f", os.O_RDWR | os.O_CREAT) as fd:
            for _ in range(400):
                if chance.random() < 0.8:
                    at, piece = chance.randrange(3_000_000), chance.randbytes(chance.choice([1, 100, 4096, 70_000]))
                    os.pwrite(fd, piece, at)
                    model.extend(bytes(max(0, at + len(piece) - len(model))))
                    model[at : at + len(piece)] = piece
                else:
                    size = chance.randrange(3_000_000)
                    os.ftruncate(fd, size)
                    model = model[:size].ljust(size, b"\0")
                at = chance.randrange(3_000_000)
                assert os.pread(fd, 50_000, at) == model[at : at + 50_000], seed
        assert (folder / "f").read_bytes() == model

    def test_a_file_grows_with_zeros_and_forgets_what_was_cut(self, folder):
        (folder / "f").write_bytes(b"secret" * 10_000)
        os.truncate(folder / "f", 3)
        os.truncate(folder / "f", 100_000)
        assert (folder / "f").read_bytes() == b"sec" + bytes(99_997)

    def test_holes_read_as_zeros(self, folder):
        with opened(folder / "f", os.O_RDWR | os.O_CREAT) as fd:
            os.pwrite(fd, b"far", 1 << 33)
            assert os.fstat(fd).st_size == (1 << 33) + 3
            assert os.pread(fd, 10, 1 << 30) == bytes(10) and os.pread(fd, 10, 1 << 33) == b"far"
            data = os.lseek(fd, 0, os.SEEK_DATA)
            assert os.pread(fd, 3, 1 << 33) == b"far" and 0 <= data <= 1 << 33

    def test_fallocate_extends_and_punches_or_says_that_it_cannot(self, folder):
        with opened(folder / "f", os.O_RDWR | os.O_CREAT) as fd:
            os.write(fd, b"x" * 20_000)
            os.posix_fallocate(fd, 0, 50_000)
            assert os.fstat(fd).st_size == 50_000
            try:
                fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 4096, 8192)
            except OSError as e:
                assert e.errno == errno.EOPNOTSUPP
            else:
                assert os.pread(fd, 20_000, 0) == b"x" * 4096 + bytes(8192) + b"x" * (20_000 - 12_288)
            assert os.fstat(fd).st_size == 50_000

    @pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
    def test_synchronous_writes(self, folder, flag):
        with opened(folder / "f", os.O_WRONLY | os.O_CREAT | flag) as fd:
            assert [os.write(fd, b"k" * 1000) for _ in range(10)] == [1000] * 10
        assert (folder / "f").stat().st_size == 10_000

    def test_direct_io(self, folder):
        page = mmap.mmap(-1, 1 << 20)
        page.write(random.Random(1).randbytes(1 << 20))
        with opened(folder / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as fd:
            assert os.pwrite(fd, page, 0) == 1 << 20
            again = mmap.mmap(-1, 1 << 20)
            assert os.preadv(fd, [again], 0) == 1 << 20 and again[:] == page[:]
        assert (folder / "f").read_bytes() == page[:]

    def test_what_direct_io_wrote_the_page_cache_shows(self, folder):
        (folder / "f").write_bytes(b"o" * 8192)
        with opened(folder / "f", os.O_RDONLY) as reader, opened(folder / "f", os.O_RDWR | os.O_DIRECT) as writer:
            assert os.pread(reader, 8192, 0) == b"o" * 8192
            page = mmap.mmap(-1, 4096)
            page.write(b"n" * 4096)
            os.pwrite(writer, page, 4096)
            assert os.pread(reader, 8192, 0) == b"o" * 4096 + b"n" * 4096

    def test_copy_file_range_and_sendfile(self, folder):
        content = random.Random(2).randbytes(3_000_000)
        (folder / "from").write_bytes(content)
        with opened(folder / "from", os.O_RDONLY) as source, opened(folder / "to", os.O_RDWR | os.O_CREAT) as target:
            done = 0
            while done < len(content):
                done += os.copy_file_range(source, target, len(content) - done, done, done)
            assert os.pread(target, len(content), 0) == content
            os.lseek(target, 0, os.SEEK_END)
            assert os.sendfile(target, source, 100, 1000) == 1000
        assert (folder / "to").read_bytes() == content + content[100:1100]

    def test_many_threads_write_their_own_places(self, folder):
        with opened(folder / "f", os.O_RDWR | os.O_CREAT) as fd:
            def fill(k):
                for n in range(k, 512, 8):
                    os.pwrite(fd, bytes([n % 251]) * 4096, n * 4096)

            threads = [threading.Thread(target=fill, args=(k,)) for k in range(8)]
            [t.start() for t in threads], [t.join() for t in threads]
        assert (folder / "f").read_bytes() == b"".join(bytes([n % 251]) * 4096 for n in range(512))


class TestMapping:
    def test_a_shared_mapping_reads_what_is_in_the_file(self, folder):
        content = random.Random(3).randbytes(5_000_000)
        (folder / "f").write_bytes(content)
        with opened(folder / "f", os.O_RDONLY) as fd, mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
            assert view[:] == content

    def test_what_a_mapping_writes_is_in_the_file_after_msync(self, folder):
        with opened(folder / "f", os.O_RDWR | os.O_CREAT) as fd:
            os.ftruncate(fd, 1 << 20)
            with mmap.mmap(fd, 1 << 20) as view:
                view[5000:5005] = b"hello"
                view[-3:] = b"end"
                view.flush()
                with opened(folder / "f", os.O_RDONLY) as other:
                    assert os.pread(other, 5, 5000) == b"hello" and os.pread(other, 10, (1 << 20) - 3) == b"end"
                view[0:1] = b"!"
        assert (folder / "f").read_bytes()[:1] == b"!"

    def test_two_processes_share_a_mapping(self, folder):
        (folder / "f").write_bytes(bytes(8192))

        def scribble():
            with opened(folder / "f", os.O_RDWR) as fd, mmap.mmap(fd, 8192) as view:
                view[4096:4100] = b"mine"
                view.flush()

        with opened(folder / "f", os.O_RDWR) as fd, mmap.mmap(fd, 8192) as view:
            assert view[4096:4100] == bytes(4) and in_a_process(scribble) and view[4096:4100] == b"mine"

    def test_a_write_shows_in_a_mapping(self, folder):
        (folder / "f").write_bytes(b"a" * 8192)
        with opened(folder / "f", os.O_RDWR) as fd, mmap.mmap(fd, 8192) as view:
            assert view[10:11] == b"a"
            os.pwrite(fd, b"b", 10)
            assert view[9:12] == b"aba"

    def test_a_private_mapping_writes_nothing(self, folder):
        (folder / "f").write_bytes(b"a" * 4096)
        with opened(folder / "f", os.O_RDONLY) as fd, mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as view:
            view[0:1] = b"b"
        assert (folder / "f").read_bytes() == b"a" * 4096


class TestDescriptors:
    def test_an_unlinked_file_lives_until_it_is_closed(self, folder):
        with opened(folder / "f", os.O_RDWR | os.O_CREAT) as fd:
            os.write(fd, b"still")
            os.unlink(folder / "f")
            assert not (folder / "f").exists() and os.listdir(folder) == []
            os.write(fd, b" here")
            os.fsync(fd)
            assert os.pread(fd, 20, 0) == b"still here" and os.fstat(fd).st_nlink == 0
            (folder / "f").write_bytes(b"another")
            assert os.pread(fd, 20, 0) == b"still here"
        assert (folder / "f").read_bytes() == b"another"

    def test_a_file_renamed_over_lives_until_it_is_closed(self, folder):
        (folder / "old").write_bytes(b"old")
        (folder / "new").write_bytes(b"new")
        with opened(folder / "old", os.O_RDWR) as fd:
            os.rename(folder / "new", folder / "old")
            assert os.pread(fd, 10, 0) == b"old" and os.fstat(fd).st_nlink == 0
            os.pwrite(fd, b"written to nowhere", 0)
        assert (folder / "old").read_bytes() == b"new"

    def test_a_renamed_file_is_written_under_its_new_name(self, folder):
        with opened(folder / "a", os.O_RDWR | os.O_CREAT) as fd:
            os.write(fd, b"1")
            os.rename(folder / "a", folder / "b")
            os.write(fd, b"2")
        assert (folder / "b").read_bytes() == b"12" and not (folder / "a").exists()

    def test_every_close_of_a_duplicate_shows_what_was_written(self, folder):
        fd = os.open(folder / "f", os.O_RDWR | os.O_CREAT)
        again = os.dup(fd)
        os.write(fd, b"one")
        os.close(fd)
        assert (folder / "f").read_bytes() == b"one"
        os.write(again, b"two")
        os.close(again)
        assert (folder / "f").read_bytes() == b"onetwo"

    def test_a_forked_child_closes_without_harm(self, folder):
        with opened(folder / "f", os.O_RDWR | os.O_CREAT) as fd:
            os.write(fd, b"parent ")

            def child():
                os.write(fd, b"child ")
                os.close(fd)

            assert in_a_process(child)
            os.write(fd, b"parent")
        assert (folder / "f").read_bytes() == b"parent child parent"

    def test_truncating_while_others_have_it_open(self, folder):
        (folder / "f").write_bytes(b"x" * 100_000)
        with opened(folder / "f", os.O_RDWR) as fd:
            assert len(os.pread(fd, 100_000, 0)) == 100_000
            with opened(folder / "f", os.O_WRONLY | os.O_TRUNC):
                assert os.fstat(fd).st_size == 0 and os.pread(fd, 10, 0) == b""
            os.pwrite(fd, b"y", 2)
        assert (folder / "f").read_bytes() == b"\0\0y"

    def test_a_growing_file_is_followed_to_its_tail(self, folder):
        """The reader holds one descriptor and asks again and again, as `tail -f` does."""
        seen = b""
        with opened(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as writer, opened(folder / "log", os.O_RDONLY) as reader:
            for k in range(200):
                line = b"%06d\n" % k * random.Random(k).choice([1, 50, 3000])
                os.write(writer, line)
                seen += (new := os.read(reader, 1 << 20))
                assert new == line and os.fstat(reader).st_size == len(seen)
        assert (folder / "log").read_bytes() == seen


class TestNames:
    def test_rename_without_replacing(self, folder):
        (folder / "a").write_bytes(b"a")
        (folder / "b").write_bytes(b"b")
        with refused(errno.EEXIST):
            renameat2(folder / "a", folder / "b", NOREPLACE)
        renameat2(folder / "a", folder / "c", NOREPLACE)
        assert [(folder / n).read_bytes() for n in "bc"] == [b"b", b"a"]

    def test_rename_exchanges_files_and_directories(self, folder):
        (folder / "a").write_bytes(b"a")
        (folder / "d").mkdir()
        (folder / "d/inside").write_bytes(b"i")
        renameat2(folder / "a", folder / "d", EXCHANGE)
        assert (folder / "d").read_bytes() == b"a" and (folder / "a/inside").read_bytes() == b"i"
        with refused(errno.ENOENT):
            renameat2(folder / "a", folder / "none", EXCHANGE)

    def test_rename_moves_a_tree_at_once(self, folder):
        for k in range(50):
            (folder / f"tree/{k % 5}").mkdir(parents=True, exist_ok=True)
            (folder / f"tree/{k % 5}/{k}").write_bytes(b"%d" % k)
        with opened(folder / "tree/0/0", os.O_RDONLY) as fd:
            os.rename(folder / "tree", folder / "moved")
            assert os.read(fd, 9) == b"0"
        assert not (folder / "tree").exists()
        assert {(folder / f"moved/{k % 5}/{k}").read_bytes() for k in range(50)} == {b"%d" % k for k in range(50)}

    def test_ten_thousand_names_are_listed_once_each(self, folder):
        names = {f"name-{k:05}" for k in range(10_000)}
        create_all(folder / name for name in names)
        listed = os.listdir(folder)
        assert len(listed) == 10_000 and set(listed) == names
        assert {e.name for e in os.scandir(folder) if e.stat().st_size == 0} == names

    def test_a_listing_goes_on_while_names_come_and_go(self, folder):
        keep = {f"keep-{k}" for k in range(500)}
        for name in keep:
            (folder / name).touch()
        with os.scandir(folder) as entries:
            seen = [next(entries).name]
            for k in range(200):
                (folder / f"new-{k}").touch()
            for k in range(100):
                (folder / f"new-{k}").unlink()
            seen += [e.name for e in entries]
        assert len(seen) == len(set(seen)) and keep <= set(seen)

    def test_names_of_odd_bytes(self, folder):
        names = [bytes([b]) for b in range(1, 256) if b not in b"/."] + [b"\xff\xfe", "日本".encode(), b"a b", b"%41", b"new\nline", b"x" * 255, "é".encode(), "e\u0301".encode()]
        base = os.fsencode(folder)
        for name in names:
            with open(base + b"/" + name, "wb") as f:
                f.write(name)
        assert sorted(os.listdir(base)) == sorted(names)
        for name in names:
            with open(base + b"/" + name, "rb") as f:
                assert f.read() == name

    def test_names_and_paths_that_are_too_long(self, folder):
        with refused(errno.ENAMETOOLONG):
            os.mkdir(folder / ("x" * 256))
        with refused(errno.ENAMETOOLONG):
            os.stat(str(folder) + "/x" * 2100)
        assert os.pathconf(folder, "PC_NAME_MAX") == 255

    def test_deep_paths(self, folder):
        here = os.open(folder, os.O_RDONLY)
        for k in range(200):
            os.mkdir("deep-directory", dir_fd=here)
            above, here = here, os.open("deep-directory", os.O_RDONLY, dir_fd=here)
            os.close(above)
        with open(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here), "wb") as f:
            f.write(b"at the bottom")
        with open(os.open("f", os.O_RDONLY, dir_fd=here), "rb") as f:
            assert f.read() == b"at the bottom"
        os.close(here)
        subprocess.run(["rm", "-r", folder / "deep-directory"], check=True)

    def test_symbolic_links(self, folder):
        (folder / "d").mkdir()
        (folder / "d/f").write_bytes(b"there")
        os.symlink("d/f", folder / "relative")
        os.symlink(folder / "d", folder / "absolute")
        os.symlink("nowhere", folder / "dangling")
        os.symlink("loop", folder / "loop")
        os.symlink("x" * 4000, folder / "long")
        assert (folder / "relative").read_bytes() == (folder / "absolute/f").read_bytes() == b"there"
        assert os.readlink(folder / "long") == "x" * 4000 and (folder / "relative").lstat().st_size == 3
        assert stat.S_ISLNK((folder / "dangling").lstat().st_mode)
        (folder / "relative").write_bytes(b"through")
        assert (folder / "d/f").read_bytes() == b"through"
        for name, number in (("dangling", errno.ENOENT), ("loop", errno.ELOOP)):
            with refused(number):
                os.stat(folder / name)

    def test_hard_links_work_or_are_refused(self, folder):
        (folder / "f").write_bytes(b"f")
        try:
            os.link(folder / "f", folder / "g")
        except OSError as e:
            assert e.errno in (errno.EPERM, errno.EOPNOTSUPP) and not (folder / "g").exists()
        else:
            assert (folder / "f").stat().st_nlink == 2 and os.path.samefile(folder / "f", folder / "g")

    def test_temporary_files_without_a_name_work_or_are_refused(self, folder):
        try:
            fd = os.open(folder, os.O_TMPFILE | os.O_RDWR)
        except OSError as e:
            assert e.errno == errno.EOPNOTSUPP
        else:
            os.write(fd, b"x")
            os.close(fd)
        assert os.listdir(folder) == []

    def test_directories_count_their_directories_and_stay_the_same_inode(self, folder):
        (folder / "d").mkdir()
        before = (folder / "d").stat()
        os.rename(folder / "d", folder / "e")
        assert (folder / "e").stat().st_ino == before.st_ino and before.st_nlink in (1, 2)
        (folder / "f").write_bytes(b"1")
        inode = (folder / "f").stat().st_ino
        with open(folder / "f", "ab") as f:
            f.write(b"2")
        assert (folder / "f").stat().st_ino == inode
        assert {e.name: e.inode() for e in os.scandir(folder)} == {"e": before.st_ino, "f": inode}


class TestAttributes:
    def test_modes_owners_and_times_are_kept(self, folder):
        path = folder / "f"
        path.write_bytes(b"x")
        os.chmod(path, 0o6751)
        assert stat.S_IMODE(path.stat().st_mode) == 0o6751
        os.chown(path, 1234, 5678)
        assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (1234, 5678, 0o751), "chown clears setuid and setgid"
        os.utime(path, ns=(1_000_000_000_123_456_000, 4_000_000_000_987_654_000))  # Microseconds are kept.
        assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (1_000_000_000_123_456_000, 4_000_000_000_987_654_000)
        os.symlink("f", folder / "l")
        os.chown(folder / "l", 1, 2, follow_symlinks=False)
        os.utime(folder / "l", ns=(5000, 6000), follow_symlinks=False)
        link = os.lstat(folder / "l")
        assert (link.st_uid, link.st_gid, link.st_mtime_ns) == (1, 2, 6000) and path.stat().st_uid == 1234

    def test_writing_moves_mtime_and_clears_setuid(self, folder):
        path = folder / "f"
        path.write_bytes(b"x")
        os.chmod(path, 0o4777)
        os.utime(path, ns=(5, 5))

        def write():
            with opened(path, os.O_WRONLY) as fd:
                os.write(fd, b"y")

        assert as_user(65534, write)
        assert path.stat().st_mtime_ns > 5 and not path.stat().st_mode & stat.S_ISUID

    def test_times_set_while_open_survive_the_close(self, folder):
        with opened(folder / "f", os.O_WRONLY | os.O_CREAT) as fd:
            os.write(fd, b"copied by cp -p")
            os.utime(fd, ns=(1_000_000_000, 2_000_000_000))
        assert (folder / "f").stat().st_mtime_ns == 2_000_000_000

    def test_permissions_hold_for_other_users(self, folder):
        (folder / "private").mkdir(mode=0o700)
        (folder / "private/f").write_bytes(b"x")
        (folder / "sticky").mkdir()
        os.chmod(folder / "sticky", 0o1777)
        (folder / "sticky/mine").write_bytes(b"x")
        (folder / "readable").write_bytes(b"x")
        assert not as_user(65534, (folder / "private/f").read_bytes)
        assert not as_user(65534, (folder / "sticky/mine").unlink)
        assert as_user(65534, (folder / "readable").read_bytes)
        assert not as_user(65534, (folder / "readable").write_bytes, b"y")
        assert as_user(65534, (folder / "sticky/theirs").write_bytes, b"z") and (folder / "sticky/theirs").stat().st_uid == 65534

    def test_files_in_a_setgid_directory_take_its_group(self, folder):
        (folder / "d").mkdir()
        os.chown(folder / "d", 0, 4242)
        os.chmod(folder / "d", 0o2775)
        (folder / "d/f").touch()
        (folder / "d/e").mkdir()
        assert (folder / "d/f").stat().st_gid == (folder / "d/e").stat().st_gid == 4242 and (folder / "d/e").stat().st_mode & stat.S_ISGID

    def test_extended_attributes(self, folder):
        path = folder / "f"
        path.touch()
        os.setxattr(path, "user.a", b"1")
        os.setxattr(path, "user.b", bytes(range(256)) * 4)
        assert os.getxattr(path, "user.a") == b"1" and os.getxattr(path, "user.b") == bytes(range(256)) * 4
        assert {"user.a", "user.b"} <= set(os.listxattr(path))
        with refused(errno.EEXIST):
            os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)
        with refused(errno.ENODATA):
            os.setxattr(path, "user.c", b"2", os.XATTR_REPLACE)
        os.removexattr(path, "user.a")
        for call in (os.getxattr, os.removexattr):
            with refused(errno.ENODATA):
                call(path, "user.a")
        os.rename(path, folder / "g")
        assert os.getxattr(folder / "g", "user.b")[:3] == b"\0\1\2"

    def test_statfs_tells_the_room(self, folder):
        before = os.statvfs(folder)
        assert before.f_blocks >= before.f_bavail > 0 and before.f_bsize >= 512 and before.f_namemax == 255 and before.f_files > 0

    def test_sizes_in_blocks(self, folder):
        (folder / "f").write_bytes(bytes(100) + b"x" * 999_900)
        with opened(folder / "f", os.O_RDONLY) as fd:
            os.fsync(fd)
        assert 990_000 <= (folder / "f").stat().st_blocks * 512 <= 1_300_000 and (folder / "f").stat().st_blksize >= 512


class TestLocks:
    @pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf])
    def test_a_lock_keeps_another_process_out(self, folder, lock):
        (folder / "f").write_bytes(b"x")

        def try_it():
            with opened(folder / "f", os.O_RDWR) as fd:
                lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

        with opened(folder / "f", os.O_RDWR) as fd:
            lock(fd, fcntl.LOCK_EX)
            assert not in_a_process(try_it)
            lock(fd, fcntl.LOCK_UN)
            assert in_a_process(try_it)
            lock(fd, fcntl.LOCK_SH)
            assert not in_a_process(try_it)

    def test_ranges_are_locked_apart(self, folder):
        (folder / "f").write_bytes(bytes(100))

        def lock(start):
            with opened(folder / "f", os.O_RDWR) as fd:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, start)

        with opened(folder / "f", os.O_RDWR) as fd:
            fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
            assert in_a_process(lock, 10) and not in_a_process(lock, 5)

    def test_a_lock_goes_with_its_process(self, folder):
        (folder / "f").touch()
        holder = subprocess.Popen([sys.executable, "-c", "import fcntl,sys,time\nf=open(sys.argv[1],'r+')\nfcntl.flock(f,2)\nprint(flush=True)\ntime.sleep(60)", folder / "f"], stdout=subprocess.PIPE)
        holder.stdout.readline()
        with opened(folder / "f", os.O_RDWR) as fd:
            with refused(errno.EAGAIN):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_waiting_lock_is_granted(self, folder):
        (folder / "f").touch()
        with opened(folder / "f", os.O_RDWR) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)
            waiter = subprocess.Popen([sys.executable, "-c", "import fcntl,sys\nfcntl.flock(open(sys.argv[1],'r+'),2)", folder / "f"])
            time.sleep(0.3)
            assert waiter.poll() is None
            fcntl.flock(fd, fcntl.LOCK_UN)
            assert waiter.wait(10) == 0



def on_descriptor(path, call, *arguments):
    with opened(path, os.O_RDONLY) as fd:
        return call(fd, *arguments)


ERRORS = [  # what is tried in a folder with a file `file`, an empty directory `empty` and a directory `full` with a file `x`
    (errno.ENOENT, lambda f: os.stat(f / "none")),
    (errno.ENOENT, lambda f: os.open(f / "none/f", os.O_CREAT)),
    (errno.ENOENT, lambda f: os.rename(f / "none", f / "x")),
    (errno.ENOENT, lambda f: os.rename(f / "file", f / "none/x")),
    (errno.ENOENT, lambda f: os.stat("")),
    (errno.ENOTDIR, lambda f: os.stat(f / "file/x")),
    (errno.ENOTDIR, lambda f: os.rmdir(f / "file")),
    (errno.ENOTDIR, lambda f: os.listdir(f / "file")),
    (errno.ENOTDIR, lambda f: os.open(f / "file", os.O_DIRECTORY)),
    (errno.ENOTDIR, lambda f: os.rename(f / "empty", f / "file")),
    (errno.EISDIR, lambda f: os.open(f / "empty", os.O_WRONLY)),
    (errno.EISDIR, lambda f: os.rename(f / "file", f / "empty")),
    (errno.EISDIR, lambda f: os.unlink(f / "empty")),
    (errno.EISDIR, lambda f: os.truncate(f / "empty", 0)),
    (errno.EISDIR, lambda f: on_descriptor(f / "empty", os.read, 1)),
    (errno.EEXIST, lambda f: os.mkdir(f / "empty")),
    (errno.EEXIST, lambda f: os.mkdir(f / "file")),
    (errno.EEXIST, lambda f: os.symlink("x", f / "file")),
    (errno.ENOTEMPTY, lambda f: os.rmdir(f / "full")),
    (errno.ENOTEMPTY, lambda f: os.rename(f / "empty", f / "full")),
    (errno.EINVAL, lambda f: os.rename(f / "full", f / "full/inside")),
    (errno.EINVAL, lambda f: os.rmdir(f"{f}/empty/.")),
    (errno.EINVAL, lambda f: os.truncate(f / "file", -1)),
    (errno.EINVAL, lambda f: os.readlink(f / "file")),
    (errno.EINVAL, lambda f: renameat2(f / "file", f / "full", 64)),
    (errno.EXDEV, lambda f: os.rename(f / "file", "/dev/shm/file-of-the-mount")),
    (errno.EXDEV, lambda f: os.link(f / "file", "/dev/shm/file-of-the-mount")),
    (errno.EFBIG, lambda f: os.truncate(f / "file", (1 << 63) - 1)),
    (errno.EOPNOTSUPP, lambda f: os.setxattr(f / "file", "nonsense.name", b"x")),
    (errno.ENOTTY, lambda f: on_descriptor(f / "file", fcntl.ioctl, 0x5401, bytes(64))),
]


@pytest.mark.parametrize(("number", "attempt"), ERRORS, ids=[f"{errno.errorcode[n]}-{k}" for k, (n, _) in enumerate(ERRORS)])
def test_what_cannot_be_has_its_errno(folder, number, attempt):
    (folder / "file").write_bytes(b"x")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full/x").touch()
    with refused(number):
        attempt(folder)
    assert sorted(os.listdir(folder)) == ["empty", "file", "full"] and (folder / "file").read_bytes() == b"x"

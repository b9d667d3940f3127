"""What others do to the files of the under-store while programs have them open here, and what a close is worth where policies want the
under-store to have it."""

import contextlib
import errno
import os
import time

import pytest

from tests.mount.mounted import mounted, only_forebay, wait_until

pytestmark = only_forebay
# In memory, and in a segment of its own.
SIZES = [100, 3 << 20]


@pytest.fixture(scope="module")
def served(root):
    with mounted() as mount:
        yield mount


def replace(mount, name, content, inplace):
    """As another program of the store does."""
    if inplace:
        (mount.lake / name).write_bytes(content)
    else:
        (mount.lake / f"{name}.new").write_bytes(content)
        os.rename(mount.lake / f"{name}.new", mount.lake / name)


def ending(fd):
    """What fsync and close say."""
    said = []
    for end in (os.fsync, os.close):
        try:
            end(fd)
            said.append(0)
        except OSError as error:
            said.append(error.errno)
    return said


@pytest.mark.parametrize("inplace", [True, False], ids=["in place", "by rename"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("whose", ["theirs", "evicted", "ours"])
def test_a_write_over_what_was_changed_outside_says_so_and_leaves_it(mount, client, whose, size, inplace):
    name = f"w-{whose}-{size}-{inplace}"
    if whose == "theirs":
        (mount.lake / name).write_bytes(b"0" * size)
    else:
        (mount.folder / name).write_bytes(b"0" * size)
        client.act("persist", path=f"/{name}", wait=True)
    if whose == "evicted":
        client.act("free", path=f"/{name}")
    fd = os.open(mount.folder / name, os.O_RDWR)
    os.pwrite(fd, b"mine", 0)
    outside = b"OUT" * (size // 3 + 20)
    replace(mount, name, outside, inplace)
    time.sleep(1.2)  # What is known of the store is believed for a second.
    said = ending(fd)
    told = lambda: [c["path"] for c in client.act("status")[0]["conflicts"]]
    if said == [0, 0]:
        wait_until(lambda: f"/{name}" in told(), "a conflict")
        client.act("persist_resolve", path=f"/{name}", how="keep-theirs")
    else:
        assert errno.ESTALE in said
    time.sleep(0.5)
    assert (mount.lake / name).read_bytes() == outside
    wait_until(lambda: (mount.folder / name).read_bytes() == outside, "what is in the store shows")


@pytest.mark.parametrize("inplace", [True, False], ids=["in place", "by rename"])
@pytest.mark.parametrize("read", [True, False], ids=["read", "not read"])
@pytest.mark.parametrize("size", SIZES)
def test_a_file_that_is_open_does_not_keep_others_from_what_is_in_the_store_now(mount, size, read, inplace):
    name = f"r-{size}-{read}-{inplace}"
    old, new = b"a" * size, b"b" * (size + 7)
    (mount.lake / name).write_bytes(old)
    fd = os.open(mount.folder / name, os.O_RDONLY)
    if read:
        assert os.pread(fd, size, 0) == old
    replace(mount, name, new, inplace)
    wait_until(lambda: (mount.folder / name).stat().st_size == size + 7, "its size", 5)
    assert (mount.folder / name).read_bytes() == new
    with open(mount.folder / name, "ab") as file:
        file.write(b"x")
    assert (mount.folder / name).read_bytes() == new + b"x"
    if read:
        assert os.pread(fd, size, 0) == old  # Whoever has it open goes on with what he has.
    os.close(fd)
    wait_until(lambda: (mount.lake / name).read_bytes() == new + b"x", "it has arrived")


@pytest.mark.parametrize("policy", [{"write": "through"}, {"write": "around"}, {"ack": "persisted"}], ids=lambda p: "-".join(p.values()))
def test_where_the_store_is_to_have_it_close_and_fsync_wait_until_it_has(mount, client, policy):
    name = "-".join(policy.values())
    (mount.folder / name).mkdir()
    client.act("policy_set", path=f"/{name}", **policy)
    folder, lake = mount.folder / name, mount.lake / name
    for k, size in enumerate(SIZES * 4):
        content = bytes([k]) * size
        (folder / f"closed{k}").write_bytes(content)
        assert (lake / f"closed{k}").read_bytes() == content
        with open(folder / f"synced{k}", "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            assert (lake / f"synced{k}").read_bytes() == content
            file.write(b"more")
        assert (lake / f"synced{k}").read_bytes() == content + b"more"
        client.act("truncate", path=f"/{name}/closed{k}", size=10)
        assert (lake / f"closed{k}").read_bytes() == content[:10]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_opened_to_be_written_anew_stays_until_it_is(mount, client, size):
    name, old = f"t-{size}", b"o" * size
    (mount.folder / name).write_bytes(old)
    client.act("persist", path=f"/{name}", wait=True)
    fd = os.open(mount.folder / name, os.O_WRONLY | os.O_TRUNC)
    assert (mount.folder / name).stat().st_size == 0
    os.write(fd, b"new")
    time.sleep(0.5)
    assert client.file(f"/{name}") == old and (mount.lake / name).read_bytes() == old
    os.close(fd)
    assert client.file(f"/{name}") == b"new"
    wait_until(lambda: (mount.lake / name).read_bytes() == b"new", "it has arrived")
    os.close(os.open(mount.folder / name, os.O_WRONLY | os.O_TRUNC))
    assert client.file(f"/{name}") == b""
    os.truncate(mount.folder / name, 5)
    assert client.file(f"/{name}") == bytes(5)


@pytest.mark.parametrize("size", SIZES)
def test_a_kill_within_a_rewrite_leaves_what_was_closed(root, size):
    with mounted() as mount:
        old = b"o" * size
        (mount.folder / "f").write_bytes(old)
        fd = os.open(mount.folder / "f", os.O_WRONLY | os.O_TRUNC)
        os.write(fd, b"new")
        assert (mount.folder / "f").stat().st_size == 3  # The kill hits the rewrite.
        mount.kill()
        with contextlib.suppress(OSError):
            os.close(fd)
        mount.start()
        assert (mount.folder / "f").read_bytes() == old

"""A file system for fsspec: `forebay://host:port/path` in pandas, Polars, DuckDB, Dask, Hugging Face datasets and whatever opens fsspec.

Paths are as everywhere in Forebay: UTF-8 text in which a literal `%` is written `%25` and a byte that is no UTF-8 as `%XX`. Nothing is
cached: names and sizes are the server's, now. A file is visible whole when it is closed, also in a transaction; left by an exception it is
given up.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.utils import stringify_path

from .address import Address
from .client import connect
from .errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotADirectory, NotEmpty, NotFound
from .files import FileReader, FileWriter, open_file, reason, text_stream

_KINDS = {"file": "file", "dir": "directory", "symlink": "link"}
_PARALLEL = 8
_BUFFER_BYTES = 256 << 10


class ForebayFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files of a Forebay server.

    Args:
        host: of the server; None: that of `FOREBAY_ADDR`, else 127.0.0.1. URLs tell it.
        port: its Flight port; None: 47470. URLs tell it.
        token: bearer token; None: `FOREBAY_TOKEN`, or the content of the file that `FOREBAY_TOKEN_FILE` names.
        tls: speaks TLS; so does `forebay+tls://`, and a `tls_…` option.
        ack: level at which files are written; None: the server's default.
        storage_options: `tls_ca`, `tls_cert`, `tls_key`, `tls_domain`, `tls_insecure`, `timeout`, `retry_for` as for `forebay.connect`; and
            what fsspec takes.

    Raises:
        forebay.ForebayError: each of its kinds is also the built-in exception that file systems raise: `FileNotFoundError`,
            `FileExistsError`, `NotADirectoryError`, `IsADirectoryError`, `PermissionError` and so on; a directory that is not empty is an
            `OSError` with `ENOTEMPTY`.
    """

    protocol = ("forebay", "forebay+tls")
    root_marker = "/"
    blocksize = 4 << 20

    def __init__(
        self,
        host: str | None = None,
        port: int | str | None = None,
        token: str | None = None,
        tls: bool = False,
        ack: str | None = None,
        **storage_options: Any,
    ) -> None:
        how = {k: storage_options.pop(k) for k in _CONNECT if k in storage_options}
        super().__init__(**storage_options)
        tls = tls or any(k.startswith("tls_") for k in how)
        url = f"grpc{'+tls' if tls else ''}://{_bracketed(host)}{f':{port}' if port else ''}" if host else None
        self.ack, self.client = ack, connect(url, token=token, **how)

    # ---- URLs

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        path = stringify_path(path)
        if "://" in path and path.partition("://")[0] in cls.protocol:
            path = "/" + path.partition("://")[2].partition("/")[2]
        return "/" + path.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        scheme, separator, rest = path.partition("://")
        if not separator or not rest.partition("/")[0]:
            return {}
        address = Address.parse(f"{scheme}://{rest.partition('/')[0]}")
        host, _, port = address.uri.partition("://")[2].rpartition(":")
        return {"host": host.strip("[]"), "port": int(port)} | ({"tls": True} if address.tls else {})

    def unstrip_protocol(self, name: str) -> str:
        address = self.client.connection.address
        scheme = "forebay+tls" if address.tls else "forebay"
        return f"{scheme}://{address.uri.partition('://')[2]}{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        return f"forebay-{self.client.connection.address.uri}"

    # ---- names

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return _entry(self.client.stat(self._strip_protocol(path)))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        entry = self.client.stat(path)
        found = [_entry(e) for e in self.client.list(path)] if entry["kind"] == "dir" else [_entry(entry)]
        return found if detail else [each["name"] for each in found]

    def find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any) -> Any:
        """All files under `path`; one listing goes down the whole tree."""
        path = self._strip_protocol(path)
        found = {}
        for entry in self._under(path):
            depth = entry["name"][len(path.rstrip("/")) :].count("/")
            is_wanted = withdirs or entry["type"] != "directory"
            if is_wanted and (maxdepth is None or depth <= maxdepth):
                found[entry["name"]] = entry
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _under(self, path: str) -> Iterator[dict[str, Any]]:
        """What is at `path`, and under it."""
        try:
            entry = _entry(self.client.stat(path))
        except (NotFound, NotADirectory):
            return
        yield entry
        if entry["type"] == "directory":
            yield from map(_entry, self.client.list(path, recursive=True))

    def exists(self, path: str, **_: Any) -> bool:
        return self.client.exists(self._strip_protocol(path))

    def created(self, path: str) -> datetime:
        raise NotImplementedError("a server knows when a file was changed, not when it was made; ask modified()")

    def modified(self, path: str) -> datetime:
        mtime: datetime = self.info(path)["mtime"]
        return mtime

    def ukey(self, path: str) -> str:
        """Changes with the content."""
        entry = self.info(path)
        return entry["etag"] or f"{entry['mtime'].isoformat()}-{entry['size']}"

    def checksum(self, path: str) -> int:
        return int.from_bytes(self.ukey(path).encode(), "big")

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        path = self._strip_protocol(path)
        if create_parents and (parent := self._parent(path)) != path:
            try:
                self._make(parent, parents=True)
            except AlreadyExists as error:
                raise NotADirectory(str(error)) from None
        self._make(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = self._strip_protocol(path)
        if exist_ok:
            self._make(path, parents=True)
        else:
            self.mkdir(path)

    def _make(self, path: str, **how: bool) -> None:
        try:
            self.client.act("mkdir", path=path, **how)
        except (FailedPrecondition, AlreadyExists) as error:
            # A file is there, or above it.
            raise (AlreadyExists if self.exists(path) else NotADirectory)(str(error)) from None

    def rmdir(self, path: str) -> None:
        path = self._strip_protocol(path)
        if not self.isdir(path):
            raise NotADirectoryError(f"{path} is no directory")
        try:
            self.client.act("delete", path=path)
        except FailedPrecondition as error:
            if next(iter(self.client.list(path, page=1)), None) is None:
                raise
            raise NotEmpty(str(error)) from None

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        if self.isdir(path):
            raise IsADirectoryError(f"{path} is a directory; remove it with recursive=True, or by rmdir")
        self.client.act("delete", path=path)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Removes files; with `recursive` a whole directory in one step."""
        for each in [path] if isinstance(path, (str, os.PathLike)) else path:
            for name in self._chosen(each, recursive, maxdepth):
                if recursive and maxdepth is None:
                    self._delete_tree(name)
                elif self.isdir(name):
                    self._remove_if_empty(name)
                else:
                    self.rm_file(name)

    def _chosen(self, path: Any, recursive: bool, maxdepth: int | None) -> list[str]:
        """What `rm` takes away, children first; whole trees as one."""
        if recursive and maxdepth is None:
            chosen: list[str] = self.expand_path(path)
            if not any(map(self.exists, chosen)):
                raise FileNotFoundError(path)
            return chosen
        found = self.expand_path(path, recursive=recursive, maxdepth=maxdepth)
        if not recursive and (folder := next(filter(self.isdir, found), None)):
            raise IsADirectoryError(f"{folder} is a directory; remove it with recursive=True, or by rmdir")
        return sorted(found, reverse=True)

    def _delete_tree(self, path: str) -> None:
        try:
            self.client.act("delete", path=path, recursive=True)
        except NotFound:
            pass  # it went with a tree above it

    def _remove_if_empty(self, path: str) -> None:
        try:
            self.client.act("delete", path=path)
        except FailedPrecondition:
            pass  # what lies deeper than maxdepth stays

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any) -> None:
        """Renames: one step at the server, however much lies under a directory. Globs and lists are moved name by name."""
        is_one = isinstance(path1, (str, os.PathLike)) and isinstance(path2, (str, os.PathLike)) and maxdepth is None
        if not is_one or any(c in os.fspath(path1) for c in "*?["):
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if source == target:
            return
        if self.isdir(source) and not recursive:
            raise IsADirectoryError(f"{source} is a directory; move it with recursive=True")
        if os.fspath(path2).endswith("/") or self.isdir(target):
            target = f"{target.rstrip('/')}/{source.rpartition('/')[2]}"
        self.client.act("rename", **{"from": source, "to": target}, replace=True, parents=True)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copies through this process, in bounded memory."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(source):
            self.client.act("mkdir", path=target, parents=True)
            return
        with self.open(source, "rb") as read, self.open(target, "wb") as write:
            while piece := read.read(self.blocksize):
                write.write(piece)

    # ---- bytes

    def open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        """As fsspec says; text that is written is given up by an exception, too."""
        if "b" in mode or "r" in mode or kwargs.get("compression"):
            return super().open(path, mode, block_size=block_size, **kwargs)
        text: dict[str, Any] = {k: kwargs.pop(k) for k in ("encoding", "errors", "newline") if k in kwargs}
        return text_stream(super().open(path, mode.replace("t", "") + "b", block_size=block_size, **kwargs), text)

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, autocommit: bool = True, cache_options: Any = None, **kwargs: Any
    ) -> ReadFile | FileWriter:
        path = self._strip_protocol(path)
        if "x" in mode and self.exists(path):
            raise AlreadyExists(f"{path} exists already")
        raw = open_file(self.client.connection, path, mode, self.client.stat, ack=kwargs.get("ack", self.ack), autocommit=autocommit)
        return ReadFile(self, raw, block_size) if isinstance(raw, FileReader) else raw

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        if (start or 0) < 0 or (end or 0) < 0:
            size = self.size(path)
            start, end = (at if at is None or at >= 0 else max(0, size + at) for at in (start, end))
        offset = start or 0
        try:
            return self.client.read_bytes(path, offset, None if end is None else max(0, end - offset))
        except (FailedPrecondition, InvalidArgument) as error:
            raise reason(error, path, self.client.stat) from None

    def cat_ranges(self, paths: Any, starts: Any, ends: Any, max_gap: int | None = None, on_error: str = "return", **_: Any) -> list[Any]:
        """Ranges of files, several at once. `max_gap` is not needed: ranges are asked for as they are."""
        if not isinstance(paths, list):
            raise TypeError("paths is a list")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(starts) == len(ends) == len(paths):
            raise ValueError("there is not one start and one end for each path")
        return _at_once(self.cat_file, list(zip(paths, starts, ends, strict=True)), on_error == "return")

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """Contents of files, several at once."""
        paths = [each for each in self.expand_path(path, recursive=recursive) if not (recursive and self.isdir(each))]
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0], **kwargs)
        contents = _at_once(self.cat_file, [(each,) for each in paths], on_error != "raise")
        found = dict(zip(paths, contents, strict=True))
        return {k: v for k, v in found.items() if not (on_error == "omit" and isinstance(v, Exception))}

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        with self._open(self._strip_protocol(path), "xb" if mode == "create" else "wb", autocommit=not self._intrans, **kwargs) as file:
            if self._intrans:
                self.transaction.files.append(file)
            file.write(value)

    def truncate(self, path: str, size: int) -> None:
        """Cuts a file to `size` bytes, or extends it with zeros."""
        self.client.act("truncate", path=self._strip_protocol(path), size=size)


class ReadFile(io.BufferedReader):
    """A file that is read, with what fsspec's users expect of one: `size`, `path`, `fs`, `mode`, `details`."""

    def __init__(self, fs: ForebayFileSystem, raw: FileReader, block_size: int | None) -> None:
        super().__init__(raw, int(block_size or _BUFFER_BYTES))
        self.fs, self.path, self.size, self.blocksize = fs, raw.path, raw.size, int(block_size or _BUFFER_BYTES)

    mode = "rb"

    @property
    def details(self) -> dict[str, Any]:
        return self.fs.info(self.path)

    @property
    def full_name(self) -> str:
        return self.fs.unstrip_protocol(self.path)

    def info(self) -> dict[str, Any]:
        return self.details

    def __reduce__(self) -> Any:
        return _open_again, (self.fs, self.path, self.blocksize, self.tell())


def _open_again(fs: ForebayFileSystem, path: str, block_size: int, at: int) -> ReadFile:
    file: ReadFile = fs.open(path, "rb", block_size=block_size)
    file.seek(at)
    return file


_CONNECT = ("tls_ca", "tls_cert", "tls_key", "tls_domain", "tls_insecure", "timeout", "retry_for")


def _entry(stat: dict[str, Any]) -> dict[str, Any]:
    """An entry as fsspec has them."""
    extra = {k: stat.get(k) for k in ("mode", "state", "etag", "version")}
    kind = _KINDS.get(stat["kind"], "other")
    return {"name": stat["path"], "size": stat["size"], "type": kind, "mtime": datetime.fromisoformat(stat["mtime"]), **extra}


def _at_once(work: Any, arguments: list[tuple[Any, ...]], keep_errors: bool) -> list[Any]:
    def one(args: tuple[Any, ...]) -> Any:
        try:
            return work(*args)
        except Exception as error:
            if keep_errors:
                return error
            raise

    if len(arguments) < 2:
        return [one(args) for args in arguments]
    with ThreadPoolExecutor(min(_PARALLEL, len(arguments)), "forebay-cat") as pool:
        return list(pool.map(one, arguments))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

"""Where a server is and how to speak to it: URLs, the environment, credentials. Opens no connection."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from .errors import InvalidArgument

DEFAULT_PORT = 47470
DEFAULT_ADDRESS = f"grpc://127.0.0.1:{DEFAULT_PORT}"
_PLAIN = ("grpc", "grpc+tcp", "http", "forebay")
_TLS = ("grpc+tls", "https", "forebay+tls")


@dataclass(frozen=True)
class Options:
    """How to speak to a server. Also what fsspec's `storage_options` and the datasets' keywords are.

    Attributes:
        token: bearer token; left out, `FOREBAY_TOKEN`, or the content of the file that `FOREBAY_TOKEN_FILE` names.
        tls_ca: authorities that sign the server's certificate, as PEM or the name of a PEM file; left out, `FOREBAY_CA`, or the system's.
        tls_cert: our own certificate where the server asks for one, as PEM or a file name.
        tls_key: its private key, as PEM or a file name.
        tls_domain: the name in the server's certificate, where it is not the URL's host.
        tls_insecure: takes any certificate. For experiments only.
        timeout: seconds that one short call may take (actions, info); None: as long as it takes.
        retry_for: seconds for which a call that is safe to repeat is repeated while the server is away; 0: not at all.
    """

    token: str | None = field(default=None, repr=False)
    tls_ca: str | bytes | None = field(default=None, repr=False)
    tls_cert: str | bytes | None = field(default=None, repr=False)
    tls_key: str | bytes | None = field(default=None, repr=False)
    tls_domain: str | None = None
    tls_insecure: bool = False
    timeout: float | None = None
    retry_for: float = 30.0

    def with_environment(self) -> Options:
        """The same, with what was left out taken from the environment."""
        return replace(
            self,
            token=self.token or _token_of_environment(),
            tls_ca=self.tls_ca or os.environ.get("FOREBAY_CA") or None,
        )


@dataclass(frozen=True)
class Address:
    """What gRPC connects to: `grpc+tcp://host:port`, `grpc+tls://host:port` or `grpc+unix:///path`."""

    uri: str

    @property
    def tls(self) -> bool:
        return self.uri.startswith("grpc+tls:")

    @property
    def unix(self) -> bool:
        return self.uri.startswith("grpc+unix:")

    @classmethod
    def parse(cls, url: str | None) -> Address:
        """From a URL; its path is ignored. None, or one without a host: `FOREBAY_ADDR`, else the loopback port.

        Raises:
            InvalidArgument: it is no address.
        """
        url = url or os.environ.get("FOREBAY_ADDR") or DEFAULT_ADDRESS
        scheme, _, rest = url.partition("://") if "://" in url else ("grpc", "", url)
        if scheme in ("grpc+unix", "unix"):
            return cls(f"grpc+unix://{rest}")
        authority = rest.partition("/")[0]
        if scheme not in _PLAIN + _TLS or (not authority and scheme not in ("forebay", "forebay+tls")):
            raise InvalidArgument(f"{url!r} is no address; write it like grpc://127.0.0.1:{DEFAULT_PORT} or grpc+tls://host:port")
        if not authority:
            return cls.parse(None)
        return cls(f"grpc+{'tls' if scheme in _TLS else 'tcp'}://{_host_and_port(url, authority)}")


def split_url(url: str) -> tuple[str | None, str]:
    """The server's part and the path of `forebay://host:port/path`; a bare path has no server's part.

    Raises:
        InvalidArgument: there is no path.
    """
    if "://" not in url:
        server, path = None, url
    else:
        scheme, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        server, path = f"{scheme}://{authority}" if authority else None, slash + path
    if not path.startswith("/"):
        raise InvalidArgument(f"{url!r} has no path; write it like forebay://127.0.0.1:{DEFAULT_PORT}/features/day=1")
    return server, path


def pem(value: str | bytes | None) -> bytes | None:
    """The PEM that `value` is, or that the file has which it names."""
    if value is None or isinstance(value, bytes):
        return value
    return value.encode() if "-----BEGIN" in value else Path(value).read_bytes()


def _host_and_port(url: str, authority: str) -> str:
    try:
        parts = urlsplit(f"//{authority}")
        host, port = parts.hostname, parts.port
    except ValueError as wrong:
        raise InvalidArgument(f"{url!r} is no address: {wrong}") from None
    if not host or parts.username is not None:
        raise InvalidArgument(f"{url!r} is no address; it is host:port, and a token is given beside it")
    return f"{f'[{host}]' if ':' in host else host}:{port or DEFAULT_PORT}"


def _token_of_environment() -> str | None:
    if token := os.environ.get("FOREBAY_TOKEN"):
        return token.strip()
    file = os.environ.get("FOREBAY_TOKEN_FILE")
    return Path(file).read_text().strip() if file else None

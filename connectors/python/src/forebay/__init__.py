"""Forebay from Python: put, read and follow datasets over Arrow Flight, files as streams.

>>> import forebay, pyarrow as pa
>>> client = forebay.connect("grpc://127.0.0.1:47470")              # doctest: +SKIP
>>> client.put("/features/day=1", pa.table({"id": range(1000)}))    # doctest: +SKIP
1
>>> for batch in client.follow("/features/day=1"):                  # doctest: +SKIP
...     train(batch)

`forebay.torch` has datasets for PyTorch, `forebay.fs` a file system for fsspec (`forebay://host:port/path`), `forebay.timeline` a plot of
what a server has to persist. This module imports nothing but pyarrow.
"""

from .client import Client, connect
from .errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    ForebayError,
    Internal,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from .files import FileReader, FileWriter
from .following import Follow
from .reading import Scan
from .sessions import Session

__version__ = "0.1.0"
__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FileReader",
    "FileWriter",
    "Follow",
    "ForebayError",
    "Internal",
    "InvalidArgument",
    "IsADirectory",
    "NotADirectory",
    "NotEmpty",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Scan",
    "Session",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "connect",
]

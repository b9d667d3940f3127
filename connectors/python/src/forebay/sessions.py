"""Sessions: parts staged by many puts, published as one version."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .commands import Task, task
from .errors import DeadlineExceeded, ForebayError, Unavailable

if TYPE_CHECKING:
    from .client import Client

log = logging.getLogger("forebay")


def publish(
    client: Client,
    sessions: Sequence[Session],
    tasks: Mapping[str, Sequence[Task]],
    success_file: bool | None,
) -> list[int]:
    """Publishes all of them at one instant; `tasks` by the ids of sessions."""
    named: list[dict[str, Any]] = []
    for each in sessions:
        member: dict[str, Any] = {"session": each.id}
        if each.id in tasks:
            member["tasks"] = [task(attempt) for attempt in tasks[each.id]]
        named.append(member)
    first, *others = named
    body = first | {"success_file": any(each._success_file for each in sessions) if success_file is None else success_file}
    if others:
        body["with"] = others
    try:
        [answer] = client.act("publish", **body)
    except (Unavailable, DeadlineExceeded):
        # They may well have been published: aborting them now could undo that. Their timeouts end them if not.
        for each in sessions:
            each._open = False
        raise
    versions = [int(made["version"]) for made in answer["versions"]] if others else [int(answer["version"])]
    for each, version in zip(sessions, versions, strict=True):
        each._open, each.version = False, version
    return versions


class Session:
    """An open session; made by `Client.session`. As a context manager it publishes at the end, or aborts where an exception left it.

    Nothing of it is seen before the publish, except by followers, who get every acknowledged batch at once.

    Attributes:
        id: its name; other processes may put into it, `client.put(path, data, session=id)`.
        path: the dataset.
        version: the version that it made; None before the publish.
    """

    def __init__(self, client: Client, path: str, session: str, success_file: bool = False) -> None:
        self.path, self.id = path, session
        self.version: int | None = None
        self._client, self._success_file, self._open = client, success_file, True

    def put(
        self,
        data: Any,
        *,
        task: Task | None = None,
        token: str | None = None,
        schema: pa.Schema | None = None,
        app_metadata: Iterable[bytes] | None = None,
    ) -> None:
        """Writes one part or more; threads may do so at once.

        Args:
            data: as for `Client.put`.
            task: the number of the task that writes, or `{"job", "stage", "task", "attempt"}`. Of several attempts of a task the first to
                end wins; parts are in the order of tasks.
            token: idempotency key; one is made when left out.
            schema: for an iterable that may be empty.
            app_metadata: bytes for each batch.

        Raises:
            Aborted: another attempt of the task won, or the session has ended.
        """
        self._client.put(self.path, data, session=self.id, task=task, token=token, schema=schema, app_metadata=app_metadata)

    def publish(self, tasks: Sequence[Task] | None = None, success_file: bool | None = None) -> int:
        """Makes everything the dataset's next version, in one instant. Twice gives the same.

        Args:
            tasks: the attempts that count; None: of each task the first attempt that ended well.
            success_file: also writes `_SUCCESS`; None: as `Client.session` said.

        Returns:
            The version.
        """
        [version] = publish(self._client, [self], {self.id: tasks} if tasks is not None else {}, success_file)
        return version

    def abort(self) -> None:
        """Ends it; nothing of it is ever visible. One that has ended already is no error."""
        self._open = False
        try:
            self._client.act("abort", session=self.id)
        except ForebayError as error:
            if error.code not in ("NOT_FOUND", "FAILED_PRECONDITION"):
                raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._open:
            return
        if kind is None:
            self.publish()
            return
        try:
            self.abort()
        except ForebayError as error:  # what went wrong before is what the caller has to know
            log.warning("session %s of %s could not be aborted, its timeout will: %s", self.id, self.path, error)

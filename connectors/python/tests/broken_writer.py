"""A writer whose writes break: python broken_writer.py WAY, for tests/test_broken_puts.py.

It reads lines `ADDRESS PATH [SESSION]`, for each of which it writes without end; it says `writing` when something is on its way, and how the
write ended. One that has not ended a minute later says on stderr where it stands, and is gone.
"""

import faulthandler
import itertools
import json
import sys

import fsspec
import pyarrow as pa
import pyarrow.flight as fl

import forebay

SECONDS = 60

SMALL = pa.record_batch({"id": [1]})
LARGE = pa.record_batch({"id": pa.array(range(1 << 18))})


class Failure(Exception):
    """The source's own."""


def batches(way):
    batch, said_after = (LARGE, 1) if way in ("large", "file") else (SMALL, 20)
    for n in itertools.count():
        if n == said_after:
            print("writing", flush=True)
            if way == "source":
                sys.stdin.readline()  # the put is broken by now
                raise Failure
        yield batch


def write(way, address, path, session):
    if way == "stock":
        keys = {"path": path} | ({"session": session} if session else {})
        with fl.connect(address) as client:
            writer, _ = client.do_put(fl.FlightDescriptor.for_command(json.dumps(keys)), SMALL.schema)
            with writer:
                for batch in batches(way):
                    writer.write_batch(batch)
    elif way == "file":
        with fsspec.open(f"forebay://{address.partition('//')[2]}{path}", "wb", retry_for=1) as file:
            for batch in batches(way):
                file.write(batch.column(0).buffers()[1])
    else:
        metadata = (b"%d" % n for n in itertools.count()) if way == "metadata" else None
        with forebay.connect(address, retry_for=1) as client:
            if way == "with":
                with client.session(path) as whole:
                    whole.put(batches(way))
            else:
                client.put(path, batches(way), session=session, app_metadata=metadata)


def main(way):
    while line := sys.stdin.readline():
        address, path, *session = line.split()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            write(way, address, path, session[0] if session else None)
            print("done", flush=True)
        except Exception as error:
            print(" ".join(kind.__name__ for kind in type(error).__mro__), flush=True)
        faulthandler.cancel_dump_traceback_later()


main(sys.argv[1])

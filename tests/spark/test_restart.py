"""A server that is restarted under a job: what was committed stays, what was under way is done again, what has expired is asked for anew."""

import json
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from tests.harness import Server, descriptor
from tests.spark.cluster import beside, held, open_gate, wait_for, wait_held


@pytest.fixture
def restarted(tmp_path):
    """A server of its own that comes back at the same address."""
    with Server(tmp_path / "data") as server:
        server.command[server.command.index("--listen") + 1] = urlsplit(server.flight).netloc
        yield server


def save(df, server, path):
    df.write.format("forebay").option("addr", server.flight).mode("append").save(path)


def test_a_job_goes_on_after_a_restart_of_the_server(spark, restarted, gate):
    rows = spark.range(0, 800_000, 1, 8)
    gated = rows.mapInArrow(held(gate, {(1, 0)}), rows.schema)
    with beside(gate, save, gated, restarted, "/a") as job:
        wait_held(gate, 1)
        with restarted.client() as client:
            follow = descriptor("/a", follow=True)
            session = json.loads(client.flight.get_flight_info(follow).app_metadata)["session"]
            # All the others have committed.
            wait_for(lambda: client.note("/a", session=session)["parts"] == 7, what="the other tasks")
        assert restarted.kill()
        restarted.start()
        open_gate(gate)
        job.result(240)
    with restarted.client() as client:
        assert client.table("/a")["id"].combine_chunks().equals(pa.array(range(800_000), pa.int64()))
        [version] = client.act("versions", path="/a")
        assert (version["session"], version["parts"]) == (session, 8)


def test_a_stage_may_begin_when_its_tickets_are_good_no_more(spark, restarted, tmp_path):
    save(spark.range(0, 1000, 1, 3), restarted, "/a")
    read = spark.read.format("forebay").option("addr", restarted.flight).load("/a").rdd
    assert read.getNumPartitions() == 3
    with restarted.client() as client:
        ticket = client.info("/a").endpoints[0].ticket
    restarted.kill()
    # Tickets of the old key are as good as expired ones.
    (tmp_path / "data/tickets.key").unlink()
    restarted.start()
    with restarted.client() as client, pytest.raises(fl.FlightUnauthenticatedError):
        client.flight.do_get(ticket).read_all()
    assert sorted(row.id for row in read.collect()) == list(range(1000))

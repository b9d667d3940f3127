"""A server that asks: the token reaches it and nothing else."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from tests.spark import cluster
from tests.spark.conftest import TOKEN


def users(folder):
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    (folder / "users.toml").write_text(f'[[user]]\nname = "etl"\ntoken_sha256 = "{digest}"\nallow = ["rw:/features"]\n')
    return str(folder / "users.toml")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    with harness.Server(folder / "data", users=users(folder)) as server:
        yield server


def test_tls(spark, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", *name]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with harness.Server(tmp_path / "data", users=users(tmp_path), tls_cert=certificate, tls_key=key) as server:
        assert server.flight.startswith("grpc+tls://")

        def write(**options):
            rows = spark.range(0, 1000, 1, 2).write.format("forebay").option("addr", server.flight).option("token", TOKEN)
            rows.options(**options).mode("append").save("/features/tls")

        write(caFile=str(certificate))
        read = spark.read.format("forebay").option("addr", server.flight).option("token", TOKEN).option("caFile", str(certificate))
        assert read.load("/features/tls").where("id < 10").count() == 10
        with pytest.raises(Exception, match="UNAVAILABLE"):
            write()


def test_a_token_opens_and_is_not_to_be_seen(guarded, spark, folder, capfd):
    def writer(df, **options):
        return df.write.format("forebay").option("addr", guarded.flight).options(**options).mode("append")

    df = spark.range(0, 1000, 1, 2)
    with pytest.raises(Exception, match="UNAUTHENTICATED"):
        writer(df).save("/features/a")
    with pytest.raises(Exception, match="PERMISSION_DENIED") as refused:
        writer(df, token=TOKEN).save("/other")
    writer(df, token=TOKEN).save("/features/a")
    read = spark.read.format("forebay").option("addr", guarded.flight).option("token", TOKEN).load("/features/a").where("id < 5")
    assert read.count() == 5
    plans = "".join(read._jdf.queryExecution().toString() + df._jdf.queryExecution().toString())
    events = "".join(p.read_text(errors="replace") for p in Path(folder, "events").rglob("*") if p.is_file())
    out = capfd.readouterr()
    assert "/features/a" in events, "the event log tells of the query"
    executors = cluster.executor_logs(spark)
    assert len(executors) >= 2 and all("Running task" in log for log in executors.values()), "both have had tasks, and tell of them"
    said = {"plans": plans, "events": events, "out": out.out + out.err, "error": str(refused.value), "log": guarded.log()}
    said |= {f"executor {number}": log for number, log in executors.items()}
    for where, text in said.items():
        assert TOKEN not in text, f"the token shows in {where}"


def test_address_and_token_may_come_from_the_environment_or_the_session(guarded, folder, tmp_path):
    program = (
        "import sys\nfrom tests.spark import cluster\n"
        "spark = cluster.session(sys.argv[1], master='local[1]', **dict(a.split('=', 1) for a in sys.argv[2:]))\n"
        "print('COUNT', spark.read.format('forebay').load('/features/a').count())\n"
        "spark.range(3).write.format('forebay').mode('overwrite').save('/features/b')\n"
    )

    def run(environment, *settings):
        command = [sys.executable, "-c", program, str(tmp_path), *settings]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)
        assert "COUNT 1000" in done.stdout, done.stderr[-2000:]
        assert done.returncode == 0 and TOKEN not in done.stdout + done.stderr

    run({"FOREBAY_ADDR": guarded.flight, "FOREBAY_TOKEN": TOKEN})
    run({}, f"spark__datasource__forebay__addr={guarded.flight}", f"spark__datasource__forebay__token={TOKEN}")

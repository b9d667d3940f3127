"""Who may enter and what they may do: tokens, passwords, certificates, prefixes, tickets."""

import base64
import hashlib
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import grpc
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from tests.harness import Server, StartFailed, descriptor, protobuf

ROW = pa.record_batch([pa.array([7])], names=["id"])
# argon2id of "open sesame", made cheap so that tests are quick.
SESAME = "$argon2id$v=19$m=64,t=1,p=1$c2l4dGVlbiBieXRlcyBvaw$2jY5rBApP2dGkDcmabVkCHHoNQPivTLJFdJiSFtiBKc"
USERS = f"""
[[user]]
name = "ada"
password_hash = "{SESAME}"
token_sha256 = "{hashlib.sha256(b"ada-token").hexdigest()}"
allow = ["r:/features", "rw:/scratch"]

[[user]]
name = "cyd"
token_sha256 = "{hashlib.sha256(b"cyd-token").hexdigest()}"
allow = ["rw:/scratch"]

[[user]]
name = "bob"
token_sha256 = "{hashlib.sha256(b"bob-token").hexdigest()}"
allow = ["r:/features"]

[[user]]
name = "root"
token_sha256 = "{hashlib.sha256(b"root-token").hexdigest()}"
admin = true
"""


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    file = tmp_path_factory.mktemp("users") / "users.toml"
    file.write_text(USERS)
    return file


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, users):
    with Server(tmp_path_factory.mktemp("guarded") / "d", users=users) as server:
        root = Caller(server, "root-token")
        assert root.put("/features/set") == root.put("/secret/set") == "OK"
        yield server


class Caller:
    """Raw calls with a bearer token."""

    def __init__(self, server, token=None, channel=None):
        self.channel = channel or grpc.insecure_channel(server.flight.split("://")[1])
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def call(self, method, *messages):
        call = self.channel.stream_stream("/arrow.flight.protocol.FlightService/" + method)(iter(messages), timeout=20, metadata=self.metadata)
        answers = []
        try:
            answers.extend(call)
        except grpc.RpcError:
            pass
        return call.code().name, answers, call.details() or ""

    def act(self, name, **body):
        return self.call("DoAction", protobuf(_1=name.encode(), _2=json.dumps(body).encode()))[0]

    def put(self, path, **keys):
        from tests.harness import flight_data, ipc_messages
        where = descriptor(path, **keys)
        return self.call("DoPut", *[flight_data(h, b, where if k == 0 else None) for k, (h, b) in enumerate(ipc_messages([ROW]))])[0]

    def info(self, path, **keys):
        code, answers, _ = self.call("GetFlightInfo", descriptor(path, **keys).serialize())
        return code, fl.FlightInfo.deserialize(answers[0]) if answers else None


def test_a_session_of_others_is_none(guarded):
    """Neither its path nor that it is there is told to those who may not see it."""
    root, ada = Caller(guarded, "root-token"), Caller(guarded, "ada-token")
    session = json.loads(fl.Result.deserialize(root.call("DoAction", protobuf(_1=b"begin", _2=b'{"path": "/secret/other"}'))[1][0]).body.to_pybytes())["session"]
    assert ada.put("/scratch/own") == "OK"

    def answers(session):
        from tests.harness import flight_data, ipc_messages
        (schema, none), *_ = ipc_messages([ROW])
        asks = [descriptor("/scratch/own", session=session), descriptor("/scratch/own", session=session, follow=True), descriptor("/scratch/own", **{"from": f"{session}:0"})]
        yield ada.call("DoPut", flight_data(schema, none, descriptor("/scratch/own", session=session)))
        yield from (ada.call("GetFlightInfo", ask.serialize()) for ask in asks)
        yield from (ada.call("DoAction", protobuf(_1=name, _2=json.dumps({"session": session}).encode())) for name in (b"publish", b"abort"))

    unknown = "nixnixnixnixnixx"
    for there, not_there in zip(answers(session), answers(unknown), strict=True):
        assert there[0] == not_there[0] == "NOT_FOUND" and there[2].replace(session, unknown) == not_there[2]
    assert root.act("abort", session=session) == "OK"


class TestTokens:
    def test_nobody_enters_without_one(self, guarded):
        nobody = Caller(guarded)
        for method, message in [("GetFlightInfo", descriptor("/features/set").serialize()), ("ListFlights", b""), ("ListActions", b""), ("DoAction", protobuf(_1=b"status", _2=b"{}"))]:
            code, answers, text = nobody.call(method, message)
            assert (code, answers) == ("UNAUTHENTICATED", []) and len(text) > 5
        assert nobody.put("/scratch/x") == "UNAUTHENTICATED"

    @pytest.mark.parametrize("token", ["", "x", "ada-token2", "ada-toke", "Ada-token", base64.b64encode(b"ada-token").decode()])
    def test_a_wrong_one_is_none(self, guarded, token):
        assert Caller(guarded, token or "-").info("/features/set")[0] == "UNAUTHENTICATED"

    def test_a_right_one_enters(self, guarded):
        assert Caller(guarded, "ada-token").info("/features/set")[0] == "OK"

    def test_pyarrow_gets_one_for_a_password(self, guarded):
        client = fl.connect(guarded.flight)
        header = client.authenticate_basic_token("ada", "open sesame")
        options = fl.FlightCallOptions(headers=[header])
        info = client.get_flight_info(descriptor("/features/set"), options)
        assert client.do_get(info.endpoints[0].ticket, options).read_all() == pa.Table.from_batches([ROW])

    def test_the_older_handshake_too(self, guarded):
        class Handler(fl.ClientAuthHandler):
            token = None

            def authenticate(self, outgoing, incoming):
                outgoing.write(fl.BasicAuth("ada", "open sesame").serialize())
                self.token = incoming.read()

            def get_token(self):
                return self.token

        client = fl.connect(guarded.flight)
        client.authenticate(Handler())
        assert client.get_flight_info(descriptor("/features/set")).total_records == 1

    @pytest.mark.parametrize(("name", "password"), [("ada", "open"), ("eve", "open sesame"), ("root", ""), ("", "")])
    def test_a_wrong_password_gives_none(self, guarded, name, password):
        with pytest.raises(fl.FlightUnauthenticatedError):
            fl.connect(guarded.flight).authenticate_basic_token(name, password)


class TestPermissions:
    def test_reading_by_prefix(self, guarded):
        ada = Caller(guarded, "ada-token")
        assert ada.info("/features/set")[0] == "OK" and ada.act("stat", path="/features/set") == "OK"
        for path in ("/secret/set", "/secret/nothing", "/features2", "/"):
            assert ada.info(path)[0] == "PERMISSION_DENIED", f"{path}: alike whether it is there or not"
            assert ada.act("stat", path=path) == ada.act("list", path=path) == ada.act("versions", path=path) == "PERMISSION_DENIED"

    def test_writing_by_prefix(self, guarded):
        ada = Caller(guarded, "ada-token")
        assert ada.put("/scratch/mine") == "OK"
        for path in ("/features/set", "/features/new", "/secret/set", "/scratch2"):
            assert ada.put(path) == "PERMISSION_DENIED"
            for name, body in [("mkdir", {"path": path}), ("delete", {"path": path}), ("truncate", {"path": path, "size": 0}), ("begin", {"path": path}),
                               ("rename", {"from": path, "to": "/scratch/y"}), ("rename", {"from": "/scratch/mine", "to": path}), ("free", {"path": path})]:
                assert ada.act(name, **body) == "PERMISSION_DENIED", (name, path)
        assert Caller(guarded, "root-token").act("stat", path="/features/new") == "NOT_FOUND"

    def test_sessions_of_others_are_not_there(self, guarded):
        _, [answer], _ = Caller(guarded, "ada-token").call("DoAction", protobuf(_1=b"begin", _2=json.dumps({"path": "/scratch/s"}).encode()))
        session = json.loads(answer[answer.index(b"{") :])["session"]
        bob = Caller(guarded, "bob-token")
        assert bob.act("publish", session=session) == bob.act("abort", session=session) == bob.act("abort", session="0123456789abcdef") == "NOT_FOUND"
        assert Caller(guarded, "ada-token").act("abort", session=session) == "OK"

    def test_only_administrators_touch_mounts(self, guarded):
        ada = Caller(guarded, "ada-token")
        assert ada.act("under_list") == ada.act("under_add", path="/scratch/u", url="file:///tmp") == ada.act("under_remove", path="/scratch/u") == "PERMISSION_DENIED"
        assert Caller(guarded, "root-token").act("under_list") == "OK"

    def test_each_user_has_a_quota_of_their_own(self, guarded):
        ada, cyd, root = (Caller(guarded, f"{name}-token") for name in ("ada", "cyd", "root"))
        assert ada.act("policy_set", path="/scratch/each", user_quota_files=2) == "PERMISSION_DENIED"
        assert root.act("policy_set", path="/scratch/each", user_quota_files=2) == "OK"
        begun = ada.call("DoAction", protobuf(_1=b"begin", _2=b'{"path": "/scratch/each/ada-1"}'))[1]
        session = json.loads(fl.Result.deserialize(begun[0]).body.to_pybytes())["session"]
        assert ada.put("/scratch/each/ada-1", session=session) == "OK"
        assert [ada.put(f"/scratch/each/ada-{n}") for n in range(3)] == ["OK", "OK", "RESOURCE_EXHAUSTED"]
        assert ada.put("/scratch/each/ada-1", session=session) == "RESOURCE_EXHAUSTED", "it could not be published"
        assert ada.act("publish", session=session) == "RESOURCE_EXHAUSTED"
        assert cyd.put("/scratch/each/cyd") == "OK"
        assert [root.put(f"/scratch/each/root-{n}") for n in range(3)] == ["OK"] * 3

        def webhdfs(token, path, method="GET", **query):
            address = f"{guarded.http}/webhdfs/v1{path}?{urllib.parse.urlencode(query)}"
            request = urllib.request.Request(address, method=method, headers={"authorization": f"Bearer {token}"})
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as refused:
                return refused.code, refused.read()

        [part] = json.loads(webhdfs("ada-token", "/scratch/each/ada-0", op="LISTSTATUS")[1])["FileStatuses"]["FileStatus"]
        assert part["owner"] == "ada"
        path = f"/scratch/each/ada-0/{part['pathSuffix']}"
        assert webhdfs("ada-token", path, "PUT", op="SETOWNER", owner="cyd")[0] == 403
        assert webhdfs("root-token", path, "PUT", op="SETOWNER", owner="cyd")[0] == 200
        assert ada.act("publish", session=session) == "OK"
        assert cyd.put("/scratch/each/cyd-2") == "RESOURCE_EXHAUSTED"
        assert cyd.act("delete", path="/scratch/each/cyd", recursive=True) == "OK"
        assert cyd.put("/scratch/each/cyd-2") == "OK"

    def test_list_flights_shows_what_one_may_read(self, guarded):
        def listed(token):
            code, answers, _ = Caller(guarded, token).call("ListFlights", b"")
            assert code == "OK"
            return {json.loads(fl.FlightInfo.deserialize(a).app_metadata)["path"] for a in answers}

        assert listed("bob-token") == {"/features/set"}
        assert listed("root-token") >= {"/features/set", "/secret/set"}

    def test_tickets_are_for_whom_they_were_given_to(self, guarded):
        ticket = Caller(guarded, "ada-token").info("/features/set")[1].endpoints[0].ticket.ticket
        assert Caller(guarded, "ada-token").call("DoGet", protobuf(_1=ticket))[0] == "OK"
        for other, code in (("bob-token", "PERMISSION_DENIED"), ("root-token", "PERMISSION_DENIED"), (None, "UNAUTHENTICATED")):
            assert Caller(guarded, other).call("DoGet", protobuf(_1=ticket))[:2] == (code, [])

    def test_tickets_survive_a_restart(self, tmp_path):
        with Server(tmp_path / "d") as server:
            with server.client() as client:
                client.put("/t", ROW)
                ticket = client.info("/t").endpoints[0].ticket
            server.restart()
            with server.client() as client:
                assert client.flight.do_get(ticket).read_all() == pa.Table.from_batches([ROW])


class TestPages:
    def get(self, server, page, **headers):
        try:
            return urllib.request.urlopen(urllib.request.Request(server.http + page, headers=headers), timeout=10).status
        except urllib.error.HTTPError as e:
            return e.code

    @pytest.mark.parametrize("page", ["/", "/metrics", "/readyz", "/api/v1/status"])
    def test_pages_ask_too(self, guarded, page):
        basic = base64.b64encode(b"ada:open sesame").decode()
        assert self.get(guarded, page) == 401
        assert self.get(guarded, page, authorization="Bearer x") == 401
        assert self.get(guarded, page, authorization="Bearer ada-token") == 200
        assert self.get(guarded, page, authorization=f"Basic {basic}") == 200

    def test_health_does_not(self, guarded):
        assert self.get(guarded, "/healthz") == 200


def openssl(home, *arguments):
    subprocess.run(["openssl", *arguments], cwd=home, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, a server's certificate for localhost, clients' for ada and eve; and another CA with a client of its own."""
    home = tmp_path_factory.mktemp("certificates")
    for ca in ("ca", "other"):
        openssl(home, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-days", "2", "-subj", f"/CN={ca}")
    for name, ca in (("localhost", "ca"), ("ada", "ca"), ("eve", "ca"), ("mallory", "other")):
        (home / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        openssl(home, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/O=Example/CN={name}")
        openssl(home, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "2", "-out", f"{name}.pem", "-extfile", f"{name}.ext")
    return home


@pytest.fixture(scope="module")
def secured(tmp_path_factory, users, certificates):
    c = certificates
    with Server(tmp_path_factory.mktemp("secured") / "d", users=users, tls_cert=c / "localhost.pem", tls_key=c / "localhost.key", tls_client_ca=c / "ca.pem") as server:
        yield server


class TestTls:
    def channel(self, server, certificates, name=None):
        read = lambda file: (certificates / file).read_bytes()
        client = (read(f"{name}.key"), read(f"{name}.pem")) if name else (None, None)
        return grpc.secure_channel(server.flight.split("://")[1], grpc.ssl_channel_credentials(read("ca.pem"), *client))

    def test_a_certificate_is_a_user(self, secured, certificates):
        assert Caller(secured, channel=self.channel(secured, certificates, "ada")).put("/scratch/tls") == "OK"
        assert Caller(secured, channel=self.channel(secured, certificates, "ada")).put("/secret/tls") == "PERMISSION_DENIED"
        assert Caller(secured, channel=self.channel(secured, certificates, "eve")).put("/scratch/tls") == "UNAUTHENTICATED"

    def test_a_token_within_tls(self, secured, certificates):
        assert Caller(secured, "ada-token", channel=self.channel(secured, certificates)).put("/scratch/token") == "OK"
        assert Caller(secured, channel=self.channel(secured, certificates)).put("/scratch/token") == "UNAUTHENTICATED"

    def test_pyarrow_reads_and_writes(self, secured, certificates):
        assert secured.flight.startswith("grpc+tls://")
        client = fl.connect(secured.flight, tls_root_certs=(certificates / "ca.pem").read_bytes())
        options = fl.FlightCallOptions(headers=[client.authenticate_basic_token("ada", "open sesame")])
        writer, _ = client.do_put(descriptor("/scratch/arrow"), ROW.schema, options)
        writer.write_batch(ROW)
        writer.close()
        info = client.get_flight_info(descriptor("/scratch/arrow"), options)
        assert client.do_get(info.endpoints[0].ticket, options).read_all() == pa.Table.from_batches([ROW])

    def test_certificates_of_others_and_plain_text_do_not_enter(self, secured, certificates):
        stranger = Caller(secured, "ada-token", channel=self.channel(secured, certificates, "mallory"))
        assert stranger.info("/features/set")[0] == "UNAVAILABLE"
        assert Caller(secured, "ada-token").info("/features/set")[0] == "UNAVAILABLE"
        assert secured.alive()


def listen(server, flag, where):
    server.command[server.command.index(f"--{flag}") + 1] = where


class TestStart:
    @pytest.mark.parametrize("flags", [{"listen": "0.0.0.0:0"}, {"http": "0.0.0.0:0"}, {"listen": "[::]:0"}])
    def test_an_open_door_is_refused_with_the_reason(self, tmp_path, flags):
        server = Server(tmp_path / "d")
        for flag, value in flags.items():
            listen(server, flag, value)
        with pytest.raises(StartFailed, match="(?i)tls|insecure"):
            server.start(timeout=20)

    def test_a_file_of_users_that_does_not_read_is_refused(self, tmp_path):
        (tmp_path / "users.toml").write_text("[[user]]\nname = 'a'\ncolour = 'red'\n")
        with pytest.raises(StartFailed, match="colour"):
            Server(tmp_path / "d", users=tmp_path / "users.toml").start(timeout=20)

    def test_a_socket_in_the_file_system(self, tmp_path):
        server = Server(tmp_path / "d")
        listen(server, "listen", f"unix:{tmp_path}/s")
        with server:
            with grpc.insecure_channel(f"unix:{tmp_path}/s") as channel:
                assert Caller(server, channel=channel).put("/x") == "OK"

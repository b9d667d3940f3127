"""Users, tokens, passwords and certificates, by the client and by the file system."""

import forebay
import fsspec
import pyarrow as pa
import pytest

from tests.flight.test_auth import certificates, guarded, secured, users  # noqa: F401 - fixtures

ROW = pa.table({"id": [7]})


class TestTokens:
    def test_nobody_enters_without_one(self, guarded):  # noqa: F811
        with forebay.connect(guarded.flight) as nobody:
            for ask in (
                nobody.status,
                lambda: nobody.read("/features/set"),
                lambda: nobody.put("/scratch/x", ROW),
                lambda: nobody.stat("/scratch"),
            ):
                with pytest.raises(forebay.Unauthenticated) as caught:
                    ask()
                assert isinstance(caught.value, PermissionError) and len(str(caught.value)) > 5

    def test_a_token_enters_and_may_what_it_may(self, guarded):  # noqa: F811
        with forebay.connect(guarded.flight, token="ada-token") as ada:
            assert ada.read("/features/set").num_rows == 1
            ada.put("/scratch/mine", ROW)
            with ada.session("/scratch/mine") as session:
                session.put(ROW)
            assert ada.read("/scratch/mine").num_rows >= 2
            for ask in (lambda: ada.read("/secret/set"), lambda: ada.put("/features/set", ROW), lambda: list(ada.list("/secret"))):
                with pytest.raises(forebay.PermissionDenied):
                    ask()

    def test_the_token_of_the_environment_or_of_a_file(self, guarded, monkeypatch, tmp_path):  # noqa: F811
        (tmp_path / "token").write_text("bob-token\n")
        monkeypatch.setenv("FOREBAY_TOKEN_FILE", str(tmp_path / "token"))
        assert forebay.connect(guarded.flight).read("/features/set").num_rows == 1
        monkeypatch.setenv("FOREBAY_TOKEN", "ada-token")
        forebay.connect(guarded.flight).put("/scratch/env", ROW)
        with pytest.raises(forebay.Unauthenticated):
            forebay.connect(guarded.flight, token="another").status()

    @pytest.mark.parametrize("token", ["ö", "a\nb"])
    def test_a_token_that_can_be_none(self, guarded, token):  # noqa: F811
        with pytest.raises(forebay.ForebayError):
            forebay.connect(guarded.flight, token=token, retry_for=0).status()

    def test_a_password_gives_one(self, guarded):  # noqa: F811
        with forebay.connect(guarded.flight) as client:
            token = client.login("ada", "open sesame")
            assert client.read("/features/set").num_rows == 1
        assert forebay.connect(guarded.flight, token=token).read("/features/set").num_rows == 1
        with pytest.raises(forebay.Unauthenticated), forebay.connect(guarded.flight) as client:
            client.login("ada", "sesame")

    def test_secrets_are_not_shown(self, guarded):  # noqa: F811
        client = forebay.connect(guarded.flight, token="ada-token")
        assert "ada-token" not in repr(client) + repr(client.connection.options)

    def test_the_file_system_asks_with_it(self, guarded, monkeypatch):  # noqa: F811
        url = guarded.flight.replace("grpc", "forebay") + "/scratch/file"
        with fsspec.open(url, "wb", token="ada-token") as file:
            file.write(b"x")
        with fsspec.open(url, token="ada-token") as file:
            assert file.read() == b"x"
        with pytest.raises(PermissionError):
            fsspec.open(url, token="none").open()
        with pytest.raises(PermissionError), fsspec.open(url.replace("scratch", "features"), "wb", token="ada-token") as file:
            file.write(b"x")
        monkeypatch.setenv("FOREBAY_TOKEN", "ada-token")
        assert fsspec.filesystem("forebay", skip_instance_cache=True, **_host(url)).cat_file("/scratch/file") == b"x"


class TestTls:
    def test_with_a_certificate_of_the_authority(self, secured, certificates):  # noqa: F811
        ca = certificates / "ca.pem"
        with forebay.connect(secured.flight, tls_ca=str(ca), token="ada-token") as ada:
            ada.put("/scratch/tls", ROW)
            assert ada.read("/scratch/tls").num_rows == 1
        with forebay.connect(
            secured.flight, tls_ca=ca.read_bytes(), tls_cert=str(certificates / "ada.pem"), tls_key=str(certificates / "ada.key")
        ) as ada:
            assert ada.read("/scratch/tls").num_rows == 1, "a certificate is a user"

    def test_the_environment_names_the_authority(self, secured, certificates, monkeypatch):  # noqa: F811
        monkeypatch.setenv("FOREBAY_CA", str(certificates / "ca.pem"))
        forebay.connect(secured.flight, token="ada-token").put("/scratch/env", ROW)

    def test_strangers_and_plain_text(self, secured, certificates):  # noqa: F811
        for url, keys in ((secured.flight, {"tls_ca": str(certificates / "other.pem")}), (secured.flight.replace("+tls", ""), {})):
            with pytest.raises(forebay.Unavailable), forebay.connect(url, token="ada-token", retry_for=0, **keys) as client:
                client.status()

    def test_the_file_system_over_tls(self, secured, certificates):  # noqa: F811
        url = secured.flight.replace("grpc+tls", "forebay+tls") + "/scratch/file"
        how = {"token": "ada-token", "tls_ca": str(certificates / "ca.pem")}
        for scheme in ("forebay+tls", "forebay"):
            with fsspec.open(url.replace("forebay+tls", scheme), "wb", **how) as file:
                file.write(scheme.encode())
            with fsspec.open(url, **how) as file:
                assert file.read() == scheme.encode()


def test_a_socket_in_the_file_system(tmp_path):
    from tests.harness import Server

    server = Server(tmp_path / "d")
    server.command[server.command.index("--listen") + 1] = f"unix:{tmp_path}/s"
    with server, forebay.connect(f"grpc+unix://{tmp_path}/s") as client:
        assert client.put("/x", ROW) == 1 and client.read("/x").equals(ROW)


def _host(url):
    host, port = url.split("://")[1].split("/")[0].split(":")
    return {"host": host, "port": int(port)}

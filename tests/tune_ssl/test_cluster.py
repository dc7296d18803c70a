"""Starting Ray on a busy host, and finding a cluster that is there."""

from __future__ import annotations

import socket

import pytest

from ssl_core.errors import UserError
from tune_ssl.on_ray import cluster


class Ray:
    """Fails with each of the messages in turn, then starts."""

    def __init__(self, monkeypatch, *messages: str) -> None:
        self.left, self.shut_down = list(messages), 0
        monkeypatch.setattr(cluster, "_init_local", self.init)
        monkeypatch.setattr(cluster.ray, "shutdown", self.shutdown)

    def init(self, *_):
        if self.left:
            raise Exception(self.left.pop(0))
        return "started"

    def shutdown(self):
        self.shut_down += 1


SLOW = "The current node timed out during startup. This could happen because ..."


def test_ray_that_was_too_slow_to_start_is_started_once_more(monkeypatch):
    ray = Ray(monkeypatch, SLOW)
    assert cluster._start(False, 0, None) == "started"
    assert ray.shut_down == 1


@pytest.mark.parametrize(("messages", "raised"), [((SLOW, SLOW), "timed out"), (("no",), "no")])
def test_what_fails_again_or_otherwise_is_told(monkeypatch, messages, raised):
    Ray(monkeypatch, *messages)
    with pytest.raises(Exception, match=raised):
        cluster._start(False, 0, None)


def test_a_listed_cluster_that_is_gone_is_refused_and_not_waited_for(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(
        cluster.services, "canonicalize_bootstrap_address_or_die", lambda _: address
    )
    monkeypatch.setattr(cluster.ray, "init", lambda **_: pytest.fail("Ray was asked"))
    with pytest.raises(UserError, match=rf"answers at '{address}' \(.*Connection refused"):
        cluster._join("auto", ())


def test_where_none_is_listed_that_is_told(monkeypatch):
    def none(_):
        raise ConnectionError("Could not find any running Ray instance. Please\nmore")

    monkeypatch.setattr(cluster.services, "canonicalize_bootstrap_address_or_die", none)
    with pytest.raises(UserError, match=r"at 'auto' \(Could not find any running Ray instance"):
        cluster._join("auto", ())


class TestToken:
    @pytest.fixture(autouse=True)
    def joined(self, monkeypatch):
        """Return whether a token was shown to a cluster that is as good as there."""
        shown = []
        setup = cluster.authentication_token_setup
        monkeypatch.setattr(cluster, "_check_answers", lambda _: None)
        monkeypatch.setattr(cluster.ray, "init", lambda **_: bool(shown))
        monkeypatch.setattr(
            setup,
            "maybe_enable_token_auth_if_token_available",
            lambda warn_if_disabled: self.there and not shown.append(warn_if_disabled),
        )
        self.there = True
        return lambda: cluster._join("127.0.0.1:1", ())

    @pytest.mark.parametrize("asks", [True, False])
    def test_it_is_shown_where_it_is_asked_for(self, joined, monkeypatch, asks):
        monkeypatch.setattr(cluster, "_asks_for_token", lambda _: asks)
        assert joined() is asks

    @pytest.mark.parametrize("mode", [None, "disabled"])
    def test_where_it_is_asked_for_and_not_there_that_is_told(self, joined, monkeypatch, mode):
        self.there = False
        monkeypatch.setattr(cluster, "_asks_for_token", lambda _: True)
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        why = "RAY_AUTH_MODE is disabled" if mode else "there is no .*auth_token"
        with pytest.raises(UserError, match=f"asks for a token and none is shown, because {why}"):
            joined()

    def test_what_ray_says_of_it_is_told(self, joined, monkeypatch):
        def refuse(**_):
            raise cluster.AuthenticationError("Token authentication is enabled but no token found")

        monkeypatch.setattr(cluster, "_asks_for_token", lambda _: False)
        monkeypatch.setattr(cluster.ray, "init", refuse)
        with pytest.raises(UserError, match="Token authentication is enabled but no token"):
            joined()

    @pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "a name only Ray understands"])
    def test_what_is_no_head_is_not_asked(self, address, monkeypatch):
        monkeypatch.setattr(cluster.grpc, "insecure_channel", lambda *_, **__: pytest.fail("asked"))
        assert not cluster._asks_for_token(address)

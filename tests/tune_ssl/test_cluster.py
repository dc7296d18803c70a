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
    monkeypatch.setattr(cluster, "_show_token", lambda: None)
    with pytest.raises(
        UserError, match=rf"no Ray cluster answers at '{address}' \(.*Connection refused"
    ):
        cluster._join("auto", ())


def test_no_cluster_and_several_are_told_apart(monkeypatch):
    def none(_):
        raise ConnectionError("Found multiple active Ray instances: {...}\nmore")

    monkeypatch.setattr(cluster.services, "canonicalize_bootstrap_address_or_die", none)
    with pytest.raises(UserError, match=r"at 'auto' \(Found multiple active Ray instances"):
        cluster._found_by_ray("auto")

"""Starting Ray on a busy host."""

from __future__ import annotations

import pytest

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

"""Starting Ray on this host, or joining a cluster that is named."""

from __future__ import annotations

import functools
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import ray
from ray._private import services
from ray._private.authentication import authentication_token_setup
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.exceptions import AuthenticationError

from ssl_core.errors import UserError
from tune_ssl.machine import ray_token_path, usable_cpus

ANSWER_SECONDS = 5.0
UNANSWERED = 3
"""So many times in a row the head must not answer to be taken for lost."""
HOST_AND_PORT = re.compile(r"(?P<client>ray://)?(?P<host>[^:/]+):(?P<port>\d+)")
OBJECT_STORE_BASE = 200 * 2**20
TOO_SLOW = "timed out during startup"
"""What Ray says where its processes took more than 30 seconds to start, as on a busy host; then it is
asked once more."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The Ray cluster that is connected.

    ``dashboard`` is its real address, which is not the usual one where that port was taken; None
    where there is none, be it that it did not start in time.
    """

    local: bool
    address: str
    dashboard: str | None
    cpus: float
    gpus: float


@contextmanager
def connected(
    *,
    address: str | None,
    dashboard: bool,
    image_bytes: int,
    gpus: int | None = None,
    ship: tuple[Any, ...] = (),
) -> Iterator[Cluster]:
    """Be connected to Ray for the body of a with statement.

    Args:
        address: of a cluster to join; None to start one on this host for this search alone.
        dashboard: serve Ray's dashboard, on this host only.
        image_bytes: size of what is shipped, which sizes the object store.
        gpus: of a local cluster; None for all there are.
        ship: packages to send to nodes that lack them.

    Raises:
        UserError: there is no cluster at the address.
    """
    context = _join(address, ship) if address else _start(dashboard, image_bytes, gpus)
    try:
        resources = ray.cluster_resources()
        yield Cluster(
            local=not address,
            address=context.address_info["gcs_address"],
            dashboard=context.dashboard_url or None,
            cpus=resources.get("CPU", 0.0),
            gpus=resources.get("GPU", 0.0),
        )
    finally:
        ray.shutdown()


def shared_by_all(value: Any) -> Any:
    """Put a value into the object store, once for all workers, and return the reference to it."""
    return ray.put(value)


@contextmanager
def head_watched(cluster: Cluster, lost: Callable[[], None]) -> Iterator[None]:
    """Call ``lost``, once and from a thread of its own, if the head is gone during the body.

    The last moment to say anything: Ray's calls block from then on, and after a minute Ray ends
    the process, with code 1 and no exception.
    """
    over = threading.Event()

    def watch() -> None:
        unanswered = 0
        while not over.wait(ANSWER_SECONDS):
            unanswered = 0 if _why_no_answer(cluster.address) is None else unanswered + 1
            if unanswered == UNANSWERED:
                lost()
                return

    thread = threading.Thread(target=watch, name="head-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def protect_token() -> None:
    """Make Ray's token readable by its owner alone; Ray writes it for all to read.

    Raises:
        UserError: others can read it and that cannot be changed.
    """
    path = ray_token_path()
    if not path.is_file() or path.stat().st_mode & 0o077 == 0:
        return
    try:
        path.chmod(0o600)
    except OSError as error:
        raise UserError(
            f"Ray's token {path} can be read by others ({error.strerror}); allowed: mode 0600, because "
            "whoever has it can run code here; chmod it or set RAY_AUTH_TOKEN_PATH."
        ) from error


def _start(dashboard: bool, image_bytes: int, gpus: int | None) -> Any:
    _quiet_settings()
    with _in_a_group_of_their_own():
        try:
            return _init_local(dashboard, image_bytes, gpus)
        except Exception as error:  # Ray has no type of its own for this
            if TOO_SLOW not in str(error):
                raise
            ray.shutdown()
            return _init_local(dashboard, image_bytes, gpus)


@contextmanager
def _in_a_group_of_their_own() -> Iterator[None]:
    """Start Ray's processes outside this process's group.

    A signal to the whole group, as timeout, systemd and batch systems send it, would otherwise end
    Ray under a driver that is about to drain. They still end with the driver: Ray asks the kernel for it.
    """
    original = services.ConsolePopen
    services.ConsolePopen = functools.partial(original, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = original


def _init_local(dashboard: bool, image_bytes: int, gpus: int | None) -> Any:
    return ray.init(
        address="local",  # otherwise any cluster on this host would be joined
        num_cpus=usable_cpus(),  # Ray ignores affinity and cgroup limits
        num_gpus=gpus,
        object_store_memory=2 * image_bytes + OBJECT_STORE_BASE,
        include_dashboard=None if dashboard else False,  # True would end the search without it
        dashboard_host="127.0.0.1",  # and the first free port, which Ray takes if none is named
        log_to_driver=False,
        logging_level="error",
        configure_logging=True,
    )


def _join(address: str, ship: tuple[Any, ...]) -> Any:
    _quiet_settings()
    found = _found_by_ray(address) if address == "auto" else address
    _check_answers(found)
    if _asks_for_token(found):
        _show_token(found)
    runtime_env: dict[str, Any] = {"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}}
    if ship:
        runtime_env["py_modules"] = list(ship)
    try:
        return ray.init(
            address=found, runtime_env=runtime_env, log_to_driver=False, logging_level="error"
        )
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, str(error).strip().splitlines()[0]) from error


def _asks_for_token(address: str) -> bool:
    """Return whether a cluster refuses who shows no token, as one that ``ray start`` makes where there is one.

    To any other none is shown: its workers, who have none, could not answer a driver that has.
    """
    match = HOST_AND_PORT.fullmatch(address)
    if match is None or match["client"]:
        return False
    place, without_proxy = f"{match['host']}:{match['port']}", ("grpc.enable_http_proxy", 0)
    with grpc.insecure_channel(place, options=[without_proxy]) as channel:
        head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            head.CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def _show_token(address: str) -> None:
    """Let Ray show this host's token: with an address it shows none by itself.

    Raises:
        UserError: there is none, or it may not be shown.
    """
    setup = authentication_token_setup
    logging.getLogger(setup.__name__).setLevel(logging.ERROR)
    if not setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
        mode = os.environ.get(setup.AUTH_MODE_ENV_VAR)
        why = f"{setup.AUTH_MODE_ENV_VAR} is {mode}" if mode else f"there is no {ray_token_path()}"
        raise UserError(
            f"the Ray cluster at {address!r} asks for a token and none is shown, because {why}; allowed: that "
            "cluster's token; copy the file from the head, or start the cluster with RAY_AUTH_MODE=disabled."
        )


def _found_by_ray(address: str) -> str:
    """Return the host and port that Ray finds: to what is listed there and is gone it would connect for ever."""
    try:
        found: str = services.canonicalize_bootstrap_address_or_die(address)
    except (ConnectionError, ValueError) as error:
        raise _no_cluster(address, str(error).strip().splitlines()[0]) from error
    return found


def _check_answers(address: str) -> None:
    """Refuse an address nobody listens at: Ray itself would wait for minutes."""
    why = _why_no_answer(address)
    if why is not None:
        raise _no_cluster(address, why)


def _why_no_answer(address: str) -> str | None:
    """Return why nobody can be reached at an address; None where somebody listens."""
    match = HOST_AND_PORT.fullmatch(address)
    if match is None:
        return None  # a name only Ray understands
    try:
        socket.create_connection((match["host"], int(match["port"])), ANSWER_SECONDS).close()
    except OSError as error:
        return str(error)
    return None


def _no_cluster(address: str, why: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address!r} ({why}); allowed: the address of a running one, or auto; "
        "check 'ray status' there, and its token if it asks for one."
    )


def _quiet_settings() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A worker that ends itself raises; where the search is over by then, nobody asks what it raised.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

"""The files on the pages about deployment are valid, and their times and paths are those of the service.

`tests/acceptance/test_proxies.py` runs the proxies with these files.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from queue_middleware import Settings
from queue_middleware.option_parsers import parse_seconds
from queue_middleware.runtime import readiness
from queue_middleware.web.ops.routes import PATHS, OpsOperation
from tests.support.tools import missing, tool

from .test_docs import ROOT, blocks

HOW_TO = ROOT / "docs" / "how-to"
NEEDED = 2 * Settings().shutdown_timeout + 5
"""Seconds from the signal to stop to the end, at most; what supervisors wait for has to be longer."""
PAGES = ("systemd.md", "kubernetes.md", "docker.md", "behind-caddy.md", "behind-nginx.md")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def documents(page: str) -> list[dict[str, Any]]:
    return [document for block in blocks(HOW_TO / page, "yaml") for document in yaml.safe_load_all(block)]


# --- systemd


def unit(name: str) -> str:
    """The block that the page saves under this name."""
    page = (HOW_TO / "systemd.md").read_text()
    names = re.findall(r"`/etc/systemd/system/([\w.-]+)`", page)
    return dict(zip(dict.fromkeys(name for name in names), blocks(HOW_TO / "systemd.md", "ini"), strict=True))[name]


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "systemd")
    for name in ("pictures.service", "pictures-check.service", "pictures-check.timer"):
        text = unit(name).replace("/opt/pictures/.venv/bin/uvicorn", "/bin/true").replace("/usr/bin/systemctl", "/bin/true")
        (tmp_path / name).write_text(text)
    for path in sorted(tmp_path.iterdir()):
        run(analyze, "verify", "--man=no", str(path))


@contextmanager
def listening(*, responds: bool) -> Iterator[int]:
    """A server on this port, whose event loop responds or not."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond() -> None:
            with suppress(OSError):
                while True:
                    with server.accept()[0] as client:
                        client.recv(4096)
                        client.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

        if responds:
            threading.Thread(target=respond, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def not_listening() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    ("server", "restarts"), [(listening(responds=False), True), (listening(responds=True), False), (not_listening(), False)]
)
def test_the_check_restarts_only_a_service_that_does_not_respond(
    server: AbstractContextManager[int], restarts: bool, tmp_path: Path
) -> None:
    """A service that migrates its database does not listen for a while."""
    tool("curl")
    (line,) = re.findall(r"^ExecStart=/bin/sh -c '(.+)'$", unit("pictures-check.service"), re.MULTILINE)
    with server as port:
        for old, new in (
            (":8000/", f":{port}/"), ("--max-time 20", "--max-time 0.3"), ("--retry 2", "--retry 0"),
            ("systemctl restart pictures.service", f"touch {tmp_path}/restarted"), ("$$", "$"),
        ):  # fmt: skip
            assert old in line
            line = line.replace(old, new)
        run("/bin/sh", "-c", line)
    assert (tmp_path / "restarted").exists() is restarts


def test_systemd_waits_for_the_shutdown() -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\w+)$", unit("pictures.service"), re.MULTILINE)
    assert parse_seconds(seconds) > NEEDED


def test_the_folder_of_the_unit_is_that_of_the_database() -> None:
    settings = dict(re.findall(r"^(StateDirectory|Environment=QUEUE_DATABASE)=(.+)$", unit("pictures.service"), re.MULTILINE))
    assert settings["Environment=QUEUE_DATABASE"].startswith(f"/var/lib/{settings['StateDirectory']}/")


# --- containers


def test_compose_accepts_its_file(tmp_path: Path) -> None:
    compose = tool("docker-compose")
    (tmp_path / "compose.yaml").write_text(blocks(HOW_TO / "docker.md", "yaml")[0])
    run(compose, "--file", str(tmp_path / "compose.yaml"), "config", "--quiet")


def test_compose_waits_for_the_shutdown() -> None:
    (compose,) = documents("docker.md")
    assert parse_seconds(compose["services"]["api"]["stop_grace_period"]) > NEEDED


def test_kubernetes_accepts_its_objects() -> None:
    try:
        import kubernetes_validate
    except ImportError:
        missing("kubernetes-validate is not installed (PyPI)")
    kinds = []
    for document in documents("kubernetes.md"):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        kinds.append(document["kind"])
    assert kinds == ["Secret", "Service", "StatefulSet"]


@pytest.fixture
def stateful_set() -> dict[str, Any]:
    (found,) = [document for document in documents("kubernetes.md") if document["kind"] == "StatefulSet"]
    return found


def test_kubernetes_waits_for_the_shutdown(stateful_set: dict[str, Any]) -> None:
    pod = stateful_set["spec"]["template"]["spec"]
    before = float(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > before + NEEDED


def test_kubernetes_has_one_replica_with_one_volume(stateful_set: dict[str, Any]) -> None:
    spec = stateful_set["spec"]
    container = spec["template"]["spec"]["containers"][0]
    database = next(one["value"] for one in container["env"] if one["name"] == "QUEUE_DATABASE")
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (claim,) = spec["volumeClaimTemplates"]
    assert spec["replicas"] == 1
    assert Path(database).parent == Path(mounted[claim["metadata"]["name"]])


def test_the_user_of_the_image_is_that_of_the_pod(stateful_set: dict[str, Any]) -> None:
    context = stateful_set["spec"]["template"]["spec"]["securityContext"]
    (image,) = blocks(HOW_TO / "docker.md", "dockerfile")
    assert f"--uid {context['runAsUser']} " in image


def test_the_variables_on_the_pages_are_options() -> None:
    known = {f"QUEUE_{name.upper()}" for name in Settings.__dataclass_fields__}
    for page in PAGES:
        named = set(re.findall(r"\bQUEUE_[A-Z_]+\b", (HOW_TO / page).read_text()))
        assert named <= known, page


def test_the_health_checks_on_the_pages_are_routes() -> None:
    for page in PAGES:
        for path in re.findall(r"/fal/queue(/health/\w+)", (HOW_TO / page).read_text()):
            assert path in PATHS, (page, path)


def test_kubernetes_waits_for_the_readiness_check(stateful_set: dict[str, Any]) -> None:
    (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
    longest = readiness._LIMIT + readiness._GRACE
    assert container["readinessProbe"]["timeoutSeconds"] > longest
    for page in (HOW_TO / "kubernetes.md", ROOT / "docs" / "reference" / "routes.md"):
        assert f" {longest:g} seconds, so" in page.read_text()


def test_liveness_does_not_depend_on_the_disk(stateful_set: dict[str, Any]) -> None:
    (container,) = stateful_set["spec"]["template"]["spec"]["containers"]
    probed = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    routes = {operation: f"{Settings().prefix}{path}" for path, operation in PATHS.items()}
    live, ready = routes[OpsOperation.LIVE], routes[OpsOperation.READY]
    assert probed == {"startup": live, "liveness": live, "readiness": ready}

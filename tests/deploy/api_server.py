"""As much of Kubernetes' API as helm asks for: objects are kept, and nothing is made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

Objects = dict[str, dict[str, Any]]

# Kinds by the group that serves them; names in paths are the kind's, in small letters, with an s.
KINDS = {
    "v1": "Secret ConfigMap Service ServiceAccount PersistentVolumeClaim Namespace",
    "apps/v1": "Deployment",
    "batch/v1": "CronJob",
    "policy/v1": "PodDisruptionBudget",
    "networking.k8s.io/v1": "NetworkPolicy Ingress",
    "ray.io/v1": "RayJob",
    "monitoring.coreos.com/v1": "PodMonitor PrometheusRule",
}
_PLURALS = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}
_OBJECT = re.compile(r"/(api/v1|apis/[^/]+/[^/]+)/namespaces/[^/]+/[^/]+/[^/]+")


def plural(kind: str) -> str:
    """Its name in paths."""
    return _PLURALS.get(kind, f"{kind.lower()}s")


def _kind(path: str) -> tuple[str, str]:
    """Version and kind of the objects below a path."""
    found = {
        (version.rpartition("/")[0], plural(kind)): (version, kind)
        for version, kinds in KINDS.items()
        for kind in kinds.split()
    }
    parts = path.split("/")
    return found[parts[2] if parts[1] == "apis" else "", parts[-1]]


def _discovery(path: str) -> dict[str, Any] | None:
    groups = [version for version in KINDS if "/" in version]
    if path == "/version":
        return {"major": "1", "minor": "27", "gitVersion": "v1.27.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        named = [(g, {"groupVersion": g, "version": g.partition("/")[2]}) for g in groups]
        found = [
            {"name": g.partition("/")[0], "versions": [v], "preferredVersion": v} for g, v in named
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version in KINDS:
        resources = [
            {"name": plural(k), "kind": k, "namespaced": True, "verbs": ["get", "list", "create"]}
            for k in KINDS[version].split()
        ]
        return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return None


class _Handler(BaseHTTPRequestHandler):
    objects: Objects

    def log_message(self, *_: Any) -> None:
        """Nothing: pytest shows what helm says."""

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if asked.path == "/openapi/v2":  # in protobuf: no schemas, so that nothing is held to one
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        found = _discovery(asked.path) or self.objects.get(asked.path)
        if found is None and not _OBJECT.fullmatch(asked.path):
            version, kind = _kind(asked.path)
            found = {
                "kind": f"{kind}List",
                "apiVersion": version,
                "metadata": {},
                "items": self._listed(asked),
            }
        self._answer(found)

    def _listed(self, asked: Any) -> list[dict[str, Any]]:
        selector = parse_qs(asked.query).get("labelSelector", [""])[0]
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        return [
            found
            for path, found in self.objects.items()
            if path.startswith(f"{asked.path}/")
            and wanted.items() <= found["metadata"].get("labels", {}).items()
        ]

    def do_POST(self) -> None:
        sent = self._sent()
        path = f"{urlsplit(self.path).path}/{sent['metadata']['name']}"
        self.objects[path] = sent
        self._answer(sent, 201)

    def do_PUT(self) -> None:
        path = urlsplit(self.path).path
        self.objects[path] = self._sent()
        self._answer(self.objects[path])

    def do_PATCH(self) -> None:
        found = self.objects[urlsplit(self.path).path]
        _merge(found, self._sent())
        self._answer(found)

    def do_DELETE(self) -> None:
        self._sent()
        self._answer(self.objects.pop(urlsplit(self.path).path, None))

    def _sent(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")

    def _answer(self, found: dict[str, Any] | None, status: int = 200) -> None:
        if found is None:
            status = 404
            found = {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _merge(found: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            _merge(found[key], value)
        else:
            found[key] = value


@contextmanager
def api_server() -> Iterator[tuple[str, Objects]]:
    """Its address, and the objects that it holds by their paths."""
    objects: Objects = {}
    handler = type("Handler", (_Handler,), {"objects": objects})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", objects
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

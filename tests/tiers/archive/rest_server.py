"""A small Iceberg REST catalog over loopback HTTP, with the requests of our archive, that fails as real servers do."""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import CommitTableRequest

STATUS = {
    NoSuchNamespaceError: 404,
    NoSuchTableError: 404,
    CommitFailedException: 409,
    NamespaceAlreadyExistsError: 409,
    TableAlreadyExistsError: 409,
}


class RestServer(ThreadingHTTPServer):
    """Serves the tables of a SQLite catalog. A context manager.

    Attributes:
        script: answers to the next commits: "504" fails without a commit, "applied 504" commits first; "drop" closes
            the socket instead of answering.
        status: the status of every response, while it is set.
        token: the token that requests must carry, if set.
    """

    daemon_threads = True

    def __init__(self, directory):
        super().__init__(("127.0.0.1", 0), Handler)
        self.catalog = SqlCatalog("server", uri=f"sqlite:///{directory}/server.db", warehouse=str(directory / "lake"))
        self.lock = threading.Lock()  # one request at a time
        self.script = []
        self.status = None
        self.token = None
        self.asked = 0
        self.failures = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def properties(self):
        """Settings of an archive's catalog."""
        return {"type": "rest", "uri": f"http://127.0.0.1:{self.server_port}"}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()
        self.catalog.close()
        assert self.failures == []

    def handle_error(self, _request, _client_address):
        """A closed connection is ignored; any other error fails the test."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            self.failures.append(error)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the acknowledgement of its headers

    def log_message(self, *_):
        """Write no log."""

    def do_GET(self):
        self._answer(self._get)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(lambda parts: self._post(parts, body))

    def _answer(self, act):
        server = self.server
        with server.lock:
            server.asked += 1
            if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                self._send(401, error("NotAuthorizedException", "the token has expired"))
            elif server.status:
                self._send(server.status, error("Fault", "as the test wants it"))
            else:
                try:
                    self._send(200, act(self.path.partition("?")[0].strip("/").split("/")[1:]))
                except tuple(STATUS) as refused:
                    self._send(STATUS[type(refused)], error(type(refused).__name__, str(refused)))

    def _get(self, parts):
        if parts == ["config"]:
            return {"defaults": {}, "overrides": {}}
        _, namespace, _, name = parts
        return described(self.server.catalog.load_table((namespace, name)))

    def _post(self, parts, body):
        catalog = self.server.catalog
        if parts == ["namespaces"]:
            catalog.create_namespace(tuple(json.loads(body)["namespace"]))
            return {"namespace": json.loads(body)["namespace"], "properties": {}}
        _, namespace, _, *name = parts
        if not name:
            request = CreateTableRequest.model_validate({"location": None} | json.loads(body))
            return described(
                catalog.create_table(
                    (namespace, request.name),
                    request.table_schema,
                    partition_spec=request.partition_spec,
                    sort_order=request.write_order,
                    properties=request.properties,
                )
            )
        return self._commit((namespace, *name), CommitTableRequest.model_validate_json(body))

    def _commit(self, identifier, request):
        step = self.server.script.pop(0) if self.server.script else ""
        if not step or step.startswith("applied"):
            table = self.server.catalog.load_table(identifier)
            result = self.server.catalog.commit_table(table, request.requirements, request.updates)
            answer = {
                "metadata-location": result.metadata_location,
                "metadata": json.loads(result.metadata.model_dump_json()),
            }
        if not step:
            return answer
        fault = step.split()[-1]
        if fault == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        self._send(int(fault), error("Fault", step))
        return None

    def _send(self, status, answer):
        if answer is None:
            return
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def described(table):
    return {
        "metadata-location": table.metadata_location,
        "metadata": json.loads(table.metadata.model_dump_json()),
        "config": {},
    }


def error(kind, message):
    return {"error": {"message": message, "type": kind, "code": 0}}

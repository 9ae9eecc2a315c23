"""A served page follows its study, and is for readers on this machine alone."""

import json
import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_studies import empty, full_study
from typer.testing import CliRunner

from capacity.errors import DataError, SpecError
from capacity_cli.app import app
from capacity_reports.server import Server, state_of
from capacity_reports.views import Options

QUICK = Options(null=0, replicates=50)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    fsync, os.fsync = os.fsync, lambda _: None
    folder = tmp_path_factory.mktemp("server") / "made"
    full_study(folder, methods=("sft", "grpo"), sizes=((13, 1), (28, 1)), seeds=2, items=20, tuned=False)
    os.fsync = fsync
    return folder


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    found = Server(empty(tmp_path / "study").folder, 0, QUICK)
    thread = threading.Thread(target=found.serve, daemon=True)
    thread.start()
    yield found
    found._http.shutdown()
    found.close()


def ask(server: Server, path: str = "", **headers: str) -> str:
    request = urllib.request.Request(server.address + path, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def test_a_page_follows_its_study(server, made):
    first = json.loads(ask(server, "state"))
    assert first["words"].startswith("0 runs are complete")
    assert "connect-src 'self'" in ask(server)
    runs = sorted((made / "runs").iterdir())
    for run in runs:
        shutil.copytree(run, server.page.folder / "runs" / run.name)
    server.page.refresh()
    state = json.loads(ask(server, "state"))
    assert state["page"] > first["page"]
    assert state["words"] == f"{len(runs)} runs are complete"
    page = ask(server)
    assert "Which of" in page or "How small an update do sft and grpo need" in page
    assert 'id="follow"' in page


def test_a_page_is_built_again_only_for_new_runs(server, made):
    assert not server.page.refresh()
    run = next((made / "runs").iterdir())
    shutil.copytree(run, server.page.folder / "runs" / run.name)
    assert state_of(server.page.folder) == (f"runs/{run.name}",)


@pytest.mark.parametrize(("path", "host", "code"), [("x", None, 404), ("", "evil.example:80", 403)])
def test_other_pages_and_hosts_are_refused(server, path, host, code):
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server, path, **({"Host": host} if host else {}))
    assert caught.value.code == code


def test_a_page_that_is_not_served_asks_for_nothing(made):
    from capacity_reports.report import build_report

    page = build_report([made], options=QUICK).html()
    assert "connect-src" not in page
    assert "fetch(" not in page


def test_errors_are_one_line(tmp_path, server):
    with pytest.raises(DataError, match="no such study folder"):
        Server(tmp_path / "absent", 0, QUICK)
    port = int(server.address.rstrip("/").rpartition(":")[2])
    with pytest.raises(SpecError, match=rf"port {port} cannot be used \(Address already in use\): choose another"):
        Server(server.page.folder, port, QUICK)


def test_ctrl_c_ends_the_command(made, monkeypatch):
    def interrupted(_: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve", interrupted)
    done = CliRunner().invoke(app, ["view", str(made), "--port", "0"])
    assert done.exit_code == 130
    assert done.stdout.startswith(f"Report of {made}: http://127.0.0.1:")

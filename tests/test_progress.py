"""Lines about runs stand above the bars and are never wiped out by them."""

import fakes
import pytest

from capacity.studies.workers import Event
from capacity_cli.progress import RunProgress


def test_no_bars_are_drawn_while_a_line_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("FORCE_COLOR", "1")
    spec = fakes.spec("sft")
    progress = RunProgress([spec], "steps of all runs")
    drawn: list[bool] = []
    usual = progress.bars.console.print

    def noted(*texts: object, **options: object) -> None:
        if any("[1/1]" in str(text) for text in texts):
            drawn.append(progress.bars.live.is_started)
        usual(*texts, **options)

    monkeypatch.setattr(progress.bars.console, "print", noted)
    with progress as on_event:
        on_event(Event("start", spec))
        assert progress.bars.live.is_started
        on_event(Event("done", spec))
        assert progress.bars.live.is_started
    assert drawn == [False]
    assert "[1/1] sft" in capsys.readouterr().err

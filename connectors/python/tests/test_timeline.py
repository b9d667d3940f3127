"""Samples of a server's status, kept, and drawn."""

import json
import time

import forebay
import pytest
from forebay import timeline as module
from forebay.timeline import Timeline


def test_samples_show_what_is_dirty(client, path, tmp_path):
    with Timeline(client, interval=0.02) as timeline:
        time.sleep(0.1)
        timeline.mark("written")
        client.write_bytes(path, bytes(3_000_000))
        time.sleep(0.1)
    first, last = timeline.samples[0], timeline.samples[-1]
    assert len(timeline.samples) > 5 and last["dirty_bytes"] - first["dirty_bytes"] == 3_000_000
    assert [s["mark"] for s in timeline.samples if "mark" in s] == ["written"]
    timeline.save(tmp_path / "x.jsonl")
    assert Timeline.load(tmp_path / "x.jsonl").samples == timeline.samples


def test_the_picture(client, tmp_path, server, capsys, monkeypatch):
    image = pytest.importorskip("matplotlib.image")
    monkeypatch.setenv("FOREBAY_ADDR", server.flight)
    module.main(
        ["--seconds", "0.2", "--interval", "0.05", "--samples", str(tmp_path / "s"), "--png", str(tmp_path / "a.png"), "--title", "t"]
    )
    told = json.loads(capsys.readouterr().out)
    assert told["samples"] >= 3 and told["dirty_bytes"] >= 0
    module.main(["--samples", str(tmp_path / "s"), "--png", str(tmp_path / "b.png")])
    for name in ("a", "b"):
        picture = image.imread(tmp_path / f"{name}.png")
        assert picture.shape[:2] == (650, 900) and picture.std() > 0.05, "something is drawn"


def test_nothing_to_draw_and_no_interval(tmp_path):
    with pytest.raises(forebay.InvalidArgument):
        Timeline().plot(tmp_path / "x.png")
    with pytest.raises(forebay.InvalidArgument):
        Timeline(interval=0)

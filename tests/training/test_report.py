import json
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinystarcoder.errors import TrainingError
from tinystarcoder.training import report
from tinystarcoder.training.report import page, read_run, ticks


def write_run(folder, *, steps=100, start=8.0, every=20):
    """A log as the trainer writes it: a loss that falls, and validation now and then."""
    folder.mkdir(parents=True)
    with (folder / "log.jsonl").open("w") as stream:
        for step in range(1, steps + 1):
            record = {
                "step": step,
                "tokens": step * 4096,
                "seconds": step * 0.5,
                "loss": start / math.sqrt(step),
                "bits_per_byte": start / math.sqrt(step) / 2,
                "grad_norm": 1.0,
                "lr_factor": 1 - step / steps,
                "tokens_per_second": 8192.0,
                "mfu": 0.25,
            }
            if step % every == 0:
                record["validation_bits_per_byte"] = start / math.sqrt(step) / 2 + 0.1
            stream.write(json.dumps(record) + "\n")
    return folder


def svgs(text):
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text)]


def test_every_curve_of_every_run_is_drawn(tmp_path):
    runs = [
        read_run(write_run(tmp_path / name, start=start)) for name, start in (("a", 8), ("b<", 4))
    ]
    text = page(runs)
    plots = svgs(text)
    assert len(plots) == len(report.CURVES) - 1  # Middles were not validated.
    by_title = {plot.get("aria-label").split(",")[0].split(":")[0]: plot for plot in plots}
    assert len(by_title["loss"].findall(".//polyline")) == 2
    assert len(by_title["bits-per-byte"].findall(".//polyline")) == 4
    assert len(by_title["bits-per-byte"].findall(".//circle")) == 2 * 5
    assert "b&lt;" in text
    assert "b<</" not in text
    assert not re.search(r"(src|href)=|<script", text)  # It stands by itself.


def test_a_falling_curve_is_placed_by_its_values(tmp_path):
    plot = svgs(page([read_run(write_run(tmp_path / "run"))]))[0]
    spots = [
        tuple(map(float, spot.split(",")))
        for spot in plot.find(".//polyline").get("points").split()
    ]
    across, down = [x for x, _ in spots], [y for _, y in spots]
    assert across == sorted(across)
    assert down == sorted(down)  # Downwards on the page.
    assert down[-1] == pytest.approx(report._HEIGHT - report._BOTTOM)
    assert across[-1] == pytest.approx(report._WIDTH - report._RIGHT)


def test_a_picture_of_runs_that_went_on_from_each_other(tmp_path):
    runs = [read_run(write_run(tmp_path / name, steps=40)) for name in ("first", "second")]
    whole = report.joined(runs)
    assert [record["tokens"] for record in whole.records] == [4096 * (n + 1) for n in range(80)]
    curve = report.CURVES[1]
    drawn = ElementTree.fromstring(report.picture(curve, [whole]))
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert [
        len(list(drawn.iter(f"{{http://www.w3.org/2000/svg}}{tag}")))
        for tag in ("polyline", "circle", "style")
    ] == [2, 4, 1]
    assert report.picture(report.CURVES[2], [whole]) == ""


def test_the_table_has_the_figures_of_the_log(tmp_path):
    text = page([read_run(write_run(tmp_path / "run"))])
    last = sum(8 / math.sqrt(step) for step in range(51, 101)) / 50
    cells = re.findall(r"<td>(.*?)</td>", text)
    assert cells[1:] == ["100", "409,600", "0.01", f"{last:.4f}", "0.5000", "8,192", "25.0%", "0"]


def test_long_runs_are_averaged(tmp_path):
    run = read_run(write_run(tmp_path / "run", steps=10_000, every=5000))
    points = run.points("loss")
    assert len(points) <= report.POINTS
    assert sum(y for _, y in points) / len(points) == pytest.approx(
        sum(r["loss"] for r in run.records) / len(run.records), rel=0.01
    )


def test_half_a_line_and_what_is_not_finite_are_passed_over(tmp_path):
    folder = write_run(tmp_path / "run")
    with (folder / "log.jsonl").open("a") as stream:
        stream.write('{"step": 101, "tokens": 413696, "loss": NaN}\n{"step": 102, "tok')
    run = read_run(folder)
    assert run.records[-1]["step"] == 101
    assert len(svgs(page([run]))) == len(report.CURVES) - 1


def test_a_run_of_one_step_is_drawn(tmp_path):
    assert svgs(page([read_run(write_run(tmp_path / "run", steps=1))]))


@pytest.mark.parametrize("text", [None, "", "{}\n", "not json\n"])
def test_no_log_is_one_clear_error(tmp_path, text):
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(TrainingError, match=r"log\.jsonl: (no run's log|holds no step)"):
        read_run(tmp_path)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e12))
def test_ticks_are_few_and_within(low, width):
    high = low + width
    if not high - low > abs(low) * 1e-6:
        return
    found = ticks(low, high)
    slack = (high - low) * 1e-6
    assert 1 <= len(found) <= 7
    assert all(low - slack <= tick <= high + slack for tick in found)


def test_the_command_writes_the_page(tmp_path, monkeypatch, capsys):
    from tinystarcoder.cli.main import main

    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other")
    monkeypatch.setattr("sys.argv", ["tinystarcoder", "report", str(one), str(other)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert capsys.readouterr().out.strip() == str(one / "report.html")
    assert "other" in (one / "report.html").read_text()

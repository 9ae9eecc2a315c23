import numpy as np
import pytest
from test_thresholds import ITEMS, frame

from capacity_analysis.data.select import Selection, designs
from capacity_analysis.data.table import from_frame
from capacity_analysis.thresholds.evidence import gather
from capacity_analysis.thresholds.null_calibration import null_calibration
from capacity_analysis.thresholds.question import Question


def curve(size):
    return 0.76 + 0.16 / (1 + 30 / size)


@pytest.fixture(scope="module")
def design():
    sizes = [10**k for k in range(7)]
    table = frame({"sft": curve, "grpo": curve}, sizes=sizes, base=0.76, items=ITEMS, noise=12)
    return designs(from_frame(table, "t"), Selection())[0]


def calibrated(design, gain, simulations=150):
    rng = np.random.default_rng(0)
    return null_calibration(gather(design, Question(gain=gain), rng), 1, 0, simulations, rng)


def test_naive_ratios_mislead_at_95_percent_of_the_gain_and_not_at_80(design):
    at_80, at_95 = (calibrated(design, gain) for gain in (0.8, 0.95))
    assert at_80.naive_above_10 < 0.01
    assert at_95.naive_above_10 > 0.02
    assert at_95.naive_above_100 < at_95.naive_above_10


def test_our_interval_keeps_its_promise(design):
    found = calibrated(design, 0.8)
    assert found.excludes_1 < 0.05 + 3 * found.standard_error
    assert found.claims_10 <= 0.025


def test_the_same_seed_gives_the_same_numbers(design):
    assert calibrated(design, 0.8, 20) == calibrated(design, 0.8, 20)

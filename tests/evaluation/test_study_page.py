"""The report of a study: what differs is said with its interval, what does not is said plainly."""

import math
from pathlib import Path

from glus.evaluation.pages.study_page import ArmRow, MeasureTable, PublishedPart, StudyPage, findings, write_study
from glus.evaluation.results.intervals import Interval
from glus.evaluation.results.seed_intervals import SeedDifference, SeedEstimate

SEEDS = (0, 1, 2)


def row(arm: str, value: float, gap: float, low: float, high: float) -> ArmRow:
    own = SeedEstimate(value, Interval(value - 1, value + 1), SEEDS, 60)
    return ArmRow(arm, own, SeedDifference(gap, Interval(low, high), SEEDS, 60))


BASE = ArmRow("all", SeedEstimate(70.04, Interval(65, 75), SEEDS, 60))
PAGE = StudyPage(
    title="Study <of> parts",
    base="all",
    notes=("3 arms.",),
    tables=(
        MeasureTable("accuracy", (BASE, row("no context", 50, -20.04, -25, -15.1), row("window", 70, -0.04, -3, 3))),
        MeasureTable(
            "steps",
            (
                ArmRow("all", SeedEstimate(250.4, Interval(200, math.inf), SEEDS, 60)),
                row("no context", math.inf, math.inf, math.inf, math.inf),
                ArmRow("window", SeedEstimate(9.0, None, (0,), 1), SeedDifference(-241.4, None, (0,), 1)),
            ),
            "Steps until.",
            steps=True,
        ),
    ),
    pictures=(),
    published=(PublishedPart("a part", "mevis/valid", 50.3, 49.5, "a paper"),),
    published_note="One pair.",
)


def test_differences_are_said_with_intervals_and_nothing_is_said_plainly() -> None:
    assert findings(PAGE) == [
        ("no context", ["accuracy: -20.0 (-25.0 to -15.1).", "steps: not reached (not reached to not reached)."]),
        ("window", ["No difference shown: accuracy (-3.0 to +3.0).", "Not measured, or without interval: steps."]),
    ]


def test_the_page_and_the_markdown_hold_the_same_values(tmp_path: Path) -> None:
    page, markdown = (place.read_text(encoding="utf-8") for place in write_study(PAGE, tmp_path))
    assert "| all | 70.0 | 65.0 to 75.0 |  |  |  |" in markdown
    assert "| no context | 50.0 | 49.0 to 51.0 | -20.0 | -25.0 to -15.1 | lower |" in markdown
    assert "| window | 70.0 | 69.0 to 71.0 | +0.0 | -3.0 to +3.0 | no difference shown |" in markdown
    assert "| all | 250 | 200 to not reached |" in markdown and "| no context | not reached |" in markdown
    assert "| window | 9 | – | -241 | – | one video and seed, no interval |" in markdown
    assert "| a part | mevis/valid | 50.3 | 49.5 | -0.8 | a paper |" in markdown
    for text in ("Study &lt;of&gt; parts", "-25.0 to -15.1", "no difference shown", "200 to not reached", "One pair."):
        assert text in page

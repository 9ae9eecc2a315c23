"""GSM8K has 8,792 word problems of grade-school arithmetic with worked solutions (arXiv 2110.14168).

Answers are numbers. The solutions contain calculator annotations, "<<48/2=24>>". The demonstrations leave them out,
because they are meant for a tool that models here do not have.
"""

import re
from collections.abc import Mapping
from typing import Any

from capacity.tasks.data_sets import DataSet
from capacity.tasks.grading.answers import MARK
from capacity.tasks.grading.numbers import number
from capacity.tasks.hub import HubFile
from capacity.tasks.rows import Row, text_field

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_REVISION = "740312add88f781978c0658806c59bc2815b9866"


def read_row(record: Mapping[str, Any], number_: int) -> Row:  # noqa: ARG001
    """Reads a record with `question` and `answer`, where `answer` is a solution that ends in "#### 18".

    Raises:
        ValueError: if a field is missing, or the solution has no such end.
    """
    question, solution = text_field(record, "question"), text_field(record, "answer")
    steps, mark, answer = solution.rpartition(MARK)
    if not mark or number(answer) is None:
        raise ValueError(f'"answer" does not end in "{MARK} NUMBER"')
    return Row("", question, answer.strip(), (_ANNOTATION.sub("", steps).rstrip(),))


GSM8K = DataSet(
    name="gsm8k",
    splits=("train", "test"),
    read=read_row,
    compare="number",
    template="hash",
    max_new_tokens=512,
    about="word problems of grade-school arithmetic; 7,473 train, 1,319 test",
    files={
        "train": HubFile("openai/gsm8k", "main/train-00000-of-00001.parquet", _REVISION),
        "test": HubFile("openai/gsm8k", "main/test-00000-of-00001.parquet", _REVISION),
    },
    sizes={"test": 1319},
)

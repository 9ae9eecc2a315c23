"""Defines MATH at the hardest level of SimpleRL-Zoo, and evaluation sets of competition mathematics.

Answers are LaTeX. The evaluation sets are the files of Qwen2.5-Math's evaluation at one commit. MATH-500 comes from its
own repository.
"""

from collections.abc import Mapping
from typing import Any

from capacity.tasks.data_sets import DataSet
from capacity.tasks.grading.answers import boxed
from capacity.tasks.hub import GitFile, HubFile
from capacity.tasks.rows import LeftOut, ReadRow, Row, text_field, whole_text

_QWEN_COMMIT = "a45202bd16f1ec06f433442dc1152d0074773465"
_MATH500 = HubFile("HuggingFaceH4/MATH-500", "test.jsonl", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be")
_QUESTIONS = ("problem", "question", "extra_info.question")
_ANSWERS = ("answer", "final_answer", "gt_answer", "reward_model.ground_truth")


def read_row(record: Mapping[str, Any], number: int) -> Row:  # noqa: ARG001
    """Reads a record that has a problem, and an answer or a solution that boxes its answer.

    A list of answers becomes one answer, separated by commas.

    Raises:
        ValueError: if a field is missing.
    """
    problem = text_field(record, *_QUESTIONS)
    context = record.get("context")
    if isinstance(context, str) and context.strip():  # olympiadbench: what several problems have in common
        problem = whole_text("context", f"{context.strip()}\n{problem}")
    solutions = _solutions(record)
    listed = record.get("final_answer")
    if isinstance(listed, list) and listed and all(isinstance(part, str) for part in listed):
        answer = whole_text("final_answer", ", ".join(listed))
    else:
        boxes = [found for found in map(boxed, solutions) if found is not None]
        answer = text_field(record, *_ANSWERS) if _has_answer(record) or not boxes else boxes[-1]
    return Row("", problem, _bare(answer), solutions)


def read_answered(record: Mapping[str, Any], number: int) -> Row:
    """Reads a record as `read_row` does, but leaves out rows that were published with an empty answer.

    Raises:
        LeftOut: if the answer is empty.
        ValueError: if a field is missing.
    """
    answer = record.get("answer")
    if isinstance(answer, str) and not answer.strip():
        raise LeftOut("they were published without an answer")
    return read_row(record, number)


def _has_answer(record: Mapping[str, Any]) -> bool:
    try:
        text_field(record, *_ANSWERS)
    except ValueError:
        return False
    return True


def _solutions(record: Mapping[str, Any]) -> tuple[str, ...]:
    found = record.get("solution")
    texts = found if isinstance(found, list) else [found]
    return tuple(whole_text("solution", text) for text in texts if isinstance(text, str) and text.strip())


def _bare(answer: str) -> str:
    """Returns the answer without the dollar signs around it."""
    inner = answer.strip().removeprefix("$").removesuffix("$").strip()
    return answer.strip() if "$" in inner else inner


def _evaluation(
    name: str, about: str, size: int, *, file: HubFile | None = None, read: ReadRow = read_row, ambiguous: bool = False
) -> DataSet:
    return DataSet(
        name=name,
        splits=("test",),
        read=read,
        compare="latex",
        template="boxed",
        max_new_tokens=3072,
        about=about,
        files={
            "test": file or GitFile("QwenLM/Qwen2.5-Math", f"evaluation/data/{name}/test.jsonl", _QWEN_COMMIT),
        },
        sizes={"test": size},
        solved=False,
        ambiguous=ambiguous,
    )


MATH = DataSet(
    name="math",
    splits=("train", "test"),
    read=read_row,
    compare="latex",
    template="boxed",
    max_new_tokens=3072,
    about="MATH, SimpleRL-Zoo's hardest level: 8,523 train; its test split is math500",
    files={
        "train": HubFile("hkust-nlp/SimpleRL-Zoo-Data", "simplelr_abel_level3to5/train.parquet", "main"),
        "test": _MATH500,
    },
    sizes={"test": 500},
    solved=False,
    ambiguous=True,  # nobody has looked here whether its train split is
)
MATHEMATICS: dict[str, DataSet] = {
    data.name: data
    for data in (
        MATH,
        _evaluation("math500", "500 problems of MATH", 500, file=_MATH500),
        _evaluation("minerva_math", "272 problems of university courses", 272),
        _evaluation(
            "gaokao2023en",
            "383 problems of the Chinese university entrance examination; 2 more were published without an answer",
            383,
            read=read_answered,
        ),
        _evaluation("olympiadbench", "675 olympiad problems with a closed answer", 675),
        _evaluation("college_math", "2,818 problems of college textbooks", 2818, ambiguous=True),
        _evaluation("aime24", "the 30 problems of AIME 2024", 30),
        _evaluation("amc23", "40 problems of AMC 2023", 40),
    )
}

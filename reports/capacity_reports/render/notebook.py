"""Blocks as a notebook shows them."""

from collections.abc import Iterable
from html import escape

from capacity_reports.blocks import Block, Example, Figure, Table, Text


def html(blocks: Iterable[Block]) -> str:
    """The blocks in their order, without style or script. Tables for programs only are left out."""
    return "".join(_html(block) for block in blocks)


def _html(block: Block) -> str:
    match block:
        case Text():
            tag, strong = ("li" if block.bullets else "p"), block.strong
            lines = (f"<b>{escape(line)}</b>" if strong else escape(line) for line in block.lines)
            items = "".join(f"<{tag}>{line}</{tag}>" for line in lines)
            head = f"<p>{escape(block.folded)}:</p>" if block.folded else ""
            return head + (f"<ul>{items}</ul>" if block.bullets else items)
        case Table():
            note = f"<p>{escape(block.note)}</p>" if block.note else ""
            return "" if block.exported_only else block._repr_html_() + note
        case Figure():
            return f"<figure>{block._repr_svg_()}<figcaption>{escape(block.caption)}</figcaption></figure>"
        case Example():
            answers = "".join(
                f"<dt>{escape(who)} ({'correct' if right else 'wrong'})</dt><dd><pre>{escape(answer)}</pre></dd>"
                for who, answer, right in block.answers
            )
            return f"<h4>{escape(block.title)}</h4><pre>{escape(block.prompt)}</pre><dl>{answers}</dl>"

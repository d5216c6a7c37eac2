"""Stats page: the tag statistics as one HTML file with SVG bars, readable without a network, in light and dark."""

from __future__ import annotations

from html import escape

from prep.stats import Summary, TagCount, lines

BARS = 100  # bars at most; more tags are in a list below
ROW, LABEL, WIDTH = 20, 230, 820  # pixels: height of a bar's row, room for its name, whole width

STYLE = """
:root { --back: #fff; --ink: #1c1e21; --soft: #6b7280; --bar: #9db4d6; --key: #2f5f9e; --line: #e3e6ea }
@media (prefers-color-scheme: dark) { :root { --back: #16181c; --ink: #e6e8eb; --soft: #9aa3af; --bar: #3f5779; --key: #8fb8ee; --line: #2a2e35 } }
body { background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 860px; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem; border-top: 1px solid var(--line); padding-top: 1rem }
svg { width: 100%; height: auto } text { fill: var(--ink); font: 13px system-ui, sans-serif } .soft { fill: var(--soft) }
.bar { fill: var(--bar) } .key { fill: var(--key) } p.soft { color: var(--soft) } li { break-inside: avoid } ul { columns: 3; padding-left: 1.2rem }
"""


def render(summary: Summary, title: str) -> str:
    """Return the page as HTML."""
    legend = f"<p class=soft>dark: beside the keyword {escape(summary.keyword)}; light: without it</p>" if summary.keyword else ""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>Tags of {escape(title)}</title>",
        f"<style>{STYLE}</style><h1>Tags of {escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in lines(summary)),
        f"<h2>How many captions hold a tag</h2>{legend}{bars(summary.tags[:BARS])}" if summary.tags else "",
        _list("Tags beyond those", [f"{row.tag} ({row.count})" for row in summary.tags[BARS:] if row.count > 1]),
        _list("Tags that are there only once", [f"{tag} ({name})" for tag, name in summary.once.items()]),
        _list("Captions that name no person", summary.without_person),
        _list("Pictures without a caption", summary.without_caption),
        "</html>\n",
    ]
    return "\n".join(filter(None, parts))


def bars(rows: list[TagCount]) -> str:
    """Draw a bar for each tag, as long as its count; the part beside the keyword is darker."""
    most = max(row.count for row in rows)
    room = WIDTH - LABEL - 60
    drawn = []
    for place, row in enumerate(rows):
        y, whole, key = place * ROW, room * row.count / most, room * row.with_keyword / most
        drawn.append(
            f"<g><title>{escape(row.tag)}: {row.count} captions, {row.share:.1%}</title>"
            f"<text x='{LABEL - 8}' y='{y + 14}' text-anchor='end'>{escape(_short(row.tag))}</text>"
            f"<rect class='bar' x='{LABEL}' y='{y + 3}' width='{whole:.1f}' height='{ROW - 6}' rx='2'/>"
            f"<rect class='key' x='{LABEL}' y='{y + 3}' width='{key:.1f}' height='{ROW - 6}' rx='2'/>"
            f"<text class='soft' x='{LABEL + whole + 6:.1f}' y='{y + 14}'>{row.count}</text></g>"
        )
    return f"<svg viewBox='0 0 {WIDTH} {len(rows) * ROW}' role='img' aria-label='captions that hold each tag'>{''.join(drawn)}</svg>"


def _short(tag: str, most: int = 32) -> str:
    return tag if len(tag) <= most else tag[: most - 1] + "…"


def _list(title: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"<h2>{title} ({len(names)})</h2><ul>{''.join(f'<li>{escape(name)}</li>' for name in names)}</ul>"

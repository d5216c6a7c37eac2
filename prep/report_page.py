"""The frame of report.html: its style, light and dark as the reader's system is, and what stands around the sections."""

from __future__ import annotations

from collections.abc import Mapping

STYLE = """
:root{color-scheme:light dark;--ground:#f7f7f5;--card:#fff;--ink:#1d1f21;--soft:#666b70;--line:#e1e1dc;--accent:#0b62a8}
@media(prefers-color-scheme:dark){:root{--ground:#16181a;--card:#202326;--ink:#e8e8e4;--soft:#9aa0a6;--line:#33373b;--accent:#7cb8ee}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1500px;padding:2rem clamp(1rem,3vw,3rem) 4rem;background:var(--ground);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.7rem;margin:0 0 1rem}
h2{font-size:1.3rem;margin:2.6rem 0 .2rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.4rem 0 .5rem}
h2 b,h3 b{font-weight:400;color:var(--soft);margin-left:.35em}
p{margin:.2rem 0 1rem;color:var(--soft)}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
table{border-collapse:collapse;min-width:20rem;background:var(--card);border:1px solid var(--line);border-radius:8px;overflow:hidden}
th{font-weight:600;text-align:left}td{text-align:right;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .9rem;border-top:1px solid var(--line)}tr:first-child>*{border-top:0}
.sub th{font-weight:400;padding-left:2rem}.sub td{color:var(--soft)}
.groups{display:flex;flex-wrap:wrap;gap:0 28px}.groups>div{max-width:100%}
.cards{display:flex;flex-wrap:wrap;gap:12px}.cards figure{width:200px}
.changed .cards figure{width:min(460px,100%)}
.kept .cards{gap:8px}.kept .cards figure{width:132px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;overflow:hidden;display:flex;flex-direction:column}
img{display:block;width:100%;height:190px;object-fit:contain;background:var(--line)}
.kept img{height:120px}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:2px}.pair img{height:230px}
.pair i{display:grid;place-items:center;height:230px;color:var(--soft);background:var(--line)}
figcaption{padding:.5rem .65rem .6rem;overflow-wrap:anywhere}
strong{display:block;font-weight:600;font-size:.87rem}
small{display:block;color:var(--soft);font-size:.8rem}
.kept figcaption{padding:.3rem .45rem .4rem}.kept strong{font-weight:400;font-size:.76rem}.kept small{font-size:.72rem}
ul{list-style:none;margin:.3rem 0 .2rem;padding:0;display:flex;flex-wrap:wrap;gap:4px}
li{font-size:.78rem;padding:.05rem .5rem;border:1px solid var(--line);border-radius:99px}
.legend{display:flex;flex-wrap:wrap;gap:1.1rem;font-size:.82rem;margin:0 0 .8rem}
.legend span::before{content:"";display:inline-block;width:.8em;height:.8em;margin-right:.4em;border:2px solid var(--of);vertical-align:-.05em}
.more{margin-top:.8rem}
@media print{body{max-width:none;padding:0}figure{break-inside:avoid}}
"""
NAMES = {"boxes": "subject", "marks": "text or mark", "masked": "left out of the loss", "crop": "crop"}
FOOT = "</main></body></html>\n"


def head(title: str) -> str:
    """Return the page up to its first section; `title` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>"
    )


def legend(colours: Mapping[str, str]) -> str:
    """Return what the colours of the outlines mean."""
    return f'<div class="legend">{"".join(f"""<span style="--of:{colours[kind]}">{name}</span>""" for kind, name in NAMES.items())}</div>'

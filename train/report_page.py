"""The page of a run: its report (NAME.json) as one HTML file with nothing outside it, no script, in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from prep.report_page import FOOT
from prep.report_page import STYLE as FRAME
from train import curves, report_images
from train.curves import Chart, Line, number
from train.report import RATE, tag_counts
from train.report_words import Say

TAGS = 30  # that are shown
ROWS = 200  # pictures in the table
STEEP = 20.0  # times by which a curve's values differ before it is drawn on a logarithm
NAMES = {"te": "text encoder", "te1": "text encoder 1", "te2": "text encoder 2"}
ANY = Mapping[str, Any]

STYLE = """
.verdict{background:var(--card);border:1px solid var(--line);border-left:5px solid var(--accent);border-radius:8px}
.verdict{padding:.8rem 1.1rem;margin:0 0 1rem}
.verdict p{color:var(--ink);margin:0;font-size:1.08rem}.verdict b{margin-right:.6em;text-transform:capitalize}
dl{display:flex;flex-wrap:wrap;gap:10px;margin:0 0 1rem}
dl div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.4rem .9rem}
dt{font-size:.78rem;color:var(--soft)}dd{margin:0;font-size:1.15rem;font-weight:600;font-variant-numeric:tabular-nums}
dd small{display:inline;font-weight:400}
.scroll{overflow-x:auto;max-width:100%}.words td,td.words{text-align:left;overflow-wrap:break-word}
.chart table{overflow-x:auto;display:block;width:fit-content;max-width:100%}summary{cursor:pointer;color:var(--accent)}
details>div,details>table{margin-top:.6rem}
td img{width:72px;height:72px;border-radius:4px}.time img{height:auto;max-height:none}
.time input{position:absolute;opacity:0}.time nav{display:flex;flex-wrap:wrap;gap:4px;margin-bottom:8px}
.time label{padding:.15rem .7rem;border:1px solid var(--line);border-radius:99px;background:var(--card);font-size:.85rem;cursor:pointer}
.time .sheets figure{display:none}
@media print{.time .sheets figure{display:flex;margin-bottom:8px}}
.bars th{font-weight:400}.bars th,.bars td{padding:.1rem .7rem;border:0;font-size:.85rem}.bars td:nth-child(2){width:clamp(90px,28vw,420px)}
.bars i{display:block;height:.8rem;border-radius:2px;background:var(--c0);min-width:1px}
.columns{display:flex;flex-wrap:wrap;gap:1rem 3rem;align-items:flex-start}.columns h3{margin-top:.6rem}
code{font-size:.78rem;overflow-wrap:anywhere}
"""
# A sheet is shown where its button is chosen; the keyboard's arrows go from one to the next.
CHOSEN = "".join(
    f"#t{n}:checked~.sheets>:nth-child({n + 1}){{display:flex}}#t{n}:checked~nav>:nth-child({n + 1}){{background:var(--accent);color:var(--ground)}}"
    f"#t{n}:focus-visible~nav>:nth-child({n + 1}){{outline:2px solid var(--ink);outline-offset:2px}}"
    for n in range(report_images.SHEETS)
)


def render(report: ANY, folder: Path, tree: Path) -> str:
    """Return the page about a report; its sample sheets lie in `folder`, its pictures in `tree`."""
    name = escape(report["name"])
    head = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name}: report of the run</title><style>{FRAME}{curves.STYLE}{STYLE}{CHOSEN}</style></head><body><main><h1>{name}</h1>"
    )
    parts = [
        ("curves", "Curves", "".join(map(curves.draw, charts(report))), '<div class="charts">{}</div>'),
        ("samples", "Sample pictures", samples(report["samples"], folder), '<div class="time">{}</div>'),
        ("norms", "Size of the update by block", norms(report["norms"]), "{}"),
        ("pictures", "Pictures one by one", pictures(report["pictures"], tree), "{}"),
        ("data", "What it was trained on", data(report["summary"]), "{}"),
        ("settings", "Settings", settings(report["settings"], report["changed"]), "{}"),
        ("files", "Files", files(report["files"]), "{}"),
    ]
    sections = [
        f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{title}</h2>{frame.format(body)}</section>'
        for key, title, body, frame in parts
        if body
    ]
    return head + verdict(report) + figures(report) + "".join(sections) + FOOT


def verdict(report: ANY, say: Say = str) -> str:
    """Say what the run came to, in the words that it was judged with, or how far it is."""
    found, last, running = report["verdict"] or {}, report["progress"], report["state"] == "running"
    plain = f"{say('step')} {last['step']}{of(last, say)}" if running else say("{count} steps").format(count=last["step"])
    best, judged = best_of(report), say("no pictures were held out, so it was not judged")
    if best:
        judged = say("the best so far is epoch {epoch} (step {step})" if running else "the best is epoch {epoch} (step {step})")
        judged = judged.format(epoch=best.get("epoch"), step=best["step"])
    word = found.get("word") or say(report["state"])
    return f'<div class="verdict" role="status"><p><b>{escape(str(word))}</b>{escape(str(found.get("sentence") or f"{plain}; {judged}"))}</p></div>'


def of(progress: ANY, say: Say) -> str:
    """Say how many steps the whole run has, where that is not the step that it is at."""
    steps = progress["steps"]
    return " " + say("of {count}").format(count=f"{steps:,}") if steps and steps != progress["step"] else ""


def best_of(report: ANY) -> ANY:
    """Return the judgement that the verdict names, or the one with the least score; nothing if there is none."""
    found = report["validation"]
    named = (report["verdict"] or {}).get("step")
    scored = [entry for entry in found if entry.get("score") is not None]
    return next((entry for entry in found if entry["step"] == named), None) or min(scored, key=lambda entry: entry["score"], default={})


def figures(report: ANY, say: Say = str) -> str:
    """Return the numbers that are looked for first."""
    last, best = report["progress"], best_of(report)
    base = best.get("base") or 1.0
    shares = [(name.replace("_", " "), percent(best.get(name)), "") for name in ("learned", "needs_keyword", "bleed") if best]
    band = f" ± {percent(best['band'] / base)}" if best.get("band") is not None else ""
    rows = [
        ("steps", f"{last['step']:,}", of(last, say)),
        ("epochs", str(last["epoch"]), ""),
        ("mean loss at the end", number(last["mean_loss"]), ""),
        *([("held-out loss, share of the base's", percent(best["loss"] / base), band)] if best.get("loss") is not None else []),
        *shares,
        ("time in steps", duration(last["seconds"]), ""),
    ]
    return f"<dl>{''.join(f'<div><dt>{say(title)}</dt><dd>{value}<small>{more}</small></dd></div>' for title, value, more in rows)}</dl>"


def charts(report: ANY, say: Say = str) -> list[Chart]:
    """Return the curves of a run; those it has no numbers for are drawn as nothing."""
    run, held, best = report["curves"], report["validation"], best_of(report)
    epochs = {**dict(zip(run["step"], run["epoch"], strict=True)), **{entry["step"]: entry.get("epoch") for entry in held}}
    mark = (best["step"], say("best, epoch {epoch}").format(epoch=best.get("epoch"))) if best else None

    def line(name: str, key: str, colour: int, look: str = "") -> Line:
        return Line(name, list(zip(run["step"], run[key], strict=True)), colour, look)

    def judged(name: str, key: str, colour: int, look: str = " dots") -> Line:
        return Line(name, [(entry["step"], entry.get(key)) for entry in held], colour, look)

    band = [(e["step"], e["loss"] - e["band"], e["loss"] + e["band"]) for e in held if e.get("loss") is not None and e.get("band") is not None]
    found = [entry["loss"] for entry in held if entry.get("loss")]
    return [
        Chart("Training loss", "loss", [line("of a step", "loss", 0, "faint"), line("running mean", "mean_loss", 0)], epochs=epochs),
        Chart(
            "Held-out loss and its 95 % band", "share of the base's loss",
            [judged("held out", "loss", 0), judged("base model", "base", 5, "dashed")], band, mark,
            log=bool(found) and max(found) > STEEP * min(found) > 0, epochs=epochs,
        ),
        Chart(
            "Learned, needs keyword, bleed", "share of the base's loss",
            [judged("learned", "learned", 2), judged("needs keyword", "needs_keyword", 0, "dashed dots"), judged("bleed", "bleed", 1, "dotted dots")],
            mark=mark, limits=(-1.05, 1.05), epochs=epochs,
        ),
        Chart("Learning rate", "rate", [line(name, key, n, ("", "dashed")[n % 2]) for n, (name, key) in enumerate(rates_of(run).items())],
              epochs=epochs),
        Chart("Gradient norm", "norm", [line("before it is cut to max_grad_norm", "grad_norm", 3, "")], log=True, epochs=epochs),
    ]  # fmt: skip


def rates_of(run: ANY) -> dict[str, str]:
    """Return the curves of rates by the names of the parts that have them; parts of one course share a curve."""
    parts: dict[str, list[str]] = {}
    for key in sorted((key for key in run if key.startswith(RATE)), key=lambda key: (key != f"{RATE}unet", key)):
        same = next((other for other in parts if run[other] == run[key]), key)
        parts.setdefault(same, []).append(words(key.removeprefix(RATE)))
    return {", ".join(names): key for key, names in parts.items()}


def samples(sheets: Sequence[ANY], folder: Path) -> str:
    """Return the sample sheets, of which one is shown at a time."""
    chosen = [sheets[n] for n in report_images.spread(len(sheets), report_images.SHEETS)]
    uris = report_images.sheet_uris([folder / sheet["file"] for sheet in chosen])
    shown = [(sheet, uri) for sheet, uri in zip(chosen, uris, strict=True) if uri]
    newest = len(shown) - 1
    buttons = "".join(
        f'<input type="radio" name="time" id="t{n}" aria-label="sample pictures at step {sheet["step"]}"{" checked" if n == newest else ""}>'
        for n, (sheet, _) in enumerate(shown)
    )
    labels = "".join(f'<label for="t{n}">step {sheet["step"]}</label>' for n, (sheet, _) in enumerate(shown))
    figures = "".join(
        f'<figure><img src="{uri}" alt="sample pictures drawn at step {sheet["step"]}, a row for each prompt"><figcaption>'
        f"{escape(sheet['file'])}, step {sheet['step']}</figcaption></figure>"
        for sheet, uri in shown
    )
    left = f"<p>{len(chosen)} of {len(sheets)} sheets are shown</p>" if len(chosen) < len(sheets) else ""
    return f'{buttons}<nav aria-hidden="true">{labels}</nav><div class="sheets">{figures}</div>{left}' if shown else ""


def norms(found: ANY) -> str:
    """Return the norm of the update in each block as bars."""
    blocks = (found or {}).get("blocks") or {}
    rows = [(words(block), value, number(value)) for block, value in blocks.items()]
    return f"<p>Median over the layers of a block: {escape(found['measure'])}.</p>{bars(rows)}" if rows else ""


def pictures(rows: Sequence[ANY], tree: Path) -> str:
    """Return a table of the pictures, those with a verdict first, then those that gained least."""
    ordered = sorted(rows, key=lambda row: (not row.get("verdict"), row.get("improvement") or 0.0))[:ROWS]
    uris = report_images.thumb_uris(tree / row["path"] for row in ordered)
    lines = "".join(
        f'<tr><td>{f"""<img src="{uri}" alt="" loading="lazy">""" if uri else ""}</td><th scope="row">{escape(row["path"])}</th>'
        f"<td>{percent(row.get('improvement'))}</td><td>{percent(row.get('keyword'))}</td>"
        f'<td class="words">{escape(row.get("verdict") or "")}</td><td class="words">{escape(", ".join(row.get("cut_tags") or ()))}</td></tr>'
        for row, uri in zip(ordered, uris, strict=True)
    )
    titles = ("picture", "", "of the base's loss gone", "of it by the keyword", "verdict", "tags cut off")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    more = f"<p>… and {len(rows) - len(ordered)} more</p>" if len(rows) > len(ordered) else ""
    return f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>{more}' if rows else ""


def data(summary: ANY) -> str:
    """Return counts, folders with their repeats, buckets and the most frequent tags."""
    if not summary:
        return ""
    counted = [(words(key), f"{summary[key]:,}") for key in ("pictures", "train_samples", "reg_pictures", "reg_samples", "reg_unused",
               "batches_per_epoch") if summary.get(key) is not None]  # fmt: skip
    folders = [
        (f"{name} ({kind})", f"{entry.get('img_count', 0):,} × {entry.get('n_repeats', 1)}")
        for kind, key in (("training", "dataset_dirs"), ("regularization", "reg_dataset_dirs"))
        for name, entry in (summary.get(key) or {}).items()
    ]
    buckets = [(" × ".join(map(str, entry["size"])), float(entry["count"]), f"{entry['count']:,}") for entry in summary.get("buckets") or ()]
    tags = [(tag, float(count), f"{count:,}") for tag, count in list(tag_counts(summary).items())[:TAGS]]
    blocks = [
        ("Samples of an epoch", table(counted)),
        ("Folders, pictures × repeats", table(folders)),
        ("Buckets, samples of an epoch", bars(buckets)),
        (f"Tags, the {len(tags)} most frequent", bars(tags)),
    ]
    return f'<div class="columns">{"".join(f"<div><h3>{title}</h3>{body}</div>" for title, body in blocks if body)}</div>'


def settings(found: ANY, changed: Sequence[str], say: Say = str) -> str:
    """Return the settings that are not the default's, and behind a fold all of them."""
    own = table([(key, told(found[key])) for key in changed if key in found])
    rest = table([(key, told(value)) for key, value in found.items()])
    head, fold = say("Those that differ from the defaults."), say("all {count} settings").format(count=len(found or ()))
    return f"<p>{head}</p>{own}<details><summary>{fold}</summary>{rest}</details>" if found else ""


def files(found: Sequence[ANY]) -> str:
    """Return the weights that the run left, with the hashes by which model sites and web UIs know them."""
    rows = "".join(
        f'<tr><th scope="row">{escape(entry["file"])}</th><td>{entry["step"]}</td><td>{entry["epoch"]}</td><td>{entry["bytes"] / 2**20:.1f} MB</td>'
        f'<td class="words"><code>{escape(entry["sha256"] or "–")}</code></td></tr>'
        for entry in found
    )
    head = "".join(f'<th scope="col">{title}</th>' for title in ("file", "step", "epoch", "size", "sha256"))
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>' if found else ""


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and values as a table, escaped."""
    lines = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<div class="scroll words"><table>{lines}</table></div>' if rows else ""


def bars(rows: Sequence[tuple[str, float | None, str]]) -> str:
    """Return names with bars as long as their values and the values in words, escaped."""
    most = max((value for _, value, _ in rows if value is not None and math.isfinite(value)), default=0.0) or 1.0
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td><i style="width:{100 * (value or 0.0) / most:.1f}%"></i></td><td>{escape(shown)}</td></tr>'
        for name, value, shown in rows
    )
    return f'<table class="bars">{lines}</table>' if rows else ""


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def words(key: str) -> str:
    """Return a name without its underscores."""
    return NAMES.get(key) or key.replace("_", " ").replace("unet", "UNet").strip()


def told(value: Any) -> str:
    """Write a setting as dataset.toml does; one that is not set is a dash."""
    return "–" if value is None or value == "" else str(value).lower() if isinstance(value, bool) else str(value)


def duration(seconds: float | None) -> str:
    """Return a time in its two largest units."""
    minutes, rest = divmod(round(seconds or 0.0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"

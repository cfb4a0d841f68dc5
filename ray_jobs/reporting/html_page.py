"""The page around a report: one file that needs no other, for light and dark, phones, keyboards and paper.

Guaranteed: nothing is fetched and nothing runs (the page forbids both itself); every text given to these functions is
escaped, except where they say that they take HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ray_jobs.reporting.style import STYLE


def document(title: str, body: str) -> str:
    """A whole page of this title; `body` is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{STYLE}</style>\n</head>\n<body>\n"
        f'<header class="top"><span class="wordmark">Tandem</span></header>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n'
        "</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A section with its heading; `parts` are HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{''.join(parts)}\n</section>\n"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names with their values."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{rows}</dl>'


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "figures") -> str:
    """A table whose first column names its rows; on a phone each row becomes a list.

    Its cells are of one `kind`: "figures", which are not broken, or "texts", which are where they are too long.
    """
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = []
    for first, *rest in rows:
        cells = "".join(
            f'<td data-label="{escape(name)}">{escape(value)}</td>' for name, value in zip(head[1:], rest, strict=True)
        )
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    body = "".join(lines)
    return (
        f'<table class="wide {kind}"><caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def folded(title: str, body: str) -> str:
    """Something to be opened; `body` is HTML."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def words(text: str) -> str:
    """A text as it is, with its line ends; its direction ends with it."""
    return f'<div class="words" dir="auto">{escape(text)}</div>'


_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --sheet: #ffffff; --ink: #1d1c1a; --soft: #5e5a53; --rule: #e4e0d7; --accent: #0b5d6b;
  --sans: -apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", "PingFang SC",
    "Hiragino Sans", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", "Noto Sans Mono", "Liberation Mono", monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #151618; --sheet: #1c1e20; --ink: #e8e6e1; --soft: #a9a69f; --rule: #2e3134; --accent: #82cbd6;
  }
}
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); font: 0.9375rem/1.5 var(--sans); overflow-wrap: anywhere;
}
h1, h2, h3, p, ol, ul, dl, dd, figure { margin: 0; padding: 0; }
ol, ul { list-style: none; }
.top { border-block-end: 1px solid var(--rule); padding: 0.7rem max(1rem, (100% - 52rem) / 2); }
.wordmark { font-weight: 650; letter-spacing: -0.01em; }
main { max-inline-size: 54rem; margin-inline: auto; padding: 1.25rem 1rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; font-weight: 650; letter-spacing: -0.015em; }
h2 { font-size: 1.1875rem; font-weight: 650; }
h3 { font-size: 0.9375rem; font-weight: 600; }
section { margin-block-start: 2.5rem; }
p, .facts { margin-block: 0.5rem; max-inline-size: 46rem; }
small { font-size: 0.75rem; color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 0.75rem 1.5rem; }
.facts dt { font-size: 0.75rem; color: var(--soft); }
.facts dd { font-variant-numeric: tabular-nums; }
table { inline-size: 100%; border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { padding-block: 0.75rem 0.35rem; text-align: start; font-weight: 600; }
th, td {
  padding: 0.45rem 1rem 0.45rem 0; border-block-end: 1px solid var(--rule); text-align: start; vertical-align: top;
  font-weight: 400;
}
.wide thead th, .figures td { overflow-wrap: normal; }
.wide thead th:last-child, .wide td:last-child { padding-inline-end: 0; }
thead th { font-size: 0.75rem; color: var(--soft); }
tbody th { font-weight: 550; }
details { margin-block: 0.5rem; }
summary { cursor: pointer; color: var(--accent); font-size: 0.875rem; inline-size: fit-content; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }
pre { margin: 0.5rem 0; white-space: pre-wrap; font: 0.8125rem/1.5 var(--mono); }
.words { white-space: pre-wrap; unicode-bidi: isolate; }
.sample {
  margin-block: 1rem; padding: 0.85rem 1rem; border: 1px solid var(--rule); border-radius: 6px;
  background: var(--sheet); break-inside: avoid;
}
.sample h3 { margin-block: 0.6rem 0.1rem; font-size: 0.75rem; font-weight: 600; color: var(--soft); }
.sample h3:first-child { margin-block-start: 0; }
.sample .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.6rem 1.5rem; margin-block-start: 0.6rem; }
@media (max-width: 40em) {
  .sample .pair { grid-template-columns: 1fr; }
  .wide thead { display: none; }
  .wide tbody tr { display: grid; padding-block: 0.5rem; border-block-end: 1px solid var(--rule); }
  .wide tbody th, .wide tbody td { padding: 0.1rem 0; border: 0; }
  .wide tbody td { display: grid; grid-template-columns: 7rem 1fr; overflow-wrap: anywhere; }
  .wide tbody td::before { content: attr(data-label); font-size: 0.8125rem; color: var(--soft); }
}
@media print {
  :root { --paper: #ffffff; --sheet: #ffffff; --ink: #000000; --soft: #444444; --rule: #bbbbbb; }
  main { max-inline-size: none; padding: 0; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""

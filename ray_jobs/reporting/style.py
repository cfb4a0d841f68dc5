"""What the charts look like, for light and dark; the page around gives --ink, --soft and --paper."""

from __future__ import annotations

STYLE = """
:root {
  --s1: #0b5d6b; --s2: #b04a00; --s3: #7a3b9c; --s4: #5e5a53; --grid: #e4e0d7; --far: #8b867c;
}
@media screen and (prefers-color-scheme: dark) {
  :root { --s1: #82cbd6; --s2: #f0a45c; --s3: #cba2e8; --s4: #a9a69f; --grid: #2e3134; --far: #767a80; }
}
.chart { margin-block: 1.5rem; break-inside: avoid; }
.chart figcaption { font-size: 1.0625rem; font-weight: 600; }
.chart .keys { display: flex; flex-wrap: wrap; gap: 0.1rem 1.25rem; margin-block: 0.35rem; font-size: 0.8125rem; }
.chart .keys b { font-weight: 600; font-variant-numeric: tabular-nums; }
.chart .swatch { inline-size: 28px; block-size: 12px; margin-inline-end: 0.4rem; vertical-align: -1px; }
.chart .unit, .chart .none { font-size: 0.75rem; color: var(--soft); margin-block: 0; max-inline-size: none; }
.chart .unit.end { text-align: end; }
.chart .field { position: relative; block-size: 14rem; margin: 0.5rem 0.75rem 1.4rem 3.4rem; }
.chart .field svg { position: absolute; inline-size: 100%; block-size: 100%; overflow: visible; }
.chart path { fill: none; vector-effect: non-scaling-stroke; }
.chart .grid { stroke: var(--grid); stroke-width: 1px; }
.chart .zero { stroke: var(--ink); stroke-width: 1px; }
.chart .line { stroke-width: 2px; stroke-linejoin: round; stroke-linecap: round; }
.chart .s1 { stroke: var(--s1); }
.chart .s2 { stroke: var(--s2); }
.chart .s3 { stroke: var(--s3); }
.chart .s4 { stroke: var(--s4); }
.chart .span { stroke: var(--s1); stroke-width: 2px; }
.chart .dot { stroke: var(--s1); stroke-width: 9px; stroke-linecap: round; }
.chart .x, .chart .y, .chart .end, .chart .name {
  position: absolute; font-size: 0.75rem; line-height: 1; color: var(--soft); white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.chart p.end { position: static; line-height: inherit; }
.chart .y { right: calc(100% + 0.5rem); transform: translateY(-50%); }
.chart .x { top: calc(100% + 0.45rem); transform: translateX(-50%); }
.chart table { margin-block: 0.5rem 0; }
.chart .bar { stroke: var(--s1); stroke-width: 14px; }
.intervals li {
  display: grid; grid-template-columns: minmax(6rem, 14rem) 1fr minmax(6rem, 12rem); align-items: center; gap: 0 1rem;
}
.intervals .plot { align-self: stretch; }
.intervals .field { block-size: 100%; min-block-size: 2.5rem; margin: 0 0.75rem; }
.bars .field { min-block-size: 2rem; }
.intervals .label { font-size: 0.875rem; }
.intervals .note { font-size: 0.875rem; font-variant-numeric: tabular-nums; }
.intervals .note small { display: block; }
.intervals .axis .field { block-size: 0; min-block-size: 0; margin-block-end: 1.2rem; }
.chart .field.parallel { margin: 0.5rem 0.25rem; }
.chart .rung { stroke: var(--far); stroke-width: 1px; }
.chart .trial { stroke-linejoin: round; }
.chart .trial.far { stroke: var(--far); stroke-width: 1px; opacity: 0.6; }
.chart .trial.near { stroke: var(--s1); stroke-width: 1.5px; }
.chart .trial.first { stroke: var(--s2); stroke-width: 3.5px; }
.chart .name { left: 0; margin-block-start: -1.25rem; color: var(--ink); font-weight: 600; background: var(--paper); }
.chart .end { margin-block-start: 0.3rem; padding-inline: 1px; background: var(--paper); }
.chart p.end { margin: 0; padding: 0; background: none; }
@media (max-width: 40em) {
  .intervals li { grid-template-columns: 1fr; padding-block: 0.5rem; }
  .intervals .field { block-size: 1.5rem; min-block-size: 0; }
  .bars .field { block-size: 1.25rem; }
}
"""

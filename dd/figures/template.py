"""The page of the report. Everything that it shows is in it: no script, no font and no image is loaded from elsewhere."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Distillery: {{ scale }}</title>
<style>
:root { --ink: #1f2328; --soft: #5c6670; --line: #e1e4e8; --paper: #fff; --back: #f6f7f8; --blue: #0b5cad; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 80px; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 21px; margin: 56px 0 12px; padding-top: 20px; border-top: 2px solid var(--ink); }
h3 { font-size: 16px; margin: 0 0 10px; }
p { margin: 6px 0; }
a { color: var(--blue); text-decoration: none; } a:hover { text-decoration: underline; }
.lead, .soft { color: var(--soft); }
.small { font-size: 13px; }
nav { margin: 14px 0; } nav a { margin-right: 14px; white-space: nowrap; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: 18px 20px; margin: 14px 0; }
.warn { background: #fff8e6; border: 1px solid #f0dca8; border-radius: 6px; padding: 12px 16px; margin: 16px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
.wide { width: 100%; }
th { text-align: left; font-weight: 600; border-bottom: 1.5px solid var(--ink); padding: 5px 14px 5px 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: 5px 14px 5px 0; vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; }
img { max-width: 100%; height: auto; display: block; margin: 4px 0 8px; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--blue); font-size: 13.5px; }
ul { margin: 8px 0 0; padding-left: 18px; color: var(--soft); font-size: 13px; }
.v { display: inline-block; min-width: 82px; text-align: center; border-radius: 10px; padding: 0 9px; font-size: 12.5px; font-weight: 600; }
.holds { background: #ddf3e4; color: #11632f; } .fails { background: #fde2df; color: #9c1c10; }
.undecided { background: #fdf0d0; color: #7a5200; } .notrun { background: #eceef0; color: #545d66; }
code { font: 12.5px ui-monospace, SFMono-Regular, Menlo, monospace; }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<h1>Distillery</h1>
<p class="lead">Scale <b>{{ scale }}</b>. {{ scale_notes }}</p>

<div class="card">
<h3>Scorecard</h3>
<div class="scroll"><table class="wide">
<tr><th>paper</th>{% for verdict in verdicts %}<th class="n">{{ verdict }}</th>{% endfor %}
<th class="n">cells run</th><th class="n">diverged</th><th class="n">changed by scale</th>
<th class="n">compared</th><th class="n">within</th></tr>
{% for paper in papers %}
<tr><td><a href="#{{ paper.paper }}">{{ paper.title }}</a></td>
{% for verdict in verdicts %}<td class="n">{{ paper.verdicts[verdict] }}</td>{% endfor %}
<td class="n">{{ paper.counts.run }} of {{ paper.counts.cells }}</td><td class="n">{{ paper.counts.diverged }}</td>
<td class="n">{{ paper.counts.scaled }}</td><td class="n">{{ paper.counts.compared }} of {{ paper.counts.reported }}</td>
<td class="n">{{ paper.counts.within if paper.counts.compared else "&ndash;" | safe }}</td></tr>
{% endfor %}
</table></div>
<p class="small soft">The first four columns count claims by verdict. <i>Compared</i>: cells that stand beside a number which the paper
prints, at the paper's own settings, of all that have one. <i>Within</i>: those at most max(1.0 point, 2 standard deviations) away
from it (from a bound: on its wrong side).</p>
</div>

{% if scaled %}
<div class="warn"><b>This is not the papers' setting.</b>
{% if digits %}Handwritten digits cannot rank methods: differences here say nothing about the papers' claims. {% else %}Differences
here need not be those at the papers' settings. {% endif %}
Cells that the scale changed are marked † and are never compared with printed numbers; verdicts on claims are of this scale only.
{% for paper in papers if paper.scaled %}<p class="small"><b>{{ paper.paper }}</b>, changed: {{ paper.scaled }}.</p>{% endfor %}
</div>
{% endif %}

{% for one in generators if one.missed %}
{% if loop.first %}<div class="warn"><b>Generators below their gates.</b> Sets that are distilled through them say little of a method;
cells that rest on them are marked ‡.{% endif %}
{% for text in one.missed %}<p class="small">{{ one.papers | join(", ") }}: {{ text }}</p>{% endfor %}
{% if loop.last %}</div>{% endif %}
{% endfor %}

<nav>{% for paper in papers %}<a href="#{{ paper.paper }}">{{ paper.paper }}</a>{% endfor %}
{% if generators %}<a href="#generators">generators</a>{% endif %}<a href="#made">how it was made</a></nav>

{% for paper in papers %}
<section id="{{ paper.paper }}">
<h2>{{ paper.title }}</h2>
<nav class="small">{% for artifact in paper.artifacts %}
<a href="#{{ paper.paper }}-{{ artifact.name }}">{{ artifact.name }}</a>{% endfor %}</nav>

{% if paper.claims %}
<div class="card" id="{{ paper.paper }}-claims"><h3>Claims{{ " at scale " ~ scale if paper.scaled else "" }}</h3>
<div class="scroll"><table class="wide">
<tr><th>verdict</th><th>claim</th><th>on the numbers</th></tr>
{% for claim in paper.claims %}
<tr><td><span class="v {{ claim.verdict | replace(' ', '') }}">{{ claim.verdict }}{{ "†" if claim.scaled }}</span></td>
<td>{{ claim.claim }} <span class="soft small">{{ claim.id }}, {{ claim.artifact }}</span>
{% if claim.note %}<br><span class="small soft">{{ claim.note }}</span>{% endif %}</td>
<td class="small">{{ claim.reason }}
{% for reason in claim.chosen %}<br><span class="soft">Chosen by us: {{ reason }}</span>{% endfor %}</td></tr>
{% endfor %}
</table></div>
<p class="small soft">± is the standard error here. Undecided: a difference within it, a single run, too few points, or cells that are
missing. {% if paper.scaled %}† judged on cells that the scale changed; says nothing about the paper.{% endif %}</p></div>
{% endif %}

{% for artifact in paper.artifacts %}
<div class="card" id="{{ paper.paper }}-{{ artifact.name }}">
<h3>{{ artifact.title }}</h3>
{% if artifact.image %}<img src="{{ artifact.image }}" alt="{{ artifact.title }}" width="{{ artifact.width }}">{% endif %}
{% if artifact.rows %}
{% if artifact.image %}
<details{{ " open" if artifact.rows | length <= 12 }}>
<summary>{{ artifact.rows | length }} row{{ "s" if artifact.rows | length > 1 }}</summary>
{% endif %}
<div class="scroll"><table>
<tr>{% for column in artifact.columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in artifact.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% if artifact.image %}</details>{% endif %}
{% endif %}
{% if artifact.notes %}<ul>{% for note in artifact.notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
{% if artifact.own_chosen %}
<ul>{% for key, reason in artifact.own_chosen.items() %}<li>Chosen here, {{ key }}: {{ reason }}</li>{% endfor %}</ul>
{% endif %}
</div>
{% endfor %}

{% if paper.chosen %}
<details class="card"><summary>What the paper does not state, and what was chosen ({{ paper.chosen | length }})</summary>
<table>{% for key, reason in paper.chosen.items() %}<tr><td><b>{{ key }}</b></td><td>{{ reason }}</td></tr>{% endfor %}</table></details>
{% endif %}
{% if paper.listed %}
<details class="card"><summary>Every table and figure of the paper ({{ paper.listed | length }})</summary>
<table><tr><th>in the paper</th><th>title</th><th>here</th></tr>
{% for one in paper.listed %}<tr><td>{{ one.name }}</td><td>{{ one.title }}</td>
<td>{{ one.state }}{{ ": " ~ one.reason if one.reason }}</td></tr>
{% endfor %}</table></details>
{% endif %}
{% if paper.mixed %}<div class="warn small">{% for sentence in paper.mixed %}<p>{{ sentence }}</p>{% endfor %}</div>{% endif %}
<details class="card"><summary>How these numbers were made</summary>
<table>{% for key, value in paper.provenance %}<tr><td><b>{{ key }}</b></td><td>{{ value }}</td></tr>{% endfor %}</table></details>
</section>
{% endfor %}

{% if generators %}
<section id="generators"><h2>Generators</h2>
<div class="card"><div class="scroll"><table class="wide">
<tr><th>dataset</th><th>generator</th><th class="n">epoch</th><th>papers</th><th>measure</th><th class="n">value</th><th>gate</th>
<th></th></tr>
{% for one in generators %}{% for measure in one.measures or [none] %}
<tr>{% if loop.first %}{% set rows = one.measures | length or 1 %}
<td rowspan="{{ rows }}">{{ one.dataset }}</td>
<td rowspan="{{ rows }}">{{ one.generator }}
{% if one.measures and one.note %}<br><span class="small soft">{{ one.note }}</span>{% endif %}</td>
<td class="n" rowspan="{{ rows }}">{{ "&ndash;" | safe if one.epoch is none else one.epoch }}</td>
<td rowspan="{{ rows }}">{{ one.papers | join(", ") }}</td>{% endif %}
{% if measure %}<td>{{ measure.name }}</td><td class="n">{{ measure.value }}</td><td>{{ measure.gate }}</td>
<td><span class="v {{ "holds" if measure.passed else "fails" }}">{{ "passed" if measure.passed else "below" }}</span></td>
{% else %}<td colspan="4" class="soft">{{ one.note }}</td>{% endif %}</tr>
{% endfor %}{% endfor %}
</table></div>
<p class="small soft">Measured on samples, through a classifier of real images; docs/generators.md says what each measure is. The gates are
ours, for small generators.</p></div></section>
{% endif %}

<section id="made"><h2>How it was made</h2>
<div class="card"><h3>All papers of this page</h3>
<table>{% for key, value in made %}<tr><td><b>{{ key }}</b></td><td>{{ value }}</td></tr>{% endfor %}</table></div>
<div class="card"><h3>Cost</h3>
{% if cost %}<div class="scroll"><table>
<tr>{% for column in cost_columns %}<th{{ " class=n" if cost[0][column] is number }}>{{ column | replace("_", " ") }}</th>{% endfor %}</tr>
{% for row in cost %}<tr>{% for column in cost_columns %}
<td{{ " class=n" if row.get(column) is number }}>{{ row.get(column, "") }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
<p class="small soft">As measured by the run.json beside each result. Seconds count a job's earlier runs too, but for those
that were killed; resumed counts jobs that went on where an earlier run had stopped.</p>
{% else %}<p class="soft">No measured times.</p>{% endif %}
</div></section>
</main>
</body>
</html>
"""

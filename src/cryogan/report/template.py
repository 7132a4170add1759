"""The frame of the page: style sheet, behaviour of the level slider, and the HTML around them."""

STYLE = """
:root { --ink: #1c2733; --soft: #5b6876; --line: #dfe5ea; --accent: #1f6aa5; --wash: #f6f8fa; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; line-height: 1.5; font-size: 15px;
  font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 32px 64px; }
.overline { color: var(--accent); font-size: 12px; font-weight: 600; letter-spacing: .09em;
  text-transform: uppercase; }
h1 { font-size: 34px; line-height: 1.15; margin: 4px 0 8px; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 0 0 4px; letter-spacing: -.01em; }
h3 { font-size: 14px; margin: 22px 0 6px; }
p { margin: 0 0 10px; max-width: 82ch; }
.verdict { font-size: 18px; line-height: 1.45; max-width: 74ch; margin-bottom: 20px; }
.note { color: var(--soft); font-size: 13.5px; }
.missing { color: var(--soft); font-style: italic; }
section { border-top: 1px solid var(--line); margin-top: 36px; padding-top: 22px; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 12.5px; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 6px; margin: 0;
  padding: 12px 14px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px;
  margin: 12px 0 0; }
.card { background: var(--wash); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 14px; }
.card b { display: block; font-size: 22px; font-weight: 600; letter-spacing: -.02em;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
.card span { display: block; color: var(--soft); font-size: 12.5px; line-height: 1.35; }
.card .what { color: var(--ink); font-weight: 600; font-size: 13px; }
.strip { display: grid; gap: 6px; align-items: center; margin: 14px 0 4px; }
.strip div { font-size: 12.5px; color: var(--soft); line-height: 1.3; }
.strip div.head { text-align: center; }
.strip div.row { color: var(--ink); font-weight: 600; }
.strip figure { margin: 0; position: relative; }
.strip img { display: block; width: 100%; aspect-ratio: 1; border-radius: 3px; }
.bar { position: absolute; left: 6%; bottom: 6%; height: 3px; background: #fff;
  box-shadow: 0 0 2px #000; }
.bar i { position: absolute; left: 0; bottom: 5px; color: #fff; font-size: 11px;
  font-style: normal; text-shadow: 0 0 3px #000; white-space: nowrap; }
.level { display: grid; grid-template-columns: auto minmax(160px, 340px) 1fr; gap: 14px;
  align-items: center; margin: 10px 0 0; font-size: 14px; font-variant-numeric: tabular-nums; }
.level input { width: 100%; accent-color: var(--accent); }
.scenes { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; text-align: center;
  font-size: 13px; font-weight: 600; margin-top: 10px; }
.player { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1.1fr); gap: 0 32px;
  align-items: start; margin-top: 12px; }
.player canvas { width: 100%; aspect-ratio: 1; display: block; cursor: grab; touch-action: none; }
.player .level { grid-template-columns: 64px 72px 1fr; }
.player button { font: inherit; font-size: 13px; padding: 3px 0; border: 1px solid var(--line);
  border-radius: 6px; background: var(--wash); color: var(--accent); cursor: pointer; }
.state-label { margin: 12px 0 0; font-size: 14px; font-variant-numeric: tabular-nums; }
.sections { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.figures { margin-top: 8px; }
.figures > div { min-width: 0; }
.figures > .wide { grid-column: 1 / -1; }
details { margin-top: 18px; }
summary { cursor: pointer; font-size: 14px; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
.tables { display: grid; grid-template-columns: 1fr 1fr; gap: 0 40px; align-items: start; }
@media (max-width: 760px) { .tables, .player { grid-template-columns: minmax(0, 1fr); }
  main { padding: 24px 16px; } }
@media print {
  body { font-size: 11.5px; }
  main { max-width: none; padding: 0; }
  .card, .strip, .js-plotly-plot, tr, pre { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .modebar, .level input, .play { display: none !important; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# Shows the meshes of the chosen level, and turns all scenes together.
BEHAVIOUR = """
(function () {
  var plot = document.getElementById("isosurface");
  var slider = document.getElementById("level");
  if (!plot || !slider) return;
  var labels = JSON.parse(slider.dataset.labels);
  slider.addEventListener("input", function () {
    var shown = Number(slider.value);
    var visible = plot.data.map(function (_, i) { return i % labels.length === shown; });
    document.getElementById("level-label").textContent = labels[shown];
    Plotly.restyle(plot, { visible: visible });
  });
  var scenes = Object.keys(plot.layout).filter(function (key) { return /^scene/.test(key); });
  var turning = false;
  plot.on("plotly_relayouting", follow);
  plot.on("plotly_relayout", follow);
  function follow(change) {
    if (turning) return;
    var moved = scenes.filter(function (scene) { return change[scene + ".camera"]; })[0];
    if (!moved) return;
    var update = {};
    scenes.forEach(function (scene) {
      if (scene !== moved) update[scene + ".camera"] = change[moved + ".camera"];
    });
    if (!Object.keys(update).length) return;
    turning = true;
    Plotly.relayout(plot, update).then(function () { turning = false; });
  }
})();
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
<script>{plotly}</script>
</head>
<body>
<main>
<noscript><p class="missing">The figures of this page need JavaScript.</p></noscript>
{body}
</main>
<script>{behaviour}</script>
</body>
</html>
"""

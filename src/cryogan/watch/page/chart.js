/* Draws curves as SVG. cryoganChart(title) returns its element as `element`, and
   draw({ x: words, ticks: "time" or undefined, log: whether y is, thresholds: [y],
          curves: [{ name, colour, dash, points: [[x, y], ...] }] }). */
function cryoganChart(title) {
  "use strict";
  var width = 520, height = 260, left = 62, right = 12, top = 10, bottom = 44;
  var element = document.createElement("figure");
  element.className = "chart";
  var caption = document.createElement("figcaption");
  caption.textContent = title;
  var svg = shape("svg", { viewBox: "0 0 " + width + " " + height, tabindex: 0, role: "img" });
  svg.setAttribute("aria-label", title + "; arrow keys read values");
  var readout = document.createElement("p");
  readout.className = "readout";
  readout.setAttribute("aria-live", "polite");
  element.append(caption, svg, readout);
  var drawn = null;   // what was drawn last
  var places = [];    // x of all points
  var at = -1;        // which of them is read
  var cursor = null;

  function shape(name, attributes) {
    var made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.keys(attributes).forEach(function (key) { made.setAttribute(key, attributes[key]); });
    return made;
  }

  function draw(figure) {
    var curves = figure.curves.map(function (curve) {
      var points = curve.points.filter(function (p) {
        return p[0] !== null && p[1] !== null && (!figure.log || p[1] > 0);
      });
      return Object.assign({}, curve, { points: points });
    }).filter(function (curve) { return curve.points.length; });
    svg.replaceChildren();
    element.hidden = !curves.length;
    if (!curves.length) return;
    var xs = [], ys = (figure.thresholds || []).slice();
    curves.forEach(function (curve) {
      curve.points.forEach(function (p) { xs.push(p[0]); ys.push(p[1]); });
    });
    var scale = figure.log ? Math.log10 : function (v) { return v; };
    var x0 = Math.min(0, least(xs)), x1 = most(xs);
    if (x1 <= x0) x1 = x0 + 1;
    var y0 = scale(least(ys)), y1 = scale(most(ys));
    if (y1 <= y0) { y0 -= 0.5 * Math.abs(y0) || 0.5; y1 += 0.5 * Math.abs(y1) || 0.5; }
    var room = 0.05 * (y1 - y0);
    y0 -= room;
    y1 += room;
    function px(x) { return left + (width - left - right) * (x - x0) / (x1 - x0); }
    function py(y) { return height - bottom - (height - top - bottom) * (scale(y) - y0) / (y1 - y0); }

    var unit = figure.ticks === "time" ? timeUnit(x1) : [1, figure.x];
    nice(x0 / unit[0], x1 / unit[0], 6).forEach(function (tick) {
      line(px(tick * unit[0]), top, px(tick * unit[0]), height - bottom, "grid");
      text(px(tick * unit[0]), height - bottom + 16, label(tick), "middle");
    });
    (figure.log ? decades(y0, y1) : nice(y0, y1, 5)).forEach(function (tick) {
      line(left, py(tick), width - right, py(tick), "grid");
      text(left - 6, py(tick) + 4, label(tick), "end");
    });
    (figure.thresholds || []).forEach(function (y) {
      line(left, py(y), width - right, py(y), "threshold");
      text(width - right - 4, py(y) - 4, String(y), "end");
    });
    svg.append(shape("rect", { x: left, y: top, width: width - left - right,
      height: height - top - bottom, class: "frame" }));
    text((left + width - right) / 2, height - 8, figure.ticks === "time" ?
      figure.x + " (" + unit[1] + ")" : figure.x, "middle");
    curves.forEach(function (curve) {
      var steps = curve.points.map(function (p, i) {
        return (i ? "L" : "M") + px(p[0]).toFixed(1) + " " + py(p[1]).toFixed(1);
      });
      svg.append(shape("path", { d: steps.join(""), stroke: curve.colour,
        "stroke-dasharray": curve.dash || "none" }));
      if (curve.points.length < 40) curve.points.forEach(function (p) {
        svg.append(shape("circle", { cx: px(p[0]), cy: py(p[1]), r: 2.5, fill: curve.colour }));
      });
    });
    cursor = shape("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
    svg.append(cursor);
    places = Array.from(new Set(xs)).sort(function (a, b) { return a - b; });
    drawn = { curves: curves, px: px, unit: unit, x0: x0, x1: x1, x: figure.x };
    if (at >= places.length) at = -1;
    read(at);

    function line(ax, ay, bx, by, kind) {
      svg.append(shape("line", { x1: ax, y1: ay, x2: bx, y2: by, class: kind }));
    }
    function text(x, y, words, anchor) {
      var made = shape("text", { x: x, y: y, "text-anchor": anchor });
      made.textContent = words;
      svg.append(made);
    }
  }

  /* Says the values of all curves at the nearest of their points. */
  function read(number) {
    at = number;
    if (!drawn || at < 0) {
      readout.textContent = "";
      if (cursor) cursor.setAttribute("visibility", "hidden");
      return;
    }
    var x = places[at];
    cursor.setAttribute("x1", drawn.px(x));
    cursor.setAttribute("x2", drawn.px(x));
    cursor.setAttribute("visibility", "visible");
    var names = {};
    drawn.curves.forEach(function (curve) {
      var points = curve.points;
      if (x < points[0][0] || x > points[points.length - 1][0]) return;
      var near = points.reduce(function (best, p) {
        return Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best;
      });
      names[curve.name] = label(near[1]);
    });
    var words = Object.keys(names).map(function (name) { return name + " " + names[name]; });
    readout.textContent = label(x / drawn.unit[0]) + " " + drawn.unit[1] + ": " + words.join("; ");
  }
  svg.addEventListener("pointermove", function (event) {
    if (!drawn) return;
    var box = svg.getBoundingClientRect();
    var inside = ((event.clientX - box.left) / box.width * width - left) / (width - left - right);
    var x = drawn.x0 + inside * (drawn.x1 - drawn.x0);
    var nearest = 0;
    places.forEach(function (place, i) {
      if (Math.abs(place - x) < Math.abs(places[nearest] - x)) nearest = i;
    });
    read(nearest);
  });
  svg.addEventListener("pointerleave", function () { read(-1); });
  svg.addEventListener("blur", function () { read(-1); });
  svg.addEventListener("keydown", function (event) {
    var step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !places.length) return;
    event.preventDefault();
    read(Math.min(places.length - 1, Math.max(0, at < 0 ? (step > 0 ? 0 : places.length - 1) : at + step)));
  });

  function least(values) { return values.reduce(function (a, b) { return Math.min(a, b); }); }
  function most(values) { return values.reduce(function (a, b) { return Math.max(a, b); }); }
  function timeUnit(seconds) {
    return seconds < 180 ? [1, "s"] : seconds < 10800 ? [60, "min"] : [3600, "h"];
  }
  function nice(from, to, about) {
    var rough = (to - from) / about;
    var power = Math.pow(10, Math.floor(Math.log10(rough)));
    var step = [1, 2, 5, 10].map(function (n) { return n * power; })
      .find(function (s) { return s >= rough; });
    var ticks = [];
    for (var n = Math.ceil(from / step - 1e-9); n * step <= to + 1e-9 * step && ticks.length < 20; n++) ticks.push(n * step);
    return ticks;
  }
  function decades(from, to) {
    var ticks = [];
    for (var n = Math.ceil(from); n <= to; n++) ticks.push(Math.pow(10, n));
    if (ticks.length > 1) return ticks;
    return nice(Math.pow(10, from), Math.pow(10, to), 4).filter(function (v) { return v > 0; });
  }
  function label(value) {
    var size = Math.abs(value);
    if (size !== 0 && (size >= 1e7 || size < 1e-3)) return value.toExponential(1);
    return Number(value.toPrecision(5)).toLocaleString("en", { maximumFractionDigits: 4 });
  }
  return { element: element, draw: draw };
}

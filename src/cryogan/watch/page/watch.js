/* Asks for the state of the runs every few seconds, and for maps and pictures when they change. */
(function () {
  "use strict";
  var EVERY_MS = 3000, FINISHED_MS = 30000;
  var DASHES = ["", "8 3 2 3"];   // of runs beyond the colours
  var HALF_DASH = "4 3";
  var panels = [], charts = {}, fscChart = null, scatter = null, latest = null, timer = null;
  var connection = document.getElementById("connection");
  var axis = document.getElementById("axis");
  axis.addEventListener("change", function () { if (latest) drawCurves(latest); });
  document.addEventListener("visibilitychange", function () { if (!document.hidden) poll(); });
  poll();

  function poll() {
    clearTimeout(timer);
    ask("state.json").then(show, function () {
      connection.textContent = "No connection to cryogan watch any more; start it again for a new address.";
      timer = setTimeout(poll, FINISHED_MS);
    });
  }

  function ask(path) {
    return fetch(path, { cache: "no-store" }).then(function (answer) {
      if (!answer.ok) throw new Error(path + ": " + answer.status);
      return answer.json();
    });
  }

  function show(state) {
    latest = state;
    var names = state.runs.map(function (run) { return run.name; });
    document.getElementById("title").textContent = names.join(", ");
    document.title = names.join(", ") + ": cryogan watch";
    state.runs.forEach(function (run, number) {
      if (!panels[number]) {
        panels[number] = panel(number, look(state, number));
        document.getElementById("runs").append(panels[number].element);
      }
      panels[number].show(run);
    });
    drawCurves(state);
    if (state.has_particles && !scatter) {
      scatter = true;
      ask("particles.json").then(function (about) {
        document.getElementById("particles-section").hidden = false;
        cryoganScatter(document.getElementById("particles"), about, function (number) {
          return fetch("particles/" + number).then(function (answer) { return answer.arrayBuffer(); })
            .then(function (buffer) { return new Float32Array(buffer); });
        });
      });
    }
    var ended = state.runs.every(function (run) { return run.state === "finished"; });
    connection.textContent = (ended ? "Finished" : "Up to date") + " at " +
      new Date().toLocaleTimeString("en-GB") + ".";
    timer = setTimeout(poll, ended || document.hidden ? FINISHED_MS : EVERY_MS);
  }

  function look(state, number) {
    var count = state.colours.length;
    return { colour: state.colours[number % count], dash: DASHES[Math.floor(number / count) % 2] };
  }

  function drawCurves(state) {
    var section = document.getElementById("curves-section");
    var place = document.getElementById("curves");
    var many = state.runs.length > 1;
    var figures = {};
    state.runs.forEach(function (run, number) {
      var style = look(state, number);
      run.curves.forEach(function (curve) {
        var half2 = curve.log === "half2";
        var figure = figures[curve.key] = figures[curve.key] || {
          title: curve.title, log: curve.logarithmic, curves: []
        };
        figure.curves.push({
          name: [many ? run.name : "", curve.log.replace(/^half/, "half-set "), curve.phase]
            .filter(Boolean).join(", ") || "value",
          colour: style.colour,
          dash: half2 ? HALF_DASH : style.dash,
          points: curve.y.map(function (y, i) { return [curve[axis.value][i], y]; })
        });
      });
    });
    Object.keys(figures).forEach(function (key) {
      if (!charts[key]) {
        charts[key] = cryoganChart(figures[key].title);
        place.insertBefore(charts[key].element, fscChart ? fscChart.element : null);
      }
    });
    Object.keys(charts).forEach(function (key) {
      var figure = figures[key] || { curves: [] };
      charts[key].draw({
        x: axis.value === "wall_s" ? "wall time" : "images seen",
        ticks: axis.value === "wall_s" ? "time" : undefined,
        log: figure.log,
        curves: figure.curves
      });
    });
    drawFsc(state, place, many);
    section.hidden = !Object.keys(figures).length && !fscChart;
    var legend = document.getElementById("legend");
    legend.replaceChildren.apply(legend, !many ? [] : state.runs.map(function (run, number) {
      var entry = document.createElement("span");
      entry.append(swatch(look(state, number)), run.name);
      return entry;
    }));
  }

  function drawFsc(state, place, many) {
    var curves = [];
    state.runs.forEach(function (run, number) {
      if (!run.fsc) return;
      var style = look(state, number);
      Object.keys(run.fsc.curves).forEach(function (name) {
        var masked = name === "half_map_masked";
        curves.push({
          name: (many ? run.name + ", " : "") + (masked ? "half-maps, masked" : "half-maps"),
          colour: style.colour,
          dash: masked ? HALF_DASH : style.dash,
          points: run.fsc.curves[name].map(function (y, i) { return [run.fsc.frequency_per_A[i], y]; })
        });
      });
    });
    if (!curves.length && !fscChart) return;
    if (!fscChart) {
      fscChart = cryoganChart("Fourier shell correlation of the half-maps (dashed: in the mask)");
      place.append(fscChart.element);
    }
    fscChart.draw({ x: "spatial frequency (1/Å)", thresholds: [0.143, 0.5], curves: curves });
  }

  function swatch(style) {
    var space = "http://www.w3.org/2000/svg";
    var svg = document.createElementNS(space, "svg");
    svg.setAttribute("width", 30);
    svg.setAttribute("height", 10);
    svg.setAttribute("aria-hidden", "true");
    var line = document.createElementNS(space, "line");
    var values = { x1: 0, x2: 30, y1: 5, y2: 5, stroke: style.colour, "stroke-width": 4 };
    if (style.dash) values["stroke-dasharray"] = style.dash;
    Object.keys(values).forEach(function (key) { line.setAttribute(key, values[key]); });
    svg.append(line);
    return svg;
  }

  /* What is shown of one run. */
  function panel(number, style) {
    var element = make("article", "run");
    var heading = make("h2"), stage = make("p", "stage"), bar = make("progress");
    var verdict = make("p", "verdict"), warning = make("p", "note"), cards = make("div", "cards");
    var looks = make("div", "looks"), surface = make("div"), pictures = make("div");
    var examples = make("div"), left = make("div");
    var id = "run" + number;
    heading.id = id;
    element.setAttribute("aria-labelledby", id);
    bar.max = 1;
    looks.hidden = true;
    looks.append(surface, pictures);
    element.append(heading, stage, bar, verdict, warning, cards, looks, examples, left);
    var volume = surfaceOf(surface, id);
    var version = null, leftOut = { map: [], pictures: [] };

    function show(run) {
      heading.replaceChildren(swatch(style), run.name + (run.objective ? " (" + run.objective + ")" : ""));
      stage.className = "stage " + run.state;
      var parts = [(run.state === "stopped" ? "stopped: " : "") + run.stage];
      if (run.fraction !== null && run.state !== "finished") parts.push((100 * run.fraction).toFixed(0) + " %");
      if (run.elapsed_s) parts.push(duration(run.elapsed_s) + " of computing" + (run.state === "finished" ? "" : " so far"));
      if (run.state === "running" && run.left) parts.push("time left: " + run.left);
      stage.textContent = parts.join(" · ");
      bar.hidden = run.state === "finished" || run.state === "unreadable";
      if (run.fraction === null) bar.removeAttribute("value");
      else bar.value = run.fraction;
      bar.setAttribute("aria-label", "done of " + run.name);
      if (run.state === "stopped" && run.fraction === null) bar.hidden = true;
      verdict.hidden = !run.verdict;
      if (run.verdict) {
        verdict.className = "verdict" + (run.verdict[0] === "structure found" ? "" : " bad");
        verdict.textContent = "Verdict: " + run.verdict[0] + (run.verdict[1] ? " (" + run.verdict[1] + ")" : "") + ".";
      }
      warning.hidden = !run.warning;
      warning.textContent = run.warning;
      cards.replaceChildren.apply(cards, run.facts.map(function (fact) {
        var card = make("div", "card"), value = make("b"), what = make("span");
        value.textContent = fact[1];
        what.textContent = fact[0];
        card.append(value, what);
        return card;
      }));
      tell(run.left_out, leftOut.map.concat(leftOut.pictures));
      if (run.pictures !== version) {
        version = run.pictures;
        ask("runs/" + number + "/map.json").then(function (data) {
          volume.show(data);
          looks.hidden = !data.labels.length && !pictures.children.length;
          more(run, "map", data.left_out);
        }, again);
        ask("runs/" + number + "/pictures.json").then(function (data) {
          strip(pictures, "", data.sections, "three");
          strip(examples, "Real beside simulated images", data.examples, "eight");
          if (data.sections.length) looks.hidden = false;
          more(run, "pictures", data.left_out);
        }, again);
      }
    }
    function again() { version = null; }
    function more(run, from, found) {
      leftOut[from] = found;
      tell(run.left_out, leftOut.map.concat(leftOut.pictures));
    }
    function tell(first, second) {
      var all = first.concat(second.filter(function (each) { return first.indexOf(each) < 0; }));
      left.replaceChildren.apply(left, all.map(function (each) {
        var line = make("p", "missing");
        line.textContent = "Left out: " + each;
        return line;
      }));
    }
    return { element: element, show: show };
  }

  /* The map in 3D, with its controls. */
  function surfaceOf(place, id) {
    var canvas = make("canvas"), none = make("p", "missing");
    canvas.width = canvas.height = 720;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    var which = slider("map", id + "-map"), level = slider("threshold", id + "-level");
    level.input.min = 0.15;
    level.input.max = 0.9;
    level.input.step = "any";
    level.input.value = 0.5;
    none.textContent = "This browser has no WebGL 2, which the surface needs; there are sections beside it.";
    none.hidden = true;
    place.append(canvas, none, which.element, level.element);
    var view = cryoganRenderer(canvas);
    if (!view) {
      canvas.hidden = level.element.hidden = true;
      none.hidden = false;
    }
    var data = null, bytes = null;

    function show(found) {
      data = found.voxels === null ? null : found;
      place.hidden = !data;
      if (!data) return;
      bytes = Uint8Array.from(atob(data.voxels), function (c) { return c.charCodeAt(0); });
      which.element.hidden = data.labels.length < 2;
      which.input.max = data.labels.length - 1;
      if (view) view.load(data.side, mapBytes);
      draw();
    }
    function mapBytes(row) {
      var voxels = Math.pow(data.side, 3);
      return bytes.subarray(row * voxels, (row + 1) * voxels);
    }
    function draw() {
      if (!data) return;
      var row = Math.min(Number(which.input.value), data.labels.length - 1);
      var grey = data.mean + Number(level.input.value) * (data.inside - data.mean);
      var byte = 255 * (grey - data.low) / (data.high - data.low);
      var inside = mapBytes(row).reduce(function (n, v) { return n + (v >= byte ? 1 : 0); }, 0);
      var volume = Math.round(inside * Math.pow(data.voxel_A, 3));
      which.output.textContent = data.labels[row];
      level.output.textContent = data.labels[row] + ": " +
        ((grey - data.mean) / data.sigma).toFixed(1) + " σ, encloses " +
        volume.toLocaleString("en") + " Å³. Drag or arrow keys turn, scroll or + and - zoom.";
      canvas.setAttribute("aria-label", "surface of the " + data.labels[row] + "; arrow keys turn it, + and - zoom");
      if (view) view.draw(row, byte / 255);
    }
    which.input.addEventListener("input", draw);
    level.input.addEventListener("input", draw);
    return { show: show };
  }

  function slider(words, id) {
    var element = make("div", "level"), label = make("label"), input = make("input");
    var output = make("output");
    input.type = "range";
    input.id = id;
    input.value = 0;
    input.min = 0;
    label.htmlFor = id;
    label.textContent = words;
    element.append(label, input, output);
    return { element: element, input: input, output: output };
  }

  function strip(place, words, rows, kind) {
    place.replaceChildren();
    if (!rows.length) return;
    if (words) {
      var heading = make("h3");
      heading.textContent = words;
      place.append(heading);
    }
    var grid = make("div", "strip " + kind);
    rows.forEach(function (row) {
      var label = make("div", "row");
      label.textContent = row.label;
      grid.append(label);
      for (var i = 0; i < (kind === "three" ? 3 : 8); i++) {
        var figure = make("figure"), shown = row.pictures[i];
        if (shown) {
          var image = make("img");
          image.src = shown.address;
          image.alt = row.label + ", " + shown.what;
          image.title = shown.what;
          figure.append(image);
          if (shown.bar) {
            var bar = make("div", "bar"), length = make("i");
            bar.style.width = shown.bar.percent + "%";
            length.textContent = shown.bar.length_A + " Å";
            bar.append(length);
            figure.append(bar);
          }
        }
        grid.append(figure);
      }
    });
    place.append(grid);
  }

  function duration(seconds) {
    if (seconds < 120) return seconds.toFixed(0) + " s";
    if (seconds < 7200) return (seconds / 60).toFixed(0) + " min";
    return (seconds / 3600).toFixed(1) + " h";
  }

  function make(name, className) {
    var made = document.createElement(name);
    if (className) made.className = className;
    return made;
  }
})();

/* A scatter plot of particles, drawn as a density, in which a lasso or ranges choose rows.
   about: { file, count, columns: [title], x, y } (numbers of the columns drawn first);
   column(number): a promise of the Float32Array of a column. */
function cryoganScatter(place, about, column) {
  "use strict";
  var SIZE = 640, LEFT = 64, TOP = 12, RIGHT = 12, BOTTOM = 46, FEW = 4000;
  var ratio = 2;
  var root = make("div", "scatter"), canvas = make("canvas"), side = make("div");
  canvas.width = canvas.height = SIZE * ratio;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "scatter plot of particles; the ranges beside it choose with the keyboard");
  var note = make("p", "note");
  note.textContent = about.count.toLocaleString("en") + " particles of " + about.file +
    ". Draw a line round some with the mouse: they are chosen. With Shift they are added, with Alt " +
    "taken away. Rows count from 0.";
  var chosenX = choice("across", about.x), chosenY = choice("up", about.y);
  var ranges = make("fieldset"), legend = make("legend");
  legend.textContent = "Choose by ranges";
  var bounds = ["x from", "x to", "y from", "y to"].map(number);
  var byRange = button("Choose", range);
  ranges.append(legend);
  bounds.forEach(function (each) { ranges.append(each.label, each.input, make("br")); });
  ranges.append(byRange);
  var count = make("p");
  count.setAttribute("role", "status");
  var save = button("Download row numbers", download);
  save.id = "save-rows";
  var hint = make("p", "note");
  hint.textContent = "The file goes with --ind: cryogan reconstruct " + about.file +
    " --ind chosen.txt -o other";
  side.append(chosenX.element, chosenY.element, ranges, count, save,
    button("All others", invert), button("None", function () { chosen.fill(0); update(); }), hint);
  root.append(canvas, side);
  place.append(note, root);

  var chosen = new Uint8Array(about.count);
  var x = null, y = null, view = null, lasso = null;
  load();

  function load() {
    Promise.all([column(Number(chosenX.input.value)), column(Number(chosenY.input.value))])
      .then(function (found) {
        x = found[0];
        y = found[1];
        view = { x: extent(x), y: extent(y) };
        update();
      });
  }
  function extent(values) {
    var low = Infinity, high = -Infinity;
    for (var i = 0; i < values.length; i++) {
      if (values[i] < low) low = values[i];
      if (values[i] > high) high = values[i];
    }
    if (!(high > low)) { low = (isFinite(low) ? low : 0) - 0.5; high = low + 1; }
    var room = 0.02 * (high - low);
    return [low - room, high + room];
  }
  function px(v) { return LEFT + (SIZE - LEFT - RIGHT) * (v - view.x[0]) / (view.x[1] - view.x[0]); }
  function py(v) { return SIZE - BOTTOM - (SIZE - TOP - BOTTOM) * (v - view.y[0]) / (view.y[1] - view.y[0]); }

  function update() {
    var n = chosen.reduce(function (sum, v) { return sum + v; }, 0);
    count.textContent = n.toLocaleString("en") + " of " + about.count.toLocaleString("en") + " particles chosen";
    save.disabled = !n;
    draw();
  }

  function draw() {
    if (!view) return;
    var pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, SIZE, SIZE);
    if (x.length <= FEW) points(pen);
    else density(pen);
    frame(pen);
    if (lasso) {
      pen.beginPath();
      lasso.forEach(function (p, i) { if (i) pen.lineTo(p[0], p[1]); else pen.moveTo(p[0], p[1]); });
      pen.strokeStyle = "#1c2733";
      pen.lineWidth = 1.5;
      pen.stroke();
    }
  }
  function points(pen) {
    [0, 1].forEach(function (which) {   // the chosen ones last: larger, and squares
      pen.fillStyle = which ? "#d1672b" : "rgba(31, 106, 165, 0.55)";
      for (var i = 0; i < x.length; i++) {
        if (chosen[i] !== which || !isFinite(x[i] + y[i])) continue;
        var half = which ? 2.5 : 2;
        pen.fillRect(px(x[i]) - half, py(y[i]) - half, 2 * half, 2 * half);
      }
    });
  }
  function density(pen) {
    var cell = 3, across = Math.ceil(SIZE / cell);
    var all = new Uint32Array(across * across), mine = new Uint32Array(across * across), most = 1;
    for (var i = 0; i < x.length; i++) {
      if (!isFinite(x[i] + y[i])) continue;
      var at = Math.floor(py(y[i]) / cell) * across + Math.floor(px(x[i]) / cell);
      if (++all[at] > most) most = all[at];
      mine[at] += chosen[i];
    }
    for (var k = 0; k < all.length; k++) {
      if (!all[k]) continue;
      var depth = 0.2 + 0.8 * Math.log(1 + all[k]) / Math.log(1 + most);
      var share = mine[k] / all[k];
      pen.fillStyle = share > 0.5 ? "rgba(209, 103, 43, " + depth + ")" : "rgba(31, 106, 165, " + depth + ")";
      pen.fillRect((k % across) * cell, Math.floor(k / across) * cell, cell, cell);
    }
  }
  function frame(pen) {
    pen.strokeStyle = "#98a4b0";
    pen.lineWidth = 1;
    pen.strokeRect(LEFT, TOP, SIZE - LEFT - RIGHT, SIZE - TOP - BOTTOM);
    pen.fillStyle = "#1c2733";
    pen.font = "13px system-ui, sans-serif";
    pen.textAlign = "center";
    ticks(view.x).forEach(function (v) {
      pen.fillText(label(v), px(v), SIZE - BOTTOM + 17);
      pen.fillRect(px(v), SIZE - BOTTOM, 1, 4);
    });
    pen.fillText(about.columns[Number(chosenX.input.value)], (LEFT + SIZE - RIGHT) / 2, SIZE - 10);
    pen.textAlign = "right";
    ticks(view.y).forEach(function (v) {
      pen.fillText(label(v), LEFT - 7, py(v) + 4);
      pen.fillRect(LEFT - 4, py(v), 4, 1);
    });
    pen.save();
    pen.translate(14, (TOP + SIZE - BOTTOM) / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(about.columns[Number(chosenY.input.value)], 0, 0);
    pen.restore();
  }
  function ticks(range) {
    var rough = (range[1] - range[0]) / 5, power = Math.pow(10, Math.floor(Math.log10(rough)));
    var step = [1, 2, 5, 10].map(function (n) { return n * power; }).find(function (s) { return s >= rough; });
    var found = [];
    for (var n = Math.ceil(range[0] / step); n * step <= range[1] && found.length < 12; n++) found.push(n * step);
    return found;
  }
  function label(value) { return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 }); }

  function where(event) {
    var box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * SIZE, (event.clientY - box.top) / box.height * SIZE];
  }
  canvas.addEventListener("pointerdown", function (event) {
    if (!view) return;
    canvas.setPointerCapture(event.pointerId);
    lasso = [where(event)];
  });
  canvas.addEventListener("pointermove", function (event) {
    if (!lasso) return;
    var p = where(event), last = lasso[lasso.length - 1];
    if (Math.hypot(p[0] - last[0], p[1] - last[1]) < 3) return;
    lasso.push(p);
    draw();
  });
  canvas.addEventListener("pointerup", function (event) {
    if (!lasso) return;
    var outline = lasso;
    lasso = null;
    if (outline.length < 3) { draw(); return; }
    choose(function (i) { return inside(px(x[i]), py(y[i]), outline); },
      event.shiftKey ? "add" : event.altKey ? "remove" : "new");
  });
  canvas.addEventListener("pointercancel", function () { lasso = null; draw(); });

  function inside(a, b, outline) {
    var odd = false;
    for (var i = 0, j = outline.length - 1; i < outline.length; j = i++) {
      var p = outline[i], q = outline[j];
      if ((p[1] > b) !== (q[1] > b) && a < (q[0] - p[0]) * (b - p[1]) / (q[1] - p[1]) + p[0]) odd = !odd;
    }
    return odd;
  }
  function choose(test, how) {
    for (var i = 0; i < x.length; i++) {
      var is = test(i);
      if (how === "new") chosen[i] = is ? 1 : 0;
      else if (is) chosen[i] = how === "add" ? 1 : 0;
    }
    update();
  }
  function range() {
    var ends = bounds.map(function (each, i) {
      return each.input.value === "" ? (i % 2 ? Infinity : -Infinity) : Number(each.input.value);
    });
    choose(function (i) {
      return x[i] >= ends[0] && x[i] <= ends[1] && y[i] >= ends[2] && y[i] <= ends[3];
    }, "new");
  }
  function invert() {
    for (var i = 0; i < chosen.length; i++) chosen[i] = 1 - chosen[i];
    update();
  }
  function download() {
    var rows = [];
    for (var i = 0; i < chosen.length; i++) if (chosen[i]) rows.push(i);
    var words = "# rows, counted from 0, of " + about.file.replace(/[^\x20-\x7e]/g, "?") + "\n" + rows.join("\n") + "\n";
    var link = make("a");
    link.href = URL.createObjectURL(new Blob([words], { type: "text/plain" }));
    link.download = "chosen.txt";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 60000);
  }

  function choice(words, first) {
    var element = make("p"), made = make("label"), input = make("select");
    input.id = "scatter-" + words;
    made.htmlFor = input.id;
    made.textContent = words + " ";
    about.columns.forEach(function (title, i) {
      var option = make("option");
      option.value = i;
      option.textContent = title;
      option.selected = i === first;
      input.append(option);
    });
    input.addEventListener("change", load);
    element.append(made, input);
    return { element: element, input: input };
  }
  function number(words, i) {
    var made = make("label"), input = make("input");
    input.type = "number";
    input.step = "any";
    input.id = "scatter-bound" + i;
    made.htmlFor = input.id;
    made.textContent = words + " ";
    return { label: made, input: input };
  }
  function button(words, action) {
    var made = make("button");
    made.type = "button";
    made.textContent = words;
    made.addEventListener("click", action);
    return made;
  }
  function make(name, className) {
    var made = document.createElement(name);
    if (className) made.className = className;
    return made;
  }
}

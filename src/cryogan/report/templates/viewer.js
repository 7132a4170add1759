/* Plays a series of maps: an isosurface by ray casting (WebGL 2), sections and labels beside it.
   The data are in <script type="application/json" id="series">. */
(function () {
  "use strict";
  var source = document.getElementById("series");
  if (!source) return;
  var series = JSON.parse(source.textContent);
  var sliders = Array.from(document.querySelectorAll("input.state"));
  var threshold = document.getElementById("threshold");
  var images = Array.from(document.querySelectorAll("img.section"));
  var bytes = Uint8Array.from(atob(series.voxels), function (c) { return c.charCodeAt(0); });
  var voxels = series.side * series.side * series.side;
  var view = cryoganRenderer(document.getElementById("motion"));
  if (view) view.load(series.side, mapBytes);
  else {
    document.getElementById("motion").hidden = true;
    document.getElementById("no-renderer").hidden = false;
  }

  function shown() {
    return sliders.reduce(function (row, slider, axis) {
      return row * series.grid[axis] + Number(slider.value);
    }, 0);
  }

  function mapBytes(row) { return bytes.subarray(row * voxels, (row + 1) * voxels); }

  function update() {
    var row = shown();
    var level = Number(threshold.value);
    var byte = (255 * (level - series.low)) / (series.high - series.low);
    var inside = 0;
    var values = mapBytes(row);
    for (var i = 0; i < voxels; i++) if (values[i] >= byte) inside++;
    var volume = Math.round(inside * Math.pow(series.voxel_A, 3));
    document.getElementById("state-label").textContent = series.labels[row];
    document.getElementById("threshold-label").textContent =
      ((level - series.mean) / series.sigma).toFixed(1) + " σ · encloses " +
      volume.toLocaleString("en") + " Å³";
    images.forEach(function (image, part) { image.src = series.sections[row][part]; });
    if (view) view.draw(row, byte / 255);
  }
  sliders.concat(threshold).forEach(function (input) { input.addEventListener("input", update); });

  // One axis plays at a time: round a closed path, to and fro on an open one.
  var playing = null;
  var forward = 1;
  Array.from(document.querySelectorAll("button.play")).forEach(function (button) {
    button.addEventListener("click", function () {
      var was = playing;
      if (was) stop();
      if (!was || was.button !== button) start(button);
    });
  });
  function start(button) {
    button.textContent = "Pause";
    playing = { button: button, slider: sliders[Number(button.dataset.axis)], timer: null };
    advance();
  }
  function stop() {
    playing.button.textContent = "Play";
    clearTimeout(playing.timer);
    playing = null;
  }
  function advance() {
    var now = Number(playing.slider.value);
    var count = Number(playing.slider.max) + 1;
    if (series.closed) now = (now + 1) % count;
    else {
      if (now + forward < 0 || now + forward >= count) forward = -forward;
      now = Math.min(count - 1, Math.max(0, now + forward));
    }
    playing.slider.value = now;
    update();
    playing.timer = setTimeout(advance, series.kind === "path" ? 110 : 600);
  }

  update();
})();

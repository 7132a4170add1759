/* Shows the meshes of the chosen contour level, and turns all scenes together. */
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

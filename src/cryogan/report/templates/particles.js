/* The scatter plot of the section about particles, from <script type="application/json" id="scatter">. */
(function () {
  "use strict";
  var source = document.getElementById("scatter");
  if (!source) return;
  var about = JSON.parse(source.textContent);
  cryoganScatter(document.getElementById("particles-scatter"), about, function (number) {
    var column = about.values[number];
    var bytes = Uint8Array.from(atob(column.data), function (c) { return c.charCodeAt(0); });
    var steps = new DataView(bytes.buffer);
    return Promise.resolve(Float32Array.from({ length: about.count }, function (_, i) {
      return column.low + (column.high - column.low) * steps.getUint16(2 * i, true) / 65535;
    }));
  });
})();

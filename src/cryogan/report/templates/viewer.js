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
  var draw = renderer(document.getElementById("motion"));
  if (!draw) {
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
    if (draw) draw(row, byte / 255);
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

  /* A function (map, level from 0 to 1) that draws, or null without WebGL 2. */
  function renderer(canvas) {
    var gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
    if (!gl) return null;
    var vertex = "#version 300 es\n" +
      "out vec2 place;\n" +
      "void main() {\n" +
      "  place = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0;\n" +
      "  gl_Position = vec4(place, 0.0, 1.0);\n" +
      "}";
    var fragment = "#version 300 es\n" +
      "precision highp float;\n" +
      "precision highp sampler3D;\n" +
      "uniform sampler3D map;\n" +
      "uniform mat3 turn;\n" +
      "uniform float reach, level, side;\n" +
      "in vec2 place;\n" +
      "out vec4 colour;\n" +
      "float at(vec3 p) { return texture(map, 0.5 * p + 0.5 + 0.5 / side).r; }\n" +
      "void main() {\n" +
      "  vec3 towards = turn[2];\n" +
      "  vec3 origin = turn * vec3(place * reach, 0.0);\n" +
      "  vec3 slope = mix(towards, vec3(1e-5), lessThan(abs(towards), vec3(1e-5)));\n" +
      "  vec3 a = (-1.0 - origin) / slope, b = (1.0 - origin) / slope;\n" +
      "  vec3 least = min(a, b), most = max(a, b);\n" +
      "  float far = max(max(least.x, least.y), least.z);\n" +
      "  float near = min(min(most.x, most.y), most.z);\n" +
      "  colour = vec4(1.0);\n" +
      "  if (far >= near) return;\n" +
      "  float step = 1.2 / side;\n" +
      "  float t = near;\n" +
      "  bool hit = false;\n" +
      "  for (int i = 0; i < 400 && t > far; i++) {\n" +
      "    if (at(origin + t * towards) >= level) { hit = true; break; }\n" +
      "    t -= step;\n" +
      "  }\n" +
      "  if (!hit) return;\n" +
      "  float inner = t, outer = min(t + step, near);\n" +
      "  for (int i = 0; i < 6; i++) {\n" +
      "    float middle = 0.5 * (inner + outer);\n" +
      "    if (at(origin + middle * towards) >= level) inner = middle; else outer = middle;\n" +
      "  }\n" +
      "  vec3 p = origin + inner * towards;\n" +
      "  vec2 h = vec2(2.0 / side, 0.0);\n" +
      "  vec3 gradient = vec3(at(p + h.xyy) - at(p - h.xyy), at(p + h.yxy) - at(p - h.yxy),\n" +
      "                       at(p + h.yyx) - at(p - h.yyx));\n" +
      "  vec3 normal = inner >= near - 1e-4 ? towards : -normalize(gradient + 1e-6 * towards);\n" +
      "  vec3 light = normalize(turn * vec3(0.35, 0.5, 0.8));\n" +
      "  float bright = 0.42 + 0.55 * max(dot(normal, light), 0.0);\n" +
      "  bright *= 0.78 + 0.22 * smoothstep(-0.9, 0.7, inner);\n" +
      "  float shine = pow(max(dot(normal, normalize(light + towards)), 0.0), 24.0);\n" +
      "  colour = vec4(vec3(0.357, 0.608, 0.784) * bright * 1.25 + 0.14 * shine, 1.0);\n" +
      "}";
    var program = gl.createProgram();
    [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]].forEach(function (part) {
      var shader = gl.createShader(part[0]);
      gl.shaderSource(shader, part[1]);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    });
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
    gl.useProgram(program);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    var textures = {};
    function texture(row) {
      if (!textures[row]) {
        textures[row] = gl.createTexture();
        gl.bindTexture(gl.TEXTURE_3D, textures[row]);
        gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, series.side, series.side, series.side, 0, gl.RED,
          gl.UNSIGNED_BYTE, mapBytes(row));
        [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER].forEach(function (filter) {
          gl.texParameteri(gl.TEXTURE_3D, filter, gl.LINEAR);
        });
        [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R].forEach(function (wrap) {
          gl.texParameteri(gl.TEXTURE_3D, wrap, gl.CLAMP_TO_EDGE);
        });
      }
      return textures[row];
    }
    function uniform(name) { return gl.getUniformLocation(program, name); }

    // Columns: the screen's right, up and towards the eye, in the frame of the map; the eye stands
    // where it does for the map above.
    var turn = frame([1.1, -1.1, 0.6]);
    var reach = 1.15;
    var last = null;
    function render() {
      if (!last) return;
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.bindTexture(gl.TEXTURE_3D, texture(last.row));
      gl.uniformMatrix3fv(uniform("turn"), false, turn[0].concat(turn[1], turn[2]));
      gl.uniform1f(uniform("reach"), reach);
      gl.uniform1f(uniform("level"), last.level);
      gl.uniform1f(uniform("side"), series.side);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    }
    canvas.addEventListener("pointerdown", function (event) {
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", function (event) {
      if (!(event.buttons & 1)) return;
      var size = canvas.clientWidth;
      rotate(0, 2, (-3 * event.movementX) / size);
      rotate(1, 2, (3 * event.movementY) / size);
      render();
    });
    canvas.addEventListener("wheel", function (event) {
      event.preventDefault();
      reach = Math.min(2.5, Math.max(0.2, reach * Math.exp(event.deltaY * 0.001)));
      render();
    }, { passive: false });
    function rotate(i, j, angle) {
      var c = Math.cos(angle), s = Math.sin(angle);
      var a = turn[i], b = turn[j];
      turn[i] = a.map(function (x, k) { return c * x - s * b[k]; });
      turn[j] = a.map(function (x, k) { return s * x + c * b[k]; });
    }
    return function (row, level) {
      last = { row: row, level: level };
      render();
    };
  }

  function frame(eye) {
    var towards = unit(eye);
    var right = unit([-towards[1], towards[0], 0]);
    return [right, cross(towards, right), towards];
  }
  function unit(v) {
    var length = Math.hypot(v[0], v[1], v[2]);
    return v.map(function (x) { return x / length; });
  }
  function cross(a, b) {
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  }

  update();
})();

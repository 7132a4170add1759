/* Draws maps as isosurfaces by ray casting (WebGL 2): drag or arrow keys turn, scroll or + and - zoom.
   Returns null without WebGL 2, else
   load(side, mapBytes): of maps side³ voxels large; mapBytes(row) are the bytes (z, y, x) of one;
   draw(row, level): the surface of a map at a level from 0 to 1. */
function cryoganRenderer(canvas) {
  "use strict";
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
  var side = 0;
  var mapBytes = null;
  var textures = {};
  function texture(row) {
    if (!textures[row]) {
      textures[row] = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_3D, textures[row]);
      gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, side, side, side, 0, gl.RED,
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
    gl.uniform1f(uniform("side"), side);
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
    zoom(Math.exp(event.deltaY * 0.001));
    render();
  }, { passive: false });
  canvas.addEventListener("keydown", function (event) {
    var steps = {
      ArrowLeft: [0, 2, 0.15], ArrowRight: [0, 2, -0.15], ArrowUp: [1, 2, -0.15],
      ArrowDown: [1, 2, 0.15]
    };
    var zooms = { "+": 0.9, "=": 0.9, "-": 1 / 0.9 };
    if (steps[event.key]) rotate.apply(null, steps[event.key]);
    else if (zooms[event.key]) zoom(zooms[event.key]);
    else return;
    event.preventDefault();
    render();
  });
  function zoom(factor) { reach = Math.min(2.5, Math.max(0.2, reach * factor)); }
  function rotate(i, j, angle) {
    var c = Math.cos(angle), s = Math.sin(angle);
    var a = turn[i], b = turn[j];
    turn[i] = a.map(function (x, k) { return c * x - s * b[k]; });
    turn[j] = a.map(function (x, k) { return s * x + c * b[k]; });
  }
  return {
    load: function (newSide, newBytes) {
      Object.keys(textures).forEach(function (row) { gl.deleteTexture(textures[row]); });
      textures = {};
      side = newSide;
      mapBytes = newBytes;
      last = null;
    },
    draw: function (row, level) {
      last = { row: row, level: level };
      render();
    }
  };

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
}

"use strict";
// Learning curves as SVG: one panel per column of log.csv, one line per row, with a band over its seeds.
(() => {
  const report = window.report;
  const SVG = "http://www.w3.org/2000/svg";
  // Okabe and Ito's colours, then the same with dashes, as in the figures.
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
  const DASHES = ["", "6 3", "2 2.5", "9 3 2 3", "12 4"];
  const WIDTH = 380, HEIGHT = 260, LEFT = 40, RIGHT = 10, TOP = 10, BOTTOM = 38;

  const draw = (parent, name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent.append(element);
    return element;
  };
  const label = (parent, text, attributes) => { draw(parent, "text", attributes).textContent = text; };
  const look = (index) => ({
    stroke: COLOURS[index % COLOURS.length],
    "stroke-dasharray": DASHES[Math.floor(index / COLOURS.length) % DASHES.length],
  });

  // A round step that gives about `count` ticks.
  const stepFor = (range, count) => {
    const rough = range / count, power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999);
  };
  const ticks = (top, count, least) => {
    const step = Math.max(stepFor(top, count), least);
    return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
  };

  const shown = report.rows.map(() => true);
  const marks = report.rows.map(() => []);      // every line and band of a row, in all panels

  const readout = document.getElementById("readout"), hint = readout.textContent;

  const panel = (data) => {
    const figure = document.createElement("figure");
    figure.className = "chart";
    const caption = document.createElement("figcaption");
    caption.textContent = data.title;
    const svg = draw(figure, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": data.title });
    figure.prepend(caption);

    const epochs = Math.max(...data.series.map((one) => one.mean.length));
    const highs = data.series.flatMap((one) => one.mean.map((v, i) => (v === null ? 0 : v + (one.sd[i] ?? 0))));
    const top = data.bounded ? 1 : Math.max(...highs, 1e-6) * 1.02;
    const x = (epoch) => LEFT + (epochs > 1 ? (epoch - 1) / (epochs - 1) : 0.5) * (WIDTH - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - (Math.min(Math.max(value, 0), top) / top) * (HEIGHT - TOP - BOTTOM);
    for (const value of ticks(top, 5, 0)) {
      draw(svg, "line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) });
      label(svg, value, { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" });
    }
    for (const epoch of ticks(epochs, 6, 1).map((value) => value || 1)) {
      label(svg, epoch, { x: x(epoch), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" });
    }
    label(svg, "epoch", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 5, "text-anchor": "middle" });

    const points = [];
    data.series.forEach((one, row) => {
      const known = one.mean.map((value, i) => [i + 1, value, one.sd[i]]).filter(([, value]) => value !== null);
      const banded = known.filter(([, , sd]) => sd !== null);
      if (banded.length > 1) {
        const edge = [...banded.map(([e, v, sd]) => [x(e), y(v + sd)]),
          ...banded.reverse().map(([e, v, sd]) => [x(e), y(v - sd)])];
        const band = edge.map((point) => point.map((v) => v.toFixed(1)).join(" ")).join(" ");
        marks[row].push(draw(svg, "polygon", { class: "band", points: band, fill: look(row).stroke }));
      }
      const path = known.map(([e, v]) => `${x(e).toFixed(1)} ${y(v).toFixed(1)}`).join(" ");
      marks[row].push(draw(svg, "polyline", { class: "line", points: path, ...look(row) }));
      if (known.length === 1) {
        marks[row].push(draw(svg, "circle", { cx: x(known[0][0]), cy: y(known[0][1]), r: 3, fill: look(row).stroke }));
      }
      for (const [epoch, value, sd] of known) points.push({ row, epoch, value, sd, x: x(epoch), y: y(value) });
    });

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), scale = WIDTH / box.width;
      const at = { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
      const near = points.filter((point) => shown[point.row]).reduce((best, point) => {
        const distance = 4 * Math.abs(point.x - at.x) + Math.abs(point.y - at.y);
        return distance < best.distance ? { distance, point } : best;
      }, { distance: Infinity }).point;
      if (!near) return;
      const sd = near.sd === null ? "" : ` (sd ${near.sd.toPrecision(2)})`;
      const value = `${data.title} ${near.value.toPrecision(3)}${sd}`;
      readout.textContent = `${report.rows[near.row]}, epoch ${near.epoch}: ${value}`;
      highlight(near.row);
    });
    svg.addEventListener("pointerleave", () => { readout.textContent = hint; highlight(null); });
    return figure;
  };

  const highlight = (row) => marks.forEach((elements, other) => {
    for (const element of elements) element.classList.toggle("faded", row !== null && other !== row);
  });

  document.getElementById("charts").append(...report.curves.map(panel));
  report.rows.forEach((name, row) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    const sample = draw(button, "svg", { viewBox: "0 0 30 8", "aria-hidden": "true" });
    draw(sample, "line", { x1: 0, x2: 30, y1: 4, y2: 4, "stroke-width": 2.5, ...look(row) });
    button.append(name);
    button.addEventListener("click", () => {
      shown[row] = !shown[row];
      button.setAttribute("aria-pressed", String(shown[row]));
      for (const element of marks[row]) element.style.display = shown[row] ? "" : "none";
    });
    button.addEventListener("pointerenter", () => highlight(shown[row] ? row : null));
    button.addEventListener("pointerleave", () => highlight(null));
    document.getElementById("legend").append(button);
  });
})();

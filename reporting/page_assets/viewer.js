"use strict";
// The viewer of the validation slices. Masks come as run lengths and are drawn as SVG paths over the pictures: pixels
// of a picture from the disk may not be read.
(() => {
  const report = window.report;
  const SVG = "http://www.w3.org/2000/svg";
  const REFERENCE = "#F0E442", PREDICTION = "#56B4E9";
  const CLASSES = ["#E69F00", "#56B4E9", "#CC79A7", "#F0E442", "#009E73", "#D55E00", "#0072B2"];
  const several = report.classes.length > 1;
  const find = (id) => document.getElementById(id);
  const make = (name, text) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const draw = (parent, name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent.append(element);
    return element;
  };
  const state = { case: 0, slice: 0, channel: 0, masks: null };
  const controls = {};
  for (const id of ["case", "channel", "slice", "contours", "errors", "zoom", "largest"]) controls[id] = find(id);
  const stage = find("stage"), strip = find("strip");

  // Masks: one script per case, read when the case is first shown.
  const received = new Map(), waiting = new Map();
  report.receive = (index, masks) => { received.set(index, masks); };
  const load = (index) => {
    if (!waiting.has(index)) {
      waiting.set(index, new Promise((resolve, reject) => {
        const script = make("script");
        script.src = `slices/${index}.js`;
        script.onload = () => resolve(received.get(index));
        script.onerror = () => { waiting.delete(index); reject(new Error(`slices/${index}.js cannot be read`)); };
        document.head.append(script);
      }));
    }
    return waiting.get(index);
  };

  // Runs outside, inside, outside, ... -> a mask of `size` pixels with `value` inside.
  const paint = (mask, runs, value) => {
    let at = 0;
    runs.forEach((length, i) => {
      if (i % 2) mask.fill(value, at, at + length);
      at += length;
    });
  };
  const classMap = (classes, size) => {
    const mask = new Uint8Array(size);
    (classes ?? []).forEach((runs, k) => paint(mask, runs, k + 1));
    return mask;
  };

  // The part of a mask in which `inside` holds: [left, top, right, bottom], or null.
  const extent = (inside, width, height) => {
    let left = width, top = height, right = 0, bottom = 0;
    for (let y = 0, i = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1, i += 1) {
        if (!inside(i)) continue;
        left = Math.min(left, x);
        right = Math.max(right, x + 1);
        top = Math.min(top, y);
        bottom = y + 1;
      }
    }
    return bottom ? [left, top, right, bottom] : null;
  };

  // The outline of the pixels for which `inside` holds: each edge between a pixel inside and one outside.
  const outline = (inside, width, height) => {
    const box = extent(inside, width, height);
    if (!box) return "";
    const [left, top, right, bottom] = box, parts = [];
    const at = (x, y) => x >= left && y >= top && x < right && y < bottom && inside(y * width + x);
    const trace = (lines, from, to, differs, write) => {
      for (let line = lines[0]; line <= lines[1]; line += 1) {
        let start = -1;
        for (let i = from; i <= to; i += 1) {
          const edge = i < to && differs(line, i);
          if (edge && start < 0) start = i;
          if (!edge && start >= 0) { parts.push(write(line, start, i - start)); start = -1; }
        }
      }
    };
    trace([top, bottom], left, right, (y, x) => at(x, y) !== at(x, y - 1), (y, x, n) => `M${x} ${y}h${n}`);
    trace([left, right], top, bottom, (x, y) => at(x, y) !== at(x - 1, y), (x, y, n) => `M${x} ${y}v${n}`);
    return parts.join("");
  };
  const outlines = (mask, size) => report.classes.map((_, k) => outline((i) => mask[i] === k + 1, ...size));
  const area = (inside, width, height) => {
    const parts = [];
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const start = x;
        while (x < width && inside(y * width + x)) x += 1;
        if (x > start) parts.push(`M${start} ${y}h${x - start}v1h${start - x}z`);
      }
    }
    return parts.join("");
  };

  // Contours of [kind, paths by class]: first what sets them off on black and on white, then the lines. The reference's
  // is the wider one, so that it is seen where a prediction runs along it.
  const colourOf = (kind, k) => (several ? CLASSES[k % CLASSES.length] : kind);
  const drawContours = (group, contours) => {
    for (const [, paths] of contours) {
      const d = paths.join("");
      if (d) draw(group, "path", { d, class: "halo" });
    }
    for (const [kind, paths] of contours) {
      paths.forEach((d, k) => {
        const name = kind === REFERENCE ? "reference" : "prediction";
        if (d) draw(group, "path", { d, class: several ? `${name} several` : name, stroke: colourOf(kind, k) });
      });
    }
  };

  const panels = ["reference", ...report.rows].map((name, index) => {
    const figure = make("figure");
    figure.className = "panel";
    figure.append(make("h3", name));
    const svg = draw(figure, "svg", { role: "img", preserveAspectRatio: "none" });
    const image = draw(svg, "image", { preserveAspectRatio: "none" });
    const overlay = draw(svg, "g", {});
    const score = make("p");
    figure.append(score);
    stage.append(figure);
    return { name, index, figure, svg, image, overlay, score };
  });

  const viewBox = (one) => {
    const [width, height] = one.size;
    if (!controls.zoom.checked || !one.box) return [0, 0, width, height];
    const [left, top, right, bottom] = one.box;
    // The same share of both sides keeps the panel's shape.
    const share = Math.min(1, Math.max((right - left) / width, (bottom - top) / height) * 1.3 + 0.08);
    const fit = (middle, side, whole) => Math.min(Math.max(middle - side / 2, 0), whole - side);
    const w = share * width, h = share * height;
    return [fit((left + right) / 2, w, width), fit((top + bottom) / 2, h, height), w, h];
  };

  const pictureOf = (slice) => `slices/${state.case}-${state.channel}-${slice}.png`;
  const drawPanel = (panel, reference, paths, one) => {
    const [width, height] = one.size, [dx, dy] = one.spacing;
    panel.svg.setAttribute("viewBox", viewBox(one).join(" "));
    panel.svg.style.aspectRatio = `${width * dx} / ${height * dy}`;
    panel.image.setAttribute("width", width);
    panel.image.setAttribute("height", height);
    panel.image.setAttribute("href", pictureOf(state.slice));
    panel.overlay.replaceChildren();
    const scores = panel.index ? one.scores[panel.index - 1] : [`${one.areas[state.slice]} pixels in this slice`];
    panel.score.replaceChildren(...scores.flatMap((text, i) => (i ? [make("br"), text] : [text])));
    panel.svg.setAttribute("aria-label", `${panel.name}: ${one.id}, slice ${state.slice}. ${scores.join("; ")}`);
    const contours = [[REFERENCE, paths]];
    if (panel.index) {
      const mask = classMap(state.masks[panel.index][state.slice], width * height);
      if (controls.errors.checked) {
        const extra = area((i) => mask[i] && mask[i] !== reference[i], width, height);
        const missing = area((i) => reference[i] && mask[i] !== reference[i], width, height);
        if (extra) draw(panel.overlay, "path", { d: extra, class: "extra" });
        if (missing) draw(panel.overlay, "path", { d: missing, class: "missing" });
      }
      if (controls.contours.checked) contours.push([PREDICTION, outlines(mask, one.size)]);
    }
    if (controls.contours.checked) drawContours(panel.overlay, contours);
  };

  const drawStrip = (one) => {
    const most = Math.max(...one.areas, 1);
    strip.setAttribute("viewBox", `0 0 ${one.areas.length} 34`);
    strip.replaceChildren();
    one.areas.forEach((pixels, slice) => {
      if (slice === state.slice) draw(strip, "rect", { x: slice, y: 0, width: 1, height: 34, fill: "#f7dfcf" });
      const height = pixels ? 5 + 25 * Math.sqrt(pixels / most) : 2;
      const fill = slice === state.slice ? "#D55E00" : pixels ? "#0072B2" : "#9aa1a8";
      draw(strip, "rect", { x: slice + 0.08, y: 33 - height, width: 0.84, height, fill });
    });
  };

  const render = () => {
    const one = report.cases[state.case], count = one.areas.length;
    controls.case.value = String(state.case);
    controls.slice.max = String(count - 1);
    controls.slice.value = String(state.slice);
    const pixels = one.areas[state.slice];
    const lesion = pixels ? `lesion of ${pixels} pixels` : "no lesion";
    // Counted from 0, as the files are.
    const place = `slice ${state.slice} (${state.slice + 1} of ${count}), ${lesion}`;
    controls.slice.setAttribute("aria-valuetext", place);
    find("place").textContent = `${one.id}: ${place}`;
    drawStrip(one);
    stage.setAttribute("aria-busy", String(!state.masks));
    if (!state.masks) return;
    const reference = classMap(state.masks[0][state.slice], one.size[0] * one.size[1]);
    const paths = outlines(reference, one.size);
    for (const panel of panels) if (!panel.figure.hidden) drawPanel(panel, reference, paths, one);
    for (const next of [state.slice - 1, state.slice + 1]) {
      if (next >= 0 && next < count) new Image().src = pictureOf(next);
    }
  };

  const openCase = async (index) => {
    if (index < 0 || index >= report.cases.length) return;
    const { areas, channel } = report.cases[index];
    Object.assign(state, { case: index, slice: areas.indexOf(Math.max(...areas)), masks: null });
    if (!controls.channel.dataset.chosen) {
      state.channel = channel;
      controls.channel.value = String(channel);
    }
    render();
    try {
      const masks = await load(index);
      if (state.case !== index) return;     // another case was chosen meanwhile
      state.masks = masks;
      render();
    } catch (error) {
      if (state.case === index) find("place").textContent = error.message;
    }
  };
  const openSlice = (slice) => {
    state.slice = Math.min(Math.max(slice, 0), report.cases[state.case].areas.length - 1);
    render();
  };
  const openLargest = () => {
    const { areas } = report.cases[state.case];
    openSlice(areas.indexOf(Math.max(...areas)));
  };

  report.cases.forEach((one, index) => controls.case.append(new Option(one.id, index)));
  report.channels.forEach((name, index) => controls.channel.append(new Option(name, index)));
  find("channel-choice").hidden = report.channels.length < 2;
  controls.case.addEventListener("change", () => openCase(Number(controls.case.value)));
  controls.channel.addEventListener("change", () => {
    controls.channel.dataset.chosen = "yes";
    state.channel = Number(controls.channel.value);
    render();
  });
  controls.slice.addEventListener("input", () => openSlice(Number(controls.slice.value)));
  for (const id of ["contours", "errors", "zoom"]) controls[id].addEventListener("change", render);
  controls.largest.addEventListener("click", openLargest);
  strip.addEventListener("click", (event) => {
    const box = strip.getBoundingClientRect();
    openSlice(Math.floor(((event.clientX - box.left) / box.width) * report.cases[state.case].areas.length));
  });

  const toggle = (id) => { controls[id].checked = !controls[id].checked; render(); };
  const keys = {
    ArrowLeft: () => openSlice(state.slice - 1),
    ArrowRight: () => openSlice(state.slice + 1),
    ArrowUp: () => openCase(state.case - 1),
    ArrowDown: () => openCase(state.case + 1),
    c: () => toggle("contours"),
    e: () => toggle("errors"),
    z: () => toggle("zoom"),
    l: openLargest,
  };
  // Only inside the viewer: elsewhere the arrows scroll and letters are the browser's.
  find("viewer").addEventListener("keydown", (event) => {
    const action = keys[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.tagName === "SELECT") return;
    event.preventDefault();
    action();
  });
  for (const button of document.querySelectorAll("button[data-case]")) {
    button.addEventListener("click", () => {
      openCase(Number(button.dataset.case));
      find("slices").scrollIntoView();
      stage.focus({ preventScroll: true });
    });
  }

  panels.slice(1).forEach((panel) => {
    const label = make("label"), box = make("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => { panel.figure.hidden = !box.checked; render(); });
    label.append(box, panel.name);
    find("row-boxes").append(label);
  });
  find("row-choice").hidden = report.rows.length < 2;

  // What the colours mean.
  const keyEntry = (text, attributes) => {
    const entry = make("span");
    const sample = draw(entry, "svg", { viewBox: "0 0 26 12", "aria-hidden": "true" });
    draw(sample, "path", { d: "M3 2.5h20v7h-20z", ...attributes });
    entry.append(text);
    find("key").append(entry);
  };
  if (several) {
    report.classes.forEach((name, k) => keyEntry(name, { class: "prediction", stroke: CLASSES[k % CLASSES.length] }));
    keyEntry("dashed: reference", { class: "reference several", stroke: "#fff" });
  } else {
    keyEntry("reference", { class: "reference", stroke: REFERENCE });
    keyEntry("prediction", { class: "prediction", stroke: PREDICTION });
  }
  keyEntry("false positive", { class: "extra" });
  keyEntry("false negative", { class: "missing" });
  openCase(0);
})();

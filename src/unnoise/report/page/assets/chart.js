"use strict";
// A chart as SVG, drawn into a box.
//
// series: [{name, style, points: [[x, y, error, label], …], dots, line, raw}], where raw are points
// shown faintly below; y null breaks a line. x, y: {label, log, at}: numbers that ticks should be at.

const WIDEST = 8; // series that a tooltip lists; of more, only the nearest point

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "circle", "text"].includes(name);
  const made = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e7 || (size > 0 && size < 1e-4)) {
    const [digits, exponent] = value.toExponential(2).split("e");
    const raised = [...String(Number(exponent))].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
    const mantissa = Number(digits);
    return (mantissa === 1 ? "" : `${mantissa}·`) + `10${raised.join("")}`.replace("-", "−");
  }
  if (size >= 1000) return Math.round(value).toLocaleString("en-US").replace("-", "−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((each) => each >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(k * step);
  return ticks.map((tick) => Number(tick.toPrecision(12)));
}

function logTicks(low, high, count) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const factors = last - first <= 1 ? [1, 2, 3, 5, 7] : last - first <= 3 ? [1, 2, 5] : [1];
  const apart = Math.max(1, Math.ceil((last - first) / count));
  const ticks = [];
  for (let k = first; k <= last; k += factors.length > 1 ? 1 : apart) {
    ticks.push(...factors.map((factor) => Number((factor * 10 ** k).toPrecision(3))));
  }
  const inside = ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  return inside.length > 1 ? inside : linearTicks(low, high, count);
}

function ends(values) {
  return values.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
}

function scale(values, axis, from, to, count) {
  let [low, high] = ends(values);
  if (!values.length) [low, high] = [0, 1];
  else if (low === high) {
    const room = Math.abs(low) * 0.1 || 1;
    [low, high] = axis.log ? [low / 1.5, high * 1.5] : [low - room, high + room];
  } else if (axis.room && axis.log) {
    const room = (high / low) ** 0.05;
    [low, high] = [low / room, high * room];
  } else if (axis.room) {
    const room = (high - low) * 0.05;
    [low, high] = [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
  }
  const bend = axis.log ? Math.log : (value) => value;
  const at = (value) => from + ((bend(value) - bend(low)) / (bend(high) - bend(low))) * (to - from);
  const own = [...new Set(axis.at || [])].sort((a, b) => a - b);
  const ticks = own.length && own.length <= count + 2
    ? own
    : (axis.log ? logTicks : linearTicks)(low, high, count);
  return { at, ticks };
}

function isLog(choice, values) {
  if (choice !== "automatic") return choice === "logarithmic" && values.some((each) => each > 0);
  const [low, high] = ends(values);
  return values.length > 1 && low > 0 && high / low > 12;
}

function path(points, x, y) {
  let pen = "M";
  return points
    .map(([a, b]) => {
      if (b === null) pen = "M";
      const command = b === null ? "" : `${pen}${x(a).toFixed(1)} ${y(b).toFixed(1)}`;
      if (b !== null) pen = "L";
      return command;
    })
    .join("");
}

function draw(box, spec) {
  const width = Math.max(200, box.clientWidth), height = spec.height || 240;
  const usable = ([a, b]) =>
    b !== null && a !== null && (!spec.y.log || b > 0) && (!spec.x.log || a > 0);
  const series = spec.series.map((each) => ({
    ...each,
    points: each.points.map((point) => (usable(point) ? point : [point[0], null])),
    raw: (each.raw || []).map((point) => (usable(point) ? point : [point[0], null])),
  }));
  const all = series.flatMap((each) => [...each.points, ...each.raw]).filter((p) => p[1] !== null);
  const reached = all.flatMap(([, b, error]) => (error ? [b - error, b, b + error] : [b]));
  const values = reached.filter((value) => !spec.y.log || value > 0);
  const top = 10, bottom = height - (spec.x.label ? 40 : 24);
  const y = scale(values, { ...spec.y, room: true }, bottom, top, Math.max(2, (bottom - top) / 45));
  const left = 12 + 7 * Math.max(1, ...y.ticks.map((tick) => short(tick).length));
  const right = width - 14;
  const places = Math.max(2, (right - left) / 90);
  const x = scale(all.map(([a]) => a), { ...spec.x, room: spec.dots }, left, right, places);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  svg.setAttribute("aria-label", spec.title || spec.y.label || "chart");
  for (const tick of y.ticks) {
    const at = y.at(tick);
    svg.append(make("line", { class: "grid", x1: left, x2: right, y1: at, y2: at }));
    svg.append(make("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, short(tick)));
  }
  let free = -Infinity;
  for (const tick of x.ticks) {
    const at = x.at(tick), name = short(tick);
    const half = name.length * 3.4;
    if (at - half < free + 6) continue;
    free = at + half;
    const middle = Math.min(Math.max(at, half), width - half);
    svg.append(make("text", { x: middle, y: bottom + 17, "text-anchor": "middle" }, name));
  }
  if (spec.x.label) {
    const middle = (left + right) / 2;
    svg.append(make("text", { x: middle, y: height - 4, "text-anchor": "middle" }, spec.x.label));
  }
  if (spec.front && spec.front.length) {
    const steps = spec.front.flatMap(([a, b], k) =>
      k ? [[a, spec.front[k - 1][1]], [a, b]] : [[a, b]]);
    svg.append(make("path", { class: "front", d: path([...steps], x.at, y.at) }));
  }
  for (const each of series) {
    const group = make("g", { class: `${each.style.colour} series` });
    const dash = each.style.dash;
    if (each.raw.length) group.append(make("path", { class: "line faint", d: path(each.raw, x.at, y.at) }));
    if (each.line !== false) {
      const line = { class: "line", d: path(each.points, x.at, y.at), "stroke-dasharray": dash };
      group.append(make("path", line));
    }
    const seen = each.points.filter((point) => point[1] !== null);
    for (const [a, b, error] of each.dots || seen.length === 1 ? seen : []) {
      if (error) {
        const low = spec.y.log && b <= error ? bottom : y.at(b - error);
        group.append(make("line", { class: "error", x1: x.at(a), x2: x.at(a), y1: low, y2: y.at(b + error) }));
      }
      group.append(make("circle", { class: "dot", cx: x.at(a), cy: y.at(b), r: each.dots ? 4.5 : 3 }));
    }
    svg.append(group);
  }
  if (!all.length) svg.append(make("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing to show"));
  box.replaceChildren(svg);
  hover(box, svg, series, x, y, spec, top, bottom);
}

function hover(box, svg, series, x, y, spec, top, bottom) {
  const cursor = make("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
  const tip = make("div", { class: "tip", hidden: "" });
  svg.append(cursor);
  box.append(tip);
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    cursor.setAttribute("visibility", "hidden");
  });
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const at = event.clientX - frame.left, height = event.clientY - frame.top;
    const one = spec.dots || series.length > WIDEST;
    const distance = (p) => Math.abs(x.at(p[0]) - at) + (one ? Math.abs(y.at(p[1]) - height) : 0);
    const nearest = series
      .map((each) => {
        const seen = each.points.filter((point) => point[1] !== null);
        const best = seen.reduce((a, b) => (a && distance(a) <= distance(b) ? a : b), null);
        return best && { each, best };
      })
      .filter(Boolean)
      .sort((a, b) => distance(a.best) - distance(b.best));
    if (!nearest.length) return;
    const place = nearest[0].best[0];
    const listed = one ? nearest.slice(0, 1) : nearest.filter(({ best }) => best[0] === place);
    const order = [...listed].sort((a, b) => b.best[1] - a.best[1]);
    tip.replaceChildren(
      ...order.map(({ each, best }) => {
        const error = best[2] ? ` ± ${short(best[2])}` : "";
        return make("div", { class: each.style.colour }, `${best[3] || each.name}: ${short(best[1])}${error}`);
      }),
      make("div", {}, `${spec.x.label || ""} ${short(place)}`.trim()),
    );
    tip.hidden = false;
    const beyond = x.at(place) + tip.offsetWidth + 14 > box.clientWidth;
    tip.style.left = `${Math.max(0, beyond ? x.at(place) - tip.offsetWidth - 10 : x.at(place) + 10)}px`;
    tip.style.top = `${Math.max(0, Math.min(height - 20, bottom - tip.offsetHeight))}px`;
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x.at(place));
    cursor.setAttribute("visibility", "visible");
  });
}

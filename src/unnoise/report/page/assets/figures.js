// The figures of the page: each takes its box and its data, and draws anew when a tool is used.

const DASHES = [null, "6 3", "2 3"];
const AXES = ["automatic", "linear", "logarithmic"];

function styled(k) {
  return { colour: `c${k % 8}`, dash: DASHES[Math.floor(k / 8) % 3] };
}

function select(label, options, change) {
  const field = make("select", {}, ...options.map((each) => make("option", {}, each)));
  field.addEventListener("change", change);
  return [field, make("label", {}, label, field)];
}

function range(label, change) {
  const field = make("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: 0 });
  field.addEventListener("input", change);
  return [field, make("label", {}, label, field)];
}

function swatch(style, dot) {
  const svg = make("svg", { class: `swatch ${style.colour}`, viewBox: "0 0 22 10" });
  const line = { d: "M1 5H21", stroke: "currentColor", "stroke-width": 2.5, "stroke-dasharray": style.dash };
  svg.append(dot ? make("circle", { cx: 11, cy: 5, r: 4.5, fill: "currentColor" }) : make("path", line));
  return svg;
}

// The legend of some series; a click hides one or shows it again, a double click shows it alone.
function legend(names, styles, hidden, change, dot) {
  const box = make("div", { class: "legend" });
  const buttons = names.map((name, k) => {
    const button = make("button", { type: "button", title: "double click: this one alone" }, swatch(styles[k], dot), name);
    const show = () => buttons.forEach((each, j) => each.setAttribute("aria-pressed", !hidden.has(names[j])));
    button.addEventListener("click", () => {
      hidden.has(name) ? hidden.delete(name) : hidden.add(name);
      show();
      change();
    });
    button.addEventListener("dblclick", () => {
      names.forEach((other) => (other === name ? hidden.delete(other) : hidden.add(other)));
      show();
      change();
    });
    button.setAttribute("aria-pressed", !hidden.has(name));
    return button;
  });
  box.append(...buttons);
  return box;
}

// An exponential mean over the points so far, each weighed as if the curve began with it.
function smoothed(points, share) {
  let sum = 0, weight = 0;
  return points.map(([x, y]) => {
    if (y === null) return [x, null];
    sum = share * sum + (1 - share) * y;
    weight = share * weight + (1 - share);
    return [x, sum / weight];
  });
}

function lines(curves, share) {
  return curves.map(({ name, style, steps, values }) => {
    const raw = steps.map((step, k) => [step, values[k]]);
    return share > 0
      ? { name, style, points: smoothed(raw, share), raw }
      : { name, style, points: raw };
  });
}

function finite(series) {
  return series.flatMap((each) => each.points.map((p) => p[1])).filter((value) => value !== null);
}

// Of one run: every metric, small.
function curves(box, data) {
  const redraws = [];
  const redraw = () => redraws.forEach((each) => each());
  const [axis, axisLabel] = select("y axis", AXES, redraw);
  const [smooth, smoothLabel] = range("smoothing", redraw);
  const grid = make("div", { class: "charts" });
  box.append(make("div", { class: "tools" }, axisLabel, smoothLabel), grid);
  for (const { title, metrics } of data.charts) {
    const chart = make("div", { class: "chart" }), hidden = new Set();
    const names = metrics.map((metric) => named(metric, metrics));
    const styles = metrics.map((_, k) => styled(k));
    const show = () => {
      const chosen = metrics.map((metric, k) => {
        const [, steps, values] = data.curves[metric][0];
        return { name: names[k], style: styles[k], steps, values };
      });
      const series = lines(chosen.filter(({ name }) => !hidden.has(name)), Number(smooth.value));
      const y = { log: isLog(axis.value, finite(series)) };
      draw(chart, { title, series, x: { label: "step" }, y, height: 220 });
    };
    const cell = make("div", {}, make("h3", {}, title), chart);
    if (metrics.length > 1) cell.append(legend(names, styles, hidden, show));
    grid.append(cell);
    redraws.push(show);
  }
  return redraw;
}

function named(metric, metrics) {
  const short = metric.replace(/^.*loss_t/, "t ").replace(/^.*loss_snr\d*/, "log-SNR ");
  if (short !== metric) return short;
  if (metrics.includes("validation/loss")) return metric.split("/")[0];
  return metric;
}

// Of many runs: one metric, large.
function overlay(box, data) {
  const hidden = new Set(), chart = make("div", { class: "chart" });
  const note = make("p", { class: "note" });
  const redraw = () => {
    const chosen = data.curves[metric.value].map(([run, steps, values]) => ({
      name: data.runs[run], style: styled(run), steps, values,
    }));
    const series = lines(chosen.filter(({ name }) => !hidden.has(name)), Number(smooth.value));
    const y = { label: metric.value, log: isLog(axis.value, finite(series)) };
    draw(chart, { series, x: { label: "step" }, y, height: 400 });
    const keys = data.differ[metric.value].join(", ");
    note.textContent = keys && `Not all of these values compare: the runs differ in ${keys}.`;
  };
  const [metric, metricLabel] = select("metric", Object.keys(data.curves), redraw);
  const [axis, axisLabel] = select("y axis", AXES, redraw);
  const [smooth, smoothLabel] = range("smoothing", redraw);
  const tools = make("div", { class: "tools" }, metricLabel, axisLabel, smoothLabel);
  const key = legend(data.runs, data.runs.map((_, k) => styled(k)), hidden, redraw);
  box.append(tools, chart, key, note);
  return redraw;
}

// Quality against cost, with the front of those that no other one beats in both; a line where one
// sampler was given different budgets.
function cost(box, data) {
  const chart = make("div", { class: "chart" }), hidden = new Set();
  const costs = Object.keys(data.costs), titles = Object.values(data.costs);
  const drawn = data.points.filter((point) => costs.some((each) => point[each] !== null));
  const names = [...new Set(drawn.map((point) => point.series))];
  const count = (points, key) => new Set(points.map((point) => point[key])).size;
  const line = (points) =>
    points.length > 1 && count(points, "sampler") === 1 && count(points, costs[0]) === points.length;
  const redraw = () => {
    const by = costs[titles.indexOf(against.value)];
    const place = (k) => [data.points[k][by], data.points[k].values[metric.value][0]];
    const series = names.map((name, k) => {
      const own = drawn.filter((point) => point.series === name && point.values[metric.value]);
      const points = own.map((point) => {
        const [value, error] = point.values[metric.value];
        return [point[by], value, error && 1.96 * error, point.name];
      });
      points.sort((a, b) => a[0] - b[0]);
      return { name, style: styled(k), dots: true, line: line(own), points: hidden.has(name) ? [] : points };
    });
    const at = [...new Set(drawn.map((point) => point[by]))];
    const ends = [Math.min(...at), Math.max(...at)];
    const real = data.points.filter((point) => point.kind === "real" && point.values[metric.value]);
    series.push(...real.map(({ name, values }) => ({
      name, style: { colour: "plain", dash: "2 3" },
      points: ends.map((end) => [end, values[metric.value][0], null, name]),
    })));
    const y = { log: isLog(axis.value, finite(series)) };
    const front = hidden.size ? [] : (data.fronts[`${metric.value} ${by}`] || []).map(place);
    const title = `${metric.value} against ${against.value}`;
    draw(chart, { title, series, x: { label: against.value, log: true, at }, y, height: 340, dots: true, front });
    better.textContent = `${data.metrics[metric.value] ? "Less" : "More"} is better. Bars are 95 % intervals; the broad line is the Pareto front: no other setting beats it in both.${real.length ? " Dotted: real pictures." : ""}`;
  };
  const better = make("p", { class: "note" });
  const [metric, metricLabel] = select("quality", Object.keys(data.metrics), redraw);
  const [against, againstLabel] = select("against", titles, redraw);
  const [axis, axisLabel] = select("y axis", AXES, redraw);
  const tools = make("div", { class: "tools" }, metricLabel, againstLabel, axisLabel);
  const key = legend(names, names.map((_, k) => styled(k)), hidden, redraw, true);
  box.append(tools, chart, key, better);
  return redraw;
}

const FIGURES = { curves, overlay, cost };
for (const box of document.querySelectorAll("[data-figure]")) {
  const redraw = FIGURES[box.dataset.figure](box, JSON.parse(box.firstElementChild.textContent));
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth !== width) redraw();
    width = box.clientWidth;
  }).observe(box);
  redraw();
}

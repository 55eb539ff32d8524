// Score against cost, the heat map by LVLM, and the table of pairs. All of them follow the filters.
"use strict";
window.boardPlots = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const MOST = 40; // rows of the heat map

  const svg = (name, attributes = {}, ...children) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const html = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const fixed = (value) => (Math.abs(value) < 0.0005 ? 0 : value).toFixed(3);

  // A shape of about 10 pixels for each family: colour alone tells nothing to who cannot see it.
  const SHAPES = {
    attention: () => svg("circle", { r: 5 }),
    gradient: () => svg("rect", { x: -4.6, y: -4.6, width: 9.2, height: 9.2 }),
    prompting: () => svg("path", { d: "M0-6L6 5H-6Z" }),
    perturbation: () => svg("path", { d: "M0-6.4L6.4 0L0 6.4L-6.4 0Z" }),
    concept: () => svg("path", { d: "M0-7L1.9-2.2 7-2.1 3 1.2 4.4 6.2 0 3.3-4.4 6.2-3 1.2-7-2.1-1.9-2.2Z" }),
    other: () => svg("path", { d: "M-5-2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z" }),
  };
  const shape = (family) => (SHAPES[family] || SHAPES.other)();

  const cost = (row, axis) => {
    if (axis === "seconds") return row.seconds;
    return row.forward === null && row.backward === null ? null : (row.forward || 0) + (row.backward || 0);
  };

  const ticks = (low, high) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const step of [1, 2, 5]) {
        const value = step * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    }
    return found.length > 9 ? found.filter((v) => Math.abs(Math.log10(v) % 1) < 1e-6) : found;
  };

  function scatter(rows, bands, axis) {
    const place = document.getElementById("cost");
    const points = rows
      .filter((row) => !row.isNull && cost(row, axis) > 0)
      .map((row) => ({ row, at: cost(row, axis), score: row.evidence_ap }));
    const keys = document.getElementById("cost-keys");
    keys.replaceChildren(
      ...[...new Set(points.map((p) => p.row.family))].sort().map((family) =>
        html("li", {}, svg("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true", class: `mark ${family}` }, shape(family)), family),
      ),
    );
    if (!points.length) {
      place.replaceChildren(html("p", { class: "quiet" }, "No row of this selection states its cost."));
      return;
    }
    const width = Math.max(place.clientWidth, 280);
    const height = Math.round(Math.min(Math.max(width * 0.95, 300), 560));
    const box = { left: 44, right: width - 14, top: 14, bottom: height - 42 };
    const costs = points.map((p) => p.at);
    const low = Math.min(...costs) / 4;
    const high = Math.max(...costs) * 1.9;
    const top = Math.min(1, Math.max(...points.map((p) => p.score.high), bands.prior, bands.floor, 0.1) * 1.08);
    const bottom = Math.min(0, ...points.map((p) => p.score.low));
    const x = (value) => box.left + ((Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low))) * (box.right - box.left);
    const y = (value) => box.bottom - ((value - bottom) / (top - bottom)) * (box.bottom - box.top);
    const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", role: "group", "aria-label": `Evidence AP against ${axis === "seconds" ? "seconds" : "model passes"} a sample` });
    const band = (value, name) => {
      if (value > bottom) chart.append(svg("rect", { class: name, x: box.left, width: box.right - box.left, y: y(Math.min(value, top)), height: Math.max(y(Math.max(bottom, 0)) - y(Math.min(value, top)), 0) }));
    };
    band(bands.prior, "w-prior");
    band(bands.floor, "w-floor");
    const step = top - bottom > 0.5 ? 0.2 : top - bottom > 0.2 ? 0.1 : 0.05;
    for (let value = Math.ceil(bottom / step) * step; value <= top + 1e-9; value += step) {
      chart.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }), svg("text", { class: "tick end", x: box.left - 8, y: y(value) + 4 }, value.toFixed(step < 0.1 ? 2 : 1).replace("-0.0", "0.0")));
    }
    for (const value of ticks(low, high)) {
      chart.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: box.top, y2: box.bottom }), svg("text", { class: "tick middle", x: x(value), y: box.bottom + 17 }, String(Number(value.toPrecision(1)))));
    }
    chart.append(svg("text", { class: "tick middle", x: (box.left + box.right) / 2, y: height - 6 }, axis === "seconds" ? "seconds a sample" : "model passes a sample"));
    const taken = points.map((p) => [x(p.at) - 7, y(p.score.mean) - 7, x(p.at) + 7, y(p.score.mean) + 7]);
    const free = (r) => r[0] >= box.left && r[2] <= box.right && r[1] >= box.top && r[3] <= box.bottom + 10 && taken.every((t) => r[2] < t[0] || r[0] > t[2] || r[3] < t[1] || r[1] > t[3]);
    for (const { row, at, score } of points) {
      const link = svg("a", { href: row.href, class: `mark ${row.family}`, "aria-label": `${row.title}: ${fixed(score.mean)}, cost ${at}` });
      link.append(
        svg("title", {}, `${row.title}: ${fixed(score.mean)} [${fixed(score.low)}, ${fixed(score.high)}], cost ${at}`),
        svg("line", { class: "bar", x1: x(at), x2: x(at), y1: y(score.low), y2: y(score.high) }),
        svg("g", { transform: `translate(${x(at)} ${y(score.mean)})` }, shape(row.family)),
      );
      const length = row.title.length * 6.1 + 2;
      const spots = [
        [x(at) + 9, y(score.mean) + 4, "start"], [x(at) - 9, y(score.mean) + 4, "end"],
        [x(at) + 7, y(score.mean) - 9, "start"], [x(at) + 7, y(score.mean) + 17, "start"],
        [x(at) - 7, y(score.mean) - 9, "end"], [x(at) - 7, y(score.mean) + 17, "end"],
        [x(at), y(score.mean) - 11, "middle"], [x(at), y(score.mean) + 19, "middle"],
      ];
      for (const [left, base, anchor] of points.length > MOST ? [] : spots) {
        const start = left - { start: 0, middle: length / 2, end: length }[anchor];
        const area = [start, base - 10, start + length, base + 2];
        if (free(area)) {
          taken.push(area);
          link.append(svg("text", { class: `name ${anchor}`, x: left, y: base }, row.title));
          break;
        }
      }
      chart.append(link);
    }
    place.replaceChildren(chart);
  }

  // A name that may break after its underscores and hyphens.
  const breakable = (name) => name.split(/(?<=[_-])/).flatMap((part, n) => (n ? [html("wbr"), part] : [part]));

  function heat(rows, lvlms, scoreOf) {
    const place = document.getElementById("heat");
    const head = html("tr", {}, html("th", { scope: "col" }, "Method"), ...lvlms.map((lvlm) => html("th", { scope: "col", class: "n" }, ...breakable(lvlm))));
    const body = rows.slice(0, MOST).map((row) =>
      html("tr", row.isNull ? { class: "null" } : {}, html("th", { scope: "row" }, row.title), ...lvlms.map((lvlm) => {
        const value = scoreOf(row, lvlm);
        if (value === null) return html("td", { class: "n" }, "–");
        return html("td", { class: `n q${Math.min(9, Math.max(0, Math.floor(value * 10)))}` }, fixed(value));
      })),
    );
    place.replaceChildren(html("table", { class: "plain heat" }, html("thead", {}, head), html("tbody", {}, ...body)));
    if (rows.length > MOST) place.append(html("p", { class: "quiet" }, `The first ${MOST} rows.`));
  }

  function pairs(rows, beats) {
    const place = document.getElementById("pairs");
    const shown = rows.slice(0, beats.length);
    const head = html("tr", {}, html("th", { scope: "col" }, "Row"), ...shown.map((row, n) => html("th", { scope: "col", class: "c", title: row.title }, String(n + 1))));
    const body = shown.map((row, n) =>
      html("tr", row.isNull ? { class: "null" } : {}, html("th", { scope: "row" }, html("span", { class: "count" }, String(n + 1)), ` ${row.title}`), ...shown.map((other, m) => {
        if (n === m) return html("td", { class: "c self" }, "");
        const sign = beats[n][m] === "1" ? "+" : beats[m][n] === "1" ? "−" : "·";
        return html("td", { class: `c ${sign === "+" ? "plus" : sign === "·" ? "same" : "minus"}`, title: `${row.title} against ${other.title}` }, sign);
      })),
    );
    place.replaceChildren(html("table", { class: "plain pairs" }, html("thead", {}, head), html("tbody", {}, ...body)));
    if (rows.length > shown.length) place.append(html("p", { class: "quiet" }, `The first ${shown.length} rows.`));
  }

  return { scatter, heat, pairs, svg, html, fixed };
})();

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

  const power = (value, digits) => value.toExponential(digits).replace(/\.?0*e\+?/, "e");
  const tickText = (value) => (value >= 1e5 || value < 1e-3 ? power(value, 0) : String(Number(value.toPrecision(1))));

  // The finest steps whose texts stand apart: 1, 2, 5 in every decade, or one in so many decades.
  const ticks = (low, high, x) => {
    const first = Math.floor(Math.log10(low));
    const last = Math.ceil(Math.log10(high));
    const made = (every, steps) => {
      const found = [];
      for (let exponent = first; exponent <= last; exponent++) {
        if (exponent % every) continue;
        found.push(...steps.map((step) => step * 10 ** exponent).filter((value) => value >= low * 0.999 && value <= high * 1.001));
      }
      return found;
    };
    const apart = (values) => values.every((value, n) => !n || x(value) - x(values[n - 1]) > 3.6 * (tickText(value).length + tickText(values[n - 1]).length) + 8);
    let found = made(1, [1, 2, 5]);
    for (let every = 1; !apart(found) && every <= last - first; every++) found = made(every, [1]);
    return found;
  };

  // Whether the line from a to b touches a rectangle (left, top, right, bottom).
  const touches = ([ax, ay], [bx, by], [left, top, right, bottom]) => {
    let [from, to] = [0, 1];
    for (const [start, way, low, high] of [[ax, bx - ax, left, right], [ay, by - ay, top, bottom]]) {
      if (!way) {
        if (start < low || start > high) return false;
        continue;
      }
      const ends = [(low - start) / way, (high - start) / way];
      from = Math.max(from, Math.min(...ends));
      to = Math.min(to, Math.max(...ends));
    }
    return from <= to;
  };
  const side = ([ax, ay], [bx, by], [x, y]) => Math.sign((bx - ax) * (y - ay) - (by - ay) * (x - ax));
  const cross = ([a, b], [c, d]) => side(a, b, c) !== side(a, b, d) && side(c, d, a) !== side(c, d, b);
  const overlap = (a, b) => a[2] >= b[0] && a[0] <= b[2] && a[3] >= b[1] && a[1] <= b[3];
  const grown = (r, by) => [r[0] - by, r[1] - by, r[2] + by, r[3] + by];

  const NAME = 30; // letters of a name beside its mark
  const SHORT = 14; // where more do not fit
  // Where a name may stand from its mark: across, down, and which of its ends is there.
  const NEAR = [[9, 4, 1], [-9, 4, -1], [0, -9, 0], [0, 17, 0], [7, -9, 1], [7, 17, 1], [-7, -9, -1], [-7, 17, -1]];
  const FAR = [22, 32, 42, 54, 68, 84, 104].flatMap((far) =>
    [0, 8, 4, 12, 2, 6, 10, 14, 1, 3, 5, 7, 9, 11, 13, 15].flatMap((turn) => {
      const [across, down] = [far * Math.cos((turn * Math.PI) / 8), 4 + far * Math.sin((turn * Math.PI) / 8)];
      const end = Math.sign(Math.round(across / far));
      return turn % 8 === 4 ? [[across, down, 0], [across, down, 1], [across, down, -1]] : [[across, down, end || Math.sign(across)]];
    }),
  );

  // A place for the name of every mark: beside it, where no other mark could be meant, or else further away with a
  // line that leads to it. Marks whose names fit nowhere are left out.
  const placed = (marks, box) => {
    let best = new Map();
    let order = [...marks.keys()];
    for (let round = 0; round < 6 && best.size < marks.length; round++) {
      const names = placedIn(order, marks, box);
      if (names.size > best.size) best = names;
      order = [...order.filter((own) => !names.has(own)), ...order.filter((own) => names.has(own))];
    }
    return best;
  };
  const placedIn = (order, marks, box) => {
    const squares = marks.map(({ x, y }) => [x - 7, y - 7, x + 7, y + 7]);
    const names = new Map();
    const leads = [];
    const tried = (mark, own, [across, down, end], far) => {
      const [left, base] = [mark.x + across, mark.y + down];
      const start = left - [mark.length, mark.length / 2, 0][end + 1];
      const area = [start, base - 10, start + mark.length, base + 3];
      const others = squares.filter((_, n) => n !== own);
      if (area[0] < box.left || area[2] > box.right || area[1] < box.top || area[3] > box.bottom + 10) return null;
      if ([...others.map((square) => grown(square, far ? 0 : 8)), ...(far ? [squares[own]] : []), ...[...names.values()].map((name) => name.area)].some((taken) => overlap(area, taken))) return null;
      if (leads.some(([a, b]) => touches(a, b, grown(area, 2)))) return null;
      const name = { text: mark.text, area, left, base, anchor: ["end", "middle", "start"][end + 1], lead: null };
      if (!far) return name;
      const to = [Math.min(Math.max(mark.x, area[0]), area[2]), Math.min(Math.max(mark.y, area[1]), area[3])];
      const from = [mark.x, mark.y];
      const apart = others.filter((square) => !overlap(grown(square, -4), grown(squares[own], -4))).map((square) => grown(square, -2));
      if (leads.some((lead) => cross(lead, [from, to]))) return null;
      if ([...apart, ...[...names.values()].map((other) => other.area)].some((taken) => touches(from, to, taken))) return null;
      return { ...name, lead: [from, to] };
    };
    for (const spots of [NEAR, FAR]) {
      for (const own of order.filter((one) => !names.has(one))) {
        let name = null;
        spots.some((spot) => (name = tried(marks[own], own, spot, spots === FAR)));
        if (name) names.set(own, name);
        if (name && name.lead) leads.push(name.lead);
      }
    }
    return names;
  };

  function scatter(rows, bands, axis) {
    const place = document.getElementById("cost");
    const points = rows
      .filter((row) => !row.isNull && cost(row, axis) > 0)
      .map((row) => ({ row, at: cost(row, axis), score: row.headline }));
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
    const height = Math.round(Math.min(Math.max(width * 0.95, 380), 560));
    const box = { left: 44, right: width - 14, top: 14, bottom: height - 42 };
    const costs = points.map((p) => p.at);
    const low = Math.min(...costs) / 4;
    const high = Math.max(...costs) * 1.9;
    const top = Math.min(1, Math.max(...points.map((p) => p.score.high), bands.prior, bands.floor, 0.1) * 1.08);
    const bottom = Math.min(0, ...points.map((p) => p.score.low));
    const x = (value) => box.left + ((Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low))) * (box.right - box.left);
    const y = (value) => box.bottom - ((value - bottom) / (top - bottom)) * (box.bottom - box.top);
    const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "chart", role: "group", "aria-label": `Evidence AP against ${axis === "seconds" ? "seconds" : "model passes"} a sample` });
    for (const [name, value] of Object.entries(bands).sort((a, b) => b[1] - a[1])) {
      // Only the end of a band is drawn as a line.
      if (value > bottom) chart.append(svg("path", { class: `w-${name} open`, d: `M${box.left} ${y(Math.max(bottom, 0))}V${y(value)}H${box.right}V${y(Math.max(bottom, 0))}` }), svg("path", { class: `w-${name} edge`, d: `M${box.left} ${y(value)}H${box.right}` }));
    }
    const step = top - bottom > 0.5 ? 0.2 : top - bottom > 0.2 ? 0.1 : 0.05;
    for (let value = Math.ceil(bottom / step) * step; value <= top + 1e-9; value += step) {
      chart.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }), svg("text", { class: "tick end", x: box.left - 8, y: y(value) + 4 }, value.toFixed(step < 0.1 ? 2 : 1).replace("-0.0", "0.0")));
    }
    for (const value of ticks(low, high, x)) {
      chart.append(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: box.top, y2: box.bottom }), svg("text", { class: "tick middle", x: x(value), y: box.bottom + 17 }, tickText(value)));
    }
    chart.append(svg("text", { class: "tick middle", x: (box.left + box.right) / 2, y: height - 6 }, axis === "seconds" ? "seconds a sample" : "model passes a sample"));
    const short = (title, letters) => (title.length > letters ? `${title.slice(0, letters - 1)}…` : title);
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const marks = points.map(({ row, at, score }) => ({ x: x(at), y: y(score.mean), title: row.title }));
    const named = (mark, letters) => ({ ...mark, text: short(mark.title, letters), length: pen.measureText(short(mark.title, letters)).width + 3 });
    let names = new Map();
    if (points.length <= MOST) {
      const full = marks.map((mark) => named(mark, NAME));
      names = placed(full, box);
      if (names.size < marks.length) names = placed(full.map((mark, n) => (names.has(n) ? mark : named(mark, SHORT))), box);
    }
    points.forEach(({ row, at, score }, n) => {
      const link = svg("a", { href: row.href, class: `mark ${row.family}`, "aria-label": `${row.title}: ${fixed(score.mean)}, cost ${at}` });
      link.append(
        svg("title", {}, `${row.title}: ${fixed(score.mean)} [${fixed(score.low)}, ${fixed(score.high)}], cost ${at}`),
        svg("line", { class: "bar", x1: x(at), x2: x(at), y1: y(score.low), y2: y(score.high) }),
        svg("g", { transform: `translate(${x(at)} ${y(score.mean)})` }, shape(row.family)),
      );
      const name = names.get(n);
      if (name && name.lead) link.prepend(svg("line", { class: "lead", x1: name.lead[0][0], y1: name.lead[0][1], x2: name.lead[1][0], y2: name.lead[1][1] }));
      if (name) link.append(svg("text", { class: `name ${name.anchor}`, x: name.left, y: name.base }, name.text));
      chart.append(link);
    });
    place.replaceChildren(chart);
  }

  // A name that may break after its underscores and hyphens.
  const breakable = (name) => name.split(/(?<=[_-])/).flatMap((part, n) => (n ? [html("wbr"), part] : [part]));

  function heat(rows, lvlms, scoreOf) {
    const place = document.getElementById("heat");
    const head = html("tr", {}, html("th", { scope: "col" }, "Method"), ...lvlms.map((lvlm) => html("th", { scope: "col", class: "n" }, html("span", { class: "cut", title: lvlm }, ...breakable(lvlm)))));
    const body = rows.slice(0, MOST).map((row) =>
      html("tr", row.isNull ? { class: "null" } : {}, html("th", { scope: "row" }, html("span", { class: "cut", title: row.title }, row.title)), ...lvlms.map((lvlm) => {
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
      html("tr", row.isNull ? { class: "null" } : {}, html("th", { scope: "row" }, html("span", { class: "cut", title: row.title }, html("span", { class: "count" }, String(n + 1)), ` ${row.title}`)), ...shown.map((other, m) => {
        if (n === m) return html("td", { class: "c self" }, "");
        const sign = beats[n][m] === "1" ? "+" : beats[m][n] === "1" ? "−" : "·";
        return html("td", { class: `c ${sign === "+" ? "plus" : sign === "·" ? "same" : "minus"}`, title: `${row.title} against ${other.title}` }, sign);
      })),
    );
    place.replaceChildren(html("table", { class: "plain pairs" }, html("thead", {}, head), html("tbody", {}, ...body)));
    if (rows.length > shown.length) place.append(html("p", { class: "quiet" }, `The first ${shown.length} rows.`));
  }

  return { scatter, heat, pairs, svg, html, fixed, power };
})();

// The ranking: a Tabulator table over the rows of the chosen view. The address holds the state.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("board-data").textContent);
  const { svg, html, fixed } = window.boardPlots;
  const AXES = ["source", "lvlm", "mode", "evidence"];
  const WORDS = { lesion: "lesion", spurious: "spurious mark" };
  const SHOWN = ["rank", "title", "evidence_ap", "iou", "corrected_iou", "auroc", "pointing", "forward", "seconds", "needs"];
  const HINTS = {
    evidence_ap: "Average precision of the pixels for the region, corrected for chance",
    iou: "Overlap of boxes over their union", f1: "Harmonic mean of precision and recall",
    precision: "Share of the boxes that is evidence", recall: "Share of the evidence that is in the boxes",
    precision_lift: "Precision over the region's share of the image; 1 by chance",
    corrected_iou: "IoU corrected for chance", auroc: "0.5 by chance",
    relevance_mass: "Share of the map's sum inside the region", relevance_rank: "Share of the top pixels inside the region",
    pointing: "Whether the maximum lies inside",
  };
  const byId = (id) => document.getElementById(id);

  const lineOf = ([entry, rank, ...numbers]) => {
    const about = data.entries[entry];
    const row = {
      ...about, id: entry, rank: rank || null, href: `methods/${about.name}.html`,
      status: about.isNull ? "null control" : about.verified ? "verified" : "self-reported",
      needs: about.needs.join(", ") || (about.isNull ? "nothing" : ""),
    };
    data.metrics.forEach(([key], n) => {
      const [mean, low, high] = numbers.slice(3 * n, 3 * n + 3);
      row[key] = { mean: mean / 1000, low: (mean - low) / 1000, high: (mean + high) / 1000 };
    });
    return row;
  };

  // --- state and the address --------------------------------------------------------------------------
  const initial = () => ({
    ...Object.fromEntries(AXES.map((axis, n) => [axis, data.default[n] || ""])),
    family: "", q: "", sort: "evidence_ap:desc", cols: SHOWN.join(","),
  });
  const parse = () => {
    const state = initial();
    const given = new URLSearchParams(location.hash.slice(1));
    for (const key of Object.keys(state)) if (given.has(key)) state[key] = given.get(key).slice(0, 500);
    return state;
  };
  let state = parse();
  const remember = () => {
    const standard = initial();
    const changed = Object.entries(state).filter(([key, value]) => value !== standard[key]);
    const hash = changed.length ? `#${new URLSearchParams(changed)}` : "";
    history.replaceState(null, "", hash || location.pathname + location.search);
  };

  const viewOf = (filters) => {
    const chosen = data.parts
      .map((part, n) => (AXES.every((axis, a) => !filters[axis] || filters[axis] === part[a]) ? n : -1))
      .filter((n) => n >= 0);
    return { view: data.views[chosen.join(",")] || null, any: chosen.length > 0 };
  };

  // --- the table --------------------------------------------------------------------------------------
  const cut = (value) => Math.min(Math.max(value, 0), 1) * 100;
  let bands = { floor: 0, prior: 0 };

  const whisker = (score) => {
    const drawing = svg("svg", { class: "whisker", viewBox: "0 0 100 14", preserveAspectRatio: "none", "aria-hidden": "true" });
    if (bands.prior > 0) drawing.append(svg("rect", { class: "w-prior", x: 0, y: 0, width: cut(bands.prior), height: 14 }));
    if (bands.floor > 0) drawing.append(svg("rect", { class: "w-floor", x: 0, y: 0, width: cut(bands.floor), height: 14 }));
    drawing.append(
      svg("line", { class: "w-line", x1: cut(score.low), x2: cut(score.high), y1: 7, y2: 7 }),
      svg("line", { class: "w-dot", x1: cut(score.mean), x2: cut(score.mean), y1: 2.5, y2: 11.5 }),
    );
    return drawing;
  };
  const headline = (cell) => {
    const score = cell.getValue();
    return html("div", { class: "withbar" }, html("span", {}, html("b", {}, fixed(score.mean)), " ", html("small", {}, `${fixed(score.low)} to ${fixed(score.high)}`)), whisker(score));
  };
  const metric = (cell) => {
    const score = cell.getValue();
    return html("span", { title: `${fixed(score.mean)}, 95 % interval ${fixed(score.low)} to ${fixed(score.high)}` }, fixed(score.mean));
  };
  const method = (cell) => {
    const row = cell.getData();
    const box = html("div", { class: "method" }, html("a", { href: row.href }, row.title));
    const below = html("span", { class: "below" });
    if (row.isNull) below.append("null control");
    else below.append(html("span", { class: `family ${row.family}` }, row.family), ` · ${row.status}`);
    box.append(below);
    return box;
  };
  const rank = (cell) => {
    const row = cell.getData();
    if (row.rank === null) return html("span", { class: "quiet" }, "–");
    const shared = shares.get(row.rank) > 1;
    const box = html("span", {}, String(row.rank));
    if (shared) box.append(html("span", { class: "tie", title: "shared rank" }, "="), html("span", { class: "sr" }, " shared"));
    return box;
  };
  const badge = (cell) => {
    const row = cell.getData();
    return html("span", { class: `badge ${row.isNull ? "null" : row.verified ? "ok" : "warn"}` }, row.status);
  };
  const amount = (cell) => (cell.getValue() === null ? "–" : Number(cell.getValue().toPrecision(3)).toLocaleString("en"));
  const percent = (cell) => `${(100 * cell.getValue()).toFixed(1)} %`;
  const byMean = (a, b) => a.mean - b.mean;
  const numeric = { hozAlign: "right", headerHozAlign: "right", headerSortStartingDir: "desc" };
  const low = { ...numeric, headerSortStartingDir: "asc", sorter: "number", sorterParams: { alignEmptyValues: "bottom" } };
  const phone = matchMedia("(max-width: 640px)").matches;

  const columns = [
    { field: "rank", title: "Rank", formatter: rank, ...low, width: phone ? 62 : 76, frozen: true },
    { field: "title", title: "Method", formatter: method, sorter: "string", width: phone ? 142 : 222, frozen: true, text: true },
    ...data.metrics.map(([key, label]) => ({
      field: key, title: label, metric: true, sorter: byMean, ...numeric, headerTooltip: HINTS[key] || label,
      ...(key === "evidence_ap" ? { formatter: headline, width: phone ? 200 : 226, hozAlign: "left", headerHozAlign: "left" } : { formatter: metric, minWidth: 84 }),
    })),
    { field: "coverage", title: "Coverage", formatter: percent, sorter: "number", ...numeric },
    { field: "silent", title: "No explanation", formatter: percent, ...low },
    { field: "forward", title: "Forward", formatter: amount, ...low, headerTooltip: "Forward passes a sample" },
    { field: "backward", title: "Backward", formatter: amount, ...low, headerTooltip: "Backward passes a sample" },
    { field: "seconds", title: "Seconds", formatter: amount, ...low, headerTooltip: "Seconds a sample, as submitted" },
    { field: "needs", title: "Needs", sorter: "string", text: true, formatter: "plaintext", width: 118 },
    { field: "family", title: "Family", sorter: "string", text: true, formatter: "plaintext" },
    { field: "status", title: "Status", formatter: badge, sorter: "string", text: true },
    { field: "version", title: "Version", sorter: "string", text: true, formatter: "plaintext" },
    { field: "by", title: "Submitted by", sorter: "string", text: true, formatter: "plaintext" },
  ];
  const visible = () => {
    const chosen = new Set(state.cols.split(","));
    return (field) => field === "rank" || field === "title" || chosen.has(field);
  };
  const sorting = () => {
    const [field, direction] = state.sort.split(":");
    const known = columns.some((column) => column.field === field);
    return known ? [{ column: field, dir: direction === "asc" ? "asc" : "desc" }] : [{ column: "evidence_ap", dir: "desc" }];
  };

  let rows = [];
  let beats = [];
  let shares = new Map();
  const load = () => {
    const { view, any } = viewOf(state);
    rows = view ? view.rows.map(lineOf) : [];
    beats = view ? view.beats : [];
    shares = new Map();
    for (const row of rows) if (row.rank !== null) shares.set(row.rank, (shares.get(row.rank) || 0) + 1);
    const nulls = rows.filter((row) => row.isNull);
    const best = (some) => Math.max(0, ...some.map((row) => row.evidence_ap.mean));
    bands = { prior: best(nulls.filter((row) => row.name === data.prior)), floor: best(nulls.filter((row) => row.name !== data.prior)) };
    return { view, any };
  };
  let loaded = load();

  const keep = (row) => {
    if (state.family && !row.isNull && row.family !== state.family) return false;
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const text = `${row.title} ${row.name} ${row.family} ${row.by} ${row.status}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };

  const isVisible = visible();
  const place = byId("board");
  place.replaceChildren();
  const many = data.entries.length > 60;
  place.classList.toggle("many", many);
  const table = new Tabulator(place, {
    data: rows,
    columns: columns.map(({ metric: _metric, text: _text, ...column }) => ({
      ...column, visible: isVisible(column.field), resizable: false, cssClass: `c-${column.field}${column.hozAlign === "right" ? " num" : ""}`,
    })),
    index: "id",
    layout: "fitDataFill",
    // Rows of one height in a window of its own: then only those in sight are drawn.
    ...(many ? { height: "80vh", rowHeight: 54 } : {}),
    initialSort: sorting(),
    placeholder: "No row fits this selection.",
    rowFormatter: (row) => {
      const about = row.getData();
      row.getElement().classList.toggle("null", about.isNull);
      row.getElement().classList.toggle("self-reported", !about.isNull && !about.verified);
    },
  });
  // The grid's parts as a screen reader expects them: rows within groups, headers that a key can reach.
  const makeAccessible = () => {
    place.removeAttribute("aria-owns");
    place.setAttribute("aria-label", "Ranking");
    place.setAttribute("aria-rowcount", String(table.getDataCount("active") + 1));
    const holder = place.querySelector(".tabulator-tableholder");
    holder.setAttribute("role", "rowgroup");
    holder.setAttribute("aria-label", "Rows");
    place.querySelector(".tabulator-table").setAttribute("role", "presentation");
    for (const head of place.querySelectorAll(".tabulator-col")) {
      if (head.hasAttribute("tabindex")) continue;
      head.tabIndex = 0;
      head.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        head.querySelector(".tabulator-col-content").click();
      });
    }
  };

  // --- what is said and drawn around it ---------------------------------------------------------------
  const describe = () => {
    const { view, any } = loaded;
    const status = byId("status");
    if (!view) {
      status.textContent = any ? "No submission covers this selection." : "No samples fit this selection.";
      return;
    }
    const shown = rows.filter(keep);
    const nulls = shown.filter((row) => row.isNull).length;
    const outside = data.entries.length - rows.length;
    const count = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;
    const floor = rows.find((row) => row.isNull && row.name !== data.prior);
    const prior = rows.find((row) => row.name === data.prior);
    status.textContent =
      `${count(shown.length - nulls, "method")} and ${count(nulls, "null control")} on ${count(view.samples, "sample")} of ${count(view.patients, "patient")}.` +
      (floor ? ` Null floor ${fixed(bands.floor)} (${floor.title})` : "") +
      (prior ? `, prior ${fixed(bands.prior)}.` : floor ? "." : "") +
      (outside > 0 ? ` ${count(outside, "submission")} without all of these samples ${outside === 1 ? "is" : "are"} not listed.` : "");
  };
  const draw = () => {
    byId("plots").hidden = !rows.length;
    if (!rows.length) return;
    const shown = rows.filter(keep);
    window.boardPlots.scatter(shown, bands, byId("cost-axis").value);
    const lvlms = [...new Set(data.parts.map((part) => part[1]))].filter((lvlm) => !state.lvlm || lvlm === state.lvlm);
    const scores = new Map(lvlms.map((lvlm) => {
      const { view } = viewOf({ ...state, lvlm });
      return [lvlm, new Map(view ? view.rows.map((row) => [row[0], row[2] / 1000]) : [])];
    }));
    const some = lvlms.filter((lvlm) => scores.get(lvlm).size);
    window.boardPlots.heat(shown, some, (row, lvlm) => scores.get(lvlm).get(row.id) ?? null);
    window.boardPlots.pairs(rows, beats);
  };
  let drawing = 0;
  const later = () => {
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(draw);
  };

  const refresh = async () => {
    loaded = load();
    await table.replaceData(rows);
    table.refreshFilter();
    describe();
    later();
    remember();
  };

  // --- controls ---------------------------------------------------------------------------------------
  const fill = (id, values, words = {}) => {
    byId(id).replaceChildren(html("option", { value: "" }, "All"), ...values.map((value) => html("option", { value }, words[value] || value)));
  };
  AXES.forEach((axis, n) => fill(`f-${axis}`, [...new Set(data.parts.map((part) => part[n]))].sort(), axis === "evidence" ? WORDS : {}));
  fill("f-family", [...new Set(data.entries.filter((e) => !e.isNull).map((e) => e.family))].sort());
  const chooser = byId("columns").querySelector("fieldset");
  for (const column of columns.slice(2)) {
    const input = html("input", { type: "checkbox", value: column.field });
    input.addEventListener("change", () => {
      const chosen = new Set(state.cols.split(","));
      chosen[input.checked ? "add" : "delete"](column.field);
      state.cols = columns.map((c) => c.field).filter((field) => field === "rank" || field === "title" || chosen.has(field)).join(",");
      table[input.checked ? "showColumn" : "hideColumn"](column.field);
      makeAccessible();
      remember();
    });
    chooser.append(html("label", {}, input, column.title));
  }
  const showState = () => {
    for (const key of [...AXES, "family"]) {
      const select = byId(`f-${key}`);
      select.value = state[key];
      if (select.value !== state[key]) {
        state[key] = ""; // an address may name what is not here
        select.value = "";
      }
    }
    byId("f-q").value = state.q;
    const shown = visible();
    for (const input of chooser.querySelectorAll("input")) input.checked = shown(input.value);
  };
  for (const key of [...AXES, "family"]) {
    byId(`f-${key}`).addEventListener("change", (event) => {
      state[key] = event.target.value;
      refresh();
    });
  }
  byId("f-q").addEventListener("input", (event) => {
    state.q = event.target.value;
    table.refreshFilter();
    describe();
    later();
    remember();
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("cost-axis").addEventListener("change", later);

  const restore = async () => {
    showState();
    const shown = visible();
    for (const column of columns.slice(2)) table[shown(column.field) ? "showColumn" : "hideColumn"](column.field);
    table.setSort(sorting());
    await refresh();
    makeAccessible();
  };
  byId("reset").addEventListener("click", () => {
    state = initial();
    restore();
  });
  addEventListener("hashchange", () => {
    state = parse();
    restore();
  });
  byId("link").addEventListener("click", async (event) => {
    remember();
    const button = event.target;
    let text = "Link copied";
    try {
      await navigator.clipboard.writeText(location.href);
    } catch {
      text = "It is in the address bar";
    }
    button.textContent = text;
    setTimeout(() => { button.textContent = "Copy link"; }, 2500);
  });

  const exported = () => {
    const shown = visible();
    return columns.filter((column) => shown(column.field)).map((column) => ({
      key: column.field === "title" ? "method" : column.field,
      title: column.title, metric: column.metric, text: column.text, value: (row) => row[column.field],
    }));
  };
  for (const button of byId("downloads").querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const filters = [...AXES, "family", "q"].filter((key) => state[key]).map((key) => `${key}: ${state[key]}`).join(", ");
      const shown = table.getRows("active").map((row) => row.getData());
      window.boardExports(button.dataset.form, exported(), shown, { benchmark: data.version, filters: filters || "no filter" });
      byId("downloads").open = false;
      byId("downloads").querySelector("summary").focus();
    });
  }
  const menus = [...document.querySelectorAll("details.menu")];
  addEventListener("keydown", (event) => {
    const open = menus.find((menu) => menu.open);
    if (event.key === "Escape" && open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
  addEventListener("click", (event) => {
    for (const menu of menus) if (menu.open && !menu.contains(event.target)) menu.open = false;
  });

  table.on("tableBuilt", () => {
    table.setFilter(keep);
    showState();
    makeAccessible();
    describe();
    for (const id of ["controls", "link", "reset"]) byId(id).hidden = false;
    document.documentElement.dataset.ready = "yes";
    later(); // the table first, its pictures after it
  });
  table.on("dataSorted", (sorters) => {
    if (!document.documentElement.dataset.ready || !sorters.length) return;
    state.sort = `${sorters[0].field}:${sorters[0].dir}`;
    remember();
  });
  table.on("dataFiltered", () => place.setAttribute("aria-rowcount", String(table.getDataCount("active") + 1)));
  new ResizeObserver(later).observe(byId("cost"));
});

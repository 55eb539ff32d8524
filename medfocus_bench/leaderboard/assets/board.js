// The ranking: a Tabulator table over the rows of the chosen view. The address holds the state.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("board-data").textContent);
  const { svg, html, fixed, power } = window.boardPlots;
  const AXES = ["source", "lvlm", "mode", "evidence"];
  const WORDS = { lesion: "lesion", spurious: "spurious mark" };
  const FEATURED = data.metrics.filter(([, , , featured]) => featured).map(([key]) => key);
  const SHOWN = ["rank", "title", ...FEATURED, ...data.sections.filter(([, , , featured]) => featured).map(([key]) => key), "forward", "seconds", "needs"];
  const CHOICES = {
    ...Object.fromEntries(AXES.map((axis, n) => [axis, [...new Set(data.parts.map((part) => part[n]))].sort()])),
    family: [...new Set(data.entries.filter((entry) => !entry.isNull).map((entry) => entry.family))].sort(),
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
      // A result that is older than a score does not have it.
      row[key] = mean === null ? { mean, low, high } : { mean: mean / 1000, low: (mean - low) / 1000, high: (mean + high) / 1000 };
    });
    row.headline = row[data.headline];
    return row;
  };

  // --- state and the address --------------------------------------------------------------------------
  const initial = () => ({
    ...Object.fromEntries(AXES.map((axis, n) => [axis, data.default[n] || ""])),
    family: "", q: "", sort: `${data.headline}:desc`, cols: SHOWN.join(","),
  });
  const parse = () => {
    const state = initial();
    const given = new URLSearchParams(location.hash.slice(1));
    gone = [];
    for (const key of Object.keys(state)) {
      if (!given.has(key)) continue;
      const value = given.get(key).slice(0, 500);
      if (!CHOICES[key] || !value || CHOICES[key].includes(value)) state[key] = value;
      else gone.push(value); // an address may be older than the board
    }
    return state;
  };
  let gone = [];
  let state = parse();
  const hashOf = (some) => {
    const standard = initial();
    const changed = Object.entries(some).filter(([key, value]) => value !== standard[key]);
    return changed.length ? `#${new URLSearchParams(changed)}` : "";
  };
  const remember = () => history.replaceState(null, "", hashOf(state) || location.pathname + location.search);

  const viewOf = (filters) => {
    const chosen = data.parts
      .map((part, n) => (AXES.every((axis, a) => !filters[axis] || filters[axis] === part[a]) ? n : -1))
      .filter((n) => n >= 0);
    return { view: data.views[chosen.join(",")] || null, any: chosen.length > 0 };
  };
  // For every entry the filters of the largest view that lists it, fewest filters first.
  let homes = null;
  const homeOf = (entry) => {
    if (!homes) {
      homes = new Map();
      const every = AXES.reduce((some, axis) => some.flatMap((one) => ["", ...CHOICES[axis]].map((value) => ({ ...one, [axis]: value }))), [{}]);
      const known = every.map((filters) => ({ filters, view: viewOf(filters).view })).filter((home) => home.view);
      const width = ({ filters }) => AXES.filter((axis) => filters[axis]).length;
      known.sort((a, b) => b.view.samples - a.view.samples || width(a) - width(b));
      for (const { filters, view } of known) for (const [id] of view.rows) if (!homes.has(id)) homes.set(id, filters);
    }
    return homes.get(entry);
  };

  // --- the table --------------------------------------------------------------------------------------
  const cut = (value) => Math.min(Math.max(value, 0), 1) * 100;
  let bands = { floor: 0, prior: 0 };

  const whisker = (score) => {
    const drawing = svg("svg", { class: "whisker", viewBox: "0 0 100 14", preserveAspectRatio: "none", "aria-hidden": "true" });
    const ends = Object.entries(bands).filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1]);
    drawing.append(
      // Of a band's outline only its end lies within the picture.
      ...ends.map(([name, value]) => svg("path", { class: `w-${name}`, d: `M0-9H${cut(value)}V23H0` })),
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
    if (score.mean === null) return "–";
    return html("span", { title: `${fixed(score.mean)}, 95 % interval ${fixed(score.low)} to ${fixed(score.high)}` }, fixed(score.mean));
  };
  const method = (cell) => {
    const row = cell.getData();
    const box = html("div", { class: "method" }, html("a", { href: row.href, title: row.title }, row.title));
    const below = html("span", { class: "below" });
    if (row.isNull) below.append("null control");
    else below.append(html("span", { class: `family ${row.family}` }, row.family), ` · ${row.status}${row.verified && row.unranked ? " · not ranked" : ""}`);
    box.append(below);
    return box;
  };
  const rank = (cell) => {
    const row = cell.getData();
    if (row.rank === null) return html("span", { class: "quiet", title: `no rank: ${row.unranked}` }, "–");
    const shared = shares.get(row.rank) > 1;
    const box = html("span", {}, String(row.rank));
    if (shared) box.append(html("span", { class: "tie", title: "shared rank" }, "="), html("span", { class: "sr" }, " shared"));
    return box;
  };
  const badge = (cell) => {
    const row = cell.getData();
    return html("span", { class: `badge ${row.isNull ? "null" : row.verified ? "ok" : "warn"}` }, row.status);
  };
  const amount = (cell) => {
    const value = cell.getValue();
    if (value === null) return "–";
    return value >= 1e7 ? power(value, 2) : Number(value.toPrecision(3)).toLocaleString("en");
  };
  const short = (cell) => html("span", { class: "cut", title: cell.getValue() }, cell.getValue());
  const percent = (cell) => `${(100 * cell.getValue()).toFixed(1)} %`;
  const plain = (cell) => (cell.getValue() === null ? "–" : fixed(cell.getValue()));
  const byMean = (a, b) => (a.mean ?? -Infinity) - (b.mean ?? -Infinity) || 0;
  const numeric = { hozAlign: "right", headerHozAlign: "right", headerSortStartingDir: "desc" };
  const low = { ...numeric, headerSortStartingDir: "asc", sorter: "number", sorterParams: { alignEmptyValues: "bottom" } };
  const phone = matchMedia("(max-width: 640px)").matches;
  const place = byId("board");
  // On a phone the headline's bar ends where the screen does.
  const narrow = { rank: 56, title: 136, headline: Math.max(place.clientWidth - 56 - 136 - 2, 140) };

  const scored = data.metrics.map(([key, label, help]) => ({
    field: key, title: label, metric: true, sorter: byMean, ...numeric, headerTooltip: help,
    ...(key === data.headline ? { formatter: headline, width: phone ? narrow.headline : 226, hozAlign: "left", headerHozAlign: "left" } : { formatter: metric, minWidth: 84 }),
  }));
  const beside = { formatter: plain, ...numeric, minWidth: 84, sorter: "number", sorterParams: { alignEmptyValues: "bottom" } };
  const columns = [
    { field: "rank", title: "Rank", formatter: rank, ...low, width: phone ? narrow.rank : 76, frozen: true },
    { field: "title", title: "Method", formatter: method, sorter: "string", width: phone ? narrow.title : 222, frozen: true, text: true },
    ...scored.filter(({ field }) => field === data.headline),
    ...data.sections.map(([field, title, headerTooltip]) => ({ field, title, headerTooltip, ...beside })),
    ...scored.filter(({ field }) => field !== data.headline),
    { field: "grid", title: "Grid", sorter: "string", text: true, formatter: "plaintext", headerTooltip: "Cells of its maps" },
    { field: "coverage", title: "Coverage", formatter: percent, sorter: "number", ...numeric },
    { field: "silent", title: "No explanation", formatter: percent, ...low },
    { field: "forward", title: "Forward", formatter: amount, ...low, headerTooltip: "Forward passes a sample" },
    { field: "backward", title: "Backward", formatter: amount, ...low, headerTooltip: "Backward passes a sample" },
    { field: "seconds", title: "Seconds", formatter: amount, ...low, headerTooltip: "Seconds a sample, as submitted" },
    { field: "needs", title: "Needs", sorter: "string", text: true, formatter: "plaintext", width: 118 },
    { field: "family", title: "Family", sorter: "string", text: true, formatter: "plaintext" },
    { field: "status", title: "Status", formatter: badge, sorter: "string", text: true },
    { field: "version", title: "Version", sorter: "string", text: true, formatter: short },
    { field: "by", title: "Submitted by", sorter: "string", text: true, formatter: short },
  ];
  const visible = () => {
    const chosen = new Set(state.cols.split(","));
    return (field) => field === "rank" || field === "title" || chosen.has(field);
  };
  const sorting = () => {
    const [field, direction] = state.sort.split(":");
    const known = columns.some((column) => column.field === field);
    return known ? [{ column: field, dir: direction === "asc" ? "asc" : "desc" }] : [{ column: data.headline, dir: "desc" }];
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
    const best = (some) => Math.max(0, ...some.map((row) => row.headline.mean));
    bands = { prior: best(nulls.filter((row) => row.name === data.prior)), floor: best(nulls.filter((row) => row.name !== data.prior)) };
    return { view, any };
  };
  let loaded = load();

  const keep = (row) => {
    if (row.isNull) return true;
    if (state.family && row.family !== state.family) return false;
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const text = `${row.title} ${row.name} ${row.family} ${row.by} ${row.status}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };

  const isVisible = visible();
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
  const count = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;
  // What covers only a part of the chosen samples has no row here: where it has one is said, with a link.
  const tellOutside = () => {
    const listed = new Set(rows.map((row) => row.id));
    const outside = data.entries.map((_, id) => id).filter((id) => !listed.has(id));
    const groups = new Map();
    for (const id of outside) {
      const filters = homeOf(id);
      const name = AXES.filter((axis) => filters[axis]).map((axis) => `${axis === "lvlm" ? "LVLM" : axis} ${WORDS[filters[axis]] || filters[axis]}`).join(", ") || "all samples";
      const group = groups.get(name) || groups.set(name, { filters, ids: [] }).get(name);
      group.ids.push(id);
    }
    const note = byId("outside");
    note.hidden = !outside.length;
    note.replaceChildren(`${count(outside.length, "submission")} without all of these samples ${outside.length === 1 ? "is" : "are"} not listed. Shown elsewhere: `);
    [...groups].slice(0, 6).forEach(([name, { filters, ids }], n) => {
      const link = html("a", { href: hashOf({ ...state, ...filters }) || "#" }, name);
      const titles = ids.slice(0, 3).map((id) => data.entries[id].title.slice(0, 60)).join(", ");
      note.append(n ? "; " : "", link, ` (${titles}${ids.length > 3 ? ` and ${ids.length - 3} more` : ""})`);
    });
    note.append(groups.size > 6 ? "; and others." : ".");
  };
  const describe = () => {
    const { view, any } = loaded;
    const status = byId("status");
    const lost = gone.length ? `Not on this board, and left out: ${gone.map((value) => value.slice(0, 60)).join(", ")}. ` : "";
    tellOutside();
    if (!view) {
      status.textContent = lost + (any ? "No submission covers this selection." : "No samples fit this selection.");
      return;
    }
    const shown = rows.filter(keep);
    const nulls = shown.filter((row) => row.isNull).length;
    const floor = rows.find((row) => row.isNull && row.name !== data.prior);
    const prior = rows.find((row) => row.name === data.prior);
    status.textContent =
      `${lost}${count(shown.length - nulls, "method")} and ${count(nulls, "null control")} on ${count(view.samples, "sample")} of ${count(view.patients, "patient")}.` +
      (floor ? ` Null floor ${fixed(bands.floor)} (${floor.title})` : "") +
      (prior ? `, prior ${fixed(bands.prior)}.` : floor ? "." : "");
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
  for (const [key, values] of Object.entries(CHOICES)) fill(`f-${key}`, values, key === "evidence" ? WORDS : {});
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
    for (const key of Object.keys(CHOICES)) byId(`f-${key}`).value = state[key];
    byId("f-q").value = state.q;
    const shown = visible();
    for (const input of chooser.querySelectorAll("input")) input.checked = shown(input.value);
  };
  for (const key of Object.keys(CHOICES)) {
    byId(`f-${key}`).addEventListener("change", (event) => {
      state[key] = event.target.value;
      gone = [];
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
    gone = [];
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
    // Who reads a file has no colours: it always says what is verified, and of which family.
    const always = new Set(["family", "status"]);
    return columns.filter((column) => shown(column.field) || always.has(column.field)).map((column) => ({
      key: column.field === "title" ? "method" : column.field,
      title: column.title, metric: column.metric, text: column.text, value: (row) => row[column.field],
    }));
  };
  for (const button of byId("downloads").querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const filters = [...AXES, "family", "q"].filter((key) => state[key]);
      const shown = table.getRows("active").map((row) => row.getData());
      window.boardExports(button.dataset.form, exported(), shown, {
        benchmark: data.version,
        filters: filters.map((key) => `${key}: ${state[key]}`).join(", ") || "no filter",
      });
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

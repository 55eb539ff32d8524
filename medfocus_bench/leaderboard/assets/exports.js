// The rows and columns that are shown, as CSV, JSON or LaTeX.
"use strict";
window.boardExports = (() => {
  const number = (value) => (value === null || value === undefined ? "" : String(value));

  // A spreadsheet takes a text that starts so for a formula.
  const guarded = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);

  const csv = (columns, rows, about) => {
    const header = columns.flatMap((c) => (c.metric ? [c.key, `${c.key}_low`, `${c.key}_high`] : [c.key]));
    const lines = rows.map((row) =>
      columns.flatMap((c) => {
        const value = c.value(row);
        if (c.metric) return [value.mean, value.low, value.high].map(number);
        return [typeof value === "string" ? quoted(guarded(value)) : number(value)];
      }),
    );
    const notes = Object.values(about).map((text) => quoted(guarded(text)));
    return [[...header, ...Object.keys(about)], ...lines.map((cells) => [...cells, ...notes])].map((cells) => cells.join(",")).join("\r\n") + "\r\n";
  };

  const json = (columns, rows, about) =>
    JSON.stringify(
      { ...about, rows: rows.map((row) => Object.fromEntries(columns.map((c) => [c.key, c.value(row)]))) },
      null,
      1,
    ) + "\n";

  const SPECIAL = {
    "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", $: "\\$", "#": "\\#",
    _: "\\_", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}",
  };
  const tex = (text) => String(text).replace(/[\\{}&%$#_~^<>]/g, (c) => SPECIAL[c]);
  const fixed = (value) => value.toFixed(3).replace("-", "$-$");

  const latex = (columns, rows, about) => {
    const cell = (column, row) => {
      const value = column.value(row);
      if (column.metric && value.mean !== null) {
        return `${fixed(value.mean)} {\\scriptsize [${fixed(value.low)}, ${fixed(value.high)}]}`;
      }
      return column.metric || value === null || value === undefined || value === "" ? "--" : tex(value);
    };
    return [
      "% " + about.benchmark.replace(/[\r\n]/g, " ") + "; " + about.filters.replace(/[\r\n]/g, " "),
      "% needs \\usepackage{booktabs}",
      `\\begin{tabular}{${columns.map((c) => (c.text ? "l" : "r")).join("")}}`,
      "\\toprule",
      columns.map((c) => tex(c.title)).join(" & ") + " \\\\",
      "\\midrule",
      ...rows.map((row) => columns.map((c) => cell(c, row)).join(" & ") + " \\\\"),
      "\\bottomrule",
      "\\end{tabular}",
      "",
    ].join("\n");
  };

  const FORMS = { csv: [csv, "text/csv"], json: [json, "application/json"], tex: [latex, "application/x-tex"] };

  // A name of its own for every state, of signs that any system takes.
  const fileName = ({ benchmark, filters }) => {
    const plain = `${benchmark} ${filters === "no filter" ? "" : filters}`.replace(/[^A-Za-z0-9._]+/g, "-").replace(/^-|-$/g, "");
    return `medfocus-bench-${plain.slice(0, 120)}`;
  };

  return (form, columns, rows, about) => {
    const [write, type] = FORMS[form];
    const url = URL.createObjectURL(new Blob([write(columns, rows, about)], { type: `${type};charset=utf-8` }));
    const link = document.createElement("a");
    link.href = url;
    link.download = `${fileName(about)}.${form}`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };
})();

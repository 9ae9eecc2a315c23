// The table of runs: filters, sorting, and the training curves of the runs that are ticked.
(() => {
  const section = document.getElementById("runs");
  if (!section || !DATA || !DATA.runs.rows.length) return;
  const { columns, rows, ids, total } = DATA.runs;
  const { runs: curves, quantities, inks, most: MOST } = DATA.curves;
  const all = rows.map((values, i) => ({ values, id: ids[i] }));
  const at = Object.fromEntries(columns.map((column, i) => [column.key, i]));
  const withCurves = Object.keys(curves).length > 0;
  let filters = kept("filters", {}), order = kept("order", null), page = 40;
  let ticked = (kept("ticked", null) ?? first()).filter((id) => id in curves);
  let quantity = kept("quantity", null);

  // At first: of every method its largest size, smallest seed.
  function first() {
    const best = new Map();
    for (const { values, id } of all) {
      if (!(id in curves)) continue;
      const method = values[at.method], old = best.get(method);
      if (!old || values[at.trained_parameters] > old.size) best.set(method, { size: values[at.trained_parameters], id });
    }
    return [...best.values()].slice(0, MOST).map((b) => b.id);
  }

  const write = (column, value) => {
    if (value === null) return "\u2013";
    if (column.kind === "count") return grouped(value);
    if (column.kind === "percent") return percent(value);
    return column.kind === "number" ? digits(value) : String(value);
  };

  // What all trained runs share tells nothing apart.
  const trained = all.filter((run) => run.values[at.trained_parameters] > 0);
  const values = (i, runs) => new Set(runs.map((run) => run.values[i]));
  const varies = (i) => values(i, trained.length ? trained : all).size > 1;
  const few = columns.map((column, i) => ({ column, i, values: [...values(i, all)] }))
    .filter(({ column, i, values }) => (varies(i) || column.key === "split" && values.length > 1) && values.length <= 30 && !["accuracy", "n_items"].includes(column.key));
  const controls = element("div", { class: "controls" });
  for (const { column, values } of few) {
    const known = values.filter((v) => v !== null).sort((a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b))));
    const options = [["", "all"], ...known.map((v) => [String(v), write(column, v)])];
    if (!options.some(([value]) => value === (filters[column.key] ?? ""))) delete filters[column.key];
    controls.append(select(column.heading, options, filters[column.key] ?? "", (value) => {
      if (value) filters[column.key] = value;
      else delete filters[column.key];
      keep("filters", filters);
      page = 40;
      list();
    }));
  }
  const count = element("p", { class: "note", role: "status" });
  const body = element("tbody");
  const varying = columns.filter((column, i) => ["method", "accuracy"].includes(column.key) || varies(i));
  const heads = varying.map((column) => {
    const head = element("th", { scope: "col", class: column.kind === "text" ? null : "n" });
    head.append(element("button", { type: "button", onclick: () => {
      order = { key: column.key, down: order?.key === column.key && !order.down };
      keep("order", order);
      list();
    } }, column.heading));
    return head;
  });
  const table = element("table", {}, element("caption", {}, withCurves ? "Tick runs to draw their training curves" : "Runs"),
    element("thead", {}, element("tr", {}, withCurves ? element("th", { scope: "col" }, "curve") : null, ...heads)), body);
  const more = element("button", { type: "button", class: "more", onclick: () => { page += 200; list(); } }, "Show more");
  const left = element("div", {}, element("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Runs" }, table), more);
  const right = element("div", { hidden: !withCurves });
  section.append(controls, count, element("div", { class: withCurves ? "split" : "split bare" }, left, right));
  section.hidden = false;
  document.querySelector("[data-for=runs]").hidden = false;

  function list() {
    let found = all.filter((run) => few.every(({ column, i }) => !(column.key in filters) || String(run.values[i]) === filters[column.key]));
    if (order && order.key in at) {
      const i = at[order.key], side = order.down ? -1 : 1;
      found = [...found].sort((a, b) => {
        const [x, y] = [a.values[i], b.values[i]];
        if (x === null || y === null) return (x === null) - (y === null);
        return side * (typeof x === "number" ? x - y : x.localeCompare(y));
      });
    }
    heads.forEach((head, i) => {
      if (order?.key === varying[i].key) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(...found.slice(0, page).map((run) => {
      const cells = varying.map((column) => element("td", { class: column.kind === "text" ? null : "n" }, write(column, run.values[at[column.key]])));
      if (!withCurves) return element("tr", {}, ...cells);
      const box = run.id in curves ? element("input", { type: "checkbox", checked: ticked.includes(run.id), "aria-label": `Training curve of ${curves[run.id].label}`, onchange: (event) => tick(run.id, event.target) }) : null;
      return element("tr", {}, element("td", {}, box), ...cells);
    }));
    const held = total > all.length ? ` The page holds the first ${grouped(all.length)} of ${grouped(total)} runs.` : "";
    count.textContent = `${grouped(found.length)} of ${grouped(all.length)} runs.${held}`;
    more.hidden = found.length <= page;
  }

  function tick(id, box) {
    if (box.checked && ticked.length >= MOST) {
      box.checked = false;
      key.replaceChildren(element("li", {}, `At most ${MOST} curves are drawn at a time.`));
      return;
    }
    ticked = box.checked ? [...ticked, id] : ticked.filter((other) => other !== id);
    keep("ticked", ticked);
    draw();
  }

  const choice = element("div", { class: "controls" });
  const canvas = element("div", { class: "plot", role: "group", "aria-roledescription": "chart" });
  const key = element("ul", { class: "key" });
  const held = Object.keys(curves).length, told = DATA.curves.total;
  right.append(choice, canvas, key, element("p", { class: "note" },
    `Means over blocks of steps, before each step's update.${told > held ? ` The page holds the curves of ${grouped(held)} of ${grouped(told)} runs, those of the smallest seeds.` : ""}`));
  let plot = null;

  // Each curve has its method's colour, further ones of a method its shades; no two share a colour.
  function coloured(chosen) {
    const taken = new Set(), every = Object.values(inks).flat();
    return chosen.map((curve) => {
      const ink = [...(inks[curve.method] ?? []), ...every].find((one) => !taken.has(one)) ?? every[0];
      taken.add(ink);
      return { curve, ink };
    });
  }

  function draw() {
    plot?.destroy();
    plot = null;
    canvas.replaceChildren();
    const chosen = ticked.map((id) => curves[id]);
    const recorded = quantities.filter((q) => chosen.some((curve) => q.key in curve));
    const drawn = (r) => chosen.filter((curve) => r.key in curve).length;
    const q = recorded.find((r) => r.key === quantity) ?? [...recorded].sort((a, b) => drawn(b) - drawn(a))[0];
    choice.replaceChildren();
    if (!q) {
      key.replaceChildren(element("li", {}, "Tick a run in the table."));
      return;
    }
    choice.append(select("Quantity", recorded.map((r) => [r.key, r.heading]), q.key, (value) => { quantity = value; keep("quantity", value); draw(); }));
    const lines = coloured(chosen).filter(({ curve }) => q.key in curve);
    const steps = [...new Set(lines.flatMap(({ curve }) => curve.steps))].sort((a, b) => a - b);
    const data = [steps, ...lines.map(({ curve }) => {
      const by = new Map(curve.steps.map((s, i) => [s, curve[q.key][i]]));
      return steps.map((s) => by.get(s) ?? null);
    })];
    const cells = lines.map(({ curve, ink }) => element("li", {}, mark("o", ink), element("span", {}, curve.label), element("b", {})));
    key.replaceChildren(...cells);
    const read = (i) => cells.forEach((cell, n) => {
      const value = i === null || i === undefined ? null : data[n + 1][i];
      cell.lastChild.textContent = value === null || value === undefined ? "" : digits(value);
    });
    canvas.setAttribute("aria-label", `${q.heading} by step: ${lines.map(({ curve }) => curve.label).join(", ")}`);
    plot = new uPlot({
      width: canvas.clientWidth, height: 300, legend: { show: false }, padding: [10, 12, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: false } },
      axes: [axis({ label: "step" }), axis({ label: q.heading, size: 54, values: (_, at) => at.map((v) => digits(v)) })],
      series: [{}, ...lines.map(({ ink, curve }, i) => ({ label: curve.label, stroke: style(ink), width: 1.8, spanGaps: true, dash: i % 2 ? [7, 4] : undefined, points: { show: false } }))],
      hooks: { setCursor: [(u) => read(u.cursor.idx)] },
    }, data, canvas);
  }
  list();
  if (withCurves) redrawn(canvas, draw);
})();

// The chart that opens the page: points with their values, methods and models switched on and off.
(() => {
  const live = document.getElementById("live");
  if (!live || !DATA || !DATA.charts.length) return;
  let which = Math.max(0, DATA.charts.findIndex((c) => c.name === kept("chart", DATA.charts[0].name)));
  let off = new Set(kept("methods off", []));
  const controls = element("div", { class: "controls" });
  const canvas = element("div", { class: "plot", tabindex: "0", role: "group", "aria-roledescription": "chart" });
  const tip = element("div", { class: "tip", hidden: true });
  const said = element("p", { class: "note", role: "status" });
  const hint = "Point at a mark, or use the arrow keys, to read its value.";
  said.textContent = hint;
  live.append(controls, canvas, said);
  live.hidden = false;
  let plot = null, hits = [], at = -1;

  const chart = () => DATA.charts[which];
  const shown = () => chart().methods.filter((m) => !off.has(m.name));

  function switches() {
    controls.replaceChildren();
    if (DATA.charts.length > 1) {
      const names = DATA.charts.map((c, i) => [String(i), c.name]);
      controls.append(select("Model", names, String(which), (value) => {
        which = Number(value);
        keep("chart", chart().name);
        all();
      }));
    }
    for (const method of chart().methods) {
      const pressed = () => String(!off.has(method.name));
      const button = element("button", { type: "button", class: "chip", "aria-pressed": pressed(), onclick: () => {
        if (!off.delete(method.name)) off.add(method.name);
        keep("methods off", [...off]);
        button.setAttribute("aria-pressed", pressed());
        draw();
      } }, mark(method.marker, method.ink), method.name);
      controls.append(button);
    }
  }

  function scaleOf(c) {
    if (c.single) return { sizes: c.methods.map((_, i) => i), low: -0.5, high: c.methods.length - 0.5 };
    const sizes = [...new Set([...c.methods.flatMap((m) => m.points.map((p) => p.x)), ...c.lines.flatMap((l) => l.x)])];
    sizes.sort((a, b) => a - b);
    const points = c.methods.flatMap((m) => m.points.map((p) => p.x));
    return { sizes, low: Math.min(...points) / 1.7, high: Math.max(...points) * 1.7 };
  }

  // Powers of ten; between few of them also 2 and 5.
  function ticks(low, high) {
    const found = (steps) => {
      const all = [];
      for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) all.push(...steps.map((s) => s * 10 ** e));
      return all.filter((x) => x >= low && x <= high);
    };
    return found([1]).length > 2 ? found([1]) : found([1, 2, 5]);
  }

  function draw() {
    plot?.destroy();
    canvas.replaceChildren(tip);
    hide();
    const c = chart(), { sizes, low, high } = scaleOf(c);
    const place = new Map(sizes.map((x, i) => [x, i]));
    const along = (line, values) => {
      const found = new Array(sizes.length).fill(null);
      line.x.forEach((x, i) => { found[place.get(x)] = values[i]; });
      return found;
    };
    const data = [sizes], series = [{}], bands = [];
    for (const line of c.lines.filter((l) => !off.has(l.method))) {
      const ink = style(line.ink);
      if (line.low) {
        data.push(along(line, line.high), along(line, line.low));
        series.push(...[0, 1].map(() => ({ stroke: "transparent", spanGaps: true, points: { show: false } })));
        bands.push({ series: [series.length - 2, series.length - 1], fill: `${ink}22` });
      }
      data.push(along(line, line.y));
      series.push({ stroke: ink, width: 1.8, dash: line.dashed ? [7, 5] : undefined, spanGaps: true, points: { show: false } });
    }
    const fitted = new Set(c.lines.map((l) => l.method));
    for (const method of shown().filter((m) => !fitted.has(m.name) && !c.single)) {
      data.push(along({ x: method.points.map((p) => p.x) }, method.points.map((p) => p.y)));
      series.push({ stroke: `${style(method.ink)}99`, width: 1, spanGaps: true, points: { show: false } });
    }
    data.push(new Array(sizes.length).fill(null)); // there is always a series, also without lines
    series.push({ stroke: "transparent", points: { show: false } });
    const values = [...c.methods.flatMap((m) => m.points.flatMap((p) => [p.y, p.low ?? p.y, p.high ?? p.y])), ...c.levels.map((l) => l.y)];
    const room = 0.06 * (Math.max(...values) - Math.min(...values) || 0.1);
    const narrow = canvas.clientWidth < 520;
    plot = new uPlot({
      width: canvas.clientWidth,
      height: narrow ? 290 : 390,
      legend: { show: false },
      cursor: { x: false, y: false, points: { show: false }, drag: { x: false, y: false } },
      padding: [10, 12, 0, 0],
      scales: {
        x: { time: false, distr: c.single ? 1 : 3, range: () => [low, high] },
        y: { range: () => [Math.max(0, Math.min(...values) - room), Math.min(1, Math.max(...values) + room)] },
      },
      axes: [
        axis(c.single
          ? { splits: () => sizes, values: (_, at) => at.map((i) => c.methods[i]?.name ?? ""), label: `${c.size}: ${grouped(c.methods[0].points[0].x)}` }
          : { splits: () => ticks(low, high), filter: (_, at) => at, values: (_, at) => at.map(short), label: c.size }),
        axis({ values: (_, at) => at.map((v) => minus(String(Math.round(100 * v)))), label: "accuracy, %", size: 46 }),
      ],
      series, bands,
      hooks: { drawAxes: [(u) => levels(u, c)], draw: [(u) => { marks(u, c); names(u, c); }] },
    }, data, canvas);
    plot.over.addEventListener("mousemove", (event) => near(event.offsetX, event.offsetY));
    plot.over.addEventListener("click", (event) => near(event.offsetX, event.offsetY, 60));
    plot.over.addEventListener("mouseleave", hide);
    canvas.setAttribute("aria-label", `Accuracy against ${c.size} on ${c.name}: ${shown().map((m) => m.name).join(", ") || "no method"}. The arrow keys read the points.`);
  }

  function levels(u, c) {
    const ratio = uPlot.pxRatio, context = u.ctx, right = u.bbox.left + u.bbox.width;
    context.save();
    for (const level of c.levels) {
      const y = u.valToPos(level.y, "y", true);
      context.strokeStyle = style(level.strong ? "--ink" : "--soft");
      context.lineWidth = ratio;
      context.setLineDash(level.strong ? [2 * ratio, 3 * ratio] : [8 * ratio, 4 * ratio]);
      context.beginPath();
      context.moveTo(u.bbox.left, y);
      context.lineTo(right, y);
      context.stroke();
    }
    context.restore();
  }

  // The names of the lines across, above everything else, on a halo of the ground.
  function names(u, c) {
    const ratio = uPlot.pxRatio, context = u.ctx, labels = [];
    context.save();
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    context.lineJoin = "round";
    context.lineWidth = 4 * ratio;
    context.strokeStyle = style("--ground");
    for (const level of [...c.levels].sort((a, b) => b.y - a.y)) {
      const y = u.valToPos(level.y, "y", true);
      context.fillStyle = style(level.strong ? "--ink" : "--soft");
      const above = labels.every((other) => Math.abs(other - (y - 4 * ratio)) > 13 * ratio);
      const at = above ? y - 4 * ratio : y + 13 * ratio;
      labels.push(at);
      const text = `${level.name} ${percent(level.y)} %`;
      // Curves rise to the right, so there is room on the left above and on the right below.
      const left = y < u.bbox.top + u.bbox.height / 2;
      const x = left ? u.bbox.left + 5 * ratio : u.bbox.left + u.bbox.width - 5 * ratio;
      context.textAlign = left ? "left" : "right";
      context.strokeText(text, x, at);
      context.fillText(text, x, at);
    }
    context.restore();
  }

  // A seed that collapsed: no curve counts it.
  function crossed(context, x, y, size) {
    context.beginPath();
    for (const side of [-1, 1]) {
      context.moveTo(x - size, y - side * size);
      context.lineTo(x + size, y + side * size);
    }
    context.stroke();
  }

  function marks(u, c) {
    hits = [];
    const ratio = uPlot.pxRatio, context = u.ctx, methods = shown();
    methods.forEach((method, number) => {
      const ink = style(method.ink), beside = c.single ? 0 : Math.min(5, (u.width < 520 ? 14 : 30) / methods.length) * (number - (methods.length - 1) / 2) * ratio;
      context.save();
      context.fillStyle = context.strokeStyle = ink;
      for (const point of method.points) {
        const x = u.valToPos(c.single ? c.methods.indexOf(method) : point.x, "x", true) + beside;
        const y = u.valToPos(point.y, "y", true);
        if (point.low !== null && point.high !== null) {
          context.lineWidth = 1.4 * ratio;
          context.beginPath();
          context.moveTo(x, u.valToPos(point.low, "y", true));
          context.lineTo(x, u.valToPos(point.high, "y", true));
          context.stroke();
        }
        context.globalAlpha = 0.45;
        if (point.seeds.length > 1) point.seeds.forEach((seed, i) => {
          const height = u.valToPos(seed, "y", true);
          if (point.collapsed.includes(i)) crossed(context, x, height, 4 * ratio);
          else shape(context, method.marker, x, height, 2.6 * ratio);
        });
        context.globalAlpha = 1;
        shape(context, method.marker, x, y, 5.2 * ratio);
        hits.push({ x: (x - u.bbox.left) / ratio, y: (y - u.bbox.top) / ratio, method, point });
      }
      context.restore();
    });
    hits.sort((a, b) => a.x - b.x || a.y - b.y);
  }

  function words({ method, point }) {
    const c = chart();
    const lines = [`${grouped(point.x)} ${c.size}${point.adapter ? `, ${point.adapter}` : ""}`];
    const interval = point.low === null ? "" : ` (${percent(point.low)} to ${percent(point.high)})`;
    lines.push(`accuracy ${percent(point.y)} %${interval}`);
    const seeds = point.seeds.map((seed, i) => `${percent(seed)}${point.collapsed.includes(i) ? " (collapsed, set aside)" : ""}`);
    if (seeds.length > 1) lines.push(`each seed: ${seeds.join(", ")}`);
    if (point.rate !== null && point.rate !== undefined) lines.push(`learning rate ${digits(point.rate)}`);
    return [method.name, lines];
  }

  function show(hit) {
    const [name, lines] = words(hit);
    tip.replaceChildren(element("b", {}, name), ...lines.flatMap((line, i) => (i ? [element("br"), line] : [line])));
    tip.hidden = false;
    const left = hit.x + plot.over.offsetLeft, top = hit.y + plot.over.offsetTop;
    const flip = left + tip.offsetWidth + 24 > canvas.clientWidth;
    tip.style.left = `${Math.max(0, flip ? left - tip.offsetWidth - 12 : left + 12)}px`;
    tip.style.top = `${Math.max(0, top - tip.offsetHeight / 2)}px`;
  }
  function hide() {
    tip.hidden = true;
  }
  function near(x, y, reach = 28) {
    let best = null, distance = reach * reach;
    for (const hit of hits) {
      const d = (hit.x - x) ** 2 + (hit.y - y) ** 2;
      if (d < distance) [best, distance] = [hit, d];
    }
    if (best) show(best);
    else hide();
  }
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step || !hits.length) return;
    event.preventDefault();
    at = (at + step + hits.length) % hits.length;
    show(hits[at]);
    const [name, lines] = words(hits[at]);
    said.textContent = `${name}: ${lines.join("; ")}.`;
  });
  canvas.addEventListener("blur", () => { hide(); said.textContent = hint; });

  function all() {
    at = -1;
    switches();
    draw();
  }
  switches();
  redrawn(canvas, draw);
})();

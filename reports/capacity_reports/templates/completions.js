// The reader of completions: prompt, reference answer, and what the untrained and trained models wrote, side by side.
(() => {
  const section = document.getElementById("completions");
  if (!section || !DATA || !DATA.completions.length) return;
  const groups = DATA.completions;
  let which = Math.max(0, groups.findIndex((g) => g.name === kept("group", groups[0].name)));
  let changed = kept("changed", false), search = kept("search", ""), page = 10;
  let chosen = kept("columns", null);
  const controls = element("div", { class: "controls" });
  const columns = element("div", { class: "controls" });
  const count = element("p", { class: "note", role: "status" });
  const list = element("div");
  const more = element("button", { type: "button", class: "more", onclick: () => { page += 20; show(); } }, "Show more items");
  const note = element("p", { class: "note" });
  section.append(note, controls, columns, count, list, more);
  section.hidden = false;
  document.querySelector("[data-for=completions]").hidden = false;
  const group = () => groups[which];

  // At first: the untrained model, and of each method its most accurate run, at most three.
  function first() {
    const best = new Map();
    for (const run of group().runs.filter((r) => !r.base)) {
      if (!best.has(run.method) || run.accuracy > best.get(run.method).accuracy) best.set(run.method, run);
    }
    return [...group().runs.filter((r) => r.base).slice(0, 1), ...[...best.values()].slice(0, 3)].map((r) => r.label);
  }
  const shown = () => {
    const found = group().runs.filter((run) => chosen?.includes(run.label));
    return found.length ? found : group().runs.filter((run) => first().includes(run.label));
  };

  function build() {
    controls.replaceChildren();
    if (groups.length > 1) {
      controls.append(select("Model", groups.map((g, i) => [String(i), g.name]), String(which), (value) => {
        which = Number(value);
        keep("group", group().name);
        page = 10;
        build();
      }));
    }
    const box = element("input", { type: "search", placeholder: "prompts, answers, completions", "aria-label": "Search in prompts, answers and completions" });
    box.value = search;
    box.addEventListener("input", () => { search = box.value; keep("search", search); page = 10; show(); });
    const only = element("input", { type: "checkbox", checked: changed, onchange: (event) => { changed = event.target.checked; keep("changed", changed); page = 10; show(); } });
    controls.append(element("label", {}, "Search", box), element("label", {}, only, "only items whose grade changed"));
    columns.replaceChildren(...group().runs.map((run) => {
      const button = element("button", { type: "button", class: "chip", "aria-pressed": String(shown().includes(run)), onclick: () => {
        const now = shown().map((r) => r.label);
        chosen = now.includes(run.label) ? now.filter((label) => label !== run.label) : [...now, run.label];
        keep("columns", chosen);
        columns.querySelectorAll("button").forEach((other, i) => other.setAttribute("aria-pressed", String(shown().includes(group().runs[i]))));
        show();
      } }, run.label);
      return button;
    }));
    const { items, total, runs } = group();
    note.textContent = `The page holds the first ${grouped(items.length)} of ${grouped(total)} items of the evaluation, and the first sample of each. Of every cell it holds the run with the smallest seed (${grouped(runs.length)} runs).`;
    show();
  }

  function hasChanged(i) {
    const runs = shown(), base = runs.find((run) => run.base) ?? runs[0];
    return runs.some((run) => run.correct[i] !== null && base.correct[i] !== null && run.correct[i] !== base.correct[i]);
  }
  function marked(text) {
    const pre = element("pre", { tabindex: "0" });
    const wanted = search.trim();
    let rest = text === "" ? "(empty)" : text;
    for (let i; wanted && (i = rest.toLowerCase().indexOf(wanted.toLowerCase())) >= 0; rest = rest.slice(i + wanted.length)) {
      pre.append(rest.slice(0, i), element("mark", {}, rest.slice(i, i + wanted.length)));
    }
    pre.append(rest);
    return pre;
  }
  function answer(head, text, grade) {
    const word = grade === null || grade === undefined ? null : element("span", { class: grade ? "right" : "wrong" }, grade ? "correct" : "wrong");
    return element("div", {}, element("h4", {}, head, word), marked(text));
  }

  function show() {
    const { items } = group(), runs = shown(), wanted = search.trim().toLowerCase();
    const places = items.map((_, i) => i).filter((i) => {
      if (changed && !hasChanged(i)) return false;
      const texts = [items[i].id, items[i].prompt, items[i].answer, ...runs.map((run) => run.texts[i])];
      return !wanted || texts.some((text) => text?.toLowerCase().includes(wanted));
    });
    count.textContent = `${grouped(places.length)} of ${grouped(items.length)} items.`;
    list.replaceChildren(...places.slice(0, page).map((i) => {
      const item = items[i];
      const answers = runs.filter((run) => run.texts[i] !== null).map((run) => answer(run.label, run.texts[i], run.correct[i]));
      return element("article", { class: "item" }, element("h3", {}, item.id),
        element("div", { class: "asked" }, answer("Prompt", item.prompt), item.answer === null ? null : answer("Reference answer", item.answer)),
        element("div", { class: "answers" }, ...answers));
    }));
    more.hidden = places.length <= page;
  }
  build();
})();

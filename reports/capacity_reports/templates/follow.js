// A page that is served follows its study: it asks for the state, and loads itself again when there is a newer page.
(() => {
  const said = document.getElementById("follow");
  let shown = null;
  async function ask() {
    try {
      const state = await (await fetch("state", { cache: "no-store" })).json();
      said.textContent = `(${state.words})`;
      if (shown !== null && state.page !== shown) {
        keep("scroll", scrollY);
        keep("open", [...document.querySelectorAll("details")].map((d, i) => (d.open ? i : -1)).filter((i) => i >= 0));
        location.reload();
        return;
      }
      shown = state.page;
    } catch {
      said.textContent = "(capacity view has ended; this is its last page)";
    }
    setTimeout(ask, 2000);
  }
  const details = document.querySelectorAll("details");
  for (const i of kept("open", [])) if (details[i]) details[i].open = true;
  const scroll = kept("scroll", null);
  if (scroll !== null) addEventListener("load", () => requestAnimationFrame(() => scrollTo({ top: scroll, behavior: "instant" })));
  keep("scroll", null);
  keep("open", []);
  ask();
})();

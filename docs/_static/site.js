// What Sphinx and Furo leave out for readers who use a keyboard or a screen reader.
const span = (name, nodes) => {
  const made = document.createElement("span");
  made.className = name;
  made.append(...nodes);
  return made;
};

addEventListener("DOMContentLoaded", () => {
  for (const caption of document.querySelectorAll('[role="heading"]')) caption.setAttribute("aria-level", "2");
  for (const scrolls of document.querySelectorAll("pre, .table-wrapper")) scrolls.tabIndex = 0;
  const names = { "sidebar-drawer": "Pages", "toc-drawer": "On this page" };
  for (const [place, name] of Object.entries(names)) document.querySelector("." + place)?.setAttribute("aria-label", name);
  // The parameters of a signature are a list of definitions without terms, which no reader understands.
  for (const list of document.querySelectorAll("dt dl")) {
    list.replaceWith(...Array.from(list.children, (row) => span("parameter-line", row.childNodes)));
  }
});

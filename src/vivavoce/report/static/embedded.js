"use strict";
/* The browser of a report: its questions are in the page. */
viva.inReport = async function () {
  const box = document.getElementById("browser-app"), held = JSON.parse(document.getElementById("held").textContent);
  viva.source = viva.embedded(held);
  viva.keys = {};
  const show = async () => {
    const { words, query } = viva.address(), [first, of, id] = words;
    const key = "this";
    viva.moved(words);
    try {
      const page = first === "question" ? await viva.pageQuestion(key, null, of, id, query, true) : await viva.pageQuestions(key, null, first === "questions" ? of : undefined, query, true);
      viva.mount(box, page);
    } catch (error) {
      box.replaceChildren(viva.el("p", { class: "warn" }, error.message));
    }
    if (first) document.getElementById("browser").scrollIntoView();
  };
  addEventListener("hashchange", () => (location.hash.startsWith("#/") ? show() : null));
  await show();
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "Enter" && event.target.closest?.("a,button,summary")) return;
  const act = viva.keys?.[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act && document.getElementById("browser-app").getBoundingClientRect().top < innerHeight) { event.preventDefault(); act(); }
});
if (document.getElementById("held")) viva.inReport();

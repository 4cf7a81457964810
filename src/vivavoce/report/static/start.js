"use strict";
/* Shows the page that the address names, listens to keys, and looks again while a run is at work. */
viva.source = window.vivaFiles ? viva.files : viva.server;
viva.keys = {};
viva.turn = 0;

viva.render = async function (quiet = false) {
  const turn = ++viva.turn, app = document.getElementById("app"), { words, query } = viva.address();
  viva.moved(words);
  if (!quiet) viva.keys = {};
  const slow = setTimeout(() => quiet || turn !== viva.turn || app.classList.add("busy"), 300);
  try {
    const page = await viva.route(words, query);
    if (turn !== viva.turn) return;
    viva.mount(app, page);
    document.title = ["viva view", ...words.filter((w) => w !== "run")].join(" · ");
  } catch (error) {
    if (turn !== viva.turn) return;
    app.replaceChildren(viva.el("main", null, viva.el("p", null, viva.el("a", { href: "#/" }, "← runs")), viva.el("p", { class: "warn" }, error.message)));
  } finally {
    clearTimeout(slow);
    if (turn === viva.turn) app.classList.remove("busy");
  }
};

viva.route = async function (words, query) {
  const [first, key, what = "", of, id] = words;
  if (first === "compare") return viva.pageCompare(query);
  if (first !== "run" || !key) return viva.pageRuns();
  const same = viva.shown === words.join("/") && viva.state && viva.source.live; /* only the query is another one */
  const state = same ? viva.state : await viva.ask(["run", key, "state"]);
  Object.assign(viva, { state, version: state.version, shown: words.join("/") });
  if (what === "questions") return viva.pageQuestions(key, state, of, query);
  if (what === "question") return viva.pageQuestion(key, state, of, id, query);
  if (what === "training") return viva.pageTraining(key, state);
  if (what === "costs") return viva.pageCosts(key, state);
  return viva.pageOverview(key, state);
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (typing && event.key === "Escape") event.target.blur();
  if (typing || (event.key === "Enter" && event.target.closest?.("a,button,summary"))) return;
  const act = viva.keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) { event.preventDefault(); act(); }
});

viva.start = function () {
  try { const theme = localStorage.getItem("viva-theme"); if (theme) document.documentElement.style.colorScheme = theme; } catch { /* nothing is kept */ }
  addEventListener("hashchange", () => viva.render());
  viva.render();
  if (viva.source.live) setInterval(viva.lookAgain, 1500);
};

/* What has changed is shown without losing the place: the page is drawn anew only if something on it may be other. */
viva.lookAgain = async function () {
  if (document.hidden || viva.looking) return;
  viva.looking = true;
  try {
    const { words } = viva.address();
    if (words[0] === "run" && words[1]) {
      const state = await viva.ask(["run", words[1], "state"]), before = viva.state;
      viva.state = state;
      if (viva.seen(state) !== viva.seen(before || {})) await viva.again();
    } else if (!words.length) {
      const now = JSON.stringify(await viva.ask(["runs"]));
      if (viva.lastRuns !== undefined && viva.lastRuns !== now && !document.querySelector(".run input:checked")) await viva.render(true);
      viva.lastRuns = now;
    }
  } catch { /* the server is gone for now: the page stays as it is */ } finally { viva.looking = false; }
};
viva.seen = ({ seconds, ...rest }) => JSON.stringify(rest);

viva.again = async function () {
  const table = document.querySelector(".table"), open = [...document.querySelectorAll(".whole-question details[open], .prompt:not([hidden])")];
  if (open.length) return; /* somebody reads: it stays */
  const places = [scrollY, table?.scrollTop ?? 0], search = document.activeElement;
  if (search?.matches?.(".search")) viva.typed = search.value;
  await viva.render(true);
  scrollTo(0, places[0]);
  const fresh = document.querySelector(".table");
  if (fresh) fresh.scrollTop = places[1];
};

if (document.getElementById("app")) viva.start();

"use strict";
/* The pages that an address names: #/, #/run/KEY/…, #/compare?… Whatever can be set on a page stands in its address. */
viva.address = function (hash = location.hash) {
  const [path, query] = hash.replace(/^#/, "").split("?");
  return { words: path.split("/").filter(Boolean).map(viva.unsafe), query: Object.fromEntries(new URLSearchParams(query || "")) };
};
viva.unsafe = (word) => { try { return decodeURIComponent(word).replaceAll("~2F", "/").replaceAll("~7E", "~"); } catch { return word; } };
viva.to = function (words, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return "#/" + words.map(viva.safe).join("/") + (kept.length ? "?" + new URLSearchParams(kept) : "");
};

viva.title = function (of) {
  if (of === "train") return "training questions";
  if (of === "test") return "test questions";
  return of;
};

/* Put a page into its place. What is typed stays while only the query of the address changes. */
viva.mount = function (box, page) {
  box.replaceChildren(page);
  viva.mounted?.();
  viva.mounted = null;
};
viva.moved = function (words) {
  const path = words.join("/");
  if (viva.path !== undefined && viva.path !== path) {
    clearTimeout(viva.later);
    viva.typed = undefined;
  }
  viva.path = path;
};

/* --- runs */

viva.pageRuns = async function () {
  const runs = await viva.ask(["runs"]);
  const picked = new Set();
  const compare = viva.el("a", { class: "button off" }, "compare");
  const pick = (key, on) => {
    on ? picked.add(key) : picked.delete(key);
    compare.classList.toggle("off", picked.size < 2);
    compare.href = picked.size < 2 ? "" : viva.to(["compare"], { runs: [...picked].join(",") });
    compare.textContent = picked.size > 1 ? `compare ${picked.size} runs` : "compare: tick two or more";
  };
  pick("", false);
  return viva.el("main", null, viva.el("div", { class: "bar" }, viva.el("h1", null, "Runs"), runs.length > 1 ? compare : null),
    runs.map((run) => viva.el("article", { class: "run" + (run.running ? " running" : "") },
      viva.el("div", { class: "rhead" },
        runs.length > 1 ? viva.el("input", { type: "checkbox", "aria-label": `compare ${run.name}`, onchange: (e) => pick(run.key, e.target.checked) }) : null,
        viva.el("h2", null, viva.el("a", { href: viva.to(["run", run.key]) }, viva.word(run.name))),
        viva.standing(run),
        viva.el("span", { class: "soft" }, [run.method, run.task].filter(Boolean).join(" · "))),
      run.headline ? viva.el("p", null, viva.clean(run.headline)) : null,
      viva.progress(run),
      viva.el("p", { class: "small soft" }, viva.spent(run), " · ", viva.word(run.path)))),
    runs.length ? null : viva.el("p", null, "There is no run here yet."));
};

viva.standing = (run) => viva.el("span", { class: `tag ${run.running ? "on" : ""}` }, run.running ? "at work" : run.finished ? "finished" : run.stopped ? "stopped at a cap" : "not finished");

viva.spent = (run) => [`${viva.count(run.calls)} calls`, `${viva.short(run.tokens)} tokens`, run.money ? `${viva.money(run.money)} ${run.currency}` : null,
  run.failures ? `${viva.count(run.failures)} calls failed` : null, run.seconds ? viva.lasting(run.seconds) : null].filter(Boolean).join(" · ");

viva.progress = function (run) {
  const bars = run.progress.map((one) => viva.el("div", { class: "progress" },
    viva.el("span", null, viva.word(one.title)), viva.el("progress", { value: one.done, max: one.total || 1 }),
    viva.el("span", { class: "soft" }, `${viva.count(one.done)} of ${viva.count(one.total)}`)));
  const trainings = run.training.map((one) => viva.el("div", { class: "progress" }, viva.el("span", null, "training ", viva.word(one.arm), `, seed ${one.seed}`),
    viva.el("span", { class: "soft" }, `update ${viva.count(one.step)}, loss ${Number(one.loss).toFixed(4)}`)));
  const failing = run.failing.length ? viva.el("p", { class: "warn" }, "failed calls: ", run.failing.map((one, i) => [i ? ", " : "", viva.word(one.agent), ` ${viva.count(one.failures)} of ${viva.count(one.calls)} in `, viva.word(one.stage)])) : null;
  const unread = (run.unread || []).map((one) => viva.el("p", { class: "warn" }, "cannot be read: ", viva.word(one.file), " ", viva.clean(one.why)));
  return [bars, trainings, failing, unread, run.reading ? viva.el("p", { class: "small soft" }, `reading ${run.reading} …`) : null];
};

/* --- one run */

viva.TABS = [["", "overview"], ["questions", "questions"], ["training", "training"], ["costs", "costs"]];

viva.frame = function (key, tab, state, ...body) {
  const tabs = viva.TABS.map(([word, title]) => viva.el("a", { href: viva.to(["run", key, word].filter(Boolean)), class: tab === word ? "here" : null }, title));
  return viva.el("div", null,
    viva.el("header", { class: "top" }, viva.el("a", { href: "#/", class: "home" }, "runs"), " / ", viva.el("b", null, viva.word(state?.name ?? key)), state ? viva.standing(state) : null,
      viva.el("nav", { class: "tabs", "aria-label": "Pages" }, tabs), viva.theme()),
    state && (state.running || state.reading || state.unread.length) ? viva.el("div", { class: "now" }, viva.progress(state), viva.el("p", { class: "small soft" }, viva.spent(state))) : null,
    body);
};

viva.theme = function () {
  const button = viva.el("button", { type: "button", class: "link theme", title: "light or dark" }, "◐");
  button.addEventListener("click", () => viva.setTheme(getComputedStyle(document.documentElement).colorScheme.startsWith("dark") ? "light" : "dark"));
  return button;
};
viva.setTheme = function (theme) {
  document.documentElement.style.colorScheme = theme;
  try { localStorage.setItem("viva-theme", theme); } catch { /* a page from disk may keep nothing */ }
};

viva.pageOverview = async function (key, state) {
  const box = viva.el("div", { class: "overview" }), rest = viva.el("p", { class: "soft small" }, "reading the debates …");
  const fill = async () => {
    const { html, whole } = await viva.ask(["run", key, "overview"]);
    box.innerHTML = html; /* made by the report's templates, which escape every text; scripts in it would not run */
    for (const link of box.querySelectorAll("a[href^='#']"))
      link.addEventListener("click", (event) => { event.preventDefault(); box.querySelector(link.getAttribute("href"))?.scrollIntoView(); });
    if (whole) return;
    box.append(rest);
    setTimeout(() => box.isConnected && fill().catch(() => {}), 700);
  };
  await fill();
  return viva.frame(key, "", state, box);
};

viva.loaded = async function (key, of) {
  const about = await viva.ask(["run", key, "sets"]);
  if (!about.sets.length) return { about };
  const known = about.sets.find((s) => s.key === of) || (of ? null : about.sets.find((s) => s.key === "test") || about.sets[0]);
  if (!known) throw new Error(`this run has no questions called ${of}`);
  const set = await viva.ask(["run", key, "set", known.key]);
  set.run = key;
  return { about, set, layout: viva.layout(set, about) };
};

/* Which questions pass what the address asks for. */
viva.passing = async function (key, loaded, query) {
  const { set, layout } = loaded, first = query.a || layout.student, second = query.b || layout.main;
  const filters = viva.filtersOf(set, layout, first, second), wanted = (query.f || "").split(",").filter(Boolean);
  viva.sought = viva.words(query.q || "");
  const hits = viva.sought.length ? new Set(await viva.ask(["run", key, "search", set.of], { q: query.q })) : null;
  const tests = wanted.map((f) => filters.find((one) => one.key === f)?.test).filter(Boolean);
  return { filters, wanted, first, second, rows: viva.chosen(set, tests, { group: query.g, sort: query.s || "" }, hits) };
};

viva.pageQuestions = async function (key, state, of, query, bare = false) {
  const loaded = await viva.loaded(key, of), wrap = (...body) => (bare ? viva.el("div", null, body) : viva.frame(key, "questions", state, body));
  if (!loaded.set) return wrap(viva.el("main", null, viva.el("p", { class: "soft" }, state?.reading ? "reading …" : "There are no questions yet.")));
  const { about, set, layout } = loaded, { filters, wanted, first, second, rows } = await viva.passing(key, loaded, query);
  const base = bare ? [] : ["run", key];
  const go = (changes, at = set.of) => location.replace(viva.to([...base, "questions", at], { ...query, ...changes }));
  const table = new viva.Table(set, layout, (at) => { location.hash = viva.to([...base, "question", set.of, set.ids[at]], query); });
  table.href = (at) => viva.to([...base, "question", set.of, set.ids[at]], query);
  const search = viva.el("input", { type: "search", class: "search", placeholder: "search every text  ( / )", "aria-label": "search", value: query.q || "" });
  search.addEventListener("input", () => {
    viva.typed = search.value;
    clearTimeout(viva.later);
    viva.later = setTimeout(() => go({ q: viva.typed }), 120);
  });
  const select = (label, options, value, change) => {
    const box = viva.el("select", { "aria-label": label, onchange: (e) => change(e.target.value) }, options.map(([v, title]) => viva.el("option", { value: v, selected: v === value }, title)));
    return viva.el("label", null, viva.el("span", { class: "soft" }, label), box);
  };
  const names = layout.arms.map((a) => [a.name, a.name]);
  const counts = viva.counted(set, filters);
  const chips = filters.map((f) => {
    const n = counts.get(f.key);
    const on = wanted.includes(f.key);
    return viva.el("button", { type: "button", class: "filter" + (on ? " on" : ""), "aria-pressed": String(on), title: f.hint, disabled: !n && !on,
      onclick: () => go({ f: (on ? wanted.filter((w) => w !== f.key) : [...wanted, f.key]).join(",") }) }, f.title, viva.el("span", { class: "n" }, viva.count(n)));
  });
  const bar = viva.el("div", { class: "tools" }, search,
    about.sets.length > 1 ? select("of", about.sets.map((s) => [s.key, `${viva.title(s.key)} (${viva.count(s.n)})`]), set.of, (v) => { location.hash = viva.to([...base, "questions", v], { q: query.q }); }) : null,
    set.groups.length > 1 ? select("group", [["", "all"], ...set.groups.map((g) => [g, g || "(none)"])], query.g || "", (v) => go({ g: v })) : null,
    select("sort", Object.entries(viva.SORTS), query.s || "", (v) => go({ s: v })),
    names.length > 1 ? [select("from", names, first, (v) => go({ a: v })), select("to", names, second, (v) => go({ b: v }))] : null);
  const count = viva.el("p", { class: "small soft count" }, `${viva.count(rows.length)} of ${viva.count(set.ids.length)} questions`,
    viva.el("span", { class: "keys" }, " · J/K move, Enter opens, / searches"));
  viva.mounted = () => {
    table.show(rows, viva.lastAt?.of === set.of ? rows.indexOf(viva.lastAt.at) : -1);
    if (viva.typed === undefined) return;
    search.value = viva.typed; /* what was typed while the page was made anew is not lost */
    search.focus();
    search.setSelectionRange(search.value.length, search.value.length);
  };
  search.addEventListener("blur", () => { if (search.isConnected) viva.typed = undefined; });
  viva.keys = {
    j: () => table.move(1), k: () => table.move(-1), "/": () => search.focus(),
    Enter: () => table.at >= 0 && table.open(rows[table.at]),
  };
  return wrap(viva.el("main", { class: "wide" }, bar, viva.el("div", { class: "filters" }, chips), count, table.box));
};

viva.pageQuestion = async function (key, state, of, id, query, bare = false) {
  const loaded = await viva.loaded(key, of), { set, layout, about } = loaded;
  const { rows, filters, wanted } = await viva.passing(key, loaded, query), base = bare ? [] : ["run", key];
  let at = set.ids.indexOf(id);
  if (at < 0) throw new Error(`there is no question ${id}`);
  viva.lastAt = { of: set.of, at };
  const place = rows.indexOf(at), q = await viva.ask(["run", key, "question", set.of, at]);
  const link = (i) => (i >= 0 && i < rows.length ? viva.to([...base, "question", set.of, set.ids[rows[i]]], query) : null);
  const before = link(place - 1), after = place < 0 ? link(0) : link(place + 1), list = viva.to([...base, "questions", set.of], query);
  const go = (where) => where && location.replace(where);
  viva.keys = { j: () => go(after), k: () => go(before), Escape: () => { location.hash = list; }, u: () => { location.hash = list; } };
  const why = wanted.map((w) => filters.find((f) => f.key === w)?.title).filter(Boolean);
  const where = place < 0 ? "not among the questions that were found" : `${viva.count(place + 1)} of ${viva.count(rows.length)}`;
  const others = about.sets.filter((s) => s.key !== set.of);
  const page = viva.el("main", { class: "wide" },
    viva.el("div", { class: "qbar" },
      viva.el("a", { href: list, class: "button" }, "← all"),
      viva.el("a", { href: before, class: "button" + (before ? "" : " off"), title: "K" }, "previous"),
      viva.el("a", { href: after, class: "button" + (after ? "" : " off"), title: "J" }, "next"),
      viva.el("span", { class: "soft" }, where, why.length ? ` · ${why.join(", ")}` : "", query.q ? [" · “", viva.word(query.q), "”"] : "")),
    viva.el("h1", { class: "qtitle" }, viva.word(q.problem.id), q.problem.group ? viva.el("span", { class: "soft" }, " ", viva.word(q.problem.group)) : null),
    viva.showQuestion(q, layout, layout.agent, viva.source.live ? viva.howAsked(key, set.of, at) : null),
    viva.also(key, set.of, id, others, base, query));
  scrollTo(0, 0);
  return bare ? page : viva.frame(key, "questions", state, page);
};

/* The exact messages that the students were asked with: from the journal, when somebody wants to see them. */
viva.howAsked = function (key, of, at) {
  const box = viva.el("details", null, viva.el("summary", { class: "soft" }, "the exact prompt"));
  box.addEventListener("toggle", async () => {
    if (box.childElementCount > 1) return;
    const wait = viva.el("p", { class: "soft small" }, "loading …");
    box.append(wait);
    const asked = await viva.ask(["run", key, "asked", of, at]).catch(() => null);
    wait.remove();
    viva.add(box, asked ? viva.messages(asked) : viva.el("p", { class: "soft small" }, "the journal has no such call"));
  });
  return box;
};

/* Where else the run has the same question. */
viva.also = function (key, of, id, others, base, query) {
  const box = viva.el("p", { class: "small" });
  if (!viva.source.live) return box;
  for (const other of others) viva.ask(["run", key, "find", other.key, id]).then(({ at }) => {
    if (at !== null && at !== undefined) viva.add(box, viva.el("a", { href: viva.to([...base, "question", other.key, id]) }, `also in ${viva.title(other.key)}`), " ");
  }, () => {});
  return box;
};

viva.pageTraining = async function (key, state) {
  const { curves } = await viva.ask(["run", key, "training"]), arms = new Map();
  for (const curve of curves) arms.set(curve.arm, [...(arms.get(curve.arm) || []), curve]);
  const figures = [...arms].map(([arm, several]) => ["loss", "rewards/accuracies", "grad_norm"].map((measure) => {
    const lines = several.map((c) => ({ name: `seed ${c.seed}`, points: c.points.filter((p) => measure in p).map((p) => [p.step, p[measure]]) })).filter((l) => l.points.length > 1);
    const chart = lines.length && viva.chart(lines, { title: `${measure} of ${arm}` });
    const said = { loss: "loss", "rewards/accuracies": "share of pairs ranked right", grad_norm: "norm of the gradient" }[measure];
    return chart ? viva.el("figure", null, chart, viva.el("figcaption", null, viva.el("b", null, viva.word(arm)), ` · ${said}`)) : null;
  }));
  const head = ["arm", "seed", "updates", "rows", "left out", "first loss", "last loss", "time"].map((t, i) => viva.el("th", { class: i ? null : "text" }, t));
  const rows = curves.map((c) => viva.el("tr", null, viva.el("td", { class: "name" }, viva.word(c.arm)), [c.seed,
    c.result ? viva.count(c.result.steps) : `${c.points.length ? viva.count(c.points.at(-1).step) : 0}, under way`, c.result ? viva.count(c.result.rows_used) : "–",
    c.result ? viva.count(c.result.rows_dropped) : "–", c.result?.first_loss?.toFixed(4) ?? "–", c.result?.last_loss?.toFixed(4) ?? "–", c.result ? viva.lasting(c.result.seconds) : "–"].map((v) => viva.el("td", null, v))));
  return viva.frame(key, "training", state, viva.el("main", null, viva.el("h1", null, "Training"),
    curves.length ? [viva.el("p", { class: "soft" }, "Every panel has a scale of its own; lines are seeds. Rows are left out if they are longer than the training takes."),
      viva.el("div", { class: "panels" }, figures), viva.el("div", { class: "scroll" }, viva.el("table", { class: "full" }, viva.el("thead", null, viva.el("tr", null, head)), viva.el("tbody", null, rows)))]
      : viva.el("p", { class: "soft" }, "Nothing has been trained yet.")));
};

viva.pageCosts = async function (key, state) {
  const [costs, failures] = await Promise.all([viva.ask(["run", key, "costs"]), viva.ask(["run", key, "failures"])]);
  const paid = costs.total.money > 0, heads = ["stage", "agent", "calls", "hits", "failed", "prompt tokens", "of them cached", "completion tokens", ...(paid ? [costs.currency] : []), "seconds"];
  const cells = (l) => [l.calls, l.hits, l.failures, l.prompt_tokens, l.cached_tokens, l.completion_tokens].map((n, i) => viva.el("td", { class: i === 2 && n ? "warn" : null }, viva.count(n))).concat(paid ? viva.el("td", null, viva.money(l.money)) : [], viva.el("td", null, viva.count(Math.round(l.seconds))));
  const table = viva.el("div", { class: "scroll" }, viva.el("table", { class: "full" },
    viva.el("thead", null, viva.el("tr", null, heads.map((h, i) => viva.el("th", { class: i < 2 ? "text" : null }, h)))),
    viva.el("tbody", null, costs.lines.map((l) => viva.el("tr", null, viva.el("td", { class: "text" }, viva.word(l.stage || "–")), viva.el("td", { class: "text" }, viva.word(l.agent)), cells(l)))),
    viva.el("tfoot", null, viva.el("tr", null, viva.el("td", null, "all"), viva.el("td"), cells(costs.total)))));
  const failed = failures.map((f) => viva.el("details", { class: "failure" }, viva.el("summary", null, viva.word(f.agent, { class: "who" }), viva.el("span", { class: "soft" }, " ", viva.word(f.stage), " ", viva.word(f.problem)), " ", viva.word(viva.clean(f.error).slice(0, 200))),
    viva.el("div", { class: "said error", dir: "auto" }, viva.clean(f.error)), viva.messages(f.messages)));
  const cut = costs.under_way;
  return viva.frame(key, "costs", state, viva.el("main", null, viva.el("h1", null, "Costs"),
    costs.lines.length ? table : viva.el("p", { class: "soft" }, `There is no ledger${costs.none ? `: ${costs.none}` : ""}.`),
    viva.el("p", { class: "small soft" }, "A hit is an answer that was in the journal already and cost nothing. Seconds are summed over calls side by side.",
      costs.lent?.calls ? ` ${viva.count(costs.lent.calls)} more calls were paid by earlier runs.` : "", costs.caps ? ` The run may spend ${costs.caps} at most.` : "", cut.calls ? ` ${viva.count(cut.calls)} more calls are under way, or a kill cut them off.` : ""),
    failed.length ? [viva.el("h2", null, "Calls that failed for good"), failed] : null));
};

/* --- several runs */

viva.pageCompare = async function (query) {
  const keys = (query.runs || "").split(",").filter(Boolean), runs = await viva.ask(["runs"]);
  const chosen = keys.map((key) => runs.find((r) => r.key === key)).filter(Boolean);
  const head = viva.el("header", { class: "top" }, viva.el("a", { href: "#/", class: "home" }, "runs"), " / ", viva.el("b", null, "compare"), viva.theme());
  if (chosen.length < 2) return viva.el("div", null, head, viva.el("main", null, viva.el("p", null, "Tick two or more runs to compare them.")));
  const abouts = await Promise.all(chosen.map((r) => viva.ask(["run", r.key, "sets"])));
  const names = [...new Set(abouts.flatMap((a) => a.arms.map((arm) => arm.name)))];
  const arm = (i, name) => abouts[i].arms.find((a) => a.name === name);
  const table = viva.el("div", { class: "scroll" }, viva.el("table", { class: "full" },
    viva.el("thead", null, viva.el("tr", null, viva.el("th", { class: "text" }, "arm"), chosen.map((r) => viva.el("th", null, viva.word(r.name))), viva.el("th", null, "last − first"))),
    viva.el("tbody", null, names.map((name) => {
      const found = chosen.map((_, i) => arm(i, name)?.accuracy), two = [found[0], found.at(-1)];
      return viva.el("tr", null, viva.el("td", { class: "name" }, viva.word(name)), found.map((a) => viva.el("td", null, viva.percent(a))),
        viva.el("td", null, two.every((a) => a !== undefined && a !== null) ? `${two[1] - two[0] > 0 ? "+" : ""}${(100 * (two[1] - two[0])).toFixed(1)}` : "–"));
    }), viva.el("tr", null, viva.el("td", { class: "name soft" }, "calls"), chosen.map((r) => viva.el("td", null, viva.count(r.calls))), viva.el("td")),
      viva.el("tr", null, viva.el("td", { class: "name soft" }, "tokens"), chosen.map((r) => viva.el("td", null, viva.short(r.tokens))), viva.el("td")),
      viva.el("tr", null, viva.el("td", { class: "name soft" }, "money"), chosen.map((r) => viva.el("td", null, `${viva.money(r.money)} ${r.currency}`)), viva.el("td")),
      viva.el("tr", null, viva.el("td", { class: "name soft" }, "time"), chosen.map((r) => viva.el("td", null, viva.lasting(r.seconds))), viva.el("td")))));
  return viva.el("div", null, head, viva.el("main", { class: "wide" }, viva.el("h1", null, chosen.map((r, i) => [i ? " · " : "", viva.el("a", { href: viva.to(["run", r.key]) }, viva.word(r.name))])),
    table, await viva.sideBySide(chosen, abouts, query)));
};

/* The same test questions in several runs: a column for what each run is about. */
viva.sideBySide = async function (chosen, abouts, query) {
  const sets = await Promise.all(chosen.map((r, i) => (abouts[i].sets.some((s) => s.key === "test") ? viva.ask(["run", r.key, "set", "test"]) : null)));
  if (sets.some((s) => !s)) return viva.el("p", { class: "soft" }, "Not all of them have come to their tests.");
  const layouts = sets.map((s, i) => viva.layout(s, abouts[i])), places = sets.map((s) => new Map(s.ids.map((id, i) => [id, i])));
  const common = sets[0].ids.filter((id) => places.every((p) => p.has(id)));
  if (!common.length) return viva.el("p", { class: "soft" }, "They share no test question.");
  const columns = chosen.map((r, i) => {
    const found = layouts[i].arms.find((a) => a.name === layouts[i].main);
    return { label: { arm: `${r.name}: ${found?.name ?? "–"}`, seed: 0 }, letters: found ? common.map((id) => sets[i].columns[found.seeds[0].at].letters[places[i].get(id)]).join("") : "-".repeat(common.length) };
  });
  const set = { of: "test", run: chosen[0].key, ids: common, groups: sets[0].groups, group: common.map((id) => sets[0].group[places[0].get(id)]), tokens: null, columns };
  const layout = { seats: [], others: [], arms: columns.map((c, i) => ({ name: c.label.arm, seeds: [{ seed: 0, at: i }] })), student: columns[0].label.arm, main: columns.at(-1).label.arm };
  const filters = viva.filters(set, layout, layout.student, layout.main).map((f) => ({ ...f, title: { fixed: "only the last is right", broke: "only the first is right" }[f.key] || f.title }));
  const wanted = (query.f || "").split(",").filter(Boolean);
  const rows = viva.chosen(set, wanted.map((w) => filters.find((f) => f.key === w)?.test).filter(Boolean), { sort: query.s || "" });
  const table = new viva.Table(set, layout, (at) => { location.hash = viva.to(["run", chosen.at(-1).key, "question", "test", set.ids[at]]); });
  table.href = (at) => viva.to(["run", chosen.at(-1).key, "question", "test", set.ids[at]]);
  table.text = async (at) => {
    const there = places[0].get(set.ids[at]), block = Math.floor(there / 200);
    return (await viva.ask(["run", set.run, "heads", "test", block]))[there - 200 * block] || ["", ""];
  };
  const chips = filters.map((f) => viva.el("button", { type: "button", class: "filter" + (wanted.includes(f.key) ? " on" : ""), title: f.hint,
    onclick: () => location.replace(viva.to(["compare"], { ...query, f: wanted.includes(f.key) ? "" : f.key })) }, f.title, viva.el("span", { class: "n" }, viva.count(common.filter((_, i) => f.test(i)).length))));
  viva.mounted = () => table.show(rows);
  viva.keys = { j: () => table.move(1), k: () => table.move(-1), Enter: () => table.at >= 0 && table.open(rows[table.at]) };
  return [viva.el("h2", null, `${viva.count(common.length)} test questions that all of them asked`), viva.el("div", { class: "filters" }, chips),
    viva.el("p", { class: "small soft count" }, `${viva.count(rows.length)} of ${viva.count(common.length)}`), table.box];
};

"use strict";
/* One question: the debate as agents by rounds, what was said about each answer beneath it, exact prompts, test answers,
   episodes, and the rows that came of it. No kind of node and no protocol is known by name. */

viva.figures = function (n) {
  const found = [];
  if (n.answer !== undefined && n.answer !== null) found.push(viva.el("span", { class: "answer" }, "answer ", viva.word(n.answer, { class: "given" })));
  if (n.confidence !== undefined) found.push(`said ${Math.round(100 * n.confidence)} % sure`);
  if (n.probability !== undefined) found.push(`probability ${n.probability.toFixed(2)}`);
  if (n.score !== undefined) found.push(`score ${n.score}`);
  if (n.gold) found.push(viva.el("span", { title: "its prompt held the right answer, or a text whose author saw it" }, "saw gold"));
  return found.flatMap((one, i) => (i ? [" · ", one] : [one]));
};

/* What was learnt from each node, by its id: which arms took it, and as what. */
viva.taken = function (rows) {
  const found = new Map();
  const add = (id, how, arms) => found.set(id, [...(found.get(id) || []), ...arms.map((arm) => `${how} ${arm}`)]);
  for (const { row, in: arms } of rows) {
    for (const c of row.chosen || []) add(c.source, "chosen in", arms);
    for (const c of row.rejected || []) add(c.source, "rejected in", arms);
    if (row.completion !== undefined) for (const id of row.source || []) add(id, "learnt by", arms);
  }
  return found;
};

viva.debate = function (debate, student, taken = new Map()) {
  const nodes = debate.nodes, byId = new Map(nodes.map((n) => [n.id, n])), about = new Map();
  for (const n of nodes) if (n.target && byId.has(n.target)) about.set(n.target, [...(about.get(n.target) || []), n]);
  const top = nodes.filter((n) => !(n.target && byId.has(n.target)));
  const rounds = [...new Set(top.map((n) => n.round))].sort((a, b) => a - b);
  const agents = [...new Set(top.map((n) => n.agent))];
  const context = { debate, byId, about, student, taken };
  const grid = rounds.map((round) => {
    const there = agents.filter((agent) => top.some((n) => n.round === round && n.agent === agent));
    const columns = there.map((agent) => viva.el("div", { class: "column" },
      top.filter((n) => n.round === round && n.agent === agent).map((n) => viva.node(n, context))));
    return viva.el("section", { class: "round" },
      viva.el("h4", null, `Round ${round}`, round === 0 ? viva.el("span", { class: "soft" }, " independent answers") : null),
      viva.el("div", { class: "columns", style: `--n:${Math.min(there.length, 4)}` }, columns));
  });
  const changed = nodes.filter((n) => n.turn).map((n) => viva.el("button", { type: "button", class: `chip ${n.turn.kind}`, onclick: () => viva.jump(n.id) },
    viva.word(n.agent), ` ${n.turn.kind[0]}→${n.turn.kind[1]} `, viva.word(n.turn.before ?? "none"), " → ", viva.word(n.answer ?? "none"), viva.el("span", { class: "soft" }, ` round ${n.round}`)));
  const votes = debate.votes.map((vote) => viva.el("div", { class: "ballot" },
    viva.el("b", null, vote.round === 0 ? "Votes over the independent answers" : `Votes after round ${vote.round}`),
    viva.el("ul", null, vote.votes.map(([how, answer, mark]) => viva.el("li", null, `${how}: `, viva.word(answer ?? ""), " ", viva.badge(mark))))));
  return viva.el("div", { class: "debate" },
    changed.length ? viva.el("p", { class: "chips" }, changed) : null,
    grid,
    votes.length ? viva.el("div", { class: "ballots" }, votes) : null,
    viva.el("p", { class: "small soft" }, "It ended because ", debate.ended ? debate.ended : ["its protocol said ", viva.word(debate.stopped)], ".",
      debate.oracle ? " Roles, or when to stop, were decided by knowing which agents are right (oracle roles)." : ""));
};

viva.jump = function (id) {
  const there = document.getElementById(`n-${id}`);
  if (!there) return;
  there.closest("details")?.setAttribute("open", "");
  there.scrollIntoView({ block: "center" });
  there.classList.add("flash");
  setTimeout(() => there.classList.remove("flash"), 1500);
};

/* One node, and beneath it what was said about it. */
viva.node = function (n, context, inside = false) {
  const { byId, about, student, debate } = context, said = about.get(n.id) || [];
  const kind = n.mark ? (viva.LETTERS[viva.MARKS[n.mark]] || ["none"])[0] : "plain";
  const scores = new Map();
  for (const s of said) if (s.score !== undefined) scores.set(s.kind, [...(scores.get(s.kind) || []), s.score]);
  const verdicts = [...scores].filter(([, all]) => all.length > 1).map(([of, all]) => viva.el("div", { class: "verdict" }, `${all.length} `, viva.word(of), ` scores, mean ${(all.reduce((a, b) => a + b, 0) / all.length).toFixed(2)} `, viva.el("span", { class: "soft" }, `(${all.join(", ")})`)));
  const head = viva.el("div", { class: "nhead" },
    viva.word(n.agent, { class: "who" }), n.agent === student ? viva.el("span", { class: "tag" }, "student") : null,
    n.kind !== "answer" ? viva.el("span", { class: "tag kind" }, viva.word(n.kind)) : null,
    n.sample ? viva.el("span", { class: "tag" }, `sample ${n.sample}`) : null,
    n.mark ? viva.badge(n.mark) : null,
    n.turn ? viva.el("span", { class: `chip ${n.turn.kind}` }, `${n.turn.kind[0]}→${n.turn.kind[1]}`) : null);
  const text = n.error ? viva.el("div", { class: "said error", dir: "auto" }, viva.clean(n.error)) : viva.said(n.text, inside ? { long: 700 } : {});
  const prompt = n.prompt && debate.prompts[n.prompt] ? viva.prompt(n, context) : null;
  const read = (n.parents || []).map((id) => byId.get(id)).filter(Boolean);
  return viva.el("article", { class: `node ${kind}${inside ? " note" : ""}`, id: `n-${n.id}` }, head,
    viva.el("div", { class: "figures" }, viva.figures(n)), text,
    viva.el("div", { class: "foot" },
      n.tokens[0] + n.tokens[1] ? viva.el("span", { class: "soft" }, `${viva.count(n.tokens[0])} + ${viva.count(n.tokens[1])} tokens`) : null,
      read.length ? viva.el("span", { class: "soft" }, `read ${read.length} text${read.length > 1 ? "s" : ""}`) : null, prompt?.button),
    context.taken.has(n.id) ? viva.el("div", { class: "taken" }, [...new Set(context.taken.get(n.id))].map((how) => viva.el("span", { class: `tag ${how.split(" ")[0]}` }, viva.word(how)))) : null,
    prompt?.box,
    verdicts,
    said.length ? viva.el("div", { class: "notes" }, said.map((one) => viva.node(one, context, true))) : null);
};

/* The exact prompt of a node; texts of other nodes in it are marked and lead there. */
viva.prompt = function (n, { debate, byId }) {
  const box = viva.el("div", { class: "prompt", hidden: true });
  const button = viva.el("button", { type: "button", class: "link", "aria-expanded": "false" }, "prompt");
  button.addEventListener("click", () => {
    box.hidden = !box.hidden;
    button.setAttribute("aria-expanded", String(!box.hidden));
    if (box.childNodes.length) return;
    const asked = debate.prompts[n.prompt];
    const quote = (id, text) => {
      const from = byId.get(id);
      const title = from ? `${from.kind} of ${from.agent}, round ${from.round}` : "the right answer";
      return viva.el("span", { class: "quote", title, onclick: () => viva.jump(id) }, viva.clean(text));
    };
    viva.add(box, viva.el("div", { class: "soft small" }, "template ", viva.word(asked.template), "; coloured is what others said"),
      asked.messages.map(([role, parts]) => viva.el("div", { class: "message" }, viva.word(role, { class: "role" }),
        viva.el("div", { class: "said", dir: "auto", tabindex: "0" }, parts.map((part) =>
          typeof part === "number" ? viva.clean(debate.texts[part]) : typeof part === "string" ? quote(part, byId.get(part)?.text ?? "") : quote(part[0], part[1]))))));
  });
  return { button, box };
};

viva.messages = (messages) => messages.map(([role, content]) => viva.el("div", { class: "message" }, viva.word(role, { class: "role" }), viva.said(content)));

/* The answers of all arms to a test question, side by side. */
viva.answers = function (answers, layout) {
  const order = layout ? layout.arms.map((a) => a.name) : [], arms = new Map();
  for (const one of answers) arms.set(one.arm, [...(arms.get(one.arm) || []), one]);
  const names = [...arms.keys()].sort((a, b) => order.indexOf(a) - order.indexOf(b));
  return viva.el("div", { class: "columns arms" }, names.map((name) => viva.el("div", { class: "column" },
    viva.el("h5", null, viva.word(name), name === layout?.main ? viva.el("span", { class: "tag" }, "main") : null),
    arms.get(name).sort((a, b) => a.seed - b.seed).map((one) => {
      const kind = (viva.LETTERS[viva.MARKS[one.mark]] || ["none"])[0];
      return viva.el("article", { class: `node ${kind}` },
        viva.el("div", { class: "nhead" }, arms.get(name).length > 1 ? viva.el("span", { class: "tag" }, `seed ${one.seed}`) : null, viva.badge(one.mark),
          one.answer !== null ? viva.el("span", { class: "answer" }, "answer ", viva.word(one.answer, { class: "given" })) : null),
        viva.said(one.text, { long: 700 }));
    }))));
};

viva.episode = function (episode) {
  const end = { true: viva.badge("right"), false: viva.badge("wrong"), null: viva.badge("ungradable") }[episode.success];
  const name = episode.arm ? `${episode.arm}, seed ${episode.seed}` : episode.stage;
  return viva.el("details", { class: "episode" },
    viva.el("summary", null, viva.word(name, { class: "who" }), " ", end, viva.el("span", { class: "soft" }, ` ${episode.steps.length} steps, ended: `, viva.word(episode.ended))),
    viva.el("div", { class: "inside" },
      viva.el("details", null, viva.el("summary", { class: "soft" }, "what the agent was told"), viva.messages(episode.prompt)),
      episode.steps.map((step, i) => {
        const best = step.best.length ? (step.best.includes(step.text.trim()) ? viva.badge("right") : viva.el("span", { class: "soft" }, "best: ", viva.word(step.best.join(" or ")))) : null;
        return viva.el("div", { class: "step" },
          viva.el("div", { class: "nhead" }, viva.el("span", { class: "tag" }, `step ${i + 1}`), viva.word(episode.agent, { class: "who" }), best,
            step.malformed ? viva.el("span", { class: "mark wrong" }, "malformed: ", viva.word(step.malformed)) : null),
          viva.said(step.text),
          step.calls.map(([tool, given]) => viva.el("pre", { class: "call" }, viva.clean(`${tool}(${JSON.stringify(given, null, 1)})`))),
          step.seen.map(([role, content]) => viva.el("div", { class: "seen" }, viva.word(role, { class: "role" }), viva.said(content, { long: 900 }))));
      })));
};

/* A row that something was learnt from: what is asked, what is to be learnt, what is to be avoided. */
viva.learnt = function (one) {
  const row = one.row, parts = [];
  const text = (title, kind, value) => parts.push(viva.el("div", { class: `learn ${kind}` }, viva.el("span", { class: "role" }, title), viva.said(value, { long: 600 })));
  if (row.prefix) text("begins", "plain", row.prefix);
  for (const c of row.chosen || []) text("chosen", "right", c.text);
  for (const c of row.rejected || []) text("rejected", "wrong", c.text);
  if (row.completion !== undefined) text(row.stream && row.stream !== "answer" ? row.stream : "to be written", "right", row.completion);
  for (const c of row.recorded || []) text("recorded", "right", c.text);
  (row.views || []).forEach((view, i) => parts.push(viva.el("details", null, viva.el("summary", { class: "soft" }, `what scorer ${i + 1} reads, weight ${Number(view.weight).toFixed(2)}`), viva.messages(view.messages.map((m) => [m.role, m.content])))));
  const prompt = row.prompt && viva.el("details", null, viva.el("summary", { class: "soft" }, "prompt of the row"), viva.messages(row.prompt.map((m) => [m.role, m.content])));
  return viva.el("article", { class: "node plain row" },
    viva.el("div", { class: "nhead" }, one.in.map((name) => viva.el("span", { class: "tag" }, viva.word(name))), row.weight !== undefined && row.weight !== 1 ? viva.el("span", { class: "soft" }, `weight ${row.weight}`) : null),
    parts, prompt);
};

/* The whole page of a question. */
viva.showQuestion = function (q, layout, student, asked = null) {
  const p = q.problem, part = (title, hint, body) => viva.el("section", { class: "part" }, viva.el("h3", null, title, hint ? viva.el("span", { class: "soft" }, ` ${hint}`) : null), body);
  const history = (p.history || []).length ? viva.el("details", null, viva.el("summary", { class: "soft" }, `what was said before (${p.history.length} messages)`), viva.messages(p.history.map((m) => [m.role, m.content]))) : null;
  const taken = viva.taken(q.rows);
  return viva.el("div", { class: "whole-question" },
    viva.el("div", { class: "asked" }, viva.said(p.question || "(its text is in no file of the run)", { long: 4000 }), history,
      p.gold ? viva.el("div", { class: "small" }, viva.el("span", { class: "soft" }, "right answer "), viva.word(p.gold, { class: "gold" })) : null),
    q.answers.length ? part("Test answers", `${q.answers.length}, by arm and seed`, [viva.answers(q.answers, layout), asked]) : null,
    q.episodes.length ? part("Episodes", "", q.episodes.map(viva.episode)) : null,
    q.debates.map((debate) => part("Debate", debate.stage, viva.debate(debate, student, taken))),
    q.calls.length ? part("Calls so far", "the debate is under way; nothing is judged yet", q.calls.map((call) => viva.el("article", { class: `node ${call.error ? "failed" : "plain"}` },
      viva.el("div", { class: "nhead" }, viva.word(call.agent, { class: "who" }), viva.el("span", { class: "tag kind" }, viva.word(call.kind)), viva.el("span", { class: "soft" }, `${call.seconds} s`)),
      call.error ? viva.el("div", { class: "said error", dir: "auto" }, viva.clean(call.error)) : viva.said(call.text),
      viva.el("details", null, viva.el("summary", { class: "soft" }, "prompt"), viva.messages(call.messages))))) : null,
    q.rows.length ? part("What came of it", `${q.rows.length} different rows and trees to learn from`, viva.el("div", { class: "columns wide" }, q.rows.map(viva.learnt))) : null);
};

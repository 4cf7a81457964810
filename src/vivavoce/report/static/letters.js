"use strict";
/* What the letters of a table mean, and the filters that go by them. See report/verdicts.py. */
viva.LETTERS = {
  R: ["right", "✓", "right"], W: ["wrong", "✗", "wrong"], U: ["none", "?", "no answer found"], M: ["none", "∅", "empty"],
  N: ["none", "~", "cannot be graded"], E: ["failed", "!", "the call failed"], B: ["none", "·", "not asked: a cap was reached"],
  r: ["right", "✓", "right, though cut off"], w: ["wrong", "✗", "wrong, and cut off"], T: ["none", "…", "cut off"],
  L: ["live", "◌", "under way"], "-": ["blank", "", "nothing"],
};
viva.good = (c) => c === "R" || c === "r";
viva.bad = (c) => c === "W" || c === "w";

viva.MARKS = { right: "R", wrong: "W", unparsed: "U", empty: "M", ungradable: "N", failed: "E", "not asked": "B", "cut off": "T" };
viva.badge = function (mark) {
  const [kind, sign, said] = viva.LETTERS[viva.MARKS[mark]] || ["none", "?", mark];
  return viva.el("span", { class: `mark ${kind}`, title: said }, `${sign} ${mark}`);
};

/* What the columns of a set are: seats of agents by round, arms by seed. */
viva.layout = function (set, about) {
  const seats = [], arms = new Map(), others = [];
  set.columns.forEach((column, i) => {
    const label = column.label;
    if (label.agent !== undefined) seats.push({ ...label, at: i });
    else if (label.arm !== undefined) {
      if (!arms.has(label.arm)) arms.set(label.arm, []);
      arms.get(label.arm).push({ ...label, at: i });
    } else others.push({ ...label, at: i });
  });
  const order = about.arms.map((a) => a.name), place = (name) => (order.indexOf(name) + 1 || order.length + 1);
  const list = [...arms].map(([name, seeds]) => ({ name, seeds: seeds.sort((a, b) => a.seed - b.seed) }));
  list.sort((a, b) => place(a.name) - place(b.name));
  const names = list.map((a) => a.name);
  const main = names.includes(about.main) ? about.main : names.filter((n) => n !== "student").pop();
  return { seats, arms: list, others, student: names.includes("student") ? "student" : names[0], main, agent: about.student };
};

/* The filters that a set can have. Each says of a question whether it passes. */
viva.filters = function (set, layout, first, second) {
  const letters = set.columns.map((c) => c.letters), all = letters.map((_, i) => i);
  const steps = [], last = new Map();
  for (const seat of layout.seats) {
    const before = layout.seats.find((s) => s.kind === seat.kind && s.agent === seat.agent && s.round === seat.round - 1);
    if (before) steps.push([before.at, seat.at]);
  }
  for (const seat of layout.seats) last.set(`${seat.kind} ${seat.agent}`, [...(last.get(`${seat.kind} ${seat.agent}`) || []), seat.at]);
  const finals = [...last.values()];
  const of = (name) => layout.arms.find((a) => a.name === name)?.seeds[0].at;
  const a = of(first), b = of(second);
  const some = (test) => (i) => all.some((k) => test(letters[k][i]));
  const ended = (i) => finals.map((columns) => columns.map((k) => letters[k][i]).filter((c) => c !== "-").pop()).filter(Boolean);
  const found = [];
  const can = (key, title, hint, test, there = true) => there && found.push({ key, title, hint, test });
  can("gain", "wrong → right", "an agent changed to a right answer in the debate", (i) => steps.some(([x, y]) => viva.bad(letters[x][i]) && viva.good(letters[y][i])), steps.length);
  can("loss", "right → wrong", "an agent was talked out of a right answer", (i) => steps.some(([x, y]) => viva.good(letters[x][i]) && viva.bad(letters[y][i])), steps.length);
  can("none", "all wrong", "no agent of the committee ended with a right answer", (i) => { const e = ended(i); return e.length > 0 && !e.some(viva.good); }, finals.length);
  can("split", "split", "right and wrong answers at the end", (i) => { const e = ended(i); return e.some(viva.good) && e.some(viva.bad); }, finals.length > 1);
  const two = a !== undefined && b !== undefined && a !== b;
  can("fixed", "student fixed", `${second} is right where ${first} was not`, (i) => letters[a][i] !== "-" && letters[b][i] !== "-" && !viva.good(letters[a][i]) && viva.good(letters[b][i]), two);
  can("broke", "student broke", `${second} is not right where ${first} was`, (i) => letters[a][i] !== "-" && letters[b][i] !== "-" && viva.good(letters[a][i]) && !viva.good(letters[b][i]), two);
  can("failed", "failed", "a call failed for good", some((c) => c === "E" || c === "B"));
  can("unparsed", "unparsed", "an answer could not be read", some((c) => c === "U" || c === "M" || c === "N"));
  can("cut", "truncated", "a reply was cut off", some((c) => c === "T" || c === "r" || c === "w"));
  can("live", "under way", "the debate has begun and is not finished", some((c) => c === "L"), letters.some((l) => l.includes("L")));
  return found;
};

/* The filters of a set for two arms, and how many questions pass each: made once, for a search draws the page anew. */
viva.filtersOf = function (set, layout, first, second) {
  const key = `${first} ${second}`;
  set.filters ||= new Map();
  if (!set.filters.has(key)) set.filters.set(key, viva.filters(set, layout, first, second));
  return set.filters.get(key);
};
viva.counted = function (set, filters) {
  filters.counts ||= new Map(filters.map((f) => {
    let n = 0;
    for (let i = 0; i < set.ids.length; i++) if (f.test(i)) n++;
    return [f.key, n];
  }));
  return filters.counts;
};

viva.SORTS = { "": "as asked", id: "id", group: "group", fewest: "fewest right first", most: "most right first", tokens: "most tokens first", unsure: "least agreement first" };

/* Places of the questions that pass, in the order that is asked for. */
viva.chosen = function (set, tests, options, hits) {
  const letters = set.columns.map((c) => c.letters), n = set.ids.length, found = [];
  const only = options.group === undefined || options.group === "" ? -1 : set.groups.indexOf(options.group);
  const among = hits ? [...hits].sort((a, b) => a - b) : { length: n };
  for (let k = 0; k < among.length; k++) {
    const i = hits ? among[k] : k;
    if (options.group !== undefined && options.group !== "" && set.group[i] !== only) continue;
    if (tests.every((test) => test(i))) found.push(i);
  }
  const share = (i) => {
    let right = 0, judged = 0;
    for (const column of letters) {
      const c = column[i];
      if (viva.good(c)) { right++; judged++; } else if (c !== "-" && c !== "L") judged++;
    }
    return judged ? right / judged : 2;
  };
  const by = {
    id: (i) => set.ids[i], group: (i) => set.groups[set.group[i]], fewest: share, most: (i) => -(share(i) % 2),
    tokens: (i) => -(set.tokens ? set.tokens[i] : 0), unsure: (i) => Math.abs(share(i) - 0.5),
  }[options.sort];
  if (by) {
    const keys = new Map(found.map((i) => [i, by(i)]));
    found.sort((x, y) => (keys.get(x) < keys.get(y) ? -1 : keys.get(x) > keys.get(y) ? 1 : x - y));
  }
  return found;
};

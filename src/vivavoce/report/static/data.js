"use strict";
/* Where pages get what they show: from the server, from files of an export, or from the page itself (a report). */
viva.safe = (word) => encodeURIComponent(String(word).replaceAll("~", "~7E").replaceAll("/", "~2F"));

/* The server. */
viva.server = {
  live: true,
  async get(words, query) {
    const q = query ? "?" + new URLSearchParams(query) : "";
    const answer = await fetch("api/" + words.map(viva.safe).join("/") + q);
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error || answer.statusText);
    return found;
  },
};

/* Files beside the page: each is a script that gives one value, since a page from disk may fetch nothing. */
viva.files = {
  live: false,
  waiting: new Map(),
  given: new Map(),
  give(name, value) { viva.files.given.set(name, value); },
  load(name) {
    const files = viva.files;
    if (files.given.has(name)) return Promise.resolve(files.given.get(name));
    if (!files.waiting.has(name)) {
      files.waiting.set(name, new Promise((resolve, reject) => {
        const script = viva.el("script", { src: `data/${name}.js` });
        script.addEventListener("load", () => {
          const value = files.given.get(name);
          if (files.given.size > 300) files.given.delete(name), files.waiting.delete(name);
          script.remove();
          value === undefined ? reject(new Error(`data/${name}.js holds nothing`)) : resolve(value);
        });
        script.addEventListener("error", () => reject(new Error(`data/${name}.js is missing`)));
        document.head.append(script);
      }));
    }
    return files.waiting.get(name);
  },
  async get(words, query) {
    const { load } = viva.files;
    if (words[0] === "runs") return (await load("runs")).runs;
    const [, key, what, of, more] = words, run = (await load("runs")).places[key];
    if (!run) throw new Error(`there is no run ${key}`);
    if (of === undefined) return load(`${run}/${what}`);
    const sets = (await load(`${run}/sets`)).sets, at = sets.findIndex((s) => s.key === of), folder = `${run}/${at}`;
    if (at < 0) throw new Error(`there is no set ${of}`);
    if (what === "set") return load(`${folder}/set`);
    if (what === "heads") return load(`${folder}/heads-${more}`);
    const { starts, shards } = await load(`${folder}/places`);
    if (what === "question") {
      let block = 0;
      while (block + 1 < starts.length && starts[block + 1] <= Number(more)) block++;
      return (await load(`${folder}/questions-${block}`))[Number(more) - starts[block]];
    }
    if (what === "search") return viva.files.search(folder, shards, query.q);
    throw new Error(`an export has no ${what}`);
  },
  /* Words lie in files by their beginnings; the last word of a query may be the beginning of one. */
  async search(folder, shards, query) {
    const plain = viva.words(query).map((w) => w.normalize("NFD").replace(/[\u0300-\u036f]/g, ""));
    let found = null;
    for (const [i, word] of plain.entries()) {
      const whole = i < plain.length - 1, hits = new Set(), last = word + "\uffff";
      for (const [k, shard] of shards.entries()) {
        if (shard[1] < word || shard[0] > (whole ? word : last)) continue;
        const { words } = await viva.files.load(`${folder}/words-${k}`);
        for (const [term, gaps] of words) {
          if (whole ? term !== word : !term.startsWith(word)) continue;
          let at = -1;
          for (const gap of gaps) hits.add((at += gap));
        }
      }
      found = found ? new Set([...found].filter((at) => hits.has(at))) : hits;
    }
    return [...(found || [])].sort((a, b) => a - b);
  },
};

/* Values in the page: a report holds a sample of its questions. */
viva.embedded = function (held) {
  const texts = new Map();
  const of = (key) => held.sets.find((s) => s.set.of === key);
  return {
    live: false,
    async get(words, query) {
      const [, , what, key, more] = words;
      if (what === "sets") return held.about;
      const found = of(key);
      if (!found) throw new Error(`there is no set ${key}`);
      if (what === "set") return found.set;
      if (what === "heads") return found.heads.slice(200 * more, 200 * more + 200);
      if (what === "question") return found.questions[more];
      if (what === "search") {
        const wanted = viva.words(query.q);
        return found.questions.map((q, i) => {
          const p = q.problem, said = [p.id, p.question, p.gold, p.group, ...q.debates.flatMap((d) => d.nodes.map((n) => n.text)), ...q.answers.map((a) => a.text)];
          if (!texts.has(q)) texts.set(q, viva.words(said.join("\n")).join(" "));
          const text = ` ${texts.get(q)} `;
          return wanted.every((w, k) => text.includes(k < wanted.length - 1 ? ` ${w} ` : ` ${w}`)) ? i : -1;
        }).filter((i) => i >= 0);
      }
      throw new Error(`a report has no ${what}`);
    },
  };
};

/* Answers that do not change are kept for a while. */
viva.kept = new Map();
viva.ask = async function (words, query) {
  const stays = ["sets", "set", "question", "heads", "search"].includes(words[2]);
  const key = JSON.stringify([words, query, viva.version || 0]);
  if (stays && viva.kept.has(key)) return viva.kept.get(key);
  const found = viva.source.get(words, query);
  if (stays) {
    viva.kept.set(key, found);
    if (viva.kept.size > 400) viva.kept.delete(viva.kept.keys().next().value);
    found.catch(() => viva.kept.delete(key));
  }
  return found;
};

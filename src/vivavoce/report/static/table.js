"use strict";
/* A table of questions of any length: only the rows that can be seen are in the page. */
const ROW = 34;

viva.Table = class {
  constructor(set, layout, open) {
    Object.assign(this, { set, layout, open, rows: [], at: -1, heads: new Map(), drawn: new Map() });
    this.body = viva.el("div", { class: "rows" });
    this.head = viva.el("div", { class: "trow thead" });
    this.box = viva.el("div", { class: "table", tabindex: "0", role: "grid", "aria-label": "questions" }, this.head, this.body);
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("[data-i]");
      if (row && !event.target.closest("a")) this.open(this.rows[Number(row.dataset.i)]);
    });
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.groups = set.groups.length > 1 || set.groups[0];
    this.cells = this.plan();
    this.titles();
  }

  /* The columns of letters, in blocks with a title. */
  plan() {
    const { seats, arms, others } = this.layout, blocks = [];
    for (const seat of seats) {
      const title = (seat.kind === "answer" ? "round " : `${seat.kind} `) + seat.round;
      if (blocks.at(-1)?.title !== title) blocks.push({ title, cells: [] });
      blocks.at(-1).cells.push({ at: seat.at, name: seat.agent, hint: `${seat.agent}, ${seat.kind} of round ${seat.round}` });
    }
    if (arms.length) blocks.push({ title: "test answers", cells: arms.map((arm) => ({ name: arm.name, seeds: arm.seeds, hint: arm.name, main: arm.name === this.layout.main })) });
    for (const other of others) blocks.push({ title: "", cells: [{ at: other.at, name: other.live ? "under way" : other.stage || "", hint: other.stage || "under way" }] });
    return blocks;
  }

  titles() {
    const width = (cell) => (cell.seeds ? Math.max(22, 13 * cell.seeds.length + 6) : 22);
    const blocks = this.cells.map((block) => viva.el("div", { class: "block" },
      viva.el("div", { class: "btitle" }, block.title),
      viva.el("div", { class: "bcells" }, block.cells.map((cell) => viva.el("div", { class: "vhead" + (cell.main ? " main" : ""), title: cell.hint, style: `width:${width(cell)}px` }, viva.word(cell.name))))));
    const groups = this.groups ? viva.el("div", { class: "c-group" }, "group") : null;
    this.head.replaceChildren();
    viva.add(this.head, viva.el("div", { class: "c-q" }, "question"), groups, viva.el("div", { class: "c-gold" }, "gold"), blocks);
    const columns = this.cells.map((b) => b.cells.reduce((sum, c) => sum + width(c), 0) + 14);
    this.box.style.setProperty("--facts", `${(this.groups ? 90 : 0) + 90}px`);
    this.box.style.setProperty("--cells", `${columns.reduce((a, b) => a + b, 0)}px`);
  }

  show(rows, at = -1) {
    this.rows = rows;
    this.at = Math.min(at, rows.length - 1);
    this.body.style.height = `${rows.length * ROW}px`;
    this.body.replaceChildren();
    this.drawn.clear();
    if (this.at >= 0) this.seek(this.at);
    this.draw();
  }

  seek(at) {
    const top = at * ROW, room = this.box.clientHeight - this.head.offsetHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ROW > this.box.scrollTop + room) this.box.scrollTop = top + ROW - room;
  }

  move(by) {
    if (!this.rows.length) return;
    const before = this.at;
    this.at = Math.max(0, Math.min(this.rows.length - 1, this.at + by));
    for (const i of [before, this.at]) this.drawn.get(i)?.classList.toggle("at", i === this.at);
    this.seek(this.at);
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 8);
    const last = Math.min(this.rows.length, Math.ceil((this.box.scrollTop + (this.box.clientHeight || 800)) / ROW) + 8);
    for (const [i, row] of this.drawn) if (i < first || i >= last) row.remove(), this.drawn.delete(i);
    for (let i = first; i < last; i++) if (!this.drawn.has(i)) {
      const row = this.row(i);
      this.drawn.set(i, row);
      this.body.append(row);
    }
  }

  row(i) {
    const at = this.rows[i], { set } = this;
    const question = viva.el("div", { class: "c-q" }, viva.el("a", { href: this.href ? this.href(at) : null }, viva.word(set.ids[at], { class: "qid" })));
    const gold = viva.el("div", { class: "c-gold" });
    this.text(at).then(([head, right]) => {
      const link = question.firstChild;
      link.replaceChildren(viva.word(viva.clean(head || set.ids[at])));
      link.title = set.ids[at];
      gold.append(viva.word(viva.clean(right)));
    }, () => {});
    const letter = (k) => {
      const [kind, sign, said] = viva.LETTERS[set.columns[k].letters[at]] || viva.LETTERS["-"];
      return viva.el("i", { class: `v ${kind}`, title: said }, sign);
    };
    const blocks = this.cells.map((block) => viva.el("div", { class: "block" }, block.cells.map((cell) =>
      cell.seeds
        ? viva.el("span", { class: "seeds", title: cell.hint, style: `width:${Math.max(22, 13 * cell.seeds.length + 6)}px` }, cell.seeds.map((s) => letter(s.at)))
        : viva.el("span", { class: "one", title: cell.hint }, letter(cell.at)))));
    return viva.el("div", { class: "trow" + (i === this.at ? " at" : ""), "data-i": i, style: `top:${i * ROW}px` },
      question, this.groups ? viva.el("div", { class: "c-group" }, viva.word(set.groups[set.group[at]])) : null, gold, blocks);
  }

  text(at) {
    const block = Math.floor(at / 200);
    if (!this.heads.has(block)) this.heads.set(block, viva.ask(["run", this.set.run, "heads", this.set.of, block]));
    return this.heads.get(block).then((rows) => rows[at - 200 * block] || ["", ""]);
  }
};

// SPDX-License-Identifier: Apache-2.0
// The list of hosts: search, filter, sort, drill-down. Text from hosts is only ever set as text.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const STEP = 200;
  const at = Object.fromEntries(data.fields.map((name, i) => [name, i]));
  const get = (row, name) => name === "host" ? row[0] : data.texts[row[at[name]]];
  const last = data.fields.length;
  const place = Object.fromEntries(data.lists.map((name, i) => [name, i]));
  const things = (row, kind) => row[last][place[kind]].map((i) => data.things[i]);
  const words = new Map();
  const search = document.getElementById("search");
  const body = document.querySelector("#list tbody");
  const count = document.getElementById("count");
  const more = document.getElementById("more");
  const chosen = { state: new Set(), cells: new Set(), finding: "", sort: "host", down: false };
  let found = [];
  let shown = 0;

  function element(tag, text, name) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  }

  function textOf(row) {
    let text = words.get(row);
    if (text === undefined) {
      text = data.fields.map((name) => get(row, name)).concat(things(row, "findings").map((f) => `${f.id} ${f.what}`)).join(" ").toLowerCase();
      words.set(row, text);
    }
    return text;
  }

  function apply() {
    const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = data.hosts.filter((row) =>
      (!chosen.state.size || chosen.state.has(get(row, "state"))) &&
      (!chosen.cells.size || chosen.cells.has(`${get(row, "arch") || "?"}/${get(row, "hypervisor") || "?"}`)) &&
      (!chosen.finding || things(row, "findings").some((f) => f.id === chosen.finding)) &&
      (!asked.length || asked.every((w) => textOf(row).includes(w))));
    const sign = chosen.down ? -1 : 1;
    const order = new Intl.Collator("en", { numeric: true }).compare;
    found.sort((a, b) => sign * (order(get(a, chosen.sort), get(b, chosen.sort)) || order(a[0], b[0])));
    body.replaceChildren();
    shown = 0;
    further();
    count.textContent = `${found.length.toLocaleString("en")} of ${data.hosts.length.toLocaleString("en")} hosts` +
      (chosen.finding ? `, finding ${chosen.finding}` : "");
  }

  function further() {
    const part = document.createDocumentFragment();
    for (const row of found.slice(shown, shown + STEP)) part.append(line(row));
    shown = Math.min(found.length, shown + STEP);
    body.append(part);
    more.hidden = shown >= found.length;
    more.textContent = `Show more (${(found.length - shown).toLocaleString("en")} left)`;
  }

  function line(row) {
    const tr = element("tr");
    const name = element("td");
    const open = element("button", row[0], "link");
    open.type = "button";
    open.setAttribute("aria-expanded", "false");
    open.addEventListener("click", () => toggle(tr, row, open));
    name.append(open);
    const state = element("td");
    const css = "s-" + get(row, "state").replaceAll(" ", "-");
    state.append(element("span", undefined, "mark " + css), get(row, "state"));
    tr.append(name, state);
    for (const key of ["platform", "strategy", "kernel"]) tr.append(element("td", get(row, key)));
    tr.append(element("td", get(row, "since").slice(0, 16).replace("T", " ")));
    return tr;
  }

  function toggle(tr, row, open) {
    const next = tr.nextElementSibling;
    if (next && next.classList.contains("host")) {
      next.remove();
      open.setAttribute("aria-expanded", "false");
      return;
    }
    const holder = element("tr", undefined, "host");
    const cell = element("td");
    cell.colSpan = 6;
    cell.append(...detail(row));
    holder.append(cell);
    tr.after(holder);
    open.setAttribute("aria-expanded", "true");
    history.replaceState(null, "", "#host=" + encodeURIComponent(row[0]));
  }

  function pairs(list) {
    const dl = element("dl");
    for (const [key, value] of list) if (value) dl.append(element("dt", key), element("dd", value));
    return dl;
  }

  function grid(head, rows) {
    const table = element("table");
    const tr = element("tr");
    for (const h of head) { const th = element("th", h); th.scope = "col"; tr.append(th); }
    const top = element("thead");
    top.append(tr);
    const inner = element("tbody");
    for (const r of rows) { const one = element("tr"); for (const c of r) one.append(element("td", c, c.includes("\n") ? "lines" : "")); inner.append(one); }
    table.append(top, inner);
    return table;
  }

  const answer = (result) => result === null ? "cannot be told" : result ? "yes" : "no";

  function clauses(list, depth = 0) {
    return list.map((c) => "\u00a0\u00a0".repeat(depth) + `${c.field} ${c.wanted}: ` + (c.actual ? `${c.actual}, ` : "") + answer(c.result) +
      (c.parts.length ? "\n" + clauses(c.parts, depth + 1) : "")).join("\n");
  }

  function detail(row) {
    const out = [pairs(["why", "platform", "kernel", "proof", "tags", "seen", "since", "run"].map((k) => [k, get(row, k)])
      .concat([["rule", [get(row, "rule"), get(row, "where")].filter(Boolean).join("  ")]]))];
    const add = (title, node) => out.push(element("h3", title), node);
    const [findings, evidence, against, trace, layers, checks, changes, rows, notes] = data.lists.map((k) => things(row, k));
    if (findings.length) add("Findings", grid(["level", "what", "why", "what to do", "where"], findings.map((f) => [f.level, `${f.what} [${f.id}]`, f.why, f.fix, f.where])));
    if (evidence.length) add("Evidence of the platform", grid(["signal", "says", "seen", "note"], evidence.map((e) => [e.source, e.says, e.value, e.note])));
    if (against.length) add("Contradictions", grid(["about", "taken", "against it", "why"], against.map((c) => [c.field, c.chosen, c.against, c.why])));
    if (trace.length) add("Rules", grid(["rule", "matches", "clauses", "where"], trace.map((r) => [r.id, answer(r.matched), clauses(r.clauses), r.where])));
    if (layers.length) add("Decision", grid(["layer", "state", "why", "source"], layers.map((l) => [l.name, l.state, l.why, l.sources.map((s) => s.title).join("; ")])));
    if (rows.length) add("Settings", grid(["what", "wanted", "next boot", "running", "loaded"], rows.map((r) => [r.what, r.wanted, r.next_boot, r.running, r.loaded])));
    if (checks.length) add("Checks", grid(["check", "result", "evidence"], checks.map((c) => [`${c.title} [${c.id}]`, c.verdict, c.evidence])));
    for (const c of changes) {
      add(`Due: ${c.what}`, element("p", c.why));
      if (c.diff) out.push(differences(c.diff));
    }
    if (notes.length) { const ul = element("ul"); for (const n of notes) ul.append(element("li", n)); add("Notes", ul); }
    const ask = element("p", undefined, "dim");
    if (!trace.length) {
      ask.append("Every rule and clause: ", element("code", `kdo explain -i INVENTORY --limit ${row[0]}`));
      out.push(ask);
    }
    return out;
  }

  function differences(text) {
    const pre = element("pre", undefined, "diff");
    for (const l of text.split("\n")) {
      const name = l.startsWith("+") ? "add" : l.startsWith("-") ? "del" : "";
      pre.append(element("span", l + "\n", name));
    }
    return pre;
  }

  function press(button, set, key) {
    const on = !set.has(key);
    if (on) set.add(key); else set.delete(key);
    button.setAttribute("aria-pressed", String(on));
    apply();
  }

  for (const b of document.querySelectorAll("[data-state]")) b.addEventListener("click", () => press(b, chosen.state, b.dataset.state));
  for (const b of document.querySelectorAll("[data-arch]")) b.addEventListener("click", () => press(b, chosen.cells, `${b.dataset.arch}/${b.dataset.hypervisor}`));
  for (const b of document.querySelectorAll("[data-finding]")) {
    b.addEventListener("click", () => { chosen.finding = b.dataset.finding; apply(); document.getElementById("hosts").focus(); });
  }
  for (const b of document.querySelectorAll("[data-sort]")) {
    b.addEventListener("click", () => {
      chosen.down = chosen.sort === b.dataset.sort && !chosen.down;
      chosen.sort = b.dataset.sort;
      for (const th of document.querySelectorAll("#list th")) th.setAttribute("aria-sort", "none");
      b.parentElement.setAttribute("aria-sort", chosen.down ? "descending" : "ascending");
      apply();
    });
  }
  document.getElementById("clear").addEventListener("click", () => {
    chosen.state.clear(); chosen.cells.clear(); chosen.finding = ""; search.value = "";
    for (const b of document.querySelectorAll("[aria-pressed]")) b.setAttribute("aria-pressed", "false");
    apply();
  });
  let timer = 0;
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(apply, 60); });
  more.addEventListener("click", further);
  const wanted = /^#host=(.*)$/.exec(location.hash);
  if (wanted) search.value = decodeURIComponent(wanted[1]);
  apply();
  if (wanted) { const first = body.querySelector("button"); if (first && first.textContent === search.value) first.click(); }
})();

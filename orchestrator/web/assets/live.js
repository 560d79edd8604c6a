// SPDX-License-Identifier: Apache-2.0
// Brings what has changed since the page was made. Everything is set as text.
"use strict";
(() => {
  const { live, kind, up } = document.body.dataset;
  if (!live || !window.EventSource) return;
  const number = (n) => n.toLocaleString("en");
  const set = (root, name, text) => {
    const node = root.querySelector(`[data-is="${name}"]`);
    if (node && node.textContent !== text) node.textContent = text;
  };
  const moment = (text) => text.slice(0, 19).replace("T", " ");

  function spent(seconds) {
    const two = (n) => String(n).padStart(2, "0");
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
  }

  function bar(row, done, failed, hosts) {
    const wide = (n) => (hosts ? 100 * n / hosts : 0).toFixed(2);
    row.querySelector(".progress .done").setAttribute("width", wide(done));
    row.querySelector(".progress .failed").setAttribute("width", wide(failed));
    row.querySelector(".progress").setAttribute("aria-label", `${done} of ${hosts} hosts done`);
  }

  function pulse(now) {
    set(document, "hosts", number(now.hosts));
    set(document, "bad", number(now.bad));
    document.title = `kdump: ${number(now.hosts)} hosts, ${number(now.bad)} need somebody`;
    let known = true;
    for (const [state, count] of Object.entries(now.states)) {
      const node = document.querySelector(`[data-state="${CSS.escape(state)}"]`);
      if (node) node.textContent = number(count); else known = false;
    }
    for (const node of document.querySelectorAll("[data-state]")) if (!(node.dataset.state in now.states)) node.textContent = "0";
    document.getElementById("live").textContent = now.runs.map((r) => `${r.kind} ${r.id}: ${number(r.done)} of ${number(r.hosts)} done, ${r.state}.`).join(" ");
    if (!known) location.reload();
  }

  function run(now) {
    set(document, "state", now.run.state);
    set(document, "done", number(now.run.done));
    set(document, "bad", number(now.run.bad));
    set(document, "pace", now.rate ? `${now.rate} hosts a second, ${spent(now.left)} left in this wave` : "");
    for (const wave of now.waves) {
      const row = document.querySelector(`[data-wave="${wave.number}"]`);
      if (!row) continue;
      set(row, "state", wave.state);
      set(row, "done", number(wave.done));
      set(row, "failed", number(wave.failed));
      set(row, "started", moment(wave.started));
      set(row, "ended", moment(wave.ended));
      set(row, "why", wave.why);
      bar(row, wave.done, wave.failed, wave.hosts);
    }
  }

  const source = new EventSource(up + live);
  source.addEventListener(kind, (event) => (kind === "pulse" ? pulse : run)(JSON.parse(event.data)));
  // A run that has ended changes no more: the page as it is now has its hosts, too.
  source.addEventListener("end", () => { source.close(); location.reload(); });
})();

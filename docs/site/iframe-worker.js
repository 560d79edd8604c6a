// SPDX-License-Identifier: Apache-2.0
// Browsers start no worker from a file on disk. The search's worker then runs in a hidden frame instead: what is posted to
// the worker arrives there as a message, and what it posts comes back as one.
"use strict";
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      window.addEventListener("message", (event) => {
        if (event.source !== inside) return;
        const told = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(told);
        if (this.onmessage) this.onmessage(told);
      });
      this.ready = new Promise((resolve) => {
        this.frame.onload = resolve;
      });
      // The worker's own postMessage goes to this page; importScripts waits for each script in turn.
      const start = document.createElement("script");
      start.textContent =
        "postMessage = (data) => parent.postMessage(data, '*');" +
        "importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done) => {" +
        "const script = document.createElement('script'); script.src = url; script.onload = done;" +
        "document.body.append(script); })), Promise.resolve());";
      const worker = document.createElement("script");
      worker.src = new URL(url, location.href).href;
      inside.document.open();
      inside.document.write("<!doctype html><html><body>" + start.outerHTML + worker.outerHTML + "</body></html>");
      inside.document.close();
    }

    postMessage(data) {
      this.ready.then(() => {
        const inside = this.frame.contentWindow;
        inside.dispatchEvent(new inside.MessageEvent("message", { data: structuredClone(data) }));
      });
    }

    terminate() {
      this.frame.remove();
    }
  };
}

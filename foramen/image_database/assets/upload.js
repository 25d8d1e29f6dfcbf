// Adds dropping of files and a progress bar to the upload form. Without it the form is sent as any other.
"use strict";
(() => {
  const form = document.getElementById("upload-form");
  const input = document.getElementById("files");
  const drop = document.getElementById("drop");
  const bar = document.getElementById("progress");
  const told = document.getElementById("progress-told");
  if (!form || !input || !drop || !bar || !told || !window.XMLHttpRequest) return;
  const words = form.dataset;
  drop.hidden = false;

  const chosen = () => {
    const files = [...input.files];
    const size = files.reduce((sum, file) => sum + file.size, 0) / 1048576;
    told.textContent = files.length ? `${files.length} ${words.files}, ${size.toFixed(1)} MiB` : "";
  };
  input.addEventListener("change", chosen);
  for (const kind of ["dragenter", "dragover"])
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const kind of ["dragleave", "drop"])
    drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    input.files = event.dataTransfer.files;
    chosen();
  });

  form.addEventListener("submit", (event) => {
    if (!input.files.length) return;
    event.preventDefault();
    const request = new XMLHttpRequest();
    const button = form.querySelector("button[type=submit]");
    const ended = (text) => { button.disabled = false; bar.hidden = true; told.textContent = text; };
    request.upload.addEventListener("progress", (step) => {
      if (!step.lengthComputable) return;
      bar.value = step.loaded / step.total;
      told.textContent = step.loaded < step.total ? `${Math.round(bar.value * 100)} %` : words.converting;
    });
    request.addEventListener("load", () => {
      // Its style sheet has the nonce of another answer, and would be refused with a complaint.
      const text = request.responseText.replace(/<style[^]*?<\/style>/, "");
      const page = new DOMParser().parseFromString(text, "text/html");
      const report = page.getElementById("report") || page.querySelector("[role=alert]");
      const place = document.getElementById("report-place");
      place.replaceChildren(...(report ? [document.importNode(report, true)] : []));
      ended(report ? "" : words.failed);
      if (report) { place.tabIndex = -1; place.focus(); }
    });
    request.addEventListener("error", () => ended(words.failed));
    request.addEventListener("abort", () => ended(words.failed));
    button.disabled = true;
    bar.hidden = false;
    bar.value = 0;
    request.open("POST", form.action);
    request.send(new FormData(form));
  });
})();

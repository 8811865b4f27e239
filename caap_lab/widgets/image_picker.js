// Thumbnails as buttons, and a place to drop files.

// ---- the pictures

function showPictures(model, root) {
  let addresses = [];

  function choose(place) {
    model.set("chosen", place);
    model.save_changes();
  }

  function mark() {
    [...root.children].forEach((button, place) => {
      const chosen = place === model.get("chosen");
      button.setAttribute("aria-checked", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
      if (chosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  }

  function draw() {
    addresses.forEach((address) => URL.revokeObjectURL(address));
    addresses = model.get("pictures").map((view) => URL.createObjectURL(new Blob([view], { type: "image/png" })));
    const names = model.get("names");
    root.replaceChildren(...addresses.map((address, place) => {
      const button = element("button", "", { type: "button", role: "radio", title: names[place] });
      button.append(element("img", "", { src: address, alt: names[place] }));
      button.addEventListener("click", () => choose(place));
      return button;
    }));
    mark();
  }

  root.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const count = root.children.length;
    const place = (model.get("chosen") + step + count) % count;
    choose(place);
    root.children[place].focus();
    event.preventDefault();
    event.stopPropagation();
  });
  return { draw, mark, end: () => addresses.forEach((address) => URL.revokeObjectURL(address)) };
}

// ---- the files

function tooLarge(file, largest) {
  const megabytes = file.size / PIECE;
  if (megabytes <= largest) return "";
  return `${file.name} has ${megabytes.toFixed(0)} MB; at most ${largest} MB can be uploaded here. Scale it down, or save it `
    + "next to the notebook and pass its path: the model's input has only a few hundred pixels per side.";
}

function render({ model, el }) {
  el.classList.add("caap-live", "caap-images");
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  const row = el.appendChild(element("div", "caap-thumbnails", { role: "radiogroup", "aria-label": "Images" }));
  const name = el.appendChild(element("div", "caap-file-name"));
  const zone = el.appendChild(element("label", "caap-drop"));
  const input = element("input", "", { type: "file", accept: "image/*", multiple: "", "aria-label": "Drop a photo here, or choose a file" });
  const hint = element("span");
  const choose = element("u");
  choose.textContent = "choose a file";
  hint.append("Drop a photo here, or ", choose);
  const progress = element("progress", "", { "aria-label": "Upload" });
  progress.hidden = true;
  const problem = el.appendChild(element("div", "caap-problem", { role: "alert" }));
  zone.append(input, hint, progress);
  const pictures = showPictures(model, row);
  const shown = new AbortController();
  let refused = "";
  let sending = null;
  let earlier = Promise.resolve();
  let past = ""; // the kernel's messages about files that were dropped before

  function tell() {
    const said = model.get("problem");
    if (said !== past) past = "";
    problem.textContent = [refused, said === past ? "" : said].filter(Boolean).join(" ");
    const names = model.get("names");
    const place = model.get("chosen");
    name.textContent = names.length ? `${names[place]}${names.length > 1 ? ` (${place + 1} of ${names.length})` : ""}` : "";
    name.title = names[place] ?? "";
    progress.hidden = !sending;
    hint.hidden = Boolean(sending);
    if (sending) {
      progress.max = pieceCount(sending.file);
      progress.value = sending.held;
      progress.title = `${sending.file.name}: the kernel receives it when it is idle`;
    }
  }

  function refuse(reason) {
    refused = [refused, reason].filter(Boolean).join(" ");
  }

  async function takeOne(file, drop) {
    const reason = tooLarge(file, model.get("largest"));
    if (reason) return refuse(reason);
    try {
      await upload(model, file, drop, shown.signal, (held) => {
        sending = { file, held };
        tell();
      });
    } catch (error) { // for example, the file was changed or removed meanwhile
      refuse(`${file.name} could not be sent (${error.message}); choose it again.`);
    }
    sending = null;
  }

  async function takeAll(files) {
    [refused, past] = ["", model.get("problem")];
    const drop = newId();
    for (const file of files) {
      await takeOne(file, drop);
      tell();
    }
  }

  function take(files) {
    earlier = earlier.then(() => takeAll(files));
  }

  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  el.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("caap-over");
  });
  el.addEventListener("dragleave", (event) => {
    if (!el.contains(event.relatedTarget)) zone.classList.remove("caap-over");
  });
  el.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    zone.classList.remove("caap-over");
    take([...event.dataTransfer.files]);
  });
  el.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    take([...event.clipboardData.files]);
  });

  model.on("change:pictures", pictures.draw);
  model.on("change:chosen", pictures.mark);
  model.on("change", tell);
  pictures.draw();
  tell();
  return () => {
    model.off("change:pictures", pictures.draw);
    model.off("change:chosen", pictures.mark);
    model.off("change", tell);
    pictures.end();
    shown.abort();
  };
}

export default { render };

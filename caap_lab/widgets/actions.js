// Buttons that save files made by the kernel from the current state, and copy the code.

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea"); // pages without HTTPS have no clipboard API
    area.value = text;
    area.style.position = "fixed";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function save(name, type, data) {
  const address = URL.createObjectURL(new Blob([data], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000); // the browser reads it after the click
}

const TITLES = {
  png: "Save the figure as PNG",
  pdf: "Save the figure as PDF, with vectors and fonts for print",
  csv: "Save the numbers as CSV",
};

function render({ model, el }) {
  el.classList.add("caap-live", "caap-actions");
  const said = document.createElement("span");
  said.className = "caap-note";
  said.setAttribute("role", "status");
  const buttons = {};
  let first = true;

  function button(text, title, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "caap-button";
    made.textContent = text;
    made.title = title;
    made.setAttribute("aria-label", title);
    made.addEventListener("click", act);
    return made;
  }

  const tell = (what) => { said.textContent = what; };

  for (const kind of model.get("kinds")) {
    buttons[kind] = button(kind.toUpperCase(), TITLES[kind], () => {
      buttons[kind].disabled = true;
      buttons[kind].setAttribute("aria-busy", "true");
      model.send({ make: kind });
    });
  }
  const copy = button("Copy code", "Copy the Python code that computes this", async () => {
    tell((await copied(model.get("code"))) ? "copied" : "the browser does not let this page copy");
  });
  const code = document.createElement("details");
  code.className = "caap-code";
  const summary = code.appendChild(document.createElement("summary"));
  summary.textContent = "Python code";
  const text = code.appendChild(document.createElement("pre"));
  text.className = "caap-link";
  text.setAttribute("aria-label", "Python code that computes this");
  const row = document.createElement("div");
  row.className = "caap-actions-row";
  row.append(...Object.values(buttons), copy, said);
  el.append(row, code);

  function receive(content, buffers) {
    const kind = content.made ?? content.failed;
    buttons[kind].disabled = false;
    buttons[kind].removeAttribute("aria-busy");
    if (content.made) {
      save(content.name, content.type, buffers[0]);
      tell(`saved ${content.name}`);
    } else tell("");
  }

  function show() {
    const lines = model.get("code").split("\n");
    text.textContent = model.get("code");
    tell("");
    if (first && lines.length <= 2) code.open = true; // after that it stays as the user leaves it
    first = false;
  }

  model.on("msg:custom", receive);
  model.on("change:code", show);
  show();
  return () => {
    model.off("msg:custom", receive);
    model.off("change:code", show);
  };
}

export default { render };

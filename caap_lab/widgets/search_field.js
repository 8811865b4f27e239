// A field with a list below it that is searched while the user types (the combobox pattern of WAI-ARIA).

let fieldCount = 0;
const MOST_LISTED = 50;

// `options(text, most)` gives { count, first: [{ value, text, title, note }] }; `decide(text)` gives the `value` that is
// chosen, if any, and the `problem` with it.
function searchField({ label, placeholder, options, decide, choose }) {
  const id = `caap-field-${(fieldCount += 1)}`;
  const root = element("div", "caap-field");
  const input = element("input", "caap-input", {
    type: "text", role: "combobox", "aria-label": label, "aria-expanded": "false", "aria-controls": `${id}-list`,
    "aria-autocomplete": "list", "aria-describedby": `${id}-problem`, autocomplete: "off", spellcheck: "false",
  });
  const list = element("ul", "caap-list", { id: `${id}-list`, role: "listbox", "aria-label": label });
  const problem = element("div", "caap-problem", { id: `${id}-problem`, role: "alert" });
  list.hidden = true;
  root.append(input, list, problem);
  let shown = [];
  let active = -1;
  let value = "";
  let standing = ""; // the problem of the value itself

  function mark(place) {
    active = place;
    [...list.querySelectorAll("[role=option]")].forEach((item, i) => {
      item.setAttribute("aria-selected", String(i === active));
      if (i === active) item.scrollIntoView({ block: "nearest" });
    });
    if (active < 0) input.removeAttribute("aria-activedescendant");
    else input.setAttribute("aria-activedescendant", `${id}-${active}`);
  }

  function open() {
    const text = input.value === value ? "" : input.value;
    const { count, first } = options(text, MOST_LISTED);
    shown = first;
    const items = shown.map((option, place) => {
      const item = element("li", "caap-option", { id: `${id}-${place}`, role: "option", "aria-selected": "false" });
      const name = item.appendChild(element("span"));
      name.textContent = option.text;
      item.title = option.title ?? option.text;
      item.appendChild(element("span", "caap-note")).textContent = option.note ?? "";
      item.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
      item.addEventListener("click", () => take(option.value));
      return item;
    });
    const rest = count - shown.length;
    if (!count || rest) {
      const line = element("li", "caap-more", { role: "presentation" });
      line.textContent = count ? `and ${rest.toLocaleString("en")} more: type more letters` : "no match";
      items.push(line);
    }
    list.replaceChildren(...items);
    const opened = list.hidden;
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    const room = root.closest(".caap-panel")?.getBoundingClientRect().bottom ?? 0;
    list.classList.toggle("caap-in-flow", input.getBoundingClientRect().bottom + list.offsetHeight > room);
    if (opened) list.scrollIntoView({ block: "nearest" });
    mark(-1);
  }

  function close() {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    mark(-1);
  }

  function say(text) {
    problem.textContent = text;
    input.setAttribute("aria-invalid", String(Boolean(text)));
  }

  function leave() {
    input.value = value;
    say(standing);
    close();
  }

  function take(chosen, wrong = "") {
    close();
    value = input.value = chosen;
    choose(chosen);
    say(wrong);
  }

  function commit(stay) {
    if (input.value === value) return leave();
    const decided = decide(input.value);
    if (decided.value !== undefined) return take(decided.value, decided.problem);
    say(decided.problem);
    if (stay) open();
    else close();
  }

  input.addEventListener("focus", () => input.select());
  input.addEventListener("click", open);
  input.addEventListener("input", () => { say(""); open(); });
  input.addEventListener("blur", () => commit(false));
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      if (list.hidden) open();
      mark((active + step + (active < 0 && step < 0 ? 1 : 0) + shown.length) % Math.max(1, shown.length));
    } else if (event.key === "Enter") {
      if (active >= 0) take(shown[active].value);
      else commit(true);
    } else if (event.key === "Escape") {
      leave();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  return {
    root,
    show(text, hint, wrong) {
      const typing = document.activeElement === input && input.value !== value;
      value = text;
      standing = wrong;
      input.placeholder = hint;
      input.title = text;
      if (typing) return; // the typed text stays until it is chosen
      input.value = text;
      say(wrong);
    },
    refresh() { if (!list.hidden) open(); },
    focus() { input.focus(); },
  };
}

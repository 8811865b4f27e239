// A thin bar while something is computed, and a button that stops it.

function render({ model, el }) {
  el.classList.add("caap-live", "caap-activity");
  const text = document.createElement("span");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "caap-link-button";
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", "Computing");
  el.append(text, button, bar);
  button.addEventListener("click", () => model.send({ wanted: model.get("stopped") ? "resume" : "stop" }));

  function show() {
    const pending = model.get("pending");
    const stopped = model.get("stopped");
    el.dataset.pending = pending;
    el.dataset.stopped = stopped;
    bar.style.visibility = pending && !stopped ? "visible" : "hidden";
    bar.max = Math.max(1, model.get("total"));
    bar.value = model.get("total") - pending;
    button.hidden = !pending;
    button.textContent = stopped ? "resume" : "stop";
    button.title = stopped ? "Compute the rest" : "Stop computing; results shown are kept";
    text.textContent = pending ? `${stopped ? "stopped" : "computing"}, ${pending} left` : model.get("text");
  }

  model.on("change", show);
  show();
  const forget = hideStill({ model, el });
  return () => {
    model.off("change", show);
    forget();
  };
}

export default { render };

// The picture that stays in the saved notebook is hidden while the widget is live, whatever the front end calls its
// elements: it is the only image in the element after the widget or after one of its ancestors.

const LEVELS = 12; // number of elements around a widget, up to a cell's outputs
const PATIENCE = 60000; // milliseconds, for slow machines

function stillBeside(el, alt) {
  for (let node = el, level = 0; node?.parentElement && level < LEVELS; node = node.parentElement, level += 1) {
    const next = node.nextElementSibling;
    const images = next?.querySelectorAll("img") ?? [];
    if (images.length !== 1 || next.querySelector(".caap-panel")) continue;
    const said = images[0].getAttribute("alt"); // some front ends omit it
    if (!said || said === alt) return node;
  }
  return null;
}

function hideStill({ model, el }) {
  const look = () => {
    const found = model.get("still") && stillBeside(el, model.get("still"));
    if (!found) return;
    found.classList.add("caap-has-still"); // its style hides the next element, also when the picture is redrawn
    stop();
  };
  const pages = new MutationObserver(look); // before the browser paints
  const timer = setTimeout(() => stop(), PATIENCE);
  function stop() {
    pages.disconnect();
    clearTimeout(timer);
    model.off("change:still", look);
  }
  pages.observe(document, { childList: true, subtree: true });
  model.on("change:still", look);
  look();
  return () => {
    stop();
    el.closest(".caap-has-still")?.classList.remove("caap-has-still");
  };
}

// JupyterLab would use the keys that a closed drop-down list needs: arrows move to other cells, and "x" cuts one out.

function keepKeys({ target }) {
  if (target.matches(".caap-panel select")) target.setAttribute("data-lm-suppress-shortcuts", "true");
}

function render({ el }) {
  el.hidden = true;
  document.addEventListener("focusin", keepKeys);
  return () => document.removeEventListener("focusin", keepKeys);
}

export default { render };

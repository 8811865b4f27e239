// Elements of the page with their classes and attributes.

function element(tag, name, attributes = {}) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
}
